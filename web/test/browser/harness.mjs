// A browser on the map, with the policy of the real server: builds the page, serves it, and starts the distribution's Chromium.
import { build } from "esbuild";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { browser as launch } from "../e2e/browser.mjs";
import { synthetic } from "./synthetic.mjs";

const WEB = join(dirname(fileURLToPath(import.meta.url)), "../..");
export const POLICY =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; worker-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types memfrag";
const PAGE = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>map</title><link rel="stylesheet" href="style.css">
<link rel="icon" href="data:,"></head><body><div id="app"></div><script src="app.js" defer></script></body></html>`;

export { missing } from "../e2e/browser.mjs";

async function bundle() {
    const common = { bundle: true, write: false, target: "es2022", format: "iife", absWorkingDir: WEB, minify: true };
    const jsx = { jsx: "automatic", jsxImportSource: "preact" };
    const [app, worker, style] = await Promise.all([
        build({ ...common, ...jsx, entryPoints: ["test/browser/map-page.tsx"] }),
        build({ ...common, entryPoints: ["src/worker/main.ts"], tsconfig: "src/worker/tsconfig.json" }),
        build({ ...common, entryPoints: ["test/browser/map-page.css"] }),
    ]);
    const text = (result) => result.outputFiles[0].text;
    return {
        "/": [PAGE, "text/html"],
        "/app.js": [text(app), "text/javascript"],
        "/worker.js": [text(worker), "text/javascript"],
        "/style.css": [text(style), "text/css"],
    };
}

/** Starts server and browser. `open(query)` gives a page on the map; `end()` stops both. */
export async function harness(options = {}) {
    const files = await bundle();
    const server = createServer((request, response) => {
        const file = files[new URL(request.url, "http://x").pathname];
        if (file === undefined) return response.writeHead(404).end();
        response.writeHead(200, { "Content-Type": `${file[1]}; charset=utf-8`, "Content-Security-Policy": POLICY }).end(file[0]);
    });
    const heap = synthetic(server, options);
    await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
    const origin = `http://127.0.0.1:${server.address().port}`;
    const browser = await launch();

    async function open(query = "", { width = 1280, height = 760, scale = 1, before = null, ...context } = {}) {
        const session = await browser.newContext({ viewport: { width, height }, deviceScaleFactor: scale, ...context });
        const page = await session.newPage();
        if (before !== null) await page.addInitScript(before);
        const errors = [];
        page.on("pageerror", (error) => errors.push(String(error)));
        page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
        await page.goto(`${origin}/${query}`);
        return { page, errors, close: () => session.close() };
    }

    async function end() {
        await browser.close();
        heap.drop();
        server.closeAllConnections();
        await new Promise((done) => server.close(done));
    }
    return { heap, open, end, origin };
}

/** Waits until the map has drawn what it asked for and has had nothing more to say for a moment. */
export async function settled(page) {
    await page.waitForFunction(() => window.map.spans.value.length > 0);
    await page.waitForTimeout(400);
}
