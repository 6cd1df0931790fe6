// Choosing what to look at: sources, and the processes of each.

import { useSignal } from "@preact/signals";
import type { Process, Source } from "../protocol";
import { bytes, duration } from "../format";
import { removeSource } from "../store/recordings";
import { watch, watchSource } from "../store/server";
import { processes, sources, watched } from "../store/session";
import { overlay } from "../store/view";
import { Dialog } from "./Dialog";
import { commandLine } from "./Header";

const MOST = 200;

export function Picker() {
    const text = useSignal("");
    return (
        <Dialog title="Processes and recordings" kind="picker">
            <input class="field wide" type="search" autofocus placeholder="Name, command or pid" aria-label="Filter" onInput={(event) => { text.value = event.currentTarget.value; }} />
            <div class="picker-list">
                {sources.value.map((one) => <OneSource key={one.source} source={one} text={text.value.toLowerCase()} />)}
            </div>
            <footer>
                <button type="button" onClick={() => { overlay.value = "import"; }}>Import a recording …</button>
            </footer>
        </Dialog>
    );
}

function OneSource({ source, text }: { source: Source; text: string }) {
    const all = processes.value.get(source.source) ?? [];
    const found = all.filter((one) => matches(one, text)).sort((a, b) => weight(b) - weight(a));
    const chosen = watched.value?.source === source.source;
    const choose = () => {
        overlay.value = null;
        watchSource(source.source);
    };
    return (
        <section>
            <h3>
                <button type="button" class={chosen ? "link chosen" : "link"} onClick={choose}>{source.name}</button>
                {source.source > 0 && (
                    <button type="button" class="small" title="The server forgets this imported recording" aria-label={`Remove ${source.name}`} onClick={() => void removeSource(source.source)}>Remove</button>
                )}
                <span class="muted">{source.growing ? "growing" : source.complete ? duration(source.duration_ns) : "cut short"} · {source.backend} · {source.host}</span>
            </h3>
            {(source.damage.chunks > 0 || source.damage.bytes > 0) && (
                <p class="warn-text">{source.damage.chunks} damaged parts ({bytes(source.damage.bytes)}) were left out.</p>
            )}
            <ul>
                {found.slice(0, MOST).map((one) => <OneProcess key={one.pid} source={source.source} process={one} />)}
            </ul>
            {found.length > MOST && <p class="muted">{found.length - MOST} more: type to find them.</p>}
        </section>
    );
}

function OneProcess({ source, process }: { source: number; process: Process }) {
    const now = watched.value;
    const chosen = now?.source === source && now.pid === process.pid;
    const choose = () => {
        overlay.value = null;
        watch(source, process.pid);
    };
    return (
        <li>
            <button type="button" class={chosen ? "row chosen" : "row"} aria-pressed={chosen ? "true" : "false"} onClick={choose}>
                <span class="mono num">{process.pid}</span>
                <strong>{process.comm || "?"}</strong>
                <span class="mono muted cut">{commandLine(process.cmdline)}</span>
                <span class="muted">{process.allocator?.name ?? ""}</span>
                <span class="muted">{process.ended_ns === null ? "" : "ended"}</span>
                <span class="num">{bytes(process.live_bytes)}</span>
            </button>
        </li>
    );
}

function matches(one: Process, text: string): boolean {
    return text === "" || `${one.pid} ${one.comm} ${commandLine(one.cmdline)}`.toLowerCase().includes(text);
}

function weight(one: Process): number {
    return Math.max(one.live_bytes, one.rss_bytes ?? 0);
}
