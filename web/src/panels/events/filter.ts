// What the event table is restricted to, as it is typed: `malloc 0x7f… pid:12`. Each word narrows.

export interface EventFilter {
    ops: string[] | null;
    address: string | null;
    pid: number | null;
    /** Words that mean nothing. */
    unknown: string[];
}

export const OPS = ["malloc", "calloc", "realloc", "aligned", "free", "mmap", "munmap", "brk", "fork", "exec", "exit"] as const;

export function parseFilter(text: string): EventFilter {
    const found: EventFilter = { ops: null, address: null, pid: null, unknown: [] };
    for (const word of text.trim().split(/\s+/).filter(Boolean)) {
        const plain = word.toLowerCase().replace(/^(op|address|addr):/, "");
        const pid = /^pid:(\d{1,10})$/.exec(word);
        if (pid) found.pid = Number(pid[1]);
        else if (/^0x[0-9a-f]{1,16}$/.test(plain)) found.address = plain;
        else if (/^[a-z_]+$/.test(plain) && plain.length >= 2) found.ops = [...(found.ops ?? []), plain];
        else found.unknown.push(word);
    }
    return found;
}

export function isRestricted(filter: EventFilter): boolean {
    return filter.ops !== null || filter.address !== null || filter.pid !== null;
}
