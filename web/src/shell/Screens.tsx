// What stands in place of panels, or above them, when there is nothing to show or something is wrong.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { bytes, count, moment } from "../format";
import { connection, dismiss, notes, process, source, status } from "../store/session";
import { keepToken, takeToken } from "../store/token";
import { Dialog } from "./Dialog";

/** Fills the page while there is no heap to show; null once there is. */
export function Screen() {
    const now = connection.value;
    const known = status.value !== null;
    if (now.state === "unsupported") {
        return <Plain title="This browser is too old for the dashboard" text={`It lacks ${now.lacks}. Chrome and Edge 96, Firefox 105 and Safari 16.4 have all that is needed.`} command="memfrag report FILE" />;
    }
    if (now.state === "no-token") {
        return <Plain title="No permission" text="This tab has no token. Open the address that memfrag printed when it started, with all that stands behind #token= in it. A token is for one run and one tab." command="memfrag serve FILE" extra={<NewToken />} />;
    }
    if (now.state === "refused") {
        return <Plain title="The server does not take this token" text="memfrag was started again since, or another memfrag has this port now. Open the address that it printed this time, or paste it here: what you look at stays." extra={<NewToken />} />;
    }
    if (known) return null;
    if (now.state === "lost") return <Plain title="The server cannot be reached" text="memfrag may have ended, or the tunnel to it." extra={<Retry at={now.retryAt} />} />;
    if (now.state === "open") return <Plain title="No events yet" text="The trace has begun; the program has not called its allocator since. What it does will show here by itself." busy />;
    return <Plain title="Connecting" text="" busy />;
}

function Plain({ title, text, command, extra, busy }: { title: string; text: string; command?: string; extra?: preact.JSX.Element; busy?: boolean }) {
    return (
        <main class="screen" aria-busy={busy ? "true" : "false"}>
            <div>
                <h2>{title}</h2>
                {text && <p>{text}</p>}
                {command && <code>{command}</code>}
                {extra}
            </div>
        </main>
    );
}

/** Takes the address, or the token alone, and begins again with it. */
function NewToken() {
    const wrong = useSignal(false);
    const submit = (event: Event) => {
        event.preventDefault();
        const text = String(new FormData(event.currentTarget as HTMLFormElement).get("token") ?? "").trim();
        const { token } = takeToken(text.includes("#") ? text.slice(text.indexOf("#")) : `token=${text}`);
        wrong.value = token === null;
        if (token === null) return;
        keepToken(token);
        location.reload();
    };
    return (
        <form class="new-token" onSubmit={submit}>
            <input class="field" name="token" type="password" autocomplete="off" aria-label="Address or token" placeholder="http://127.0.0.1:…/#token=…" />
            <button type="submit">Open</button>
            {wrong.value && <span class="warn-text" role="alert">There is no token in that.</span>}
        </form>
    );
}

function Retry({ at }: { at: number }) {
    const now = useSignal(Date.now());
    useEffect(() => {
        const timer = setInterval(() => { now.value = Date.now(); }, 250);
        return () => clearInterval(timer);
    }, []);
    const left = Math.max(0, Math.ceil((at - now.value) / 1000));
    return <span>{left > 0 ? `Next try in ${left} s.` : "Trying …"}</span>;
}

/** Lines above the panels: what the reader must know to trust the numbers below. */
export function Banners() {
    const link = connection.value;
    const now = status.value;
    const one = process.value;
    const from = source.value;
    return (
        <div class="banners" aria-live="polite">
            {link.state === "lost" && now && (
                <p class="banner bad"><strong>Connection lost.</strong> What is shown is as of {moment(now.at_ns)}. <Retry at={link.retryAt} /></p>
            )}
            {now && now.lost > 0 && (
                <p class="banner caution"><strong>{count(now.lost)} events are lost.</strong> Blocks may be shown that are gone, or be missing; sums of bytes since then are not exact.</p>
            )}
            {one?.ended_ns != null && now && now.at_ns >= one.ended_ns && (
                <p class="banner"><strong>{one.comm} has ended</strong> at {moment(one.ended_ns)}{said(one.status)}. What is shown is its last state; the recording stays here.</p>
            )}
            {one && !one.allocator && <p class="banner caution"><strong>No known allocator.</strong> memfrag sees calls, but cannot tell how this heap is laid out.</p>}
            {from && !from.growing && !from.complete && (
                <p class="banner caution"><strong>The recording was cut short.</strong> All whole parts of it are shown{from.damage.bytes > 0 ? `; ${bytes(from.damage.bytes)} could not be read` : ""}.</p>
            )}
        </div>
    );
}

function said(status: string | number | null): string {
    if (status === null || status === "") return "";
    return typeof status === "number" ? `, with status ${status}` : `, ${status}`;
}

/** All notices, the newest first. */
export function Notes() {
    return (
        <Dialog title="Messages">
            <ul class="notes">
                {[...notes.value].reverse().map((one) => (
                    <li key={one.id} class={one.level}>
                        <span>{one.text}</span>
                        <button type="button" class="icon" aria-label="Dismiss" onClick={() => dismiss(one.id)}>✕</button>
                    </li>
                ))}
                {notes.value.length === 0 && <li class="muted">None.</li>}
            </ul>
        </Dialog>
    );
}
