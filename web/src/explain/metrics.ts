// The measures of fragmentation: how each is shown, and what it means. Formulas are those of docs/METRICS.md.

import { bytes, count, percent, times } from "../format";
import type { Entry } from "./glossary";
import type { Json } from "../protocol";

type Show = (value: number) => string;

export interface Metric extends Entry {
    /** Where it is in `end.metrics`. */
    field: string;
    show: Show;
}

const hundredths: Show = (value) => percent(value / 100);

export const METRICS: readonly Metric[] = [
    { field: "overhead_ratio", show: times, name: "Overhead", what: "How many resident bytes there are for each live one.", formula: "resident bytes / requested bytes", todo: "Worth a look above 1.5 when the heap is larger than 50 MiB." },
    { field: "internal_fragmentation", show: percent, name: "Internal fragmentation", what: "The share of chunks that nobody asked for: headers and padding.", formula: "1 − requested / taken by chunks", todo: "Few tiny blocks instead of many." },
    { field: "cached_ratio", show: percent, name: "Cached share", what: "The share of the arenas that lies in caches.", formula: "thread caches and fastbins / obtained bytes", todo: "" },
    { field: "external_ratio", show: percent, name: "Free in bins", what: "The share of the arenas that is free between blocks.", formula: "bytes in bins / obtained bytes", todo: "High with a low trim yield: pinned pages, see Blame." },
    { field: "top_ratio", show: percent, name: "Free on top", what: "The share of the arenas that is free at their ends.", formula: "bytes on top / obtained bytes", todo: "Returned when it exceeds M_TRIM_THRESHOLD." },
    { field: "free_fragmentation_index", show: percent, name: "Free in pieces", what: "How far the free memory is from being one piece.", formula: "1 − largest free chunk / all free bytes", todo: "Says nothing of what can be returned." },
    { field: "free_dispersion", show: percent, name: "Free dispersion", what: "The same, with all pieces weighed by their size.", formula: "1 − √(Σ f²) / Σ f over free chunks", todo: "" },
    { field: "johnstone_wilson_1", show: hundredths, name: "Johnstone-Wilson 1", what: "By how much memory exceeds what is live, on average over time.", formula: "mean of resident heap / live − 1", todo: "" },
    { field: "johnstone_wilson_2", show: hundredths, name: "Johnstone-Wilson 2", what: "The same when most was live.", formula: "resident heap / live − 1 at the peak of live bytes", todo: "" },
    { field: "johnstone_wilson_3", show: hundredths, name: "Johnstone-Wilson 3", what: "The same when memory was largest.", formula: "resident heap / live − 1 at the peak of memory", todo: "" },
    { field: "johnstone_wilson_4", show: hundredths, name: "Johnstone-Wilson 4", what: "The largest heap against the most that was live.", formula: "largest heap / largest live − 1", todo: "Small, while the end is bad: memory is kept, not wasted." },
    { field: "end_fragmentation", show: hundredths, name: "Fragmentation now", what: "By how much memory exceeds what is live at the last reading.", formula: "resident / live − 1", todo: "" },
    { field: "meshable_pages", show: count, name: "Meshable pages", what: "Pairs of pages that an allocator that meshes could merge.", formula: "pairs whose 16-byte granules do not collide", todo: "Large: Mesh, or compaction, would help." },
    { field: "compact_bound_bytes", show: bytes, name: "Compact bound", what: "What the live blocks need when packed without a gap.", formula: "sum of chunk sizes", todo: "No allocator with these headers needs less." },
    { field: "compact_bound_peak_bytes", show: bytes, name: "Compact bound, peak", what: "The most that the compact bound has been.", formula: "largest sum of chunk sizes", todo: "" },
    { field: "padding_efficiency", show: percent, name: "Padding efficiency", what: "The share of the chunks that was asked for.", formula: "requested / taken", todo: "" },
    { field: "cache_line_utilization", show: percent, name: "Cache line use", what: "How much of the cache lines that blocks touch was asked for.", formula: "mean of requested bytes of a line / 64", todo: "" },
    { field: "split_allocations", show: count, name: "Split blocks", what: "Blocks that lie on more than one cache line.", formula: "count", todo: "" },
    { field: "needlessly_split_allocations", show: count, name: "Needlessly split", what: "Blocks on more cache lines than they would need.", formula: "count", todo: "" },
];

/** Those measures that are known, and by name those that are not. */
export function shown(metrics: Json): { known: { metric: Metric; text: string }[]; unknown: string[] } {
    const known: { metric: Metric; text: string }[] = [];
    const unknown: string[] = [];
    for (const metric of METRICS) {
        const value: unknown = metrics[metric.field];
        if (typeof value === "number") known.push({ metric, text: metric.show(value) });
        else unknown.push(metric.name);
    }
    return { known, unknown };
}
