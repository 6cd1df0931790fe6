// The map of a real recording, drawn from what the real server sends.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browser, missing, open, ready, settled } from "./browser.mjs";
import { BURST, directory, MEMFRAG, record, report, serve } from "./memfrag.mjs";

const skip = missing ?? (MEMFRAG ? false : "memfrag is not built");
const RULER = 118;

let files;
let chrome;
let server;
let burst;
let moment;

before(async () => {
    if (skip) return console.error(`skipped: the map of a real recording, ${skip}`);
    files = directory();
    burst = record(files.file("burst.mfrag"), BURST);
    moment = Math.round(report(burst).recording.duration_ns * 0.8);
    server = await serve(burst);
    chrome = await browser();
}, { timeout: 120_000 });

after(async () => {
    await chrome?.close();
    await server?.stop();
    files?.clear();
});

/** A page at a moment, with its map drawn. */
async function onMap(ns = moment) {
    const opened = await open(chrome, server.url, { look: `t=${ns}` });
    await ready(opened.page);
    await settled(opened.page);
    await opened.page.waitForFunction(() => /cell = /.test(document.querySelector(".map-scale")?.textContent ?? ""));
    await drawn(opened.page);
    return opened;
}

/** How often each colour stands in the cells' part of the map, as seen on the screen. */
async function colours(page) {
    const box = await page.locator(".map-cells").boundingBox();
    const png = (await page.screenshot({ clip: box })).toString("base64");
    const pairs = await page.evaluate(async (data) => {
        const image = new Image();
        image.src = `data:image/png;base64,${data}`;
        await image.decode();
        const canvas = new OffscreenCanvas(image.width, image.height);
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const counts = new Map();
        for (const pixel of new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer)) {
            counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
        }
        return [...counts];
    }, png);
    return new Map(pairs);
}

/** Waits until the picture does not change any more. */
async function drawn(page) {
    let before = "";
    for (let n = 0; n < 40; n++) {
        await page.waitForTimeout(300);
        const now = JSON.stringify([...(await colours(page))].sort());
        if (now === before) return;
        before = now;
    }
    assert.fail("the map of a moment goes on changing");
}

test("the ranges hold all live blocks, and the picture many shades of them", { skip, timeout: 120_000 }, async () => {
    const { page, close } = await onMap();
    const shades = [...(await colours(page))].filter(([, count]) => count > 50);
    assert.ok(shades.length >= 4, `${shades.length} colours`);
    await page.getByRole("button", { name: "Table" }).click();
    const blocks = await page.locator(".map-tables table").first().locator("tbody tr td:nth-child(5)").allInnerTexts();
    const sum = blocks.reduce((total, text) => total + Number(text.replace(/\D/g, "")), 0);
    const expected = report(burst, moment).processes.find((one) => one.comm.startsWith("python3"));
    assert.equal(sum, expected.end.live_blocks);
    await close();
});

test("modes and layouts are other pictures of the same cells", { skip, timeout: 120_000 }, async () => {
    const { page, close } = await onMap();
    const pictures = new Set();
    for (const name of ["Occupancy", "Age", "Resident, empty", "Call site", "Size", "Hilbert"]) {
        await page.getByRole("radio", { name }).click();
        await drawn(page);
        const seen = await colours(page);
        assert.ok([...seen].filter(([, count]) => count > 50).length >= 2, `${name} is of one colour`);
        pictures.add(JSON.stringify([...seen].sort()));
    }
    assert.equal(pictures.size, 6);
    await close();
});

test("hovering names the block, a click opens it in the inspector, the wheel goes down to its bytes", { skip, timeout: 120_000 }, async () => {
    // While the burst lasts, most of the heap is live.
    const { page, close } = await onMap(Math.round(moment / 2));
    const box = await page.locator(".map-picture").boundingBox();
    const tip = page.locator(".map-tooltip");
    let text = "";
    for (let n = 0; n < 30 && !text.includes("Block of"); n++) {
        await page.mouse.move(box.x + RULER + 40 + 13 * n, box.y + 30 + 3 * n);
        await page.waitForTimeout(500);
        text = (await tip.count()) > 0 ? await tip.innerText() : "";
    }
    const [, address] = /Block of [^]* at (0x[0-9a-f]+)/.exec(text);
    await page.mouse.down();
    await page.mouse.up();
    await page.locator('[role="tab"][aria-selected="true"]', { hasText: "Inspector" }).waitFor();
    await page.locator("#panel", { hasText: address }).waitFor();
    for (let n = 0; n < 14; n++) {
        await page.mouse.wheel(0, -120);
        await page.waitForTimeout(80);
    }
    assert.match(await page.locator(".map-scale").innerText(), /cell = 16 B/);
    await drawn(page);
    await close();
});
