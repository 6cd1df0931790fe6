// How fast the dashboard is on a heap that is as large and busy as wanted; `node bench/dashboard.mjs DIRECTORY LIVE RATE SECONDS RUNS`, by
// `cargo xtask bench`. Prints a figure a line, its name first.
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { goingAlong, middle, open, p95, painted, timed, used, withBusy, words } from "./busy.mjs";

const DIST = join(dirname(fileURLToPath(import.meta.url)), "../dist");
const OPENINGS = 3;

const { rest: [seconds, runs], ...heap } = words();
const tell = (name, value) => console.log(`${name} ${value}`);

tell("bundle_bytes", readdirSync(DIST).reduce((sum, name) => sum + gzipSync(readFileSync(join(DIST, name))).length, 0));
await withBusy(heap, async ({ chrome, url, pid }) => {
    // As long as a page is open the server goes along; one that came back to it would read the recording anew.
    const kept = await open(chrome, url);
    await goingAlong(kept.page);
    const openings = [];
    for (let n = 0; n < OPENINGS; n++) {
        const { page, close } = await open(chrome, url);
        openings.push(await painted(page));
        await close();
    }
    tell("first_map_ms", middle(openings.map((one) => one.map)));
    tell("first_paint_ms", middle(openings.map((one) => one.page)));
    const found = [];
    for (let n = 0; n < Number(runs); n++) {
        const [began, before] = [performance.now(), used(pid)];
        const { worker, frames, statuses } = await timed(kept.page, 1000 * Number(seconds));
        const after = used(pid);
        found.push({
            draw_p95_ms: p95(worker.draw),
            draw_p50_ms: middle(worker.draw),
            frame_p95_ms: p95(worker.frame),
            page_frame_p95_ms: p95(frames),
            map_hz: middle(statuses.map((one) => one.hz)),
            behind_p95_ms: p95(statuses.map((one) => one.behind)) / 1e6,
            events_per_s: middle(statuses.map((one) => one.rate)),
            lost: Math.max(...statuses.map((one) => one.lost)),
            server_cpu: (1000 * (after.cpu - before.cpu)) / (performance.now() - began),
            server_rss_bytes: after.rss,
        });
    }
    for (const name of Object.keys(found[0])) tell(name, middle(found.map((one) => one[name])));
    await kept.close();
});
