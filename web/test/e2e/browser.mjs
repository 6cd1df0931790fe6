// The distribution's Chromium on a served dashboard. Everything that the page complains about makes the test fail.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const CHROMIUM = PLACES.find((path) => existsSync(path));

/** Why there can be no browser here; null when there can. */
export const missing = CHROMIUM === undefined ? "chromium is not installed" : null;

export async function browser() {
    const root = process.getuid?.() === 0;
    return chromium.launch({ executablePath: CHROMIUM, args: root ? ["--no-sandbox"] : [] });
}

/** A page of its own session at `url`, with `look` behind the token; `close` also says that nothing went wrong. */
export async function open(chrome, url, { look = "", width = 1600, height = 900, ...context } = {}) {
    const session = await chrome.newContext({ viewport: { width, height }, acceptDownloads: true, ...context });
    const page = await session.newPage();
    const complaints = [];
    const foreign = [];
    const { origin } = new URL(url);
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("request", (request) => {
        const to = new URL(request.url());
        if (to.origin !== origin && !["data:", "blob:"].includes(to.protocol)) foreign.push(request.url());
    });
    // A dialog of the system cannot be answered here; then the page saves by its own download.
    await page.addInitScript(() => { delete window.showSaveFilePicker; });
    await page.goto(look ? `${url}&${look}` : url);
    const close = async (expected = []) => {
        await session.close();
        const unexpected = complaints.filter((one) => !expected.some((pattern) => pattern.test(one)));
        assert.deepEqual(unexpected, [], "the page complained");
        assert.deepEqual(foreign, [], "the page asked other hosts");
    };
    return { page, close, session };
}

/** Waits until the page shows a heap: its statistics are there. */
export async function ready(page) {
    await page.locator(".shell .work").waitFor();
    await page.locator('[role="tab"]').first().waitFor();
}

/** Opens a panel and waits for its answer. */
export async function panel(page, name) {
    await page.getByRole("tab", { name, exact: true }).click();
    await page.waitForFunction(() => !document.querySelector('#panel .empty[aria-busy="true"]'));
}

/** The number of bytes under a name in the row of numbers, exact as its title has it. */
export async function bytesOf(page, name) {
    const cell = page.locator(".numbers > div", { has: page.locator("dt", { hasText: new RegExp(`^${name}$`) }) }).locator("dd[title]").first();
    return Number((await cell.getAttribute("title")).replace(" B", ""));
}

/** State of the heap at the cursor, the same for the same live blocks. */
export async function digest(page) {
    await panel(page, "Overview");
    return page.locator(".as-of .mono").textContent();
}

/** Waits until the cursor stands at a moment, told as the page tells it. */
export async function at(page, text) {
    await page.waitForFunction((wanted) => document.querySelector(".clock strong")?.textContent === wanted, text);
}

/** Waits until the numbers on screen are those of the cursor. */
export async function settled(page) {
    await page.waitForTimeout(150);
    await page.waitForFunction(() => {
        const said = document.querySelector(".as-of")?.textContent ?? "";
        const clock = document.querySelector(".clock strong")?.textContent ?? "?";
        return said.includes(`As of ${clock}`);
    });
}
