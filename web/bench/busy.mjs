// A program that does not exist, as `busy-heap` records it, served by memfrag while the recording grows, and opened in Chromium: what the
// measurements of the dashboard have in common.
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { browser } from "../test/e2e/browser.mjs";
import { guarded } from "./guard.mjs";

const { MEMFRAG_BIN, BUSY_HEAP_BIN } = process.env;
/** Filling a heap of ten million blocks takes some ten seconds, reading it as many; on a machine that does other work, more. */
const READY_MS = 300_000;
/** The generator is ended when the measurement is over; by itself it ends after this, however that went. */
const LONGEST_S = 7200;
/** Ticks of /proc/PID/stat in a second; the same on every Linux that Chromium runs on. */
const TICKS = 100;

export const middle = (values) => quantile(values, 0.5);
export const p95 = (values) => quantile(values, 0.95);
function quantile(values, share) {
    return [...values].sort((a, b) => a - b)[Math.floor(share * values.length)] ?? NaN;
}

/** The words of the command line: a directory for the recording, live blocks, events a second; and what comes behind. */
export function words() {
    const [dir, live, rate, ...rest] = process.argv.slice(2);
    if (!MEMFRAG_BIN || !BUSY_HEAP_BIN || !Number(live) || !Number(rate)) {
        console.error("usage: MEMFRAG_BIN=… BUSY_HEAP_BIN=… node bench/FILE.mjs DIRECTORY LIVE RATE …");
        process.exit(2);
    }
    return { dir, live: Number(live), rate: Number(rate), rest };
}

/** Runs `measure` on such a server; everything is ended afterwards, and when a signal comes. */
export async function withBusy({ dir, live, rate }, measure) {
    const ends = [];
    const end = async () => {
        for (const one of ends.splice(0).reverse()) await one().catch((error) => console.error(String(error)));
    };
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => void end().then(() => process.exit(1)));
    try {
        const file = join(dir, `busy-${process.pid}.mfrag`);
        ends.push(async () => rmSync(file, { force: true }));
        const generator = await guarded([BUSY_HEAP_BIN, file, live, rate, LONGEST_S].map(String), /blocks in/, READY_MS);
        ends.push(generator.end);
        const server = await guarded([MEMFRAG_BIN, "serve", file, "--addr", "127.0.0.1:0"], /dashboard at (http:\S+)/, READY_MS);
        ends.push(server.end);
        // Both have it open; without a name it goes when they go, even if this process is killed.
        rmSync(file);
        const chrome = await browser();
        ends.push(() => chrome.close());
        await measure({ chrome, url: server.match[1], pid: server.pid });
    } finally {
        await end();
    }
}

/** Opens the page, and notes what passes between it and its worker; `seen` is described in `note`. */
export async function open(chrome, url) {
    const context = await chrome.newContext({ viewport: { width: 1600, height: 900 } });
    const page = await context.newPage();
    const wrong = [];
    page.on("pageerror", (error) => wrong.push(String(error)));
    await page.addInitScript(note);
    await page.goto(url);
    const close = async () => {
        await context.close();
        if (wrong.length > 0) throw new Error(`the page failed: ${wrong.join("; ")}`);
    };
    return { page, close };
}

/** In the page: keeps its worker, when its first cells were on screen, the last status messages, and answers about times. */
function note() {
    const seen = { worker: null, painted: null, statuses: [], timing: null };
    window.memfragSeen = seen;
    window.Worker = class extends Worker {
        constructor(...all) {
            super(...all);
            seen.worker = this;
            this.addEventListener("message", ({ data }) => {
                if (data.from === "drawn" && data.at_ns > 0 && seen.painted === null) requestAnimationFrame(() => { seen.painted ??= performance.now(); });
                if (data.from === "message" && data.message.type === "status") seen.statuses.push(data.message);
                if (seen.statuses.length > 400) seen.statuses.shift();
                // Those that the page asked for have numbers above 0.
                if (data.from === "timing" && data.id < 0) seen.timing?.(data.timing);
            });
        }
    };
}

/** Waits until the server has read all that there was and goes along with what comes. */
export async function goingAlong(page) {
    await page.waitForFunction(() => {
        const last = window.memfragSeen.statuses.at(-1);
        return last !== undefined && last.state === "live" && last.progress >= 1 && !last.behind;
    }, undefined, { timeout: READY_MS }).catch(async (error) => {
        if (error.name !== "TimeoutError") throw error;
        const last = await page.evaluate(() => window.memfragSeen.statuses.at(-1));
        throw new Error(`the server has not caught up with the recording in ${READY_MS / 1000} s; it stands at ${JSON.stringify(last ?? null)}`);
    });
}

/** When the first cells of the map were on screen, in milliseconds since the page was asked for, and when anything was. */
export async function painted(page) {
    await page.waitForFunction(() => window.memfragSeen.painted !== null, undefined, { timeout: READY_MS });
    return page.evaluate(() => ({
        map: window.memfragSeen.painted,
        page: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN,
    }));
}

/** Times of all frames in the next `ms`: the worker's, and those of the page itself; and the statuses told meanwhile. */
export function timed(page, ms) {
    return page.evaluate(async (ms) => {
        const seen = window.memfragSeen;
        const ask = (reset) => new Promise((done) => {
            seen.timing = done;
            seen.worker.postMessage({ to: "timing", id: -1, reset });
        });
        await ask(true);
        seen.statuses.length = 0;
        const frames = [];
        const until = performance.now() + ms;
        await new Promise((done) => {
            let last = null;
            requestAnimationFrame(function next(now) {
                if (last !== null) frames.push(now - last);
                last = now;
                if (now < until) requestAnimationFrame(next);
                else done();
            });
        });
        const statuses = seen.statuses.map(({ at_ns, end_ns, events_per_s, hz, lost }) => ({ behind: end_ns - at_ns, rate: events_per_s, hz, lost }));
        return { worker: await ask(false), frames, statuses };
    }, ms);
}

/** Seconds of processor time that a process has had, and its resident bytes. */
export function used(pid) {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const rss = Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
    return { cpu: (Number(fields[11]) + Number(fields[12])) / TICKS, rss };
}
