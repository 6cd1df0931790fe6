// How blocks are distributed: sizes by thread and by call site, lifetimes by thread, and what size classes waste.

import { useSignal } from "@preact/signals";
import { brief, bytes, count, duration, percent } from "../format";
import { Table, type Column } from "../list/Table";
import type { Distributions } from "../protocol";
import { siteName } from "../store/documents";
import { useQuery } from "../store/query";
import { Answered } from "./Answered";
import { Matrix } from "./Matrix";

type Waste = Distributions["waste"][number];

const WASTE: readonly Column<Waste>[] = [
    { key: "size", head: "room", by: (one) => one.size, cell: (one) => bytes(one.size), kind: "num", title: () => "What a block of the class can hold" },
    { key: "blocks", head: "blocks", by: (one) => one.blocks, cell: (one) => count(one.blocks), kind: "num" },
    { key: "requested", head: "requested", by: (one) => one.requested_bytes, cell: (one) => bytes(one.requested_bytes), kind: "num" },
    { key: "usable", head: "usable", by: (one) => one.usable_bytes, cell: (one) => bytes(one.usable_bytes), kind: "num" },
    { key: "wasted", head: "wasted", by: wasted, cell: (one) => bytes(wasted(one)), kind: "num" },
    { key: "share", head: "share", by: (one) => wasted(one) / Math.max(1, one.usable_bytes), cell: (one) => percent(wasted(one) / Math.max(1, one.usable_bytes)), kind: "num" },
];

function wasted(one: Waste): number {
    return Math.max(0, one.usable_bytes - one.requested_bytes);
}

export function DistributionsPanel() {
    const answer = useQuery("distributions", {}, { every: 2000 });
    return <div class="distributions"><Answered answer={answer.value}>{(found) => <Shown found={found} />}</Answered></div>;
}

function Shown({ found }: { found: Distributions }) {
    const what = useSignal<"bytes" | "blocks">("bytes");
    const of = useSignal<"thread" | "call site">("thread");
    const sizes = found.sizes.map((one) => bytes(one).replace(".0", ""));
    const threads = found.threads.map((one) => (one === 0 ? "others" : `thread ${one}`));
    const by = {
        thread: { rows: threads, bytes: found.live_bytes, blocks: found.live_blocks },
        "call site": { rows: found.sites.map(siteName), bytes: found.site_bytes, blocks: found.site_blocks },
    }[of.value];
    const worst = [...found.waste].sort((a, b) => wasted(b) - wasted(a));
    return (
        <>
            <section>
                <div class="bar-line">
                    <h2>Live blocks by {of.value} and size</h2>
                    <div class="segments" role="group" aria-label="Rows">
                        {(["thread", "call site"] as const).map((one) => <button type="button" key={one} aria-pressed={of.value === one ? "true" : "false"} onClick={() => { of.value = one; }}>{one}</button>)}
                    </div>
                    <div class="segments" role="group" aria-label="By">
                        {(["bytes", "blocks"] as const).map((one) => <button type="button" key={one} aria-pressed={what.value === one ? "true" : "false"} onClick={() => { what.value = one; }}>{one}</button>)}
                    </div>
                </div>
                {threads.length === 0 ? <p class="empty">No live blocks.</p> : (
                    <Matrix label={`Live blocks by ${of.value} and size`} rows={by.rows} columns={sizes} values={by[what.value]} show={what.value === "bytes" ? bytes : brief} />
                )}
            </section>
            <section>
                <h2>How long freed blocks had lived</h2>
                {found.lifetimes.threads.length === 0 ? <p class="empty">Nothing was freed.</p> : (
                    <Matrix label="Lifetimes by thread" rows={found.lifetimes.threads.map((one) => (one === 0 ? "others" : `thread ${one}`))} columns={found.lifetimes.bounds_ns.map(duration)} values={found.lifetimes.freed} show={brief} />
                )}
            </section>
            <section>
                <h2>Waste inside size classes</h2>
                <Table label="Waste inside size classes" columns={WASTE} rows={worst} id={(one) => String(one.size)} most={60} />
            </section>
        </>
    );
}
