// The measures of fragmentation, and how full pages are.

import { count, percent } from "../../format";
import { shown } from "../../explain/metrics";
import type { Json } from "../../protocol";
import type { Occupancy } from "../../store/documents";
import { Term } from "../../shell/Explain";

export function Measures({ metrics }: { metrics: Json }) {
    const { known, unknown } = shown(metrics);
    const pages = (metrics["resident_page_occupancy"] ?? metrics["page_occupancy"]) as Occupancy | null | undefined;
    return (
        <section class="measures" aria-labelledby="measures-title">
            <h2 id="measures-title">Measures</h2>
            {pages && <Pages pages={pages} />}
            <dl class="measure-list">
                {known.map(({ metric, text }) => (
                    <div key={metric.field}>
                        <dt><Term entry={metric}>{metric.name}</Term></dt>
                        <dd class="num">{text}</dd>
                    </div>
                ))}
            </dl>
            {unknown.length > 0 && <p class="fineprint muted">Not known here: {unknown.join(", ")}.</p>}
        </section>
    );
}

const FULLNESS = [
    ["empty", "empty"],
    ["pinned", "below a quarter"],
    ["partial", "partly full"],
    ["full", "full"],
] as const;

function Pages({ pages }: { pages: Occupancy }) {
    const all = FULLNESS.reduce((sum, [name]) => sum + (pages[name] ?? 0), 0);
    if (all === 0) return null;
    return (
        <p class="pages">
            <span class="muted">Pages</span>
            {FULLNESS.map(([name, label]) => {
                const many = pages[name];
                return many === null ? null : <span key={name}><i class={`key pages-${name}`} aria-hidden="true" />{label} <b>{count(many)}</b> <em>{percent(many / all)}</em></span>;
            })}
        </p>
    );
}
