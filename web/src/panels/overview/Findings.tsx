// What the numbers say, in words: how much could be returned, and who is in the way.

import { findings, type Finding } from "../../explain/findings";
import { address as hex } from "../../format";
import type { ProcessReport } from "../../store/documents";
import { highlightSite } from "../../store/map";
import { process as watchedProcess } from "../../store/session";
import { show, site } from "../../store/view";

export function Findings({ report }: { report: ProcessReport }) {
    const found = findings(report, null);
    if (found.length === 0) return null;
    return (
        <section class="findings" aria-label="Findings">
            {found.map((one) => <Line key={one.amount + one.text} finding={one} />)}
        </section>
    );
}

function Line({ finding }: { finding: Finding }) {
    const { owner } = finding;
    const follow = () => {
        if (!owner) return;
        site.value = { site: owner.site, address: owner.address === null ? null : hex(owner.address) };
        highlightSite(owner.site);
        show("blame");
    };
    const next = finding.next.replace("PID", String(watchedProcess.value?.pid ?? "PID"));
    return (
        <div class={`finding ${finding.tone}`}>
            <p><strong>{finding.amount}</strong> {finding.text}</p>
            {(next || owner) && (
                <p class="next">
                    {next}
                    {owner && <button type="button" class="link" onClick={follow}>Show its blocks</button>}
                </p>
            )}
        </div>
    );
}
