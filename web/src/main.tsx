// The page begins here: the token leaves the address bar, the look of the link is restored, the engine connects.

import { render } from "preact";
import { App } from "./shell/App";
import { listenToKeys } from "./store/commands";
import { keepBeside } from "./store/beside";
import { makeMap } from "./store/map";
import { connect, watch } from "./store/server";
import { connection, note } from "./store/session";
import { tabToken } from "./store/token";
import { keepPermalink, keepTheme, keepTitle, restore } from "./store/view";
import { lacking } from "./store/support";
import { start } from "./worker/host";

function begin(): void {
    const token = tabToken();
    const look = restore(location.hash);
    keepTheme();
    listenToKeys(window);
    const root = document.getElementById("app");
    if (root) render(<App />, root);
    const lacks = lacking();
    if (lacks !== null) {
        connection.value = { state: "unsupported", lacks };
    } else if (token === null) {
        connection.value = { state: "no-token" };
    } else {
        const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/socket`;
        makeMap(connect(start("worker.js"), url, token, look));
        keepBeside();
        keepPermalink();
        keepTitle();
        window.addEventListener("hashchange", another);
    }
}

/** A link that was typed or pasted into the address bar of this tab. */
function another(): void {
    if (location.hash.includes("token=")) {
        tabToken();
        location.reload();
        return;
    }
    const look = restore(location.hash);
    if (look.source !== null && look.pid !== null) watch(look.source, look.pid, look.at);
}

window.addEventListener("unhandledrejection", (event) => note("error", `Something failed on this page: ${String((event.reason as Error)?.message ?? event.reason)}`));
begin();
