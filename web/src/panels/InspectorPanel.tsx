// The pinned address: its block or hole, the page, the neighbours, and who had it before.

import { bytes, count, duration, moment, percent } from "../format";
import { Table, type Column } from "../list/Table";
import type { AtResult, Block, Owner } from "../protocol";
import { siteName, sitePlace } from "../store/documents";
import { goToAddress } from "../store/map";
import { useQuery } from "../store/query";
import { cursor } from "../store/server";
import { address, inspect, overlay } from "../store/view";
import { Answered } from "./Answered";

const PAGE = 4096;
const OWNERS = 100;

export function InspectorPanel() {
    const at = address.value;
    const answer = useQuery("at", at === null ? null : { address: at }, { every: 500 });
    const past = useQuery("history", at === null ? null : { address: at, limit: OWNERS }, { every: 2000 });
    if (at === null) {
        return (
            <p class="empty">
                <strong>No address is pinned.</strong> Click on the map, on a block in Blame, or on an event;
                or <button type="button" class="link" onClick={() => { overlay.value = "goto"; }}>type one</button>.
            </p>
        );
    }
    return (
        <div class="inspector">
            <div class="bar-line">
                <h2 class="mono">{at}</h2>
                <button type="button" class="small" onClick={() => goToAddress(at)}>Show on the map</button>
                <button type="button" class="small" onClick={() => { address.value = null; }}>Unpin</button>
            </div>
            <Answered answer={answer.value}>{(found) => <Place found={found} />}</Answered>
            <h2>Who had this address</h2>
            <Answered answer={past.value}>
                {(found) => found.owners.length === 0
                    ? <p class="empty">Nobody, since the trace began.</p>
                    : (
                        <>
                            <Table label="Owners of the address" columns={OWNER_COLUMNS} rows={found.owners} id={(one) => `${one.from_ns}/${one.address}`} choose={(one) => cursor.seek(one.from_ns)} most={OWNERS} />
                            {!found.complete && <p class="fineprint muted">There were more before.</p>}
                        </>
                    )}
            </Answered>
        </div>
    );
}

function Place({ found }: { found: AtResult }) {
    return (
        <>
            {found.block && <BlockCard block={found.block} title="Block" />}
            {found.hole && (
                <section class="card hole">
                    <h3>Hole of {bytes(size(found.hole.start, found.hole.end))}</h3>
                    <dl class="pairs">
                        <dt>From</dt><dd><Jump to={found.hole.start} /></dd>
                        <dt>To</dt><dd><Jump to={found.hole.end} /></dd>
                        <dt>Resident</dt><dd>{found.hole.resident_bytes === null ? "not known" : bytes(found.hole.resident_bytes)}</dd>
                    </dl>
                </section>
            )}
            {!found.block && !found.hole && <p class="empty">No heap is known here at this moment.</p>}
            {found.page && (
                <section class="card">
                    <h3>Page <Jump to={found.page.address} /></h3>
                    <dl class="pairs">
                        <dt>Live</dt><dd>{bytes(found.page.live_bytes)} of 4 KiB, {percent(found.page.live_bytes / PAGE)}, in {count(found.page.blocks)} blocks</dd>
                        <dt>Resident</dt><dd>{found.page.resident === null ? "not known" : found.page.resident ? "yes" : "no"}</dd>
                        <dt>Region</dt><dd>{found.page.region ?? "–"}</dd>
                    </dl>
                </section>
            )}
            <div class="neighbours">
                {found.before && <BlockCard block={found.before} title="Before" brief />}
                {found.after && <BlockCard block={found.after} title="After" brief />}
            </div>
        </>
    );
}

function BlockCard({ block, title, brief }: { block: Block; title: string; brief?: boolean }) {
    return (
        <section class="card">
            <h3>{title} of {bytes(block.size)}</h3>
            <dl class="pairs">
                <dt>Address</dt><dd><Jump to={block.address} /></dd>
                {!brief && <><dt>Usable</dt><dd>{block.usable === null ? "–" : `${bytes(block.usable)}, ${count(block.usable - block.size)} B more than asked`}</dd></>}
                <dt>Site</dt><dd class="mono">{block.older ? "older than the trace" : siteName(block)} <span class="muted">{block.older ? "" : sitePlace(block)}</span></dd>
                {block.frames && block.frames.length > 1 && <><dt>Called from</dt><dd><ol class="frames mono">{block.frames.slice(1).map((frame, depth) => <li key={depth} title={frame.site}>{siteName(frame)} <span class="muted">{sitePlace(frame)}</span></li>)}</ol></dd></>}
                <dt>Age</dt><dd>{block.older || block.age_ns === null ? "older than the trace" : duration(block.age_ns)} {block.time_ns !== null && !block.older && <button type="button" class="link" onClick={() => cursor.seek(block.time_ns ?? 0)}>since {moment(block.time_ns)}</button>}</dd>
                <dt>Thread</dt><dd class="mono">{block.thread ?? "–"}</dd>
            </dl>
        </section>
    );
}

function Jump({ to }: { to: string }) {
    const go = () => {
        goToAddress(to);
        inspect(to);
    };
    return <button type="button" class="link mono" onClick={go}>{to}</button>;
}

const OWNER_COLUMNS: readonly Column<Owner>[] = [
    { key: "from", head: "from", cell: (one) => moment(one.from_ns), kind: "num" },
    { key: "until", head: "until", cell: (one) => (one.until_ns === null ? "still" : moment(one.until_ns)), kind: "num" },
    { key: "lived", head: "lived", by: (one) => (one.until_ns ?? Infinity) - one.from_ns, cell: (one) => (one.until_ns === null ? "–" : duration(one.until_ns - one.from_ns)), kind: "num" },
    { key: "size", head: "size", by: (one) => one.size, cell: (one) => bytes(one.size), kind: "num" },
    { key: "thread", head: "by", cell: (one) => one.thread ?? "–", kind: "num" },
    { key: "freed", head: "freed by", cell: (one) => one.freed_by ?? "–", kind: "num" },
    { key: "site", head: "site", cell: (one) => siteName(one), kind: "mono", title: (one) => one.site },
];

function size(start: string, end: string): number {
    return Number(BigInt(end) - BigInt(start));
}
