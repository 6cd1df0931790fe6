// Two moments, or two recordings, side by side: what changed, and which call sites changed most.

import { useSignal } from "@preact/signals";
import { count, moment, signedBytes, signedCount, bytes, times } from "../../format";
import { Table, type Column } from "../../list/Table";
import type { Moment, Queries } from "../../protocol";
import { siteName, sitePlace, type ProcessReport } from "../../store/documents";
import { highlightSite } from "../../store/map";
import { useQuery } from "../../store/query";
import { cursorNs, endNs, processes, sources, watched } from "../../store/session";
import { largest } from "../../store/session";
import { pinA, pinB } from "../../store/view";
import { Answered } from "../Answered";

type Found = Queries["compare"]["gives"];
type SiteOfBoth = Found["sites"][number];

const COLUMNS: readonly Column<SiteOfBoth>[] = [
    { key: "site", head: "site", by: siteName, cell: (one) => <span class="owner">{siteName(one)}<span class="muted place">{sitePlace(one)}</span></span>, kind: "mono", title: (one) => one.module ?? one.site },
    { key: "change", head: "change", by: (one) => one.b_bytes - one.a_bytes, cell: (one) => <Signed value={one.b_bytes - one.a_bytes} show={signedBytes} />, kind: "num" },
    { key: "blocks", head: "blocks", by: (one) => one.b_blocks - one.a_blocks, cell: (one) => <Signed value={one.b_blocks - one.a_blocks} show={signedCount} />, kind: "num" },
    { key: "in A", head: "in A", by: (one) => one.a_bytes, cell: (one) => bytes(one.a_bytes), kind: "num" },
    { key: "in B", head: "in B", by: (one) => one.b_bytes, cell: (one) => bytes(one.b_bytes), kind: "num" },
];

export function Moments() {
    const other = useSignal<number | null>(null);
    const now = watched.value;
    const a: Moment | null = now && pinA.value !== null ? { source: now.source, pid: now.pid, at_ns: pinA.value } : null;
    const b = now ? second(now, other.value) : null;
    const answer = useQuery("compare", a && b ? { a, b } : null, { follows: false });
    return (
        <>
            <div class="bar-line">
                <Side name="A" at={pinA.value} here={() => { pinA.value = cursorNs.value; }} begin={() => { pinA.value = 0; }} />
                <span class="muted">against</span>
                {other.value === null && <Side name="B" at={pinB.value} here={() => { pinB.value = cursorNs.value; }} begin={() => { pinB.value = endNs.value; }} end />}
                {sources.value.length > 1 && (
                    <select class="field" aria-label="B is of" value={other.value === null ? "" : String(other.value)} onChange={(event) => { other.value = event.currentTarget.value === "" ? null : Number(event.currentTarget.value); }}>
                        <option value="">of this recording</option>
                        {sources.value.filter((one) => one.source !== now?.source).map((one) => <option key={one.source} value={String(one.source)}>the end of {one.name}</option>)}
                    </select>
                )}
                {pinA.value !== null && pinB.value !== null && <button type="button" class="small" onClick={swap}>Swap</button>}
            </div>
            {!a || !b
                ? <p class="empty"><strong>Pin two moments to compare.</strong> <kbd>[</kbd> pins A at the cursor, <kbd>]</kbd> pins B.{sources.value.length < 2 ? " Import another recording to compare with it." : ""}</p>
                : <Answered answer={answer.value}>{(found) => <Shown found={found} />}</Answered>}
        </>
    );
}

function second(now: { source: number; pid: number }, other: number | null): Moment | null {
    if (other === null) return pinB.value === null ? null : { source: now.source, pid: now.pid, at_ns: pinB.value };
    const one = sources.value.find((source) => source.source === other);
    const process = largest(processes.value.get(other) ?? []);
    return one && process ? { source: other, pid: process.pid, at_ns: one.duration_ns } : null;
}

function swap(): void {
    [pinA.value, pinB.value] = [pinB.value, pinA.value];
}

function Side({ name, at, here, begin, end }: { name: string; at: number | null; here(): void; begin(): void; end?: boolean }) {
    return (
        <span class={`side ${name}`}>
            <b>{name}</b> {at === null ? <span class="muted">not set</span> : moment(at)}
            <button type="button" class="small" onClick={here}>cursor</button>
            <button type="button" class="small" onClick={begin}>{end ? "end" : "beginning"}</button>
        </span>
    );
}

interface Fact {
    label: string;
    of: (report: ProcessReport) => number | null;
    show: (value: number | null) => string;
    change: (value: number) => string;
}

const ledger = (name: "free_pages" | "free_in_pages" | "rounding" | "cached" | "not_malloc") => (report: ProcessReport) => report.end.ledger?.[name] ?? null;

const FACTS: readonly Fact[] = [
    { label: "Live", of: (one) => one.end.requested_bytes, show: bytes, change: signedBytes },
    { label: "Live blocks", of: (one) => one.end.live_blocks, show: count, change: signedCount },
    { label: "RSS", of: (one) => one.end.rss_bytes, show: bytes, change: signedBytes },
    { label: "RSS − live", of: (one) => (one.end.rss_bytes === null ? null : one.end.rss_bytes - one.end.requested_bytes), show: bytes, change: signedBytes },
    { label: "Free pages", of: ledger("free_pages"), show: bytes, change: signedBytes },
    { label: "Free inside pages", of: ledger("free_in_pages"), show: bytes, change: signedBytes },
    { label: "Rounding", of: ledger("rounding"), show: bytes, change: signedBytes },
    { label: "Cached", of: ledger("cached"), show: bytes, change: signedBytes },
    { label: "Not malloc", of: ledger("not_malloc"), show: bytes, change: signedBytes },
    { label: "Overhead", of: (one) => one.end.metrics["overhead_ratio"] ?? null, show: times, change: (value) => `${value >= 0 ? "+" : "−"}${times(Math.abs(value))}` },
    { label: "Allocated so far", of: (one) => one.totals.requested_bytes, show: bytes, change: signedBytes },
    { label: "Peak live", of: (one) => one.peak.requested_bytes, show: bytes, change: signedBytes },
];

function Shown({ found }: { found: Found }) {
    const [a, b] = [found.a.process as ProcessReport, found.b.process as ProcessReport];
    return (
        <>
            <table class="facts">
                <thead><tr><th scope="col">At</th><th scope="col" class="num">A {moment(found.a.at_ns)}</th><th scope="col" class="num">B {moment(found.b.at_ns)}</th><th scope="col" class="num">B − A</th></tr></thead>
                <tbody>
                    {FACTS.map((fact) => {
                        const [left, right] = [fact.of(a), fact.of(b)];
                        return (
                            <tr key={fact.label}>
                                <th scope="row">{fact.label}</th>
                                <td class="num">{fact.show(left)}</td>
                                <td class="num">{fact.show(right)}</td>
                                <td class="num">{left === null || right === null ? "–" : <Signed value={right - left} show={fact.change} />}</td>
                            </tr>
                        );
                    })}
                </tbody>
            </table>
            <p class="fineprint muted">{found.a.digest === found.b.digest ? "The same blocks are live in both." : "▲ more in B, ▼ less in B."}</p>
            <Table label="Sites by change" columns={COLUMNS} rows={found.sites} id={(one) => one.address ?? one.site} choose={(one) => highlightSite(one.site)} />
        </>
    );
}

export function Signed({ value, show }: { value: number; show: (value: number) => string }) {
    return <span class={value > 0 ? "more" : value < 0 ? "less" : ""}>{value > 0 ? "▲ " : value < 0 ? "▼ " : ""}{show(value)}</span>;
}
