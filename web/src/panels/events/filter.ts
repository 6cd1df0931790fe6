// What the event table is restricted to, as it is typed: `alloc 0x7f… pid:12`. Each word narrows.

export interface EventFilter {
    ops: string[] | null;
    address: string | null;
    pid: number | null;
    /** Words that mean nothing. */
    unknown: string[];
}

/** What a word stands for, in the names that recordings have for kinds of events. */
export const OPS: Readonly<Record<string, readonly string[]>> = {
    alloc: ["alloc"], malloc: ["alloc"], calloc: ["alloc"], free: ["free"], realloc: ["realloc_begin", "realloc"],
    mmap: ["mmap"], munmap: ["munmap", "munmap_failed"], mremap: ["mremap_begin", "mremap"], brk: ["brk"], madvise: ["madvise"],
    fork: ["fork"], exec: ["exec"], exit: ["exit"], thread: ["thread_start", "thread_exit"], gap: ["gap"], lost: ["gap"],
};

export function parseFilter(text: string): EventFilter {
    const found: EventFilter = { ops: null, address: null, pid: null, unknown: [] };
    for (const word of text.trim().split(/\s+/).filter(Boolean)) {
        const plain = word.toLowerCase().replace(/^(op|address|addr):/, "");
        const pid = /^pid:(\d{1,10})$/.exec(word);
        if (pid) found.pid = Number(pid[1]);
        else if (/^0x[0-9a-f]{1,16}$/.test(plain)) found.address = plain;
        else if (Object.hasOwn(OPS, plain)) found.ops = [...new Set([...(found.ops ?? []), ...(OPS[plain] ?? [])])];
        else found.unknown.push(word);
    }
    return found;
}

export function isRestricted(filter: EventFilter): boolean {
    return filter.ops !== null || filter.address !== null || filter.pid !== null;
}
