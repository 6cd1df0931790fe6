// Whether memory grows while the dashboard watches a busy heap; `node bench/soak.mjs DIRECTORY LIVE RATE MINUTES`, by
// `cargo xtask bench --soak`. Prints a figure a line, its name first; what each sample found goes to standard error.
import { goingAlong, middle, open, used, withBusy, words } from "./busy.mjs";

const SAMPLES = 60;
/** Of the samples, the first third is the time in which caches and kept states fill up. */
const THIRD = SAMPLES / 3;
const MIB = 2 ** 20;

const { rest: [minutes], ...heap } = words();
const apart = (Number(minutes) * 60_000) / SAMPLES;

/** Bytes of live objects, after a forced collection: those of the page and of its worker. */
async function heaps(page) {
    const session = await page.context().newCDPSession(page);
    const workers = [];
    session.on("Target.attachedToTarget", ({ sessionId }) => workers.push(sessionId));
    await session.send("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
    let next = 1;
    const inWorker = (sessionId, method) => new Promise((done, failed) => {
        const id = next++;
        const take = ({ sessionId: from, message }) => {
            const answer = JSON.parse(message);
            if (from !== sessionId || answer.id !== id) return;
            session.off("Target.receivedMessageFromTarget", take);
            if (answer.error) failed(new Error(`${method}: ${answer.error.message}`));
            else done(answer.result);
        };
        session.on("Target.receivedMessageFromTarget", take);
        session.send("Target.sendMessageToTarget", { sessionId, message: JSON.stringify({ id, method }) }).catch(failed);
    });
    const told = async (send) => {
        await send("HeapProfiler.collectGarbage");
        return (await send("Runtime.getHeapUsage")).usedSize;
    };
    return async () => {
        let bytes = await told((method) => session.send(method));
        for (const worker of workers) bytes += await told((method) => inWorker(worker, method));
        const { nodes } = await session.send("Memory.getDOMCounters");
        return { bytes, nodes, workers: workers.length };
    };
}

await withBusy(heap, async ({ chrome, url, pid }) => {
    const { page, close } = await open(chrome, url);
    await goingAlong(page);
    const read = await heaps(page);
    const samples = [];
    for (let n = 0; n < SAMPLES; n++) {
        await page.waitForTimeout(apart);
        const { bytes, nodes, workers } = await read();
        if (workers === 0) throw new Error("the heap of the page's worker cannot be read");
        const { rss } = used(pid);
        const status = await page.evaluate(() => window.memfragSeen.statuses.at(-1));
        samples.push({ bytes, nodes, rss, events: status.events, rate: status.events_per_s });
        console.error(`${n + 1}/${SAMPLES}  JS ${(bytes / MIB).toFixed(2)} MiB  ${nodes} nodes  server ${(rss / MIB).toFixed(1)} MiB  ${status.events} events`);
    }
    const [early, late] = [samples.slice(THIRD, 2 * THIRD), samples.slice(2 * THIRD)];
    const of = (part, name) => middle(part.map((one) => one[name]));
    for (const name of ["bytes", "nodes", "rss"]) {
        console.log(`${name} ${of(late, name)}`);
        console.log(`${name}_growth ${of(late, name) - of(early, name)}`);
    }
    console.log(`events_growth ${of(late, "events") - of(early, "events")}`);
    console.log(`events_per_s ${of(samples, "rate")}`);
    await close();
});
