// Moving through time: live, play, pause, stop, step, speed, seek, pins.

import { clock, duration, moment } from "../format";
import { cursor, SPEEDS, speed } from "../store/server";
import { cursorNs, endNs, source, status } from "../store/session";
import { overlay, pinA, pinB, show } from "../store/view";

export function Transport() {
    const state = status.value?.state;
    const moving = state === "playing" || state === "live";
    const growing = source.value?.growing ?? false;
    return (
        <div class="transport" role="toolbar" aria-label="Time">
            <button type="button" class="icon" title="Stop: back to the newest event, or to the end (Shift S)" aria-label="Stop" onClick={cursor.stop}>■</button>
            <button type="button" class="icon" title="One event back (,)" aria-label="Step back" onClick={() => cursor.step(-1)}>‹</button>
            <button type="button" class="icon main" title={moving ? "Pause (space)" : "Play (space)"} aria-label={moving ? "Pause" : "Play"} onClick={cursor.toggle}>{moving ? "❚❚" : "▶"}</button>
            <button type="button" class="icon" title="One event forward (.)" aria-label="Step forward" onClick={() => cursor.step(1)}>›</button>
            <label class="speed">
                <span class="hidden">Speed</span>
                <select value={String(speed.value)} aria-label="Speed" onChange={(event) => setSpeed(Number(event.currentTarget.value))}>
                    {SPEEDS.map((one) => <option key={one} value={String(one)}>{one === 0 ? "max" : `${one}×`}</option>)}
                </select>
            </label>
            <button type="button" class="small" title="Play at four times the speed (X)" onClick={() => cursor.play(4)}>4×</button>
            {growing && <button type="button" class={state === "live" ? "small chosen" : "small"} aria-pressed={state === "live" ? "true" : "false"} title="Follow the newest event (L)" onClick={cursor.live}>Live</button>}
            <Seek />
            <Clock />
            <Pin name="A" at={pinA.value} set={(ns) => { pinA.value = ns; }} />
            <Pin name="B" at={pinB.value} set={(ns) => { pinB.value = ns; }} />
            {pinA.value !== null && pinB.value !== null && <button type="button" class="small" onClick={() => show("compare")}>Compare</button>}
            <span class="divider" />
            <button type="button" class="small" title="Import a recording (I)" onClick={() => { overlay.value = "import"; }}>Import</button>
            <button type="button" class="small" title="Export the recording (E)" onClick={() => { overlay.value = "export"; }}>Export</button>
        </div>
    );
}

function setSpeed(to: number): void {
    speed.value = to;
    if (status.value?.state === "playing") cursor.play(to);
}

const STEPS = 1000;

function Seek() {
    const end = Math.max(1, endNs.value);
    const at = Math.min(cursorNs.value, end);
    return (
        <input
            class="seek" type="range" min={0} max={STEPS} step={1} value={Math.round((at / end) * STEPS)}
            aria-label="Moment" aria-valuetext={`${moment(at)} of ${moment(end)}`} onInput={(event) => cursor.seek((Number(event.currentTarget.value) / STEPS) * end)}
        />
    );
}

function Clock() {
    const began = source.value?.began_unix_ns ?? 0;
    return (
        <span class="clock" title={began > 0 ? `The trace began ${clock(began, 0)}` : ""}>
            <strong class="mono">{moment(cursorNs.value)}</strong>
            <span class="muted mono"> / {moment(endNs.value)}</span>
            {began > 0 && <span class="muted wall">{clock(began, cursorNs.value)}</span>}
        </span>
    );
}

function Pin({ name, at, set }: { name: "A" | "B"; at: number | null; set(ns: number | null): void }) {
    if (at === null) {
        return <button type="button" class={`small pin ${name}`} title={`Pin ${name} here (${name === "A" ? "[" : "]"})`} onClick={() => set(cursorNs.value)}>{name}</button>;
    }
    return (
        <span class={`pin-set ${name}`}>
            <button type="button" class="small" title={`Go to ${name}; ${duration(Math.abs(cursorNs.value - at))} away`} onClick={() => cursor.seek(at)}>{name} {moment(at)}</button>
            <button type="button" class="icon tiny" aria-label={`Remove ${name}`} onClick={() => set(null)}>✕</button>
        </span>
    );
}
