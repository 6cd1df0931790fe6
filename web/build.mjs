// Bundles the page: `node build.mjs DIR` writes index.html, app.js, worker.js and style.css.
// The same sources give the same bytes, whatever the directory and the machine.
//   --watch DIR    builds again on every change
//   --tests DIR    bundles test/*.test.ts for `node --test`
import { build, context } from "esbuild";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const HERE = dirname(fileURLToPath(import.meta.url));
const BUDGET = 120_000;
const BANNER = "/*! memfrag, MIT OR Apache-2.0. Contains Preact, Preact Signals and uPlot, MIT: see web/THIRD-PARTY.md */";

const common = { bundle: true, target: "es2022", logLevel: "warning", absWorkingDir: HERE };
const shipped = { ...common, minify: true, charset: "utf8", legalComments: "none", banner: { js: BANNER, css: BANNER } };
const script = { ...shipped, format: "iife" };
const JSX = { jsx: "automatic", jsxImportSource: "preact" };

function bundles(out) {
    return [
        { ...script, ...JSX, entryPoints: ["src/main.tsx"], outfile: join(out, "app.js") },
        { ...script, entryPoints: ["src/worker/main.ts"], outfile: join(out, "worker.js"), tsconfig: "src/worker/tsconfig.json" },
        { ...shipped, entryPoints: ["src/style.css"], outfile: join(out, "style.css") },
    ];
}

async function page(out) {
    mkdirSync(out, { recursive: true });
    await Promise.all(bundles(out).map((options) => build(options)));
    copyFileSync(join(HERE, "src/index.html"), join(out, "index.html"));
    const packed = ["index.html", "app.js", "worker.js", "style.css"].map((name) => gzipSync(readFileSync(join(out, name))).length);
    const total = packed.reduce((sum, bytes) => sum + bytes, 0);
    console.error(`web: ${(total / 1000).toFixed(1)} kB gzipped, ${BUDGET / 1000} are allowed`);
    if (total > BUDGET) throw new Error("the page is larger than its budget");
}

async function watch(out) {
    await page(out);
    for (const options of bundles(out)) await (await context(options)).watch();
}

async function tests(out) {
    rmSync(out, { recursive: true, force: true });
    const names = readdirSync(join(HERE, "test")).filter((name) => name.endsWith(".test.ts") || name.endsWith(".test.tsx"));
    await build({
        ...common,
        ...JSX,
        entryPoints: names.map((name) => join("test", name)),
        outdir: out,
        format: "esm",
        platform: "node",
        outExtension: { ".js": ".mjs" },
        sourcemap: "inline",
    });
}

const [first, second] = process.argv.slice(2);
const at = (dir) => resolve(process.cwd(), dir);
if (first === "--tests" && second) await tests(at(second));
else if (first === "--watch" && second) await watch(at(second));
else if (first && !first.startsWith("-")) await page(at(first));
else {
    console.error("usage: node build.mjs [--watch | --tests] DIR");
    process.exitCode = 2;
}
