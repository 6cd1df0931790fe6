// What the timeline shows: which lines, and which stretch of time.

import { computed, signal } from "@preact/signals";
import type { Series } from "../protocol";
import type { Span } from "../store/permalink";
import { endNs } from "../store/session";

export type LineName = "live" | "taken" | "rss" | "mapped" | "rates" | "fragmentation";

export interface Line {
    name: LineName;
    label: string;
    what: string;
    /** Custom property that holds its colour. */
    colour: string;
    dash: number[];
}

export const LINES: readonly Line[] = [
    { name: "live", label: "live", what: "requested bytes of live blocks", colour: "--live", dash: [] },
    { name: "taken", label: "taken", what: "what live blocks take with headers and padding", colour: "--taken", dash: [2, 3] },
    { name: "rss", label: "RSS", what: "resident memory; shaded: what is resident and not live", colour: "--rss", dash: [] },
    { name: "mapped", label: "mapped", what: "address space that the heap has obtained", colour: "--mapped", dash: [6, 4] },
    { name: "rates", label: "rates", what: "allocations and frees in a second", colour: "--text-soft", dash: [] },
    { name: "fragmentation", label: "overhead", what: "share of resident memory that is not live", colour: "--text-soft", dash: [] },
];

export const shownLines = signal<ReadonlySet<LineName>>(new Set(["live", "rss", "mapped"]));

export function toggleLine(name: LineName): void {
    const next = new Set(shownLines.value);
    if (!next.delete(name)) next.add(name);
    shownLines.value = next;
}

/** The stretch that is zoomed to; null is all of the trace. */
export const zoom = signal<Span | null>(null);
/** The stretch on screen. */
export const shownSpan = computed<Span>(() => zoom.value ?? { from: 0, to: Math.max(1, endNs.value) });

const NARROWEST = 1e6;

/** Zooms by a factor about a moment; all of the trace again when it would be wider. */
export function zoomAbout(ns: number, factor: number): void {
    const { from, to } = shownSpan.value;
    const width = Math.max(NARROWEST, (to - from) * factor);
    if (width >= endNs.value) {
        zoom.value = null;
        return;
    }
    const share = (ns - from) / Math.max(1, to - from);
    const start = Math.min(Math.max(0, ns - share * width), endNs.value - width);
    zoom.value = { from: Math.round(start), to: Math.round(start + width) };
}

/** Columns as uPlot takes them, times in seconds; the order is that of `plot.ts`. */
export function columns(series: Series): [number[], ...(number | null)[][]] {
    return [series.time_ns.map((ns) => ns / 1e9), series.mapped_bytes, series.rss_bytes, series.taken_bytes, series.live_bytes];
}

export function rateColumns(series: Series): [number[], ...(number | null)[][]] {
    return [series.time_ns.map((ns) => ns / 1e9), series.allocations_per_s, series.frees_per_s];
}

/** The share of resident memory that is not live, where both are known; readings are carried on to the next. */
export function overheadColumns(series: Series): [number[], ...(number | null)[][]] {
    let rss: number | null = null;
    const share = series.time_ns.map((_, n) => {
        rss = series.rss_bytes[n] ?? rss;
        const live = series.live_bytes[n];
        return rss !== null && rss > 0 && live !== null && live !== undefined ? Math.max(0, 1 - live / rss) : null;
    });
    return [series.time_ns.map((ns) => ns / 1e9), share];
}
