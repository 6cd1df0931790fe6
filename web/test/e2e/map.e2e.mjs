// The map of a real recording, drawn from what the real server sends.
import assert from "node:assert/strict";
import { test } from "node:test";
import { open, ready, settled } from "./browser.mjs";
import { report } from "./memfrag.mjs";
import { burst, chrome, main, server, skip } from "./setting.mjs";

const RULER = 118;

/** When the burst is over and its survivors are there. */
const late = () => Math.round(report(burst).recording.duration_ns * 0.8);

/** A page at a moment, with its map drawn. */
async function onMap(ns = late()) {
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

test("the picture has many shades of the live blocks", { skip, timeout: 120_000 }, async () => {
    const { page, close } = await onMap();
    const shades = [...(await colours(page))].filter(([, count]) => count > 50);
    assert.ok(shades.length >= 4, `${shades.length} colours`);
    await close();
});

test("the ranges hold all live blocks as soon as the cursor stands", { skip, timeout: 120_000 }, async () => {
    const document = report(burst);
    for (const moment of [main(document).peak.at_ns, late(), document.recording.duration_ns]) {
        const { page, close } = await open(chrome, server.url, { look: `t=${moment}` });
        await ready(page);
        await settled(page);
        await page.getByRole("button", { name: "Table" }).click();
        const blocks = await page.locator(".map-tables table").first().locator("tbody tr td:nth-child(5)").allInnerTexts();
        const sum = blocks.reduce((total, text) => total + Number(text.replace(/\D/g, "")), 0);
        assert.equal(sum, main(report(burst, moment)).end.live_blocks, `at ${moment} ns: ${blocks}`);
        await close();
    }
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

test("cividis is another look of the same cells, by button and key, and stays chosen", { skip, timeout: 120_000 }, async () => {
    const { page, close } = await onMap();
    const picture = async () => JSON.stringify([...(await colours(page))].sort());
    const plain = await picture();
    await page.getByRole("button", { name: "Cividis" }).click();
    await page.waitForTimeout(500);
    const cividis = await picture();
    assert.notEqual(cividis, plain);
    await page.reload();
    await ready(page);
    await settled(page);
    await page.locator('.map-cividis[aria-pressed="true"]').waitFor();
    await drawn(page);
    assert.equal(await picture(), cividis);
    await page.keyboard.press("v");
    await page.locator('.map-cividis[aria-pressed="false"]').waitFor();
    await drawn(page);
    assert.equal(await picture(), plain);
    await close();
});

test("hovering names the block, a click opens it in the inspector, the wheel goes down to its bytes", { skip, timeout: 120_000 }, async () => {
    // When most of the heap is live, however fast the burst came.
    const { page, close } = await onMap(main(report(burst)).peak.at_ns);
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
