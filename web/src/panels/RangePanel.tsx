// The brushed stretch of time: what grew, was freed, was temporary, survived, and whose it was.

import { bytes, count, duration, moment, signedBytes } from "../format";
import { useHeld } from "../list/held";
import { Table, type Column } from "../list/Table";
import type { Amount, RangeResult } from "../protocol";
import { siteName, sitePlace } from "../store/documents";
import { highlightSite } from "../store/map";
import { useQuery } from "../store/query";
import { cursor } from "../store/server";
import { cursorNs, endNs } from "../store/session";
import { range, site } from "../store/view";
import { Answered } from "./Answered";

type SiteOfRange = RangeResult["sites"][number];

const COLUMNS: readonly Column<SiteOfRange>[] = [
    { key: "site", head: "site", by: siteName, cell: (one) => <span class="owner">{siteName(one)}<span class="muted place">{sitePlace(one)}</span></span>, kind: "mono", title: (one) => one.module ?? one.site },
    { key: "grown", head: "grown", by: (one) => one.grown_bytes, cell: (one) => bytes(one.grown_bytes), kind: "num" },
    { key: "blocks", head: "blocks", by: (one) => one.grown_blocks, cell: (one) => count(one.grown_blocks), kind: "num" },
    { key: "freed", head: "freed", by: (one) => one.freed_bytes, cell: (one) => bytes(one.freed_bytes), kind: "num" },
    { key: "temporary", head: "temporary", by: (one) => one.temporary_bytes, cell: (one) => bytes(one.temporary_bytes), kind: "num" },
    { key: "survivors", head: "survivors", by: (one) => one.survivors_bytes, cell: (one) => bytes(one.survivors_bytes), kind: "num" },
];

const CLASSES: readonly [keyof Pick<RangeResult, "grown" | "freed" | "temporary" | "survivors">, string, string][] = [
    ["grown", "Grown", "born in the range and live at its end"],
    ["freed", "Freed", "live at its beginning and gone at its end"],
    ["temporary", "Temporary", "born and freed in it"],
    ["survivors", "Survivors", "live throughout"],
];

export function RangePanel() {
    const span = range.value;
    const { held, props } = useHeld();
    const answer = useQuery("range", span === null ? null : { from_ns: span.from, to_ns: span.to }, { follows: false });
    if (span === null) {
        const last = () => {
            const to = cursorNs.value;
            range.value = { from: Math.max(0, Math.round(to - endNs.value / 10)), to: Math.round(to) };
        };
        return (
            <p class="empty">
                <strong>No range is selected.</strong> Drag over the timeline, or take <button type="button" class="link" onClick={last}>the last tenth up to the cursor</button>.
            </p>
        );
    }
    const pick = (one: SiteOfRange) => {
        const off = site.value?.site === one.site;
        site.value = off ? null : { site: one.site, address: one.address };
        highlightSite(off ? null : one.site);
    };
    return (
        <div class="range" {...props} aria-busy={held.value && answer.value.asking ? "true" : "false"}>
            <div class="bar-line">
                <h2>{moment(span.from)} to {moment(span.to)} <span class="muted">{duration(span.to - span.from)}</span></h2>
                <button type="button" class="small" onClick={() => cursor.seek(span.from)}>To its beginning</button>
                <button type="button" class="small" onClick={() => cursor.seek(span.to)}>To its end</button>
                <button type="button" class="small" onClick={() => { range.value = null; }}>Clear</button>
            </div>
            <Answered answer={answer.value}>
                {(found) => (
                    <>
                        <dl class="numbers">
                            {CLASSES.map(([name, label, what]) => <Class key={name} label={label} what={what} amount={found[name]} />)}
                        </dl>
                        <p class="lead">Live bytes changed by <strong>{signedBytes(found.grown.bytes - found.freed.bytes)}</strong>; {bytes(found.allocated.bytes)} in {count(found.allocated.blocks)} blocks were allocated.</p>
                        <Table label="Sites of the range" columns={COLUMNS} rows={found.sites} id={(one) => one.address ?? one.site} choose={pick} chosen={found.sites.find((one) => one.site === site.value?.site)?.address ?? null} />
                    </>
                )}
            </Answered>
        </div>
    );
}

function Class({ label, what, amount }: { label: string; what: string; amount: Amount }) {
    return (
        <div title={what}>
            <dt>{label}</dt>
            <dd title={`${amount.bytes} B`}>{bytes(amount.bytes)}</dd>
            <dd class="muted">{count(amount.blocks)} blocks</dd>
            <dd class="muted what">{what}</dd>
        </div>
    );
}
