// The dashboard on a real recording, served by the real server, in a real browser.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { at, bytesOf, digest, open, panel, ready, settled } from "./browser.mjs";
import { python, record, remedies, report, serve } from "./memfrag.mjs";
import { burst, chrome, files, main, server, skip } from "./setting.mjs";

const MS = 1e6;
const say = (ns) => `${Math.floor(ns / 1e9)}.${String(Math.round(ns / MS) % 1000).padStart(3, "0")} s`;

/** Four seconds in which blocks come and go, each of them malloc's. */
const STEADY = python("-c", `
import time, collections
kept = collections.deque(maxlen=400)
for n in range(400):
    for k in range(20): kept.append(bytearray(1000 + 40 * k + n))
    time.sleep(0.01)
`);

test("it connects, and the token leaves the address bar", { skip }, async () => {
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    await settled(page);
    assert.doesNotMatch(page.url(), /token/);
    assert.match(await page.title(), /^python3\S* \d+ · memfrag$/);
    assert.equal(await page.locator(".badge").first().textContent(), "ENDED");
    assert.match(await page.locator(".banners").textContent(), /has ended/);
    const html = await page.content();
    assert.ok(!html.includes(server.token), "the token stands in the page");
    await page.reload();
    await ready(page);
    await close();
});

test("statistics are those of memfrag report, to the byte, at any moment", { skip }, async () => {
    for (const share of [0.35, 0.6, 0.8]) {
        const ns = Math.round((report(burst).recording.duration_ns * share) / MS) * MS;
        const expected = main(report(burst, ns));
        const { page, close } = await open(chrome, server.url, { look: `t=${ns}` });
        await at(page, say(ns));
        await settled(page);
        assert.equal(await bytesOf(page, "Live"), expected.end.requested_bytes, `live at ${ns}`);
        assert.equal(await bytesOf(page, "Peak live"), expected.peak.requested_bytes);
        assert.equal(await bytesOf(page, "Allocated"), expected.totals.requested_bytes);
        const { ledger } = expected.end;
        if (ledger) {
            const cell = page.locator(".ledger tr", { hasText: "Free pages" }).locator(".num[title]").first();
            assert.equal(await cell.getAttribute("title"), `${ledger.free_pages} B`);
        }
        await close();
    }
});

test("what could be returned, and who is in the way, stand on top", { skip }, async () => {
    // At its end a program has freed all; so at the last look before.
    const ns = Math.floor(main(report(burst)).end.ledger.at_ns / MS) * MS - 50 * MS;
    const expected = main(report(burst, ns));
    const { page, close } = await open(chrome, server.url, { look: `t=${ns}` });
    await at(page, say(ns));
    await settled(page);
    const [first, second] = await page.locator(".finding > p:first-child").allTextContents();
    const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    assert.equal(first, `${mib(expected.blame.trim_yield_bytes)} could be returned now by malloc_trim.`);
    assert.ok(second.startsWith(`${mib(expected.blame.stuck_bytes)} more are free, but pinned by live blocks, `), second);
    const [owner] = expected.blame.sites.filter((one) => one.kind === "program").sort((a, b) => b.stranded_bytes - a.stranded_bytes);
    assert.ok(second.includes(owner.function ?? owner.site), `${second} does not name ${owner.function ?? owner.site}`);
    await page.getByRole("button", { name: "Show its blocks" }).first().click();
    await page.locator(".detail").waitFor();
    assert.match(await page.locator(".detail .advice").textContent(), /would return/);
    await page.locator(".detail tbody tr").first().click();
    await page.locator(".inspector .card h3", { hasText: "Block of" }).waitFor();
    await close();
});

test("what would be resident instead is what memfrag remedies foretells", { skip }, async () => {
    const ns = Math.floor(main(report(burst)).end.ledger.at_ns / MS) * MS - 50 * MS;
    const expected = remedies(burst, ns).remedies.filter((one) => ["none", "trim", "restart", "compaction"].includes(one.kind));
    const { page, close } = await open(chrome, server.url, { look: `t=${ns}` });
    await at(page, say(ns));
    await settled(page);
    await page.locator(".remedies").waitFor();
    const shown = await page.locator(".remedies tbody tr").evaluateAll((rows) => rows.map((row) => [row.querySelector("th").textContent, row.querySelector(".num").title]));
    assert.deepEqual(shown, expected.map((one) => [one.kind === "none" ? "now" : one.name, `${one.predicted_bytes} B`]));
    assert.equal(shown.length, 4);
    await page.locator(".remedies").getByRole("button", { name: "Compare" }).click();
    await page.locator("#panel.compare").waitFor();
    await close();
});

test("a brush over the timeline tells what grew, to the byte", { skip }, async () => {
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    const plot = await page.locator(".chart.bytes .u-over").boundingBox();
    const y = plot.y + plot.height / 2;
    await page.mouse.move(plot.x + plot.width * 0.3, y);
    await page.mouse.down();
    await page.mouse.move(plot.x + plot.width * 0.55, y, { steps: 6 });
    await page.mouse.up();
    await page.locator(".panel.range .numbers").waitFor();
    await page.waitForFunction(() => location.hash.includes("range="));
    const [from, to] = /range=(\d+)-(\d+)/.exec(page.url()).slice(1).map(Number);
    const [begin, end] = [main(report(burst, from)), main(report(burst, to))];
    const change = (await bytesOf(page, "Grown")) - (await bytesOf(page, "Freed"));
    assert.equal(change, end.end.requested_bytes - begin.end.requested_bytes);
    assert.ok((await page.locator(".panel.range .list tbody tr").count()) > 1);
    await page.getByRole("button", { name: "Clear" }).click();
    assert.match(await page.locator(".panel.range .empty").textContent(), /No range/);
    await close();
});

test("all panels tell of the same live bytes", { skip }, async () => {
    const duration = report(burst).recording.duration_ns;
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    for (const share of [0.42, 0.55, 0.71]) {
        await panel(page, "Overview");
        const plot = await page.locator(".chart.bytes .u-over").boundingBox();
        await page.mouse.click(plot.x + plot.width * share, plot.y + 20);
        await page.waitForFunction(() => document.querySelector(".badge")?.textContent === "PAUSED");
        await page.waitForFunction(() => /[#&]t=\d/.test(location.hash));
        await page.waitForTimeout(300);
        await settled(page);
        const ns = Number(/[#&]t=(\d+)/.exec(page.url())[1]);
        assert.ok(Math.abs(ns / duration - share) < 0.02, `${ns} of ${duration} is not ${share}`);
        const live = await bytesOf(page, "Live");
        assert.equal(live, main(report(burst, ns)).end.requested_bytes);
        // What is written beside the chart is of the cursor, not of the end.
        await page.mouse.move(5, 5);
        const beside = Number(/^([\d.]+) s/.exec(await page.locator(".readout .mono").textContent())[1]);
        assert.ok(Math.abs(beside - ns / 1e9) < (duration / 1e9) * 0.01, `${beside} s beside the chart, the cursor at ${ns} ns`);
        await panel(page, "Flame");
        const root = await page.locator(".crumbs .link").first().textContent();
        await panel(page, "Sizes");
        await page.locator(".matrix canvas").first().waitFor();
        await page.getByRole("button", { name: "call site", exact: true }).click();
        const bySite = page.locator('.matrix canvas[aria-label^="Live blocks by call site and size: "]');
        const rows = Number(/ (\d+) rows/.exec(await bySite.getAttribute("aria-label"))[1]);
        // Those that hold most, and one row for all others.
        assert.ok(rows > 1 && rows <= 25, `${rows} call sites`);
        await panel(page, "Overview");
        const shown = await page.locator(".numbers dd").first().textContent();
        assert.equal(root, `all, ${shown}`);
    }
    await close();
});

test("replay at four times the speed takes a quarter of the time", { skip }, async () => {
    const steady = record(files.file("steady.mfrag"), STEADY);
    const other = await serve(steady);
    const { page, close } = await open(chrome, other.url);
    await ready(page);
    await settled(page);
    const duration = report(steady).recording.duration_ns;
    await page.locator(".seek").evaluate((seek) => {
        seek.value = "0";
        seek.dispatchEvent(new Event("input", { bubbles: true }));
    });
    await at(page, "0.000 s");
    const took = await page.evaluate(() => new Promise((done) => {
        const button = [...document.querySelectorAll(".transport button")].find((one) => one.textContent === "4×");
        const badge = () => document.querySelector(".badge").textContent;
        const begun = performance.now();
        let played = false;
        button.click();
        const timer = setInterval(() => {
            played ||= badge().startsWith("REPLAY");
            if (!played || badge().startsWith("REPLAY")) return;
            clearInterval(timer);
            done(performance.now() - begun);
        }, 5);
    }));
    const wanted = duration / 4 / MS;
    // The end is told with the next status, at most a quarter of a second later.
    assert.ok(took > wanted * 0.9 && took < wanted * 1.1 + 300, `${took} ms for ${wanted} ms`);
    await close();
    await other.stop();
});

test("stepping goes event by event, both ways", { skip }, async () => {
    const { page, close } = await open(chrome, server.url, { look: "t=400000000" });
    await at(page, "0.400 s");
    await settled(page);
    const before = await digest(page);
    for (let n = 0; n < 6; n += 1) await page.getByRole("button", { name: "Step forward" }).click();
    await page.waitForFunction((old) => document.querySelector(".as-of .mono")?.textContent !== old, before);
    for (let n = 0; n < 6; n += 1) await page.getByRole("button", { name: "Step back" }).click();
    await page.waitForFunction((old) => document.querySelector(".as-of .mono")?.textContent === old, before);
    await close();
});

test("an export holds everything, and its import is the same heap", { skip }, async () => {
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    await settled(page);
    const original = await digest(page);
    await page.keyboard.press("e");
    assert.match(await page.locator("dialog").textContent(), /reveals addresses.*paths.*names of functions.*redact it/s);
    const waiting = page.waitForEvent("download");
    await page.locator("dialog .primary").click();
    const saved = files.file("exported.mfrag");
    await (await waiting).saveAs(saved);
    assert.deepEqual(readFileSync(saved), readFileSync(burst));
    await page.keyboard.press("i");
    await page.locator('dialog input[type="file"]').setInputFiles(saved);
    await page.locator("dialog .primary").click();
    await page.waitForFunction(() => /source=[1-9]/.test(location.hash));
    await ready(page);
    await settled(page);
    assert.equal(await digest(page), original);
    await close();
});

test("a redacted export is the same heap elsewhere, and names nothing", { skip }, async () => {
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    await settled(page);
    await page.keyboard.press("e");
    await page.getByRole("checkbox", { name: /Redact it/ }).check();
    assert.match(await page.locator("dialog .caution").textContent(), /Addresses are moved.*Paths are left out/s);
    const waiting = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save redacted.mfrag" }).click();
    const saved = files.file("redacted.mfrag");
    await (await waiting).saveAs(saved);
    await close();
    const [before, after] = [report(burst), report(saved)];
    const [own, others] = [before.processes[0], after.processes[0]];
    assert.deepEqual(others.end.metrics, own.end.metrics);
    assert.deepEqual(others.end.ledger, own.end.ledger);
    assert.deepEqual(others.peak, own.peak);
    assert.equal(others.comm, "program-1");
    assert.match(JSON.stringify(before), /burst\.py/);
    assert.doesNotMatch(JSON.stringify({ ...after, recording: null }), /burst|python|\/home|\/tmp/);
});

test("an imported recording can be removed, and who watches it is back at the first", { skip }, async () => {
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    await page.keyboard.press("i");
    await page.locator('dialog input[type="file"]').setInputFiles(burst);
    await page.locator("dialog .primary").click();
    await page.waitForFunction(() => /source=[1-9]/.test(location.hash));
    const source = /source=(\d+)/.exec(page.url())[1];
    await ready(page);
    await settled(page);
    await page.keyboard.press("p");
    const remove = page.locator("dialog section h3 button.small");
    const before = await remove.count();
    await page.locator("dialog section", { has: page.locator("h3 .chosen") }).getByRole("button", { name: /^Remove / }).click();
    await page.waitForFunction((many) => document.querySelectorAll("dialog section h3 button.small").length === many, before - 1);
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => location.hash.includes("source=0"));
    await settled(page);
    assert.equal(await digest(page), await digestOfFirst());
    const headers = { Authorization: `Bearer ${server.token}` };
    assert.equal((await fetch(`${server.origin}/api/recording?source=${source}`, { headers })).status, 404);
    await close();
});

/** State of the heap at the end of the first recording, as a page of its own shows it. */
async function digestOfFirst() {
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    await settled(page);
    const state = await digest(page);
    await close();
    return state;
}

test("what is no recording is refused with a word, and nothing changes", { skip }, async () => {
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    const broken = files.file("broken.mfrag");
    writeFileSync(broken, "MFRG but not really".repeat(100));
    await page.keyboard.press("i");
    await page.locator('dialog input[type="file"]').setInputFiles(broken);
    await page.locator("dialog .primary").click();
    await page.locator(".top .icon.warn").click();
    assert.match(await page.locator("dialog .notes").textContent(), /Import failed: \S/);
    await close([/status of 4\d\d/]);
});

test("a permalink brings back what was looked at", { skip }, async () => {
    const look = "t=500000000&tab=blame&by=thread&a=100000000&b=600000000&range=200000000-700000000";
    const { page, close } = await open(chrome, server.url, { look });
    await at(page, "0.500 s");
    await page.waitForFunction(() => /source=0&.*t=500000000&/.test(location.hash));
    const link = page.url();
    await close();
    const token = new URL(server.url).hash;
    const again = await open(chrome, `${server.origin}/${token}`, { look: new URL(link).hash.slice(1) });
    await at(again.page, "0.500 s");
    await again.page.waitForFunction((hash) => location.hash === hash, new URL(link).hash);
    assert.equal(await again.page.locator('[role="tab"][aria-selected="true"]').textContent(), "Blame");
    assert.equal(await again.page.locator('.segments [aria-pressed="true"]').first().textContent(), "thread");
    assert.equal(await again.page.locator(".pin-set").count(), 2);
    await again.close();
});

test("the event table reaches every event with few rows", { skip }, async () => {
    const { page, close } = await open(chrome, server.url, { look: "tab=events" });
    await ready(page);
    await page.locator(".event-window .event").first().waitFor();
    const total = Number((await page.locator(".panel.events > div > .fineprint").textContent()).split(" events")[0].replace(/\D/g, ""));
    await page.locator(".event-scroll").focus();
    await page.keyboard.press("End");
    const number = (text) => Number(text.replace(/\D/g, ""));
    await page.waitForFunction((last) => Number([...document.querySelectorAll(".event-window .event span:first-child")].at(-1)?.textContent.replace(/\D/g, "")) === last, total - 1);
    assert.ok((await page.locator(".event-window .event").count()) < 100);
    await page.keyboard.press("Home");
    await page.waitForFunction(() => document.querySelector(".event-window .event span")?.textContent === "0");
    await page.getByLabel("Filter events").fill("free");
    await page.waitForFunction(() => [...document.querySelectorAll(".event-window .op")].length > 0 && [...document.querySelectorAll(".event-window .op")].every((one) => one.textContent === "free"));
    assert.ok(number(await page.locator(".event-window .event span").first().textContent()) > 0);
    await close();
});

test("two moments are compared with signs", { skip }, async () => {
    // When most was live, and when the burst is over, however fast it came.
    const whole = report(burst);
    const [a, b] = [main(whole).peak.at_ns, Math.round(whole.recording.duration_ns * 0.9)];
    const { page, close } = await open(chrome, server.url, { look: `tab=compare&a=${a}&b=${b}` });
    await page.locator(".facts").waitFor();
    const change = main(report(burst, b)).end.live_blocks - main(report(burst, a)).end.live_blocks;
    const text = await page.locator(".facts tr", { hasText: "Live blocks" }).locator("td").last().textContent();
    assert.equal(Number(text.replace(/[^\d−]/g, "").replace("−", "-")), change);
    assert.match(text, change > 0 ? /▲ \+/ : /▼ −/);
    await page.getByRole("button", { name: "Swap" }).click();
    await page.waitForFunction((sign) => document.querySelectorAll(".facts tr")[2]?.lastElementChild?.textContent.startsWith(sign), change > 0 ? "▼" : "▲");
    await close();
});

test("names from outside are shown as text", { skip }, async () => {
    const name = "<img src=x onerror=document.title='owned'>";
    const hostile = record(files.file("hostile.mfrag"), python("-c", "x=[bytearray(9999) for _ in range(99)]", name));
    const other = await serve(hostile);
    const { page, close } = await open(chrome, other.url);
    await ready(page);
    await page.keyboard.press("p");
    assert.ok((await page.locator("dialog").textContent()).includes(name));
    assert.equal(await page.locator("img").count(), 0);
    assert.doesNotMatch(await page.title(), /owned/);
    await close();
    await other.stop();
});
