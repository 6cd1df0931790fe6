// Programs that end with this one, however it ends: each runs below a shell that waits for the end of its input, which comes when this
// process closes it or is gone.
import { spawn } from "node:child_process";

const SHELL = '"$@" </dev/null >/dev/null & pid=$!; echo "$pid"; cat >/dev/null; kill "$pid" 2>/dev/null; wait "$pid"';

/**
 * Starts a program and waits until `sign` matches what it says on standard error. `pid` is its own; `end()` kills it and waits.
 * Fails when it ends or `ms` pass before.
 */
export async function guarded(words, sign, ms) {
    const shell = spawn("/bin/sh", ["-c", SHELL, "sh", ...words], { stdio: ["pipe", "pipe", "pipe"] });
    let said = "";
    const ended = new Promise((done) => shell.on("exit", done));
    const end = async () => {
        shell.stdin.end();
        await ended;
    };
    const pid = new Promise((found) => shell.stdout.once("data", (data) => found(Number(data))));
    const found = new Promise((resolve, reject) => {
        const late = setTimeout(() => reject(new Error(`${words[0]} has said nothing of its being ready for ${ms / 1000} s:\n${said}`)), ms);
        shell.stderr.on("data", (data) => {
            said = (said + data).slice(-10_000);
            const match = sign.exec(said);
            if (match) resolve(match);
        });
        // The program has closed its words, though the shell still waits for ours.
        shell.stderr.on("end", () => reject(new Error(`${words[0]} has ended:\n${said}`)));
        const stop = () => clearTimeout(late);
        shell.stderr.once("end", stop);
    });
    try {
        return { match: await found, pid: await pid, end };
    } catch (error) {
        await end();
        throw error;
    }
}
