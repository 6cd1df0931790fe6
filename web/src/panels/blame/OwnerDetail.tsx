// One owner: what could be done about it, and its largest blocks.

import { advice } from "../../explain/findings";
import { address as hex, bytes, count, duration } from "../../format";
import { Table, type Column } from "../../list/Table";
import type { Block } from "../../protocol";
import { siteName, sitePlace, type Blamed } from "../../store/documents";
import { goToAddress } from "../../store/map";
import { useQuery } from "../../store/query";
import { inspect, show } from "../../store/view";
import { Answered } from "../Answered";

const LIMIT = 50;

export const BLOCK_COLUMNS: readonly Column<Block>[] = [
    { key: "address", head: "address", cell: (one) => one.address, kind: "mono" },
    { key: "size", head: "size", by: (one) => one.size, cell: (one) => bytes(one.size), kind: "num" },
    { key: "age", head: "age", by: (one) => one.age_ns ?? Infinity, cell: (one) => (one.older ? "older" : duration(one.age_ns)), kind: "num" },
    { key: "thread", head: "thread", by: (one) => one.thread ?? 0, cell: (one) => one.thread ?? "–", kind: "num" },
];

export function OwnerDetail({ owner, by }: { owner: Blamed; by: string }) {
    const kind = by === "thread" || by === "size" ? by : "site";
    const takes = owner.address !== null
        ? { by: "site" as const, address: hex(owner.address), limit: LIMIT }
        : owner.kind === "program" && (by === "thread" || by === "size")
            ? { by: kind as "thread" | "size", value: owner.site, limit: LIMIT }
            : null;
    const answer = useQuery("blocks", takes, { every: 3000 });
    const go = (one: Block) => {
        goToAddress(one.address);
        inspect(one.address);
    };
    return (
        <section class="detail" aria-label={`About ${siteName(owner)}`}>
            <h2 class="mono">{siteName(owner)}</h2>
            {sitePlace(owner) && <p class="muted mono">{sitePlace(owner)}</p>}
            <p class="advice">{advice(owner)}</p>
            <p>
                <button type="button" class="small" onClick={() => show("flame")}>Flame graph</button>
                {owner.module && <span class="muted"> in {owner.module}</span>}
            </p>
            {takes && (
                <Answered answer={answer.value}>
                    {(found) => (
                        <>
                            <h3>Its largest blocks <span class="muted">{count(found.blocks.length)} of {count(found.total)}</span></h3>
                            {found.total === 0 && <p class="muted">None is live at this moment any more: pages were last looked at before.</p>}
                            {found.total > 0 && <Table label="Blocks" columns={BLOCK_COLUMNS} rows={found.blocks} id={(one) => one.address} choose={go} most={LIMIT} />}
                        </>
                    )}
                </Answered>
            )}
        </section>
    );
}
