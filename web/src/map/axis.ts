// The axis of addresses: the ranges of the heap, upwards, with what lies between them left out.
import { parseAddress, type Region } from "../protocol";

export interface Span {
    start: number;
    /** Exclusive. */
    end: number;
    region: Region;
}

/** The regions as numbers, upwards. Empty, overlapping and unreadable ones are dropped: a later one yields to an earlier. */
export function spans(regions: readonly Region[]): Span[] {
    const all: Span[] = [];
    for (const region of regions) {
        const [start, end] = [parseAddress(region.start), parseAddress(region.end)];
        if (start !== null && end !== null && start < end) all.push({ start, end, region });
    }
    all.sort((a, b) => a.start - b.start);
    let end = 0;
    return all.filter((span) => {
        const apart = span.start >= end;
        if (apart) end = span.end;
        return apart;
    });
}

/** The first span that ends behind `address`; `spans.length` when there is none. */
export function spanFrom(spans: readonly Span[], address: number): number {
    let [low, high] = [0, spans.length];
    while (low < high) {
        const middle = (low + high) >> 1;
        if (spans[middle]!.end > address) high = middle;
        else low = middle + 1;
    }
    return low;
}

export function spanAt(spans: readonly Span[], address: number): Span | null {
    const span = spans[spanFrom(spans, address)];
    return span !== undefined && span.start <= address ? span : null;
}

/** The address of the heap that is nearest to `address`. */
export function nearest(spans: readonly Span[], address: number): number | null {
    const n = spanFrom(spans, address);
    const [above, below] = [spans[n], spans[n - 1]];
    if (above !== undefined && above.start <= address) return address;
    if (above === undefined) return below === undefined ? null : below.end - 1;
    if (below === undefined || above.start - address <= address - below.end) return above.start;
    return below.end - 1;
}

/** A run of neighbouring units of `size` bytes (rows, tiles) that the spans touch, and how many units came before it. */
export interface Run {
    first: number;
    count: number;
    before: number;
    /** Bytes left out between the run before and this one; 0 at the first. */
    gap: number;
}

/** Which units of `size` bytes the spans touch, as runs upwards. */
export function runs(spans: readonly Span[], size: number): Run[] {
    const result: Run[] = [];
    let total = 0;
    let end = 0;
    for (const span of spans) {
        const [first, last] = [Math.floor(span.start / size), Math.ceil(span.end / size)];
        const run = result.at(-1);
        if (run !== undefined && first <= run.first + run.count) {
            const more = Math.max(0, last - run.first - run.count);
            run.count += more;
            total += more;
        } else {
            result.push({ first, count: last - first, before: total, gap: run === undefined ? 0 : span.start - end });
            total += last - first;
        }
        end = span.end;
    }
    return result;
}

/** The last run that begins at or below unit number `before` of the runs laid end to end; -1 without any. */
export function runBefore(runs: readonly Run[], before: number): number {
    let [low, high] = [0, runs.length];
    while (low < high) {
        const middle = (low + high) >> 1;
        if (runs[middle]!.before <= before) low = middle + 1;
        else high = middle;
    }
    return low - 1;
}

/** The run that holds `unit`, or -1. */
export function runOf(runs: readonly Run[], unit: number): number {
    let [low, high] = [0, runs.length];
    while (low < high) {
        const middle = (low + high) >> 1;
        if (runs[middle]!.first <= unit) low = middle + 1;
        else high = middle;
    }
    const run = runs[low - 1];
    return run !== undefined && unit < run.first + run.count ? low - 1 : -1;
}
