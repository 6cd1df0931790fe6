// What the page reads from people, and what it says to them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { advice, findings } from "../src/explain/findings";
import { GLOSSARY } from "../src/explain/glossary";
import { METRICS, shown } from "../src/explain/metrics";
import { isRestricted, parseFilter } from "../src/panels/events/filter";
import { most, strength, used } from "../src/panels/matrix-scale";
import { commandFor, COMMANDS, keyName, matching } from "../src/store/commands";
import type { Blame, Blamed, Ledger, ProcessReport } from "../src/store/documents";
import { moment, places } from "../src/store/places";

const MIB = 1 << 20;
const owner: Blamed = {
    site: "lib+0x1", kind: "program", function: "keep_one", file: "a.c", line: 3, address: 1, module: "/lib", offset: 1,
    live_bytes: 1.4 * MIB, live_blocks: 2400, stranded_bytes: 9.5 * MIB, release_bytes: 10.9 * MIB, joins_top_bytes: 0, pin_amplification: 8,
};
const blame: Blame = {
    by: "site", at_ns: 1, source: "walk", trim_yield_bytes: 153.7 * MIB, stuck_bytes: 9.8 * MIB, kept_tops_bytes: 0, pages_by_owners: [],
    sites: [owner], order: [], limits: [],
};
const ledger: Ledger = {
    at_ns: 1, source: "walk", rss: 200 * MIB, free_pages: 150 * MIB, requested: 10 * MIB, rounding: MIB / 2, rounding_header: 0, rounding_padding: 0,
    cached: 0, free_in_pages: 10 * MIB, metadata: 0, untracked: 0, not_malloc: 29.5 * MIB, not_malloc_files: 0, not_malloc_stacks: 0,
    not_malloc_anonymous: 0, not_malloc_other: 0, not_malloc_memfrag: 0, unexplained: 0, untouched: 0,
};
function report(change: Partial<ProcessReport> = {}): ProcessReport {
    return {
        pid: 1, comm: "x", exit: null, threads: 1, totals: { allocations: 0, frees: 0, reallocations: 0, requested_bytes: 0, freed_bytes: 0 },
        older: { blocks: 0, bytes: 0 }, older_unknown: false, walked_at_ns: null, damaged_at_ns: null, peak: { at_ns: 0, live_blocks: 0, requested_bytes: 0 },
        end: { live_blocks: 1, requested_bytes: 10 * MIB, rss_bytes: 200 * MIB, rss_anon_bytes: null, rss_at_ns: null, ledger, metrics: {} },
        allocator: { name: "glibc", version: "2.36", path: "" }, anomalies: {}, blame, mapped: { mapped_bytes: 0, unmapped_bytes: 0, brk_growth_bytes: 0 }, ...change,
    };
}

test("the first finding is what could be returned, the second who is in the way", () => {
    const [first, second] = findings(report(), null);
    assert.equal(`${first!.amount} ${first!.text}`, "153.7 MiB could be returned now by malloc_trim.");
    assert.equal(`${second!.amount} ${second!.text}`, "9.8 MiB more are free, but pinned by live blocks, most of it by keep_one.");
    assert.equal(second!.owner, owner);
});

test("where trimming would not help it is said, and nobody is blamed for nothing", () => {
    const [first, ...others] = findings(report({ blame: { ...blame, trim_yield_bytes: 0, stuck_bytes: 100 } }), null);
    assert.equal(first!.tone, "fine");
    assert.ok(others.every((one) => one.owner === null));
});

test("who is in the way is who has most free memory around its blocks, not who would release most", () => {
    const shared = { ...owner, release_bytes: 8 * MIB, stranded_bytes: 0, function: "one_large" };
    const [a, b] = [{ ...owner, function: "values", stranded_bytes: 5 * MIB, release_bytes: 0 }, { ...owner, function: "keys", stranded_bytes: 4 * MIB, release_bytes: 0 }];
    const [, both] = findings(report({ blame: { ...blame, sites: [shared, b, a] } }), null);
    assert.match(both!.text, /, 51.0 % by values, 40.8 % by keys\.$/);
    assert.equal(both!.owner, a);
    const [, tops] = findings(report({ blame: { ...blame, kept_tops_bytes: 4.9 * MIB, sites: [shared] } }), null);
    assert.match(tops!.text, /no call site by more than 5 % of it; 50.0 % are the ends of arenas/);
    assert.equal(tops!.owner, null);
});

test("malloc_trim is spoken of only where the allocator has it, and of a process that is gone in another way", () => {
    const words = (change: Partial<ProcessReport>) => { const [first] = findings(report(change), null); return `${first!.text} ${first!.next}`; };
    assert.match(words({}), /by malloc_trim\. Try it: memfrag trim/);
    assert.match(words({ exit: { at_ns: 1, code: 0, signal: null } }), /When it runs again/);
    const other = words({ allocator: { name: "jemalloc", version: null, path: "" } });
    assert.match(other, /dirty_decay_ms/);
    assert.doesNotMatch(other, /malloc_trim|memfrag trim/);
});

test("what memfrag has in the process is not held against it", () => {
    const words = (not_malloc_memfrag: number) => {
        const counted = { ...ledger, rss: 100 * MIB, not_malloc: 80 * MIB, not_malloc_memfrag };
        return findings(report({ end: { ...report().end, ledger: counted } }), null).map((one) => `${one.amount} ${one.text}`).join("\n");
    };
    assert.match(words(0), /80.0 % of resident memory is not malloc's/);
    assert.match(words(20 * MIB), /75.0 % of resident memory is not malloc's/);
    assert.doesNotMatch(words(70 * MIB), /not malloc's/);
});

test("pages that older blocks may hold are not said to be free", () => {
    const [first] = findings(report({ older_unknown: true, allocator: { name: "jemalloc", version: null, path: "" } }), null);
    assert.equal(first!.tone, "caution");
    assert.doesNotMatch(`${first!.text} ${first!.next}`, /could return|dirty_decay_ms/);
    assert.match(first!.next, /from its start/);
});

test("damage, and an allocator that is not understood, are findings of their own", () => {
    const found = findings(report({ damaged_at_ns: 5, allocator: { name: "jemalloc", version: null, path: "" } }), null);
    assert.deepEqual(found.filter((one) => one.tone === "caution").map((one) => one.amount), ["jemalloc", "Events are missing"]);
});

test("advice depends on whose the blocks are and on what freeing them would bring", () => {
    assert.match(advice(owner), /2.400 blocks \(1\.4 MiB\).*return 10\.9 MiB, 8\.0× what they hold/);
    assert.match(advice({ ...owner, live_bytes: 10.9 * MIB, stranded_bytes: MIB, pin_amplification: 1 }), /simply memory in use/);
    assert.match(advice({ ...owner, release_bytes: 0 }), /alone would return nothing: others/);
    assert.match(advice({ ...owner, release_bytes: -150 * MIB, joins_top_bytes: 160 * MIB }), /ends of arenas free, 160\.0 MiB/);
    assert.match(advice({ ...owner, live_bytes: 30 * MIB, release_bytes: 39 * MIB, pin_amplification: 1.3 }), /moving them together/);
    assert.match(advice({ ...owner, kind: "untracked" }), /older than the trace/);
});

test("every measure of a report is either shown or named as unknown", () => {
    const { known, unknown } = shown({ overhead_ratio: 28.3, split_allocations: 0, top_ratio: null });
    assert.deepEqual(known.map((one) => one.text), ["28.3×", "0"]);
    assert.equal(known.length + unknown.length, METRICS.length);
    for (const entry of [...Object.values(GLOSSARY), ...METRICS]) assert.ok(entry.what.length > 10 && entry.formula.length > 3, entry.name);
});

test("what is typed into go-to is told apart", () => {
    assert.deepEqual(places("0x7F00_1000"), [{ kind: "address", address: "0x7f001000" }]);
    assert.deepEqual(places("1.5 s"), [{ kind: "moment", ns: 1.5e9 }]);
    assert.deepEqual(places("#12"), [{ kind: "event", n: 12 }]);
    assert.deepEqual(places("123456").map((one) => one.kind), ["event", "address"]);
    assert.deepEqual(places("malloc"), [{ kind: "site", text: "malloc" }]);
    assert.deepEqual(places("  "), []);
    assert.equal(moment("1:02:03.5"), 3723.5e9);
    assert.equal(moment("12"), null);
});

test("filters of events narrow word by word, and say what they do not know", () => {
    assert.deepEqual(parseFilter("malloc op:free calloc 0x10 pid:7 ?! toString"), { ops: ["alloc", "free"], address: "0x10", pid: 7, unknown: ["?!", "toString"] });
    assert.deepEqual(parseFilter("realloc").ops, ["realloc_begin", "realloc"]);
    assert.equal(isRestricted(parseFilter("  ")), false);
});

test("keys are found by what they say, whatever made them", () => {
    const press = (key: string, more = {}) => ({ key, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...more });
    assert.equal(keyName(press("K", { ctrlKey: true, shiftKey: false })), "Ctrl+k");
    assert.equal(commandFor(press("?", { shiftKey: true }))?.name, "Keyboard and words");
    assert.equal(commandFor(press("S", { shiftKey: true }))?.name, "Stop");
    assert.equal(commandFor(press("t", { ctrlKey: true })), null, "the browser's own keys stay its own");
    const keys = COMMANDS.flatMap((one) => one.keys);
    assert.equal(new Set(keys).size, keys.length, "no key does two things");
    assert.deepEqual(matching("THEME light").map((one) => one.name), ["Light theme"]);
});

test("heat maps tell a little from nothing, and leave out empty ends", () => {
    assert.equal(strength(0, 100), 0);
    assert.ok(strength(1, 1e9) > 0.05);
    assert.equal(strength(100, 100), 1);
    assert.deepEqual(used([[0, 0, 1, 0], [0, 2, 0, 0]], 4), { from: 1, to: 3 });
    assert.deepEqual(used([[0, 0]], 2), { from: 0, to: 2 });
    assert.equal(most([[1, 5], [3]]), 5);
});
