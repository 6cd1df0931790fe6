// What every number on the page is, how it is made, and what to do about it.

export interface Entry {
    name: string;
    what: string;
    formula: string;
    /** What to do when it is large; empty where there is nothing to do. */
    todo: string;
}

const LEDGER = {
    requested: {
        name: "Requested",
        what: "What the program asked for and has not freed, as far as it is resident: the part of memory that is its own doing.",
        formula: "sum of the sizes given to malloc, calloc, realloc, over live blocks",
        todo: "Only the program can shrink it: see Blame and Flame by live bytes.",
    },
    rounding: {
        name: "Rounding",
        what: "What blocks take beyond what was asked: a header each, and padding to the allocator's step of 16 bytes or to pages.",
        formula: "bytes taken by live chunks − requested",
        todo: "Large with many tiny blocks: pool them, or ask for sizes just below a step.",
    },
    cached: {
        name: "Cached",
        what: "Blocks that were freed and that the allocator keeps at hand for the next call of the same size.",
        formula: "bytes in thread caches and fastbins, by a walk of the heap",
        todo: "Bounded for each thread; glibc.malloc.tcache_count makes it smaller.",
    },
    free_in_pages: {
        name: "Free inside pages",
        what: "Free memory on pages that also hold a live block. It cannot be given back while that block lives.",
        formula: "free bytes on resident pages that malloc_trim leaves",
        todo: "Blame names the call sites whose survivors hold these pages.",
    },
    free_pages: {
        name: "Free pages",
        what: "Whole pages without any live block that are still resident. With glibc malloc_trim returns them; other allocators do by themselves, after a while.",
        formula: "resident pages of the heap that no live chunk touches",
        todo: "glibc: memfrag trim --pid PID --apply, a call of malloc_trim(0) after bursts, or a lower M_TRIM_THRESHOLD. jemalloc: dirty_decay_ms.",
    },
    metadata: {
        name: "Allocator's own",
        what: "What the allocator needs for itself: arena headers, bookkeeping.",
        formula: "bytes of arenas' heads and of threads' caches' tables",
        todo: "",
    },
    untracked: {
        name: "Older than the trace",
        what: "Blocks in use that no event told of, because they were allocated before the trace began.",
        formula: "used chunks of a walk without a known allocation",
        todo: "Trace from the program's start to see who allocated them.",
    },
    not_malloc: {
        name: "Not malloc",
        what: "Resident memory that the allocator does not own: program and library files, stacks, mappings of the program's own, and under the preload backend memfrag's library with its rings while it traces.",
        formula: "RSS − everything above",
        todo: "Not a matter of malloc: look at /proc/PID/smaps.",
    },
    unexplained: {
        name: "Unexplained",
        what: "What does not add up, mostly because pages changed while they were being counted.",
        formula: "RSS − all lines",
        todo: "",
    },
} satisfies Record<string, Entry>;

const LADDER = {
    usable: {
        name: "Usable",
        what: "Requested and what rounding adds: the bytes that live blocks occupy in the heap.",
        formula: "requested + rounding",
        todo: "",
    },
    active: {
        name: "Active pages",
        what: "Pages that hold at least one live block, or that the allocator must keep. The step up to here is fragmentation.",
        formula: "usable + cached + free inside pages + allocator's own + older blocks",
        todo: "The gap to Usable is what Blame is about.",
    },
    heap: {
        name: "Resident heap",
        what: "All pages of the heap that take physical memory, free ones included.",
        formula: "active pages + free pages",
        todo: "The gap to Active pages is what malloc_trim returns.",
    },
    resident: {
        name: "Resident (RSS)",
        what: "All physical memory of the process: what ps and top show.",
        formula: "resident heap + not malloc",
        todo: "",
    },
    mapped: {
        name: "Heap, mapped",
        what: "Address space that the heap has obtained, whether or not it takes memory.",
        formula: "growth of the heap segment + mappings − unmappings, as seen by the trace",
        todo: "Costs address space and page tables, no memory.",
    },
} satisfies Record<string, Entry>;

const COUNTERS = {
    live_blocks: { name: "Live blocks", what: "Blocks allocated and not yet freed.", formula: "allocations − frees", todo: "" },
    live_bytes: { name: "Live bytes", what: "What live blocks asked for, resident or not.", formula: "sum of requested sizes of live blocks", todo: "" },
    peak: { name: "Peak", what: "The moment at which most bytes were live.", formula: "largest live bytes since the trace began", todo: "Click its time to go there." },
    gap: {
        name: "RSS − live",
        what: "Physical memory that holds nothing the program asked for. This gap is why a service can grow without a leak.",
        formula: "RSS − live bytes",
        todo: "The ledger says what it is made of.",
    },
    lost: {
        name: "Lost events",
        what: "Events that the trace missed. Where some are missing, blocks may be shown that are gone, or the other way round.",
        formula: "counted by the capture, and kept in the recording as gaps",
        todo: "A larger ring, fewer stacks, or the preload backend.",
    },
    older: {
        name: "Older blocks",
        what: "Blocks that were there before the trace began: known by their place, without call site or age.",
        formula: "found by reading the heap when the trace began",
        todo: "Start the trace with the program to know them.",
    },
    hz: { name: "Map rate", what: "Frames of the map that arrive in a second, of those wanted. Idle where nothing changes. A slow tab gets fewer, not older ones.", formula: "frames sent / s", todo: "" },
    rate: { name: "Event rate", what: "Calls of the allocator's functions in a second, at the cursor.", formula: "events of the last second", todo: "" },
} satisfies Record<string, Entry>;

const BLAME = {
    release: {
        name: "Release",
        what: "What would go back to the system if this owner's blocks were freed and the heap trimmed, beyond what trimming returns now.",
        formula: "trim yield without its blocks − trim yield now. Not additive: a page with two owners goes with the second.",
        todo: "Free or move these blocks, allocate them in an arena of their own, or earlier.",
    },
    stranded: {
        name: "Stranded",
        what: "Its share of the free bytes on pages into which its blocks reach. All shares add up.",
        formula: "free bytes of each such page, divided among the page's owners",
        todo: "The larger against Live, the worse its blocks are placed.",
    },
    amplification: {
        name: "× live",
        what: "How many bytes stay resident for each byte that the owner holds.",
        formula: "release / live",
        todo: "Above 2, a few small survivors hold much memory.",
    },
} satisfies Record<string, Entry>;

export const GLOSSARY = { ...LEDGER, ...LADDER, ...COUNTERS, ...BLAME } as const;
export type Term = keyof typeof GLOSSARY;
