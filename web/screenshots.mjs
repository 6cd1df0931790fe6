// The pictures of the README and docs: a real program's heap, as the page shows it. `node screenshots.mjs DIRECTORY`,
// by `cargo xtask screenshots`.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { browser, missing, open, panel, ready, settled } from "./test/e2e/browser.mjs";
import { directory, python, record, report, serve } from "./test/e2e/memfrag.mjs";

const PICTURES = [
    { name: "overview", tab: "Overview", colorScheme: "dark" },
    { name: "blame", tab: "Blame", mode: "resident", colorScheme: "light" },
];

const [out] = process.argv.slice(2);
if (missing || !out) {
    console.error(missing ?? "usage: node screenshots.mjs DIRECTORY");
    process.exit(1);
}
mkdirSync(out, { recursive: true });
const files = directory();
try {
    const file = record(files.file("burst.mfrag"), python("tests/programs/burst.py", "2"));
    // Late enough for the burst to be over, early enough for its survivors to be there.
    const at = Math.round(report(file).recording.duration_ns * 0.9);
    const server = await serve(file, ["--addr", "0"]);
    const chrome = await browser();
    for (const { name, tab, mode, colorScheme } of PICTURES) {
        const look = [`t=${at}`, ...(mode ? [`mode=${mode}`] : [])].join("&");
        const { page, close } = await open(chrome, server.url, { look, colorScheme });
        await ready(page);
        await panel(page, "Overview");
        await settled(page);
        await panel(page, tab);
        await page.waitForTimeout(1000);
        await page.screenshot({ path: join(out, `${name}.png`) });
        await close();
    }
    await chrome.close();
    await server.stop();
} finally {
    files.clear();
}
