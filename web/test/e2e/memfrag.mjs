// memfrag itself: recordings of a real program, reports on them, and the server, each on a port of its own.
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const BUILT = ["release", "debug"].map((kind) => join(ROOT, "target", kind, "memfrag"));
export const MEMFRAG = process.env.MEMFRAG_BIN ?? BUILT.find((path) => existsSync(path));
const START_MS = 20_000;

/** A directory for the files of one run; `clear()` removes it. */
export function directory() {
    const path = mkdtempSync(join(tmpdir(), "memfrag-e2e-"));
    return { path, file: (name) => join(path, name), clear: () => rmSync(path, { recursive: true, force: true }) };
}

/** Records a command to its end under the preload library. */
export function record(file, command) {
    execFileSync(MEMFRAG, ["trace", "--backend", "preload", "-o", file, "--", ...command], { stdio: ["ignore", "ignore", "pipe"], cwd: ROOT });
    return file;
}

const PYTHON = existsSync("/usr/bin/python3") ? "/usr/bin/python3" : "python3";
/** python3 without the wrapper of a version manager, with these words. */
export const python = (...words) => [PYTHON, ...words];
/** 80 MB of objects of which a 25th stays: the README's example. */
export const BURST = python(join(ROOT, "tests/programs/burst.py"));

export const report = (file, at) => said("report", file, at);
export const remedies = (file, at) => said("remedies", file, at);

/** The document that a verb prints of a recording, at a moment or at its end. */
function said(verb, file, at) {
    const words = at === undefined ? [] : ["--at", `${at}ns`];
    return JSON.parse(execFileSync(MEMFRAG, [verb, "--json", ...words, file], { maxBuffer: 1 << 28 }).toString());
}

/** Starts a memfrag that serves, and waits until it says where. `stop()` ends it as Ctrl-C does. */
export async function served(words, options = {}) {
    const child = spawn(MEMFRAG, words, { stdio: ["ignore", "pipe", "pipe"], cwd: ROOT, ...options });
    let said = "";
    child.stdout.resume();
    const ended = new Promise((done) => child.on("exit", (code, signal) => done({ code, signal })));
    const url = await new Promise((found, failed) => {
        const timer = setTimeout(() => failed(new Error(`${words.join(" ")} did not say where it serves:\n${said}`)), START_MS);
        child.stderr.on("data", (data) => {
            said += data;
            const link = /dashboard at (http:\S+)/.exec(said);
            if (!link) return;
            clearTimeout(timer);
            found(link[1]);
        });
        void ended.then(({ code }) => failed(new Error(`${words.join(" ")} ended with ${code}:\n${said}`)));
    });
    const { origin, hash, port } = new URL(url);
    const token = hash.replace("#token=", "");
    const stop = async () => {
        child.kill("SIGINT");
        return ended;
    };
    return { url, origin, port: Number(port), token, child, stop, ended, said: () => said };
}

export function serve(file, more = []) {
    return served(["serve", file, ...more]);
}
