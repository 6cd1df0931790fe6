// The parts of memfrag's JSON documents that the page shows; `memfrag report --json` and `memfrag blame --json` have more.

import type { Json } from "../protocol";

/** Where resident bytes go. The lines from `free_pages` to `not_malloc`, and `unexplained`, add up to `rss`. */
export interface Ledger {
    at_ns: number;
    source: "walk" | "blocks" | "unknown";
    rss: number;
    free_pages: number;
    requested: number;
    rounding: number;
    rounding_header: number;
    rounding_padding: number;
    cached: number;
    free_in_pages: number;
    metadata: number;
    untracked: number;
    not_malloc: number;
    not_malloc_files: number;
    not_malloc_stacks: number;
    not_malloc_anonymous: number;
    not_malloc_other: number;
    /** The preload library and its memory. */
    not_malloc_memfrag: number;
    unexplained: number;
    untouched: number;
}

export interface Occupancy {
    empty: number | null;
    pinned: number;
    partial: number;
    full: number;
}

/** What one owner of blocks accounts for. */
export interface Blamed {
    site: string;
    kind: "program" | "untracked" | "cached" | "allocator";
    function: string | null;
    file: string | null;
    line: number | null;
    address: number | string | null;
    module: string | null;
    offset: number | null;
    live_bytes: number;
    live_blocks: number;
    stranded_bytes: number;
    release_bytes: number;
    joins_top_bytes: number;
    pin_amplification: number | null;
}

export interface Blame {
    by: string;
    at_ns: number;
    source: Ledger["source"];
    trim_yield_bytes: number;
    stuck_bytes: number;
    kept_tops_bytes: number;
    pages_by_owners: number[];
    sites: Blamed[];
    order: { site: string; release_bytes: number }[];
    limits: string[];
}

/** What would become of resident memory; of `memfrag remedies`. */
export interface Remedy {
    name: string;
    kind: "none" | "trim" | "restart" | "compaction";
    how: string;
    predicted_bytes: number | null;
}

export interface ProcessReport {
    pid: number;
    comm: string;
    exit: { at_ns: number; code: number | null; signal: number | null } | null;
    threads: number;
    totals: { allocations: number; frees: number; reallocations: number; requested_bytes: number; freed_bytes: number };
    older: { blocks: number; bytes: number };
    /** It ran before the trace, and its blocks from then are not known: what they hold counts as free. */
    older_unknown: boolean;
    walked_at_ns: number | null;
    damaged_at_ns: number | null;
    peak: { at_ns: number; live_blocks: number; requested_bytes: number };
    end: {
        live_blocks: number;
        requested_bytes: number;
        rss_bytes: number | null;
        rss_anon_bytes: number | null;
        rss_at_ns: number | null;
        ledger: Ledger | null;
        metrics: Json;
    };
    allocator: { name: string; version: string | null; path: string } | null;
    anomalies: Record<string, number>;
    blame: Blame | null;
    mapped: { mapped_bytes: number; unmapped_bytes: number; brk_growth_bytes: number };
}

/** How a site is called for people: by its text, which names the function where one is known. */
export function siteName(one: { site: string; function?: string | null }): string {
    return one.function && !one.site.includes(one.function) ? one.function : one.site;
}

/** What stands beside the name: source line, or the text of the site where another name is shown. */
export function sitePlace(one: { site: string; function?: string | null; file?: string | null; line?: number | null }): string {
    if (one.file) return one.line ? `${one.file}:${one.line}` : one.file;
    return siteName(one) === one.site ? "" : one.site;
}
