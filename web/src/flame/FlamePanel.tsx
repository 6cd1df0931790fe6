// The flame graph, as an icicle: measure, direction, search, zoom.

import { useComputed, useSignal } from "@preact/signals";
import { bytes, count, percent } from "../format";
import { useQuery } from "../store/query";
import { useHeld } from "../list/held";
import { measure, type Measure } from "../store/view";
import { Answered } from "../panels/Answered";
import { Icicle } from "./Icicle";
import { follow, frames, inverted, matched, path, type Frame } from "./tree";
import type { FlameNode } from "../protocol";

const MEASURES: readonly [Measure, string, string][] = [
    ["live", "live", "bytes that are live now"],
    ["stranded", "stranded", "free bytes on pages that these blocks hold"],
    ["allocated", "allocated", "bytes requested since the trace began"],
    ["freed", "freed", "bytes freed since the trace began"],
    ["count", "calls", "blocks allocated since the trace began"],
];

export function FlamePanel() {
    const { held, props } = useHeld();
    const answer = useQuery("flame", { measure: measure.value }, { every: 2000, held });
    const text = useSignal("");
    const turned = useSignal(false);
    return (
        <div class="flame" {...props}>
            <div class="bar-line">
                <div class="segments" role="group" aria-label="Measure">
                    {MEASURES.map(([name, label, what]) => <button type="button" key={name} title={what} aria-pressed={measure.value === name ? "true" : "false"} onClick={() => { measure.value = name; }}>{label}</button>)}
                </div>
                <label class="check"><input type="checkbox" checked={turned.value} onChange={(event) => { turned.value = event.currentTarget.checked; }} /> callers below</label>
                <input class="field grow" type="search" placeholder="Search" aria-label="Search frames" onInput={(event) => { text.value = event.currentTarget.value; }} />
            </div>
            <Answered answer={answer.value}>{(root: FlameNode) => <Graph root={root} turned={turned.value} text={text.value} />}</Answered>
        </div>
    );
}

function Graph({ root, turned, text }: { root: FlameNode; turned: boolean; text: string }) {
    const names = useSignal<string[]>([]);
    const focused = useSignal<Frame | null>(null);
    const given = useSignal({ root, turned });
    if (given.peek().root !== root || given.peek().turned !== turned) queueMicrotask(() => {
        if (given.peek().turned !== turned) names.value = [];
        given.value = { root, turned };
    });
    const top = useComputed(() => {
        const whole = frames(given.value.root);
        return given.value.turned ? inverted(whole) : whole;
    });
    const zoomed = follow(top.value, names.value);
    const show = measure.value === "count" ? count : bytes;
    const { hit, value: found } = matched(top.value, text);
    const zoom = (frame: Frame) => { names.value = path(frame).slice(1).map((one) => one.name); };
    if (top.value.value <= 0) return <p class="empty">Nothing of this measure at this moment.</p>;
    return (
        <>
            <nav class="crumbs" aria-label="Zoomed to">
                {path(zoomed).map((one) => <button type="button" key={one.depth} class="link" onClick={() => zoom(one)}>{one.parent ? one.name : `all, ${show(one.value)}`}</button>)}
                {text !== "" && <span class="muted">{show(found)} match, {percent(found / Math.max(1, top.value.value))}</span>}
            </nav>
            <Icicle zoomed={zoomed} focused={focused.value ?? zoomed} hit={hit} searching={text !== ""} zoom={zoom} focus={(one) => { focused.value = one; }} describe={(one) => describe(one, top.value, show)} />
            <p class="readout" aria-live="polite">{describe(focused.value ?? zoomed, top.value, show)}</p>
        </>
    );
}

function describe(frame: Frame, top: Frame, show: (value: number) => string): string {
    const share = percent(frame.value / Math.max(1, top.value));
    const own = frame.own > 0 && frame.children.length > 0 ? `, ${show(frame.own)} of it its own` : "";
    return `${frame.name}: ${show(frame.value)}, ${share}${own}`;
}
