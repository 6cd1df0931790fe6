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
    if (laid) found.push(trim(laid), ...pinned(laid));
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

function trim(blame: Blame): Finding {
    if (blame.trim_yield_bytes < 1 << 16) {
        return { amount: bytes(blame.trim_yield_bytes), text: "could be returned now by malloc_trim: trimming would not help.", next: "", tone: "fine", owner: null };
    }
    return {
        amount: bytes(blame.trim_yield_bytes),
        text: "could be returned now by malloc_trim.",
        next: "Try it: memfrag trim --pid PID --apply measures what it brings.",
        tone: "act",
        owner: null,
    };
}

function pinned(blame: Blame): Finding[] {
    if (blame.stuck_bytes < 1 << 16) return [];
    const owner = blame.sites.find((one) => one.kind === "program") ?? blame.sites[0] ?? null;
    const amount = bytes(blame.stuck_bytes);
    if (!owner) return [{ amount, text: "more are pinned.", next: "", tone: "look", owner: null }];
    const share = owner.stranded_bytes / blame.stuck_bytes;
    const most = share >= 0.5 ? `most of it by ${siteName(owner)}` : `the largest part, ${percent(share)}, by ${siteName(owner)}`;
    return [{ amount, text: `more are pinned, ${most}.`, next: advice(owner), tone: "act", owner }];
}

function shares(ledger: NonNullable<ProcessReport["end"]["ledger"]>, report: ProcessReport): Finding[] {
    const found: Finding[] = [];
    if (ledger.cached > ledger.rss * 0.1) {
        found.push({ amount: bytes(ledger.cached), text: "lie in the allocator's caches, freed and kept at hand.", next: "glibc.malloc.tcache_count bounds them for each thread.", tone: "look", owner: null });
    }
    if (ledger.rounding > ledger.requested * 0.25 && ledger.rounding > 1 << 20) {
        found.push({ amount: bytes(ledger.rounding), text: `are headers and padding, ${percent(ledger.rounding / Math.max(1, ledger.requested))} on top of what was asked.`, next: "Many small blocks: Distributions shows which sizes.", tone: "look", owner: null });
    }
    if (ledger.not_malloc > ledger.rss * 0.5) {
        found.push({ amount: percent(ledger.not_malloc / ledger.rss), text: "of resident memory is not malloc's at all.", next: "Files, stacks, or mappings of the program's own: see /proc/PID/smaps.", tone: "look", owner: null });
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
    if (owner.release_bytes <= 0) return "Freeing its blocks alone would return nothing: other owners share every one of its pages.";
    const ratio = owner.pin_amplification ?? 0;
    const gain = `Freeing its ${count(owner.live_blocks)} ${owner.live_blocks === 1 ? "block" : "blocks"} (${bytes(owner.live_bytes)}) and trimming would return ${bytes(owner.release_bytes)}`;
    if (ratio >= 2) return `${gain}, ${times(ratio)} what they hold. If they must live, allocate them together: before the burst, or in a pool of their own.`;
    return `${gain}: about what they hold, so they are simply memory in use.`;
}
