// The ladder from what was asked for to what is mapped: each rung with what the step up to it is.

import { bytes } from "../../format";
import type { Ledger, ProcessReport } from "../../store/documents";
import type { Term as TermName } from "../../explain/glossary";
import { Term } from "../../shell/Explain";

export interface Rung {
    term: TermName;
    bytes: number;
    /** What is added to the rung below, in words. */
    step: string;
    added: number;
    /** Of the colour of the step. */
    tone: string;
}

/** The rungs of a ledger, upwards. */
export function rungs(ledger: Ledger, mapped: ProcessReport["mapped"]): Rung[] {
    const usable = ledger.requested + ledger.rounding;
    const kept = ledger.cached + ledger.free_in_pages + ledger.metadata + ledger.untracked;
    const active = usable + kept;
    const heap = active + ledger.free_pages;
    const found: Rung[] = [
        { term: "requested", bytes: ledger.requested, step: "what live blocks asked for", added: ledger.requested, tone: "requested" },
        { term: "usable", bytes: usable, step: "headers and padding", added: ledger.rounding, tone: "rounding" },
        { term: "active", bytes: active, step: "free beside blocks, and caches", added: kept, tone: "free_in_pages" },
        { term: "heap", bytes: heap, step: "whole free pages", added: ledger.free_pages, tone: "free_pages" },
    ];
    const obtained = Math.max(0, mapped.brk_growth_bytes) + Math.max(0, mapped.mapped_bytes - mapped.unmapped_bytes);
    // Of a trace that began late only a part of the mappings is known.
    if (obtained > heap) found.push({ term: "mapped", bytes: obtained, step: "address space without memory", added: obtained - heap, tone: "none" });
    // Of the whole process, so it goes on from the resident heap.
    found.push({ term: "resident", bytes: ledger.rss, step: "files, stacks, other mappings", added: ledger.rss - heap, tone: "not_malloc" });
    return found;
}

export function Ladder({ ledger, mapped }: { ledger: Ledger; mapped: ProcessReport["mapped"] }) {
    const all = rungs(ledger, mapped);
    // Reserved address space can be many times what is resident, and would leave nothing to see of the rest.
    const most = Math.max(...all.filter((one) => one.term !== "mapped").map((one) => one.bytes), 1);
    return (
        <section class="ladder" aria-labelledby="ladder-title">
            <h2 id="ladder-title">From asked for to resident</h2>
            <table>
                <tbody>
                    {all.map((one) => (
                        <tr key={one.term}>
                            <th scope="row"><Term of={one.term} /></th>
                            <td class="num">{bytes(one.bytes)}</td>
                            <td class="bar"><Bar from={(one.bytes - one.added) / most} to={one.bytes / most} tone={one.tone} /></td>
                            <td class="step"><b>+{bytes(one.added)}</b> {one.step}</td>
                        </tr>
                    ))}
                </tbody>
            </table>
        </section>
    );
}

/** A bar whose new part has the colour of the step. */
function Bar({ from, to, tone }: { from: number; to: number; tone: string }) {
    const share = (value: number) => Math.max(0, Math.min(1, value)) * 100;
    return (
        <svg class="bar-svg" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
            <rect class="below" x="0" y="1" height="8" width={share(from)} />
            <rect class={`part ${tone}`} x={share(from)} y="0" height="10" width={Math.max(0.4, share(to) - share(from))} />
        </svg>
    );
}
