// What the numbers say, in words, the most useful first. Pure: the same documents give the same sentences.

import { bytes, count, percent, times } from "../format";
import { siteName, type Blame, type Blamed, type ProcessReport } from "../store/documents";

export interface Finding {
    /** How much it is about; the eye catches it first. */
    amount: string;
    text: string;
    /** What to do next, where there is something. */
    next: string;
    tone: "act" | "look" | "fine" | "caution";
    /** The owner that it names. */
    owner: Blamed | null;
}

/** Below this, fragmentation is not worth anyone's time. */
const SMALL_HEAP = 8 << 20;

export function findings(report: ProcessReport, blame: Blame | null): Finding[] {
    const found: Finding[] = [];
    const ledger = report.end.ledger;
    const laid = blame ?? report.blame;
    if (laid) found.push(trim(laid, report), ...pinned(laid));
    if (ledger && ledger.rss > SMALL_HEAP) found.push(...shares(ledger, report));
    if (report.damaged_at_ns !== null) {
        found.push({ amount: "Events are missing", text: "from some moment on, so that blocks may be shown that are gone.", next: "Read the heap again: trace with the right to read its memory.", tone: "caution", owner: null });
    }
    if (found.length === 0 && report.end.rss_bytes !== null) {
        const gap = report.end.rss_bytes - report.end.requested_bytes;
        found.push({ amount: bytes(Math.max(0, gap)), text: "of resident memory is not live. Which pages these are is not known yet.", next: "The first look at the process's pages comes within a second; it needs the right to read /proc/PID/pagemap.", tone: "look", owner: null });
    }
    return found;
}

function trim(blame: Blame, report: ProcessReport): Finding {
    const amount = bytes(blame.trim_yield_bytes);
    const little = blame.trim_yield_bytes < 1 << 16;
    if (report.older_unknown && !little) {
        return { amount, text: "lie on pages without a block that is known. The process ran before the trace: its blocks from then may lie there.", next: "Trace it from its start, for what is free to be told from what is old.", tone: "caution", owner: null };
    }
    if (!isGlibc(report)) {
        if (little) return { amount, text: "lie on whole free pages: there is nothing to return.", next: "", tone: "fine", owner: null };
        return { amount, text: "lie on whole free pages, which the allocator could return now.", next: returning(report), tone: "act", owner: null };
    }
    if (little) return { amount, text: "could be returned now by malloc_trim: trimming would not help.", next: "", tone: "fine", owner: null };
    const next = report.exit === null ? "Try it: memfrag trim --pid PID --apply measures what it brings." : "When it runs again: malloc_trim(0) after a burst, or memfrag trim --apply from outside.";
    return { amount, text: "could be returned now by malloc_trim.", next, tone: "act", owner: null };
}

function isGlibc(report: ProcessReport): boolean {
    return report.allocator === null || report.allocator.name === "glibc";
}

/** How another allocator than glibc's is told to give free pages back. */
function returning(report: ProcessReport): string {
    switch (report.allocator?.name) {
        case "jemalloc": return "It does by itself after a while: dirty_decay_ms and muzzy_decay_ms say when, arena.<i>.purge does it at once.";
        case "tcmalloc": return "MallocExtension's ReleaseFreeMemory() does it at once, TCMALLOC_RELEASE_RATE says how fast by itself.";
        case "mimalloc": return "It does by itself after a while: MIMALLOC_PURGE_DELAY says when, mi_collect(true) does it at once.";
        default: return "";
    }
}

/** Owners named as being in the way: so many, or fewer when they account for this share. */
const NAMED = 3;
const ENOUGH = 0.8;

function pinned(blame: Blame): Finding[] {
    if (blame.stuck_bytes < 1 << 16) return [];
    const amount = bytes(blame.stuck_bytes);
    const most = blame.sites.filter((one) => one.kind === "program").sort((a, b) => b.stranded_bytes - a.stranded_bytes);
    const share = (one: Blamed) => one.stranded_bytes / blame.stuck_bytes;
    const named: Blamed[] = [];
    for (const one of most) {
        const told = named.reduce((sum, before) => sum + share(before), 0);
        if (named.length === NAMED || told >= ENOUGH || share(one) < 0.05) break;
        named.push(one);
    }
    const pages = "more are free, but pinned by live blocks";
    // No block lies there, and malloc_trim does not look at them.
    const tops = blame.kept_tops_bytes / blame.stuck_bytes;
    const beside = tops >= 0.1 ? `; ${percent(tops)} are the ends of arenas, which trimming never touches` : "";
    const [first, ...others] = named;
    if (!first) return [{ amount, text: `${pages}, no call site by more than 5 % of it${beside}.`, next: "", tone: "look", owner: null }];
    const by = others.length === 0 && share(first) >= 0.5 ? `most of it by ${siteName(first)}` : named.map((one) => `${percent(share(one))} by ${siteName(one)}`).join(", ");
    return [{ amount, text: `${pages}, ${by}${beside}.`, next: advice(first), tone: "act", owner: first }];
}

function shares(ledger: NonNullable<ProcessReport["end"]["ledger"]>, report: ProcessReport): Finding[] {
    const found: Finding[] = [];
    if (ledger.cached > ledger.rss * 0.1) {
        found.push({ amount: bytes(ledger.cached), text: "lie in the allocator's caches, freed and kept at hand.", next: "glibc.malloc.tcache_count bounds them for each thread.", tone: "look", owner: null });
    }
    if (ledger.rounding > ledger.requested * 0.25 && ledger.rounding > 1 << 20) {
        found.push({ amount: bytes(ledger.rounding), text: `are headers and padding, ${percent(ledger.rounding / Math.max(1, ledger.requested))} on top of what was asked.`, next: "Many small blocks: Distributions shows which sizes.", tone: "look", owner: null });
    }
    // What memfrag's own library has in the process goes with it.
    const [foreign, without] = [ledger.not_malloc - ledger.not_malloc_memfrag, ledger.rss - ledger.not_malloc_memfrag];
    if (foreign > without * 0.5) {
        found.push({ amount: percent(foreign / without), text: "of resident memory is not malloc's at all.", next: "Files, stacks, or mappings of the program's own: see /proc/PID/smaps.", tone: "look", owner: null });
    }
    if (report.allocator && report.allocator.name !== "glibc") {
        found.push({ amount: report.allocator.name, text: "lays its memory out in ways of its own: free memory inside pages, rounding and caches are told as one.", next: "", tone: "caution", owner: null });
    }
    return found;
}

/** What could be done about one owner. */
export function advice(owner: Blamed): string {
    if (owner.kind === "cached") return "Freed blocks in threads' caches hold these pages: glibc.malloc.tcache_count=0 would show what they cost.";
    if (owner.kind === "untracked") return "These blocks are older than the trace: start the trace with the program to learn who allocated them.";
    if (owner.kind === "allocator") return "The allocator's own data; nothing that the program can free.";
    const many = `${count(owner.live_blocks)} ${owner.live_blocks === 1 ? "block" : "blocks"} (${bytes(owner.live_bytes)})`;
    // Alone they would return next to nothing of what lies free around them.
    if (owner.release_bytes < owner.stranded_bytes / 4) {
        if (owner.joins_top_bytes > owner.stranded_bytes / 2) {
            return `Freeing its ${many} would leave the ends of arenas free, ${bytes(owner.joins_top_bytes)}, which malloc_trim never returns. Trim while they live; and allocate them together: before the burst, or in a pool of their own.`;
        }
        return `Freeing its ${many} alone would return ${owner.release_bytes > 0 ? bytes(owner.release_bytes) : "nothing"}: others' blocks lie on the same pages. Only moving what is in use closes such holes: a restart, or the program's own defragmentation.`;
    }
    const ratio = owner.pin_amplification ?? 0;
    const gain = `Freeing its ${many} and trimming would return ${bytes(owner.release_bytes)}`;
    if (ratio >= 2) return `${gain}, ${times(ratio)} what they hold. If they must live, allocate them together: before the burst, or in a pool of their own.`;
    if (owner.stranded_bytes > owner.live_bytes / 4) return `${gain}, as much as they hold and what lies free between them. If they must live, only moving them together closes the holes: a restart, or the program's own defragmentation.`;
    return `${gain}: about what they hold, so they are simply memory in use.`;
}
