// The first panel: what the numbers say in words, the ladder, the ledger, the measures.

import { bytes, count, duration, moment, percent } from "../../format";
import type { Report } from "../../protocol";
import type { ProcessReport, Remedy } from "../../store/documents";
import { useQuery } from "../../store/query";
import { cursor } from "../../store/server";
import { cursorNs } from "../../store/session";
import { Term } from "../../shell/Explain";
import { Answered } from "../Answered";
import { Findings } from "./Findings";
import { Ladder } from "./Ladder";
import { Ledger } from "./Ledger";
import { Measures } from "./Measures";
import { Remedies, worthwhile } from "./Remedies";

export function Overview() {
    const answer = useQuery("report", {}, { every: 1000 });
    return (
        <div class="overview">
            <Answered answer={answer.value}>{(report: Report) => <Shown report={report} />}</Answered>
        </div>
    );
}

function Shown({ report }: { report: Report }) {
    const process = report.process as ProcessReport;
    const { ledger, metrics } = process.end;
    const remedies = report.remedies as unknown as Remedy[];
    return (
        <>
            <Findings report={process} />
            <Numbers process={process} />
            {ledger && <Ladder ledger={ledger} mapped={process.mapped} />}
            {ledger && <Ledger ledger={ledger} />}
            {worthwhile(remedies) && <Remedies remedies={remedies} />}
            {!ledger && <p class="empty">Where resident memory goes is known once memfrag has looked at the process's pages, which needs the right to read <code>/proc/PID/pagemap</code>.</p>}
            <Measures metrics={metrics} />
            <p class="fineprint muted as-of">
                As of {moment(report.at_ns)}{ledger && ledger.at_ns < report.at_ns ? `; pages looked at ${duration(report.at_ns - ledger.at_ns)} before` : ""}.
                State <span class="mono" title="The same for the same live blocks">{report.digest}</span>
            </p>
        </>
    );
}

function Numbers({ process }: { process: ProcessReport }) {
    const { end, peak, totals } = process;
    const gap = end.rss_bytes === null ? null : Math.max(0, end.rss_bytes - end.requested_bytes);
    return (
        <dl class="numbers">
            <div>
                <dt><Term of="live_bytes">Live</Term></dt>
                <dd title={exact(end.requested_bytes)}>{bytes(end.requested_bytes)}</dd>
                <dd class="muted">{count(end.live_blocks)} blocks</dd>
            </div>
            <div>
                <dt><Term of="resident">RSS</Term></dt>
                <dd title={exact(end.rss_bytes)}>{bytes(end.rss_bytes)}</dd>
                <dd class="muted">{end.rss_at_ns === null ? "not read yet" : `read ${duration(Math.max(0, cursorNs.value - end.rss_at_ns))} ago`}</dd>
            </div>
            <div class="gap">
                <dt><Term of="gap">RSS − live</Term></dt>
                <dd title={exact(gap)}>{bytes(gap)}</dd>
                <dd class="muted">{gap === null || !end.rss_bytes ? "" : `${percent(gap / end.rss_bytes)} of RSS`}</dd>
            </div>
            <div>
                <dt><Term of="peak">Peak live</Term></dt>
                <dd title={exact(peak.requested_bytes)}>{bytes(peak.requested_bytes)}</dd>
                <dd><button type="button" class="link" onClick={() => cursor.seek(peak.at_ns)}>at {moment(peak.at_ns)}</button></dd>
            </div>
            <div>
                <dt>Allocated</dt>
                <dd title={exact(totals.requested_bytes)}>{bytes(totals.requested_bytes)}</dd>
                <dd class="muted" title={`${count(totals.allocations)} allocations, ${count(totals.reallocations)} reallocations`}>
                    in {count(totals.allocations + totals.reallocations)} calls
                </dd>
            </div>
        </dl>
    );
}

/** To the byte, for who points at it. */
function exact(value: number | null): string {
    return value === null ? "" : `${value} B`;
}
