// The timeline, always on screen: transport, lines, readout.

import { useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { brief, bytes, moment, percent } from "../format";
import type { Series } from "../protocol";
import { useQuery } from "../store/query";
import { cursorNs, endNs, source } from "../store/session";
import { range } from "../store/view";
import { Term } from "../shell/Explain";
import { Chart, type Pointed } from "./Chart";
import { LINES, shownLines, toggleLine, zoom } from "./state";
import { Transport } from "./Transport";

const POINTS = 1600;
const REFRESH = 1000;

export function Dock() {
    const pointed = useSignal<Pointed | null>(null);
    const shown = source.value?.source;
    // Another recording has other times.
    useEffect(() => { zoom.value = null; }, [shown]);
    const until = useEnd();
    const span = zoom.value ?? { from: 0, to: Math.max(1, until) };
    const answer = useQuery("series", { from_ns: span.from, to_ns: span.to, points: POINTS }, { follows: false, late: true });
    const series = useComputed(() => answer.value.value);
    const point = (at: Pointed | null) => { pointed.value = at; };
    return (
        <section class="dock" aria-label="Timeline">
            <Transport />
            <div class="lines">
                {LINES.map((line) => <Toggle key={line.name} line={line} />)}
                <Readout series={series.value} pointed={pointed.value} />
                {zoom.value && <button type="button" class="small" onClick={() => { zoom.value = null; }}>Show all</button>}
                {answer.value.error && <span class="warn-text">{answer.value.error}</span>}
            </div>
            <Chart kind="bytes" series={series} height={128} pointed={point} />
            {shownLines.value.has("rates") && <Chart kind="rates" series={series} height={76} pointed={point} />}
            {shownLines.value.has("fragmentation") && <Chart kind="overhead" series={series} height={76} pointed={point} />}
        </section>
    );
}

/** The trace's end as of the last second: a question for each new event would be too many. */
function useEnd(): number {
    const until = useSignal(endNs.peek());
    const last = useSignal(0);
    useSignalEffect(() => {
        const end = endNs.value;
        const now = performance.now();
        if (until.peek() > 0 && source.value?.growing && now - last.peek() < REFRESH) return;
        last.value = now;
        until.value = end;
    });
    return until.value;
}

function Toggle({ line }: { line: (typeof LINES)[number] }) {
    const on = shownLines.value.has(line.name);
    return (
        <button type="button" class={`line ${line.name}`} aria-pressed={on ? "true" : "false"} title={line.what} onClick={() => toggleLine(line.name)}>
            <i aria-hidden="true" />{line.label}
        </button>
    );
}

function Readout({ series, pointed }: { series: Series | null; pointed: Pointed | null }) {
    if (!series || series.time_ns.length === 0) return <span class="readout" />;
    const index = pointed?.index ?? nearest(series, pointed?.ns ?? range.value?.to ?? cursorNs.value);
    const live = series.live_bytes[index] ?? null;
    const rss = lastKnown(series.rss_bytes, index);
    const gap = rss !== null && live !== null ? Math.max(0, rss - live) : null;
    return (
        <span class="readout">
            <span class="mono">{moment(pointed?.ns ?? series.time_ns[index])}</span>
            <span><i class="dot live" />live <b>{bytes(live)}</b></span>
            <span><i class="dot rss" />RSS <b>{bytes(rss)}</b></span>
            <span class="gap"><Term of="gap">RSS − live</Term> <b>{bytes(gap)}</b> {gap !== null && rss ? <em>{percent(gap / rss)}</em> : null}</span>
            {shownLines.value.has("mapped") && <span><i class="dot mapped" />mapped <b>{bytes(lastKnown(series.mapped_bytes, index))}</b></span>}
            {shownLines.value.has("rates") && <span>{brief(series.allocations_per_s[index])} alloc/s · {brief(series.frees_per_s[index])} free/s</span>}
        </span>
    );
}

function nearest(series: Series, ns: number): number {
    let low = 0;
    let high = series.time_ns.length - 1;
    while (low < high) {
        const middle = (low + high + 1) >> 1;
        if ((series.time_ns[middle] ?? 0) <= ns) low = middle;
        else high = middle - 1;
    }
    return low;
}

function lastKnown(values: readonly (number | null)[], index: number): number | null {
    for (let n = index; n >= 0; n -= 1) {
        const value = values[n];
        if (value !== null && value !== undefined) return value;
    }
    return null;
}
