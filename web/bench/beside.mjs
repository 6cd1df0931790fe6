// Whether a model beside a trace slows the traced program; `node bench/beside.mjs DIRECTORY PROGRAM PAIRS TURNS`, by `cargo xtask bench`. The
// program is traced with the page open, in turns with a model beside the heap and without one. Prints a figure a line, its name first.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { browser } from "../test/e2e/browser.mjs";
import { middle, open } from "./busy.mjs";

const { MEMFRAG_BIN } = process.env;
const [dir, program, pairs, turns] = process.argv.slice(2);
if (!MEMFRAG_BIN || !Number(turns)) {
    console.error("usage: MEMFRAG_BIN=… node bench/beside.mjs DIRECTORY PROGRAM PAIRS TURNS");
    process.exit(2);
}
const tell = (name, value) => console.log(`${name} ${value}`);

/** One run: what a pair took, events lost, and by how many events the model was behind when the program had ended. */
async function run(chrome, policy) {
    const file = join(dir, `beside-${process.pid}.mfrag`);
    // Half a second is for the page to open.
    const words = ["trace", "--backend", "preload", "--checkpoints", "none", "--serve=127.0.0.1:0", "-o", file, "--", "/bin/sh", "-c", 'sleep 2; exec "$0" "$1"', program, pairs];
    const trace = spawn(MEMFRAG_BIN, words, { stdio: ["ignore", "pipe", "pipe"] });
    try {
        let said = "";
        let printed = "";
        trace.stdout.on("data", (data) => { printed += data; });
        const url = await new Promise((found, failed) => {
            trace.stderr.on("data", (data) => {
                said += data;
                const match = /(http:\S+)/.exec(said);
                if (match) found(match[1]);
            });
            trace.on("exit", () => failed(new Error(`the trace has ended: ${said}`)));
        });
        const { page, close } = await open(chrome, `${url}&tab=compare`);
        const choice = page.getByLabel("Compare with");
        await choice.waitFor();
        if (policy) await choice.selectOption(policy);
        while (!/\n[\d.]+\n$/.test(printed)) await once(trace.stdout, "data");
        const behind = policy ? Number(await page.locator(".as-of-model").getAttribute("data-behind").catch(() => NaN)) : 0;
        const lost = await page.evaluate(() => Math.max(...window.memfragSeen.statuses.map((one) => one.lost)));
        await close();
        return { ns: Number(printed.trim().split("\n").at(-1)), behind, lost };
    } finally {
        trace.kill("SIGINT");
        if (trace.exitCode === null) await once(trace, "exit");
        rmSync(file, { force: true });
    }
}

const chrome = await browser();
try {
    const found = { alone: [], beside: [] };
    for (let n = 0; n < Number(turns); n++) {
        for (const [name, policy] of [["alone", null], ["beside", "ptmalloc"]]) {
            const one = await run(chrome, policy);
            console.error(`${name.padEnd(8)} ${one.ns.toFixed(1)} ns a pair, ${one.lost} lost, the model ${one.behind} behind`);
            found[name].push(one);
        }
    }
    const ns = (name) => middle(found[name].map((one) => one.ns));
    tell("alone_ns", ns("alone"));
    tell("beside_ns", ns("beside"));
    tell("lost", Math.max(...Object.values(found).flat().map((one) => one.lost)));
    tell("model_behind", middle(found.beside.map((one) => one.behind)));
} finally {
    await chrome.close();
}
