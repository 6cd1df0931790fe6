// Whose blocks keep free memory: owners ranked by what would be released without them.

import { useEffect, useRef } from "preact/hooks";
import { advice } from "../../explain/findings";
import { address as hex, bytes, count, times } from "../../format";
import { useHeld } from "../../list/held";
import { Table, type Column } from "../../list/Table";
import { siteName, sitePlace, type Blame, type Blamed } from "../../store/documents";
import { highlightSite } from "../../store/map";
import { useQuery } from "../../store/query";
import { live } from "../../store/session";
import { by, filter, site, type By } from "../../store/view";
import { Term } from "../../shell/Explain";
import { Answered } from "../Answered";
import { OwnerDetail } from "./OwnerDetail";

const BYS: readonly By[] = ["site", "thread", "size", "age", "module"];

const COLUMNS: readonly Column<Blamed>[] = [
    { key: "owner", head: "owner", by: (one) => siteName(one), cell: (one) => <Owner one={one} />, kind: "mono", title: (one) => one.module ?? one.site },
    { key: "release", head: <Term of="release">release</Term>, by: (one) => one.release_bytes, cell: (one) => bytes(one.release_bytes), kind: "num" },
    { key: "stranded", head: <Term of="stranded">stranded</Term>, by: (one) => one.stranded_bytes, cell: (one) => bytes(one.stranded_bytes), kind: "num" },
    { key: "live", head: "live", by: (one) => one.live_bytes, cell: (one) => bytes(one.live_bytes), kind: "num" },
    { key: "blocks", head: "blocks", by: (one) => one.live_blocks, cell: (one) => count(one.live_blocks), kind: "num" },
    { key: "times live", head: <Term of="amplification">× live</Term>, by: (one) => one.pin_amplification ?? 0, cell: (one) => times(one.pin_amplification), kind: "num" },
];

export function BlamePanel() {
    const { held, props } = useHeld();
    const answer = useQuery("blame", { by: by.value as "site" }, { every: 2000, held });
    return (
        <div class="blame" {...props}>
            <div class="bar-line">
                <div class="segments" role="group" aria-label="Blame by">
                    {BYS.map((one) => (
                        <button type="button" key={one} aria-pressed={by.value === one ? "true" : "false"} onClick={() => choose(one)}>{one}</button>
                    ))}
                </div>
                <Filter />
                {held.value && live.value && <span class="muted held">held while you point here</span>}
            </div>
            <Answered answer={answer.value}>{(document) => <Shown blame={document as Blame} />}</Answered>
        </div>
    );
}

function choose(one: By): void {
    by.value = one;
    site.value = null;
    highlightSite(null);
}

function Filter() {
    return (
        <span class="chip-field">
            <input class="field" type="search" placeholder="Filter by name" aria-label="Filter owners" value={filter.value} onInput={(event) => { filter.value = event.currentTarget.value; }} />
        </span>
    );
}

function Shown({ blame }: { blame: Blame }) {
    const list = useRef<HTMLDivElement>(null);
    const text = filter.value.toLowerCase();
    const rows = blame.sites.filter((one) => text === "" || `${one.site} ${one.function ?? ""} ${one.module ?? ""} ${one.file ?? ""}`.toLowerCase().includes(text));
    const chosen = rows.find((one) => one.site === site.value?.site) ?? null;
    // The list gets short to make room for what is chosen, which must stay in sight.
    useEffect(() => { list.current?.querySelector("tr.chosen")?.scrollIntoView({ block: "nearest" }); }, [chosen?.site]);
    const pick = (one: Blamed) => {
        const off = site.value?.site === one.site;
        site.value = off ? null : { site: one.site, address: one.address === null ? null : hex(one.address) };
        highlightSite(off || blame.by !== "site" ? null : one.site);
    };
    return (
        <>
            <p class="lead">
                <strong>{bytes(blame.trim_yield_bytes)}</strong> could be returned now by malloc_trim; <strong>{bytes(blame.stuck_bytes)}</strong> more are free and stay, on pages that these hold:
            </p>
            <div ref={list} class={chosen ? "short" : ""}>
                <Table label="Owners" columns={COLUMNS} rows={rows} id={(one) => one.site} chosen={chosen?.site ?? null} choose={pick} />
            </div>
            {chosen ? <OwnerDetail owner={chosen} by={blame.by} /> : <Order blame={blame} />}
            <details class="limits">
                <summary>What these numbers do not tell</summary>
                <ul>{blame.limits.map((one) => <li key={one}>{one}</li>)}</ul>
            </details>
        </>
    );
}

/** What to free first, and how far that gets. */
function Order({ blame }: { blame: Blame }) {
    const first = blame.sites[0];
    if (blame.order.length === 0) return first ? <p class="advice">{advice(first)}</p> : null;
    return (
        <section class="order">
            <h2>In which order to free them</h2>
            <ol>
                {blame.order.map((one) => <li key={one.site}><span class="mono">{one.site}</span> <span class="muted">releases, with those above,</span> <b>{bytes(one.release_bytes)}</b></li>)}
            </ol>
        </section>
    );
}

function Owner({ one }: { one: Blamed }) {
    const place = sitePlace(one);
    return (
        <span class={one.kind === "program" ? "owner" : "owner other"}>
            {siteName(one)}
            {place && <span class="muted place">{place}</span>}
        </span>
    );
}
