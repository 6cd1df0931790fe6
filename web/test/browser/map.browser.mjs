// The map in Chromium, against the made-up server: what is drawn is what was sent, and the person's hands and keys do what they say.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { harness, missing, settled } from "./harness.mjs";
import { cellValue, frame } from "./synthetic.mjs";

const skip = missing ?? false;
if (skip) console.error(`skipped: the map in the browser, ${missing}`);
let stage;
before(async () => {
    if (!skip) stage = await harness();
});
after(() => stage?.end());

/** A test on a page of its own, which must not have complained. */
function onMap(name, query, run, options) {
    test(name, { skip }, async () => {
        const { page, errors, close } = await stage.open(query, options);
        try {
            await settled(page);
            await run(page);
            assert.deepEqual(errors, []);
        } finally {
            await close();
        }
    });
}

const RULER = 118;
const probe = (page, x, y) => page.evaluate(([x, y]) => window.map.client.probe(x, y), [x, y]);
const state = (page) =>
    page.evaluate(() => ({
        zoom: window.map.zoom.value,
        chosen: window.map.chosenZoom.value,
        scroll: window.map.scroll.value,
        selected: window.map.selected.value,
        cursor: window.map.cursor.value,
        level: window.map.geometry.value.level,
        height: window.map.frame.value.height,
    }));
const box = async (page) => {
    const { x, y, height, width } = await page.locator(".map-picture").boundingBox();
    return { x: x + RULER, y, height, width: width - RULER };
};
const lastView = () => stage.heap.log.filter((m) => m.type === "view").at(-1);

onMap("the socket names its protocol and its token, and asks for the tiles in view", "", async (page) => {
    assert.equal([...stage.heap.clients].at(-1).offered, "memfrag.v1, bearer.test-token");
    const view = lastView();
    assert.deepEqual([view.mode, view.level, view.hz], ["occupancy", 0, 30]);
    const tiles = view.tiles.flatMap(([first, count]) => Array.from({ length: count }, (_, n) => first + n));
    const seen = await page.evaluate(() => {
        const { geometry, scroll, frame } = window.map;
        return [...new Set(geometry.value.spots(scroll.value, frame.value.height).map((spot) => spot.tile))].sort((a, b) => a - b);
    });
    assert.deepEqual(tiles, seen);
});

for (const layout of ["linear", "hilbert"]) {
    onMap(`${layout}: cells have the values that were sent, and the colours of the legend`, `?mode=resident&layout=${layout}`, async (page) => {
        const { width } = await page.evaluate(() => window.map.frame.value);
        let cells = 0;
        for (const [x, y] of [[1, 1], [200, 40], [width / 2, 90], [500, 200], [640, 300], [300, 420]]) {
            const { cell, rgba, mode } = await probe(page, x, y);
            assert.equal(mode, "resident");
            if (cell === null) {
                assert.equal(rgba[3], 0);
                continue;
            }
            cells++;
            assert.equal(cell.value, cellValue("resident", cell.address, 4096, 0), `0x${cell.address.toString(16)}`);
            assert.equal(rgba[3], 255);
        }
        assert.ok(cells >= 4);
    });
}

onMap("every frame is acknowledged", "", async (page) => {
    await page.waitForTimeout(500);
    const [client] = [...stage.heap.clients].slice(-1);
    const [sent, acked] = [client.seq, client.acked];
    assert.ok(sent > 5 && sent - acked <= 2, `${acked} of ${sent}`);
});

onMap("another theme repaints from the cells at hand: nothing is asked", "?mode=resident", async (page) => {
    const views = stage.heap.log.length;
    const asked = () => stage.heap.log.slice(views).filter((m) => m.type === "view").length;
    const dark = (await probe(page, 200, 40)).rgba;
    await page.evaluate(() => (window.map.theme.value = "light"));
    await page.waitForTimeout(150);
    const light = (await probe(page, 200, 40)).rgba;
    assert.notDeepEqual(dark, light);
    await page.getByRole("radio", { name: "Hilbert" }).click();
    await page.waitForTimeout(150);
    assert.ok(asked() <= 1, "a layout shows the same tiles, bar those at the edge");
});

onMap("hovering tells address, value and block; a click pins and outlines the block", "", async (page) => {
    const { x, y } = await box(page);
    await page.mouse.move(x + 300, y + 30);
    const tip = page.locator(".map-tooltip");
    await tip.getByText("Block of").waitFor();
    const text = await tip.innerText();
    assert.match(text, /0x55d0[34]\w+/);
    assert.match(text, /4 KiB here: /);
    assert.match(text, /Block of 80 B \(88 B usable\)/);
    assert.match(text, /thread 4243/);
    await page.mouse.down();
    await page.mouse.up();
    await page.waitForFunction(() => window.map.marked.value !== null);
    const { selected } = await state(page);
    const marked = await page.evaluate(() => window.map.marked.value);
    assert.ok(Number(selected) >= marked.start && Number(selected) < marked.end + 16);
    assert.equal(marked.end - marked.start, 80);
    await page.mouse.move(x - 60, y + 30);
    await tip.waitFor({ state: "detached" });
});

onMap("the wheel zooms about the pointer, escape goes back, a double click fits", "", async (page) => {
    const { x, y } = await box(page);
    const [px, py] = [400, 300];
    await page.mouse.move(x + px, y + py);
    const start = await state(page);
    const address = (await probe(page, px, py)).cell.address;
    for (let n = 0; n < 8; n++) {
        await page.mouse.wheel(0, -120);
        await page.waitForTimeout(60);
    }
    await page.waitForTimeout(400);
    const near = await state(page);
    assert.equal(near.zoom, start.zoom + 8);
    assert.equal(near.level, -4);
    const rect = await page.evaluate((a) => window.map.geometry.value.cellRect(a), address);
    const away = rect.y - near.scroll - py;
    assert.ok(Math.abs(away) < 60, `the address is ${away} pixels away`);
    assert.equal(lastView().level, -4);
    const { cell } = await probe(page, 100, 200);
    assert.equal(cell.level, -4);
    assert.equal(cell.value, cellValue("occupancy", cell.address, 16, 0));
    await page.locator(".map-picture").focus();
    for (let n = 0; n < 8 && (await state(page)).chosen !== null; n++) await page.keyboard.press("Escape");
    assert.equal((await state(page)).chosen, null);
    await page.mouse.wheel(0, -120);
    await page.waitForTimeout(100);
    assert.equal((await state(page)).zoom, start.zoom + 1);
    await page.mouse.dblclick(x + px, y + py);
    assert.equal((await state(page)).chosen, null);
});

onMap("dragging pans, and pins nothing", "", async (page) => {
    const { x, y } = await box(page);
    await page.evaluate(() => window.map.zoomBy(4, 0, 0));
    await page.mouse.move(x + 300, y + 400);
    await page.mouse.down();
    await page.mouse.move(x + 310, y + 250, { steps: 5 });
    await page.mouse.up();
    const { scroll, selected } = await state(page);
    assert.ok(Math.abs(scroll - 150) <= 2, `${scroll}`);
    assert.equal(selected, null);
});

onMap("by keyboard alone: cells, words, zoom, pin", "", async (page) => {
    await page.locator(".map-picture").focus();
    await page.keyboard.press("ArrowRight");
    const first = (await state(page)).cursor;
    assert.equal(first, 0x55d03a400000);
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowDown");
    const row = await page.evaluate(() => window.map.geometry.value.scaleBytes.row);
    assert.equal((await state(page)).cursor, first + 4096 + row);
    const live = page.locator("[aria-live=polite]");
    await page.waitForFunction(() => /block of 80 B/.test(document.querySelector("[aria-live=polite]").textContent));
    assert.match(await live.textContent(), /^0x55d03a\w+, \[heap\], .+, block of 80 B from /);
    await page.keyboard.press("w");
    await page.keyboard.press("+");
    assert.notEqual((await state(page)).chosen, null);
    await page.keyboard.press("s");
    await page.keyboard.press("-");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => window.map.selected.value !== null);
    // Over the gap at the end of a range.
    await page.evaluate(() => (window.map.cursor.value = 0x55d040400000 - 4096));
    await page.keyboard.press("ArrowRight");
    assert.equal((await state(page)).cursor, 0x7f1020000000);
    assert.equal(await page.locator(".map-picture").getAttribute("role"), "img");
});

onMap("going to an address, also to one that is not in the heap", "", async (page) => {
    const field = page.getByLabel("Go to an address");
    await field.fill("0x7f1a15550000");
    await field.press("Enter");
    await page.waitForTimeout(300);
    const rect = await page.evaluate(() => window.map.geometry.value.cellRect(0x7f1a15550000));
    const { scroll, height, selected } = await state(page);
    assert.ok(Math.abs(rect.y - scroll - height / 2) < 40);
    assert.equal(selected, "0x7f1a15550000");
    await field.fill("0x1000");
    await field.press("Enter");
    assert.match(await page.getByRole("alert").innerText(), /Not in the heap; this is the nearest, 0x55d03a400000/);
    await field.fill("heap");
    await field.press("Enter");
    assert.match(await page.getByRole("alert").innerText(), /hexadecimal/);
});

onMap("a class of the legend lights up its cells and dims the others", "?mode=site", async (page) => {
    const cells = [];
    for (let x = 20; x < 900; x += 40) for (const y of [10, 60, 150, 300]) cells.push([x, y]);
    const before = await Promise.all(cells.map(([x, y]) => probe(page, x, y)));
    const value = before.find((p) => p.cell !== null && p.cell.value >= 2).cell.value;
    const label = await page.evaluate((v) => window.map.classes.value.find((c) => c.value === v).label, value);
    await page.getByRole("button", { name: label }).click();
    await page.waitForTimeout(150);
    const bright = ([r, g, b]) => 0.3 * r + 0.6 * g + 0.1 * b;
    let lit = 0;
    for (const [n, [x, y]] of cells.entries()) {
        const now = await probe(page, x, y);
        if (now.cell === null || now.cell.value < 2) continue;
        if (now.cell.value === value) {
            lit++;
            assert.ok(bright(now.rgba) > 180);
        } else assert.ok(bright(now.rgba) < 100, `${now.rgba} at ${cells[n]}`);
    }
    assert.ok(lit > 0);
    await page.getByRole("button", { name: /^lit: / }).click();
    assert.equal(await page.evaluate(() => window.map.highlighted.value), null);
});

onMap("the table says the same, and shows what is clicked", "", async (page) => {
    await page.getByRole("button", { name: "Table" }).click();
    const tables = page.locator(".map-tables table");
    assert.equal(await tables.first().locator("tbody tr").count(), 5);
    await tables.nth(1).getByRole("button", { name: /0x7f1a10100000/ }).click();
    await page.waitForFunction(() => window.map.marked.value !== null);
    assert.ok(await page.locator(".map-picture").isVisible());
    assert.notEqual((await state(page)).chosen, null);
});

onMap("a heap that grows keeps the address at the top where it is", "", async (page) => {
    await page.evaluate(() => window.map.goTo(0x7f1a15550000));
    const top = await page.evaluate(() => window.map.near(0, 0));
    const regions = stage.heap.regions.map((r) => (r.label === "[heap]" ? { ...r, end: "0x55d048400000" } : r));
    stage.heap.tell({ type: "regions", epoch: 2, pid: 4242, regions });
    await page.waitForFunction(() => window.map.regions.value[0].end === "0x55d048400000");
    assert.equal(await page.evaluate(() => window.map.near(0, 0)), top);
});

onMap("malformed frames are reported, and the map goes on", "?mode=resident", async (page) => {
    stage.heap.raw(Buffer.from([1, 2, 3]));
    stage.heap.raw(frame(0, 0, 1, 0, [{ tile: 1, value: 3 }]).subarray(0, 25));
    stage.heap.tell({ type: "from-the-future" });
    await page.waitForFunction(() => window.problems.length >= 2);
    await page.waitForTimeout(400);
    assert.match(await page.evaluate(() => window.problems.join()), /malformed frame/);
    const { cell } = await probe(page, 200, 40);
    assert.equal(cell.value, cellValue("resident", cell.address, 4096, 0));
});

onMap("a lost connection is told, tried again after a second, and the map is asked for anew", "?mode=resident", async (page) => {
    // A query that is under way fails instead of hanging.
    const views = stage.heap.log.filter((m) => m.type === "view").length;
    stage.heap.drop();
    await page.locator('.map[data-stale="true"]').waitFor();
    const failed = await page.evaluate(() => window.map.client.query("holes", { limit: 1 }).catch((error) => error.message));
    assert.equal(failed, "not connected");
    await page.locator('.map[data-stale="false"]').waitFor({ timeout: 4000 });
    await page.waitForTimeout(500);
    assert.ok(stage.heap.log.filter((m) => m.type === "view").length > views);
    const { cell } = await probe(page, 200, 40);
    assert.equal(cell.value, cellValue("resident", cell.address, 4096, 0));
});

onMap("no more than four queries are under way", "", async (page) => {
    const answers = await page.evaluate(() =>
        Promise.all(Array.from({ length: 30 }, (_, n) => window.map.client.query("at", { address: `0x${(4096 * n).toString(16)}` }))),
    );
    assert.equal(answers.length, 30);
    answers.forEach((answer, n) => assert.equal(Number(answer.address), 4096 * n));
});

onMap("a hidden page asks for one frame a second", "", async (page) => {
    await page.evaluate(() => window.map.client.visible(false));
    await page.waitForTimeout(200);
    assert.equal(lastView().hz, 1);
    await page.evaluate(() => window.map.client.visible(true));
    await page.waitForTimeout(200);
    assert.equal(lastView().hz, 30);
});

onMap("on a screen of two device pixels a pixel, pointer and picture agree", "", async (page) => {
    const { x, y } = await box(page);
    await page.mouse.move(x + 200, y + 40);
    await page.locator(".map-tooltip").waitFor();
    const { cell } = await probe(page, 400, 80);
    const shown = await page.locator(".map-tooltip b").first().innerText();
    assert.ok(Math.abs(Number(shown) - cell.address) < 4096, `${shown} at 0x${cell.address.toString(16)}`);
}, { scale: 2 });

test("where canvases cannot be handed over, the page itself draws", { skip }, async () => {
    const { page, errors, close } = await stage.open("?mode=resident", { before: () => delete window.OffscreenCanvas });
    await settled(page);
    const { cell, rgba } = await probe(page, 200, 40);
    assert.equal(cell.value, cellValue("resident", cell.address, 4096, 0));
    assert.equal(rgba[3], 255);
    assert.deepEqual(errors, []);
    await close();
});
