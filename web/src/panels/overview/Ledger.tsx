// The ledger: every resident byte in one line.

import { bytes, percent } from "../../format";
import type { Ledger as Counted } from "../../store/documents";
import { Term } from "../../shell/Explain";

export const LEDGER_LINES = ["requested", "rounding", "cached", "free_in_pages", "free_pages", "metadata", "untracked", "not_malloc", "unexplained"] as const;
export type LedgerLine = (typeof LEDGER_LINES)[number];

const SOURCES: Record<Counted["source"], string> = {
    walk: "by a walk of the heap",
    blocks: "by the live blocks: freed ones in caches count as free",
    unknown: "of an allocator whose layout is unknown: free memory, rounding and its own data are one",
};

export function Ledger({ ledger }: { ledger: Counted }) {
    const lines = LEDGER_LINES.filter((name) => ledger[name] !== 0 || name === "requested" || name === "free_pages");
    let at = 0;
    return (
        <section class="ledger" aria-labelledby="ledger-title">
            <h2 id="ledger-title">Where {bytes(ledger.rss)} of resident memory go</h2>
            <svg class="stack" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">
                {lines.map((name) => {
                    const width = (Math.max(0, ledger[name]) / Math.max(1, ledger.rss)) * 1000;
                    at += width;
                    return <rect key={name} class={`part ${name}`} x={at - width} y="0" width={Math.max(0, width - 1.5)} height="20" />;
                })}
            </svg>
            <table>
                <tbody>
                    {lines.map((name) => (
                        <tr key={name}>
                            <th scope="row"><i class={`key ${name}`} aria-hidden="true" /><Term of={name} /></th>
                            <td class="num" title={`${ledger[name]} B`}>{bytes(ledger[name])}</td>
                            <td class="num muted">{percent(ledger[name] / Math.max(1, ledger.rss))}</td>
                            <td class="muted">{aside(name, ledger)}</td>
                        </tr>
                    ))}
                </tbody>
            </table>
            <p class="fineprint muted">
                Laid out {SOURCES[ledger.source]}.{ledger.untouched > 0 ? ` ${bytes(ledger.untouched)} of the live blocks are not resident: never written to.` : ""}
            </p>
        </section>
    );
}

function foreign(ledger: Counted): string {
    const own = ledger.not_malloc_memfrag > 0 ? `, memfrag's while it traces ${bytes(ledger.not_malloc_memfrag)}` : "";
    return `files ${bytes(ledger.not_malloc_files)}, anonymous ${bytes(ledger.not_malloc_anonymous)}, stack ${bytes(ledger.not_malloc_stacks)}${own}`;
}

/** What a line consists of, or what becomes of it. */
function aside(name: LedgerLine, ledger: Counted): string {
    switch (name) {
        case "rounding": return `headers ${bytes(ledger.rounding_header)}, padding ${bytes(ledger.rounding_padding)}`;
        case "free_in_pages": return "pinned by live blocks on the same page";
        case "free_pages": return ledger.source === "unknown" ? "without any live block" : "returned by malloc_trim";
        case "not_malloc": return foreign(ledger);
        default: return "";
    }
}
