// The map alone on a page, for tests: `?theme=light`, `?mode=heat`, `?layout=hilbert`; its model is `window.map`.
import { render } from "preact";
import { MapView } from "../../src/map/MapView";
import { MapModel } from "../../src/map/model";
import type { Mode } from "../../src/protocol";
import { start } from "../../src/worker/host";
import type { Layout, Theme } from "../../src/worker/messages";

const asked = new URLSearchParams(location.search);
const client = start("worker.js");
const model = new MapModel(client);
model.theme.value = (asked.get("theme") as Theme | null) ?? "dark";
document.documentElement.dataset["theme"] = model.theme.value;
model.mode.value = (asked.get("mode") as Mode | null) ?? "occupancy";
model.layout.value = (asked.get("layout") as Layout | null) ?? "linear";
const problems: string[] = [];
client.onMalformed((message) => problems.push(message));
client.onMessage((message) => message.type === "hello" && client.watch(0, 4242));
client.connect(`ws://${location.host}/api/socket`, "test-token");
Object.assign(window, { map: model, problems });
render(<MapView model={model} />, document.getElementById("app")!);
