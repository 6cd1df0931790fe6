// Another policy beside the heap, against what the verb tells of the same moment.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { at, open, ready } from "./browser.mjs";
import { MEMFRAG, python, report, serve, served } from "./memfrag.mjs";
import { burst, chrome, files, main, server, skip } from "./setting.mjs";

const MS = 1e6;
const say = (ns) => `${Math.floor(ns / 1e9)}.${String(Math.round(ns / MS) % 1000).padStart(3, "0")} s`;

/** What `memfrag model` makes of a policy until a moment. */
function outcome(policy, ns, file = burst) {
    const words = ["model", "--json", "--policy", policy, "--pid", String(main(report(file)).pid), ...(ns === undefined ? [] : ["--at", `${ns}ns`]), file];
    const document = JSON.parse(execFileSync(MEMFRAG, words, { maxBuffer: 1 << 26 }).toString());
    return { ...document.policies[0], live_blocks: document.live_blocks };
}

/** Waits until the model is at a moment, and gives the exact figures of the table by row: of the heap and of the model. */
async function figures(page, ns) {
    await page.waitForFunction((wanted) => {
        const line = document.querySelector(".as-of-model");
        return line?.dataset.behind === "0" && line.textContent.startsWith(`Both as of ${wanted}`);
    }, say(ns));
    const rows = await page.locator(".facts tbody tr").evaluateAll((all) => all.map((row) => [
        row.querySelector("th").textContent,
        ...[...row.querySelectorAll("td[title]")].map((cell) => (cell.title === "not known" ? null : Number(cell.title.replace(" B", "")))),
    ]));
    return Object.fromEntries(rows.map(([name, real, model]) => [name, { real, model }]));
}

function check(shown, expected) {
    assert.equal(shown["Live"].model, expected.requested_bytes);
    assert.equal(shown["Live blocks"].model, expected.live_blocks);
    assert.equal(shown["Taken by blocks"].model, expected.taken_bytes);
    assert.equal(shown["Footprint"].model, expected.final_footprint_bytes);
    assert.equal(shown["Peak footprint"].model, expected.peak_footprint_bytes);
    assert.equal(shown["Internal fragmentation"].model, expected.internal_fragmentation);
    assert.equal(shown["External fragmentation"].model, expected.external_fragmentation);
    assert.equal(shown["Free pieces"].model, expected.holes);
    assert.equal(shown["Largest hole"].model, expected.largest_hole_bytes);
    assert.equal(shown["Failed requests"].model, expected.failed);
    assert.equal(shown["Growths"].model, expected.growths);
    assert.equal(shown["Avoidable growths"].model, expected.avoidable_growths);
    assert.equal(shown["Foretold"].model, expected.agreement ?? null);
}

test("a policy beside the heap tells what memfrag model tells, at any moment", { skip }, async () => {
    const duration = report(burst).recording.duration_ns;
    const ns = Math.round((duration * 0.6) / MS) * MS;
    const { page, close } = await open(chrome, server.url, { look: `t=${ns}&tab=compare` });
    await at(page, say(ns));
    const choice = page.getByLabel("Compare with");
    await choice.selectOption("first-fit");
    const first = await figures(page, ns);
    check(first, outcome("first-fit", ns));
    const heap = main(report(burst, ns));
    assert.equal(first["Live"].real, heap.end.requested_bytes);
    assert.equal(first["Live blocks"].real, heap.end.live_blocks);
    assert.equal(first["Foretold"].model, null);
    await choice.selectOption("ptmalloc");
    await page.waitForFunction(() => document.querySelector(".facts thead")?.textContent.includes("ptmalloc"));
    const glibc = await figures(page, ns);
    check(glibc, outcome("ptmalloc", ns));
    assert.ok(glibc["Foretold"].model > 0.9, `${glibc["Foretold"].model} of the addresses foretold`);
    // Back in time, and to the end.
    const early = Math.round((duration * 0.3) / MS) * MS;
    await page.locator(".seek").evaluate((seek, to) => {
        seek.value = String(to);
        seek.dispatchEvent(new Event("input", { bubbles: true }));
    }, early);
    await page.waitForFunction(() => document.querySelector(".badge")?.textContent === "PAUSED");
    await page.waitForFunction((before) => /[#&]t=(\d+)/.exec(location.hash)?.[1] !== String(before), ns);
    const there = Number(/[#&]t=(\d+)/.exec(page.url())[1]);
    check(await figures(page, there), outcome("ptmalloc", there));
    await page.keyboard.press("Shift+S");
    await page.waitForFunction(() => document.querySelector(".badge")?.textContent === "ENDED");
    check(await figures(page, duration), outcome("ptmalloc"));
    await close();
});

test("both maps have cells of one size, as many as their footprints take", { skip }, async () => {
    const ns = Math.round((report(burst).recording.duration_ns * 0.8) / MS) * MS;
    const { page, close } = await open(chrome, server.url, { look: `t=${ns}&tab=compare&beside=buddy` });
    await at(page, say(ns));
    const shown = await figures(page, ns);
    const [real, model] = await page.locator(".grid-pair canvas").evaluateAll((all) => all.map((canvas) => {
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let drawn = 0;
        for (let n = 3; n < pixels.length; n += 4) drawn += pixels[n] === 255 ? 1 : 0;
        return { cells: Number(canvas.dataset.cells), drawn, label: canvas.getAttribute("aria-label") };
    }));
    for (const side of [real, model]) assert.equal(side.drawn, side.cells);
    assert.match(real.label, /^Real heap: [\d\s]+ cells, .* full, .* partly, .* without a live block$/);
    const cell = (await page.locator("#grids-title .muted").textContent()).match(/1 cell = ([\d.]+) (B|KiB|MiB)/);
    const bytes = Number(cell[1]) * { B: 1, KiB: 1 << 10, MiB: 1 << 20 }[cell[2]];
    assert.ok(model.cells * bytes >= shown["Footprint"].model && (model.cells - 8) * bytes < shown["Footprint"].model * 1.05, `${model.cells} cells of ${bytes} B for ${shown["Footprint"].model} B`);
    assert.ok(real.cells * bytes >= shown["Footprint"].real);
    await page.keyboard.press("t");
    await page.waitForFunction(() => document.documentElement.dataset.theme !== undefined);
    await close();
});

test("a model beside a program that runs goes along with it, and ends where the verb does", { skip }, async () => {
    const program = python("-c", "import time, collections\nkept=collections.deque(maxlen=300)\nfor n in range(500):\n    kept.append(bytearray(700 + n * 37 % 40000))\n    time.sleep(0.01)");
    const file = files.file("beside.mfrag");
    const live = await served(["trace", "--serve", "--backend", "preload", "-o", file, "--", ...program]);
    const { page, close } = await open(chrome, live.url, { look: "tab=compare&beside=best-fit" });
    await page.locator(".badge.live").waitFor();
    // It comes to the newest moment again and again.
    const seen = await page.evaluate(() => new Promise((done) => {
        const moments = new Set();
        const timer = setInterval(() => {
            const line = document.querySelector(".as-of-model[data-behind='0']");
            const moment = /^Both as of (\S+) s/.exec(line?.textContent ?? "");
            if (moment) moments.add(moment[1]);
            if (moments.size < 4) return;
            clearInterval(timer);
            done([...moments].map(Number));
        }, 20);
    }));
    assert.ok(seen.every((moment, n) => n === 0 || moment > seen[n - 1]), seen.join(" "));
    await page.locator(".banner", { hasText: "has ended" }).waitFor({ timeout: 60_000 });
    check(await figures(page, report(file).recording.duration_ns), outcome("best-fit", undefined, file));
    await close();
    await live.stop();
});

test("what blocks occupy of another allocator's heap is not known, and is not shown as nothing", { skip }, async () => {
    const file = files.file("jemalloc.mfrag");
    const words = ["trace", "--backend", "preload", "-q", "-o", file, "--", ...python("-c", "kept = [bytes(700) for n in range(20000)]")];
    execFileSync(MEMFRAG, words, { env: { ...process.env, PYTHONMALLOC: "malloc", LD_PRELOAD: "libjemalloc.so.2" } });
    const own = await serve(file);
    const { page, close } = await open(chrome, own.url, { look: "tab=compare&beside=slabs" });
    await page.locator(".as-of-model[data-behind='0']").waitFor();
    const shown = await page.locator(".facts tbody tr", { hasText: "Internal fragmentation" }).locator("td[title]").evaluateAll((all) => all.map((cell) => cell.title));
    assert.equal(main(report(file)).allocator.name, "jemalloc");
    assert.equal(shown[0], "not known");
    assert.ok(Number(shown[1]) > 0, shown[1]);
    await close();
    await own.stop();
});

test("the keyboard reaches a policy, and a link brings it back", { skip }, async () => {
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    await page.keyboard.press("b");
    await page.locator(".as-of-model[data-behind='0']").waitFor();
    await page.waitForFunction(() => /tab=compare.*beside=first-fit/.test(location.hash));
    const term = page.getByRole("button", { name: "Resident bound" });
    await term.focus();
    await page.keyboard.press("Enter");
    assert.match(await page.getByRole("dialog", { name: "Resident bound" }).textContent(), /pages that a live block touches/);
    await page.keyboard.press("Escape");
    await close();
    const again = await open(chrome, server.url, { look: "tab=compare&beside=lifetimes" });
    await again.page.locator(".as-of-model[data-behind='0']").waitFor();
    assert.equal(await again.page.getByLabel("Compare with").inputValue(), "lifetimes");
    check(await figures(again.page, report(burst).recording.duration_ns), outcome("lifetimes"));
    // What is no policy is refused with a word.
    await again.page.evaluate(() => { location.hash = "tab=compare&beside=no-such"; });
    await again.page.locator(".top .icon.warn").waitFor();
    await again.close();
});
