// What the tests of a file share: a recording of a burst of allocations, the server of it, a browser, and a directory for more.
import { after, before } from "node:test";
import { browser, missing } from "./browser.mjs";
import { BURST, directory, MEMFRAG, record, serve } from "./memfrag.mjs";

/** Why the tests cannot run here; false when they can. */
export const skip = missing ?? (MEMFRAG ? false : "memfrag is not built");

export let files;
export let burst;
export let server;
export let chrome;

/** The program of a report: that which the page looks at first. */
export function main(document) {
    return document.processes.find((one) => one.comm.startsWith("python3")) ?? document.processes[0];
}

before(async () => {
    if (skip) return;
    files = directory();
    burst = record(files.file("burst.mfrag"), BURST);
    server = await serve(burst);
    chrome = await browser();
}, { timeout: 120_000 });

after(async () => {
    await chrome?.close();
    await server?.stop();
    files?.clear();
});
