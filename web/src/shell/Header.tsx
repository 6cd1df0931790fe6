// The top line: what is looked at, how, and what is missing.

import { brief, bytes, count } from "../format";
import { cursor, speed } from "../store/server";
import { connection, notes, process, source, status } from "../store/session";
import { nextTheme, overlay, theme } from "../store/view";
import { Term } from "./Explain";

export function Header() {
    return (
        <header class="top">
            <h1 class="brand"><i /><i /><i />memfrag</h1>
            <Target />
            <Badge />
            <Counters />
            <span class="spring" />
            <button type="button" class="search" onClick={() => { overlay.value = "goto"; }}>
                <span>Go to address, time, event</span><kbd>G</kbd>
            </button>
            <Messages />
            <button type="button" class="icon" title={`Theme: ${theme.value} (T)`} aria-label={`Theme: ${theme.value}`} onClick={nextTheme}>
                {theme.value === "dark" ? "☾" : theme.value === "light" ? "☀" : "◐"}
            </button>
            <button type="button" class="icon" title="Commands (Ctrl K)" aria-label="Command palette" onClick={() => { overlay.value = "palette"; }}>⌘</button>
            <button type="button" class="icon" title="Help (?)" aria-label="Help" onClick={() => { overlay.value = "help"; }}>?</button>
        </header>
    );
}

function Target() {
    const one = process.value;
    const from = source.value;
    const command = one ? commandLine(one.cmdline) || one.exe || one.comm : (from?.command ?? []).join(" ");
    const allocator = one?.allocator;
    return (
        <button type="button" class="target" title={command} onClick={() => { overlay.value = "processes"; }}>
            <span class="hidden">Shown: </span>
            <strong>{one?.comm || from?.name || "no process"}</strong>
            {one && <span class="mono muted">pid {one.pid}</span>}
            {allocator && <span class="muted">{allocator.name}{allocator.version ? ` ${allocator.version}` : ""}</span>}
            <span class="command mono muted">{command}</span>
            <span aria-hidden="true" class="muted">▾</span>
        </button>
    );
}

export function commandLine(words: string[] | string | null): string {
    return Array.isArray(words) ? words.join(" ") : words ?? "";
}

function Badge() {
    const now = status.value;
    const open = connection.value.state === "open";
    if (!open) return <span class="badge lost" role="status">OFFLINE</span>;
    if (!now) return null;
    const progress = now.progress ?? 1;
    // A recording that is being read, or a place far away: what is shown is not there yet.
    if (progress < 1 && now.state !== "playing") return <span class="badge paused" role="status">{now.state === "live" ? "READING" : "SEEKING"} {Math.floor(progress * 100)} %</span>;
    if (now.state === "live") return <span class="badge live" role="status">LIVE</span>;
    const growing = source.value?.growing ?? false;
    const word = now.state === "playing" ? `REPLAY ${speed.value === 0 ? "max" : `${now.speed}×`}` : now.state === "paused" ? "PAUSED" : "ENDED";
    return (
        <span class="badge-group">
            <span class={`badge ${now.state}`} role="status">{word}</span>
            {now.state === "playing" && now.behind && <span class="badge behind" title="Replay cannot keep this pace: it goes as fast as it can">behind</span>}
            {growing && <button type="button" class="small" onClick={cursor.live} title="Back to the newest event (L)">Live</button>}
        </span>
    );
}

function Counters() {
    const now = status.value;
    if (!now) return null;
    return (
        <dl class="counters">
            <div>
                <dt><Term of="rate">events</Term></dt>
                <dd title={`${count(now.events)} events so far`}>{brief(now.events_per_s)}/s</dd>
            </div>
            <div class={now.lost > 0 ? "warn" : ""}>
                <dt><Term of="lost">lost</Term></dt>
                <dd>{brief(now.lost)}</dd>
            </div>
            <div>
                <dt><Term of="older">older</Term></dt>
                <dd title={`${count(now.older_blocks)} blocks`}>{now.older_blocks === 0 ? "0" : bytes(now.older_bytes)}</dd>
            </div>
            <div>
                <dt><Term of="hz">map</Term></dt>
                <dd>{now.hz < 0.5 ? "idle" : `${Math.round(now.hz)} Hz${now.hz_wanted > now.hz + 1 ? ` of ${now.hz_wanted}` : ""}`}</dd>
            </div>
        </dl>
    );
}

function Messages() {
    const list = notes.value;
    const bad = list.filter((one) => one.level !== "info").length;
    if (list.length === 0) return null;
    return (
        <button type="button" class={bad > 0 ? "icon warn" : "icon"} title="Messages (M)" aria-label={`${list.length} messages`} onClick={() => { overlay.value = "notes"; }}>
            {bad > 0 ? "⚠" : "ℹ"}<sup>{list.length}</sup>
        </button>
    );
}
