// The page around the heap: screens for what is missing, lost connections, keys, themes, and who cannot see or point.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { at, open, ready, settled } from "./browser.mjs";
import { python, serve, served } from "./memfrag.mjs";
import { burst, chrome, files, server, skip } from "./setting.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

test("without a token there is a screen that says what to do", { skip }, async () => {
    const { page, close } = await open(chrome, `${server.origin}/`);
    await page.getByRole("heading", { name: "No permission" }).waitFor();
    await page.getByLabel("Address or token").fill("nonsense");
    await page.getByRole("button", { name: "Open" }).click();
    await page.getByRole("alert").waitFor();
    await page.getByLabel("Address or token").fill(server.url);
    await page.getByRole("button", { name: "Open" }).click();
    await ready(page);
    await close();
});

test("a token that is not the server's is told from a server that is gone", { skip }, async () => {
    const { page, close } = await open(chrome, `${server.origin}/#token=${"0".repeat(64)}`);
    await page.getByRole("heading", { name: "does not take this token" }).waitFor();
    await close([/401/, /WebSocket/]);
});

test("after a restart the new address can be pasted, and what was looked at is there again", { skip }, async () => {
    const first = await serve(burst, ["--addr", "127.0.0.1:0"]);
    const { page, close } = await open(chrome, first.url, { look: "t=500000000&tab=blame" });
    await at(page, "0.500 s");
    await first.stop();
    await page.locator(".shell.stale").waitFor();
    assert.match(await page.locator(".banner.bad").textContent(), /Connection lost.*as of 0\.500 s/);
    assert.equal(await page.locator(".badge").first().textContent(), "OFFLINE");
    const second = await serve(burst, ["--addr", `127.0.0.1:${first.port}`]);
    await page.getByRole("heading", { name: "does not take this token" }).waitFor({ timeout: 30_000 });
    await page.getByLabel("Address or token").fill(second.url);
    await page.getByRole("button", { name: "Open" }).click();
    await at(page, "0.500 s");
    assert.equal(await page.locator('[role="tab"][aria-selected="true"]').textContent(), "Blame");
    await close([/401/, /WebSocket/, /ERR_CONNECTION/]);
    await second.stop();
});

test("a program that runs is shown live, and its end is told", { skip }, async () => {
    const program = python("-c", "import time\nkept=[]\nfor n in range(600):\n    kept.append(bytearray(20000))\n    time.sleep(0.01)");
    const live = await served(["trace", "--serve", "--backend", "preload", "-o", files.file("live.mfrag"), "--", ...program]);
    const { page, close } = await open(chrome, live.url);
    await ready(page);
    await page.locator(".badge.live").waitFor();
    const shown = () => page.locator(".clock strong").textContent();
    const early = await shown();
    await page.waitForFunction((before) => document.querySelector(".clock strong").textContent !== before, early);
    await page.keyboard.press("Space");
    await page.locator(".badge.paused").waitFor();
    const stood = await shown();
    await page.waitForTimeout(700);
    assert.equal(await shown(), stood, "nothing moves while it is paused");
    await page.keyboard.press("l");
    await page.locator(".badge.live").waitFor();
    await page.locator(".banner", { hasText: "has ended" }).waitFor({ timeout: 30_000 });
    await close();
    await live.stop();
});

test("everything can be done by keys", { skip }, async () => {
    const { page, close } = await open(chrome, server.url);
    await ready(page);
    await settled(page);
    for (const [key, name] of [["2", "Blame"], ["3", "Inspector"], ["4", "Range"], ["5", "Flame"], ["6", "Events"], ["7", "Compare"], ["8", "Sizes"], ["1", "Overview"]]) {
        await page.keyboard.press(key);
        await page.locator(`[role="tab"][aria-selected="true"]`, { hasText: name }).waitFor();
    }
    const dialog = page.locator("dialog[open]");
    for (const [key, name] of [["?", "Help"], ["Control+k", "Command palette"], ["g", "Go to"], ["p", "Processes and recordings"], ["i", "Import a recording"], ["e", "Export the recording"], ["m", "Messages"]]) {
        await page.keyboard.press(key);
        await dialog.and(page.locator(`[aria-label="${name}"]`)).waitFor();
        await page.keyboard.press("Escape");
        await dialog.waitFor({ state: "detached" });
    }
    await page.keyboard.press("Control+k");
    await page.keyboard.type("show flame");
    await page.keyboard.press("Enter");
    await page.locator(".icicle canvas").waitFor();
    await page.locator(".icicle canvas").focus();
    await page.keyboard.press("ArrowDown");
    const label = await page.locator(".icicle canvas").getAttribute("aria-label");
    await page.keyboard.press("Enter");
    await page.locator(".crumbs .link").nth(1).waitFor();
    assert.match(label, /Flame graph\. .+: .+ %/);
    await page.keyboard.press("g");
    await page.keyboard.type("0.5 s");
    await page.keyboard.press("Enter");
    await at(page, "0.500 s");
    await page.keyboard.press("[");
    await page.keyboard.press(".");
    await page.keyboard.press("]");
    assert.equal(await page.locator(".pin-set").count(), 2);
    for (let n = 0; n < 60; n += 1) {
        await page.keyboard.press("Tab");
        const seen = await page.evaluate(() => {
            const on = document.activeElement;
            if (!on || on === document.body) return true;
            const style = getComputedStyle(on);
            return style.outlineStyle !== "none" || style.boxShadow !== "none" || on.matches(".u-over");
        });
        assert.ok(seen, "the focus can be seen wherever it is");
    }
    await close();
});

test("the theme follows the system until one is chosen, and the choice stays", { skip }, async () => {
    const ground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const { page, close } = await open(chrome, server.url, { colorScheme: "dark" });
    await ready(page);
    const dark = await ground(page);
    await page.keyboard.press("t");
    const light = await ground(page);
    assert.notEqual(light, dark);
    await page.reload();
    await ready(page);
    assert.equal(await ground(page), light);
    await page.keyboard.press("t");
    assert.equal(await ground(page), dark);
    await close();
});

test("no fault of accessibility in either theme, on any panel", { skip }, async () => {
    const looks = ["overview", "blame", "inspector", "range&range=300000000-600000000", "flame", "events", "compare&a=300000000&b=600000000", "compare&beside=first-fit", "distributions"];
    for (const colorScheme of ["dark", "light"]) {
        const { page, close } = await open(chrome, server.url, { colorScheme, reducedMotion: "reduce" });
        await ready(page);
        await page.evaluate(`${axe};0`);
        for (const look of looks) {
            await page.evaluate((hash) => { location.hash = `source=0&tab=${hash}`; }, look);
            await page.waitForTimeout(600);
            const { violations } = await page.evaluate(() => globalThis.axe.run());
            const told = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ")).join(", ")}`);
            assert.deepEqual(told, [], `${colorScheme} ${look}`);
        }
        await close();
    }
});

test("colours forced by the system leave everything readable", { skip }, async () => {
    const { page, close } = await open(chrome, server.url, { forcedColors: "active" });
    await ready(page);
    await settled(page);
    for (const selector of [".badge", ".finding", ".numbers", ".ledger"]) assert.ok(await page.locator(selector).first().isVisible());
    await close();
});
