// The store against a server that is played: what is asked of it after each message, and what the page then knows.
import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";
import type { ClientMessage, Process, ServerMessage, Source } from "../src/protocol";
import { NOTHING, type Look } from "../src/store/permalink";
import { keepBeside } from "../src/store/beside";
import { connect, cursor, speed, watch, watchSource } from "../src/store/server";
import { connection, dismiss, forget, largest, live, model, note, notes, policies, process, processes, receive, source, status } from "../src/store/session";
import { beside, tab } from "../src/store/view";
import { Client } from "../src/worker/client";
import type { FromEngine, Link, ToEngine } from "../src/worker/messages";

class Played {
    readonly sent: ClientMessage[] = [];
    private listener: (message: FromEngine) => void = () => {};
    readonly client: Client;
    constructor(look: Partial<Look> = {}) {
        this.client = new Client({
            post: (message: ToEngine) => { if (message.to === "send") this.sent.push(message.message); },
            listen: (listener) => { this.listener = listener; },
        });
        connect(this.client, "ws://x/api/socket", "t", { ...NOTHING, ...look });
    }
    say(message: ServerMessage): void {
        this.listener({ from: "message", message });
    }
    link(link: Link): void {
        this.listener({ from: "link", link });
    }
}

const one = (pid: number, live_bytes: number): Process => ({
    pid, ppid: 1, comm: `p${pid}`, exe: null, cmdline: [], started_ns: 0, ended_ns: null, status: null, allocator: null, live_bytes, live_blocks: 1, rss_bytes: null,
} as Process);
const from = (number: number, growing = true): Source => ({
    source: number, name: `s${number}`, backend: "ebpf", command: [], host: "", kernel: "", began_unix_ns: 0, growing, complete: !growing,
    damage: { chunks: 0, bytes: 0, events: 0 }, duration_ns: 10, events: 1,
});
const hello = (...sources: Source[]): ServerMessage => ({ type: "hello", protocol: 1, version: "1", sources });
const state = (pid: number, state: "live" | "paused", at_ns = 5, more = {}): ServerMessage => ({
    type: "status", source: 0, pid, at_ns, end_ns: 10, state, speed: 1, behind: false, events: 1, events_per_s: 1, lost: 0, older_blocks: 0, older_bytes: 0,
    live_blocks: 1, live_bytes: 1, taken_bytes: 1, peak_bytes: 1, rss_bytes: 1, hz: 1, hz_wanted: 1, clients: 1, ...more,
});

const realFetch = globalThis.fetch;
afterEach(() => {
    forget();
    globalThis.fetch = realFetch;
});

test("the process that holds most is looked at first", () => {
    const server = new Played();
    server.say(hello(from(0)));
    assert.deepEqual(server.sent, []);
    server.say({ type: "processes", source: 0, processes: [one(1, 10), one(2, 500), one(3, 20)] });
    assert.deepEqual(server.sent, [{ type: "watch", source: 0, pid: 2 }]);
    assert.equal(process.value?.pid, 2);
    server.say(state(2, "live", 5, { progress: 0.4 }));
    server.say({ type: "processes", source: 0, processes: [one(1, 10), one(2, 500), one(4, 900)] });
    assert.deepEqual(server.sent.slice(1), [{ type: "watch", source: 0, pid: 4 }], "while the recording is being read, the largest may be another");
    server.say(state(4, "live", 5, { progress: 1 }));
    server.say({ type: "processes", source: 0, processes: [one(1, 10), one(4, 900)] });
    server.say({ type: "processes", source: 0, processes: [one(1, 9999), one(4, 900)] });
    assert.equal(server.sent.length, 2, "who grows later does not take the place");
    watch(0, 1);
    server.say({ type: "processes", source: 0, processes: [one(1, 1), one(4, 900)] });
    assert.equal(server.sent.length, 3, "nor that of one that was chosen");
});

test("a source that was just chosen is not left for the first, whatever is still under way", () => {
    mock.timers.enable({ apis: ["setTimeout"] });
    const server = new Played();
    server.say(hello(from(0)));
    server.say({ type: "processes", source: 0, processes: [one(1, 10)] });
    watchSource(1);
    server.say(state(1, "live"));
    mock.timers.tick(10_000);
    assert.deepEqual(server.sent, [{ type: "watch", source: 0, pid: 1 }, { type: "watch", source: 1, pid: 0 }]);
    assert.equal(process.value, null);
    server.say({ type: "processes", source: 1, processes: [one(7, 10)] });
    assert.deepEqual(server.sent.slice(2), [{ type: "watch", source: 1, pid: 7 }]);
    mock.timers.reset();
});

test("a server that tells no processes is asked for any", () => {
    mock.timers.enable({ apis: ["setTimeout"] });
    const server = new Played();
    server.say(hello(from(0)));
    mock.timers.tick(10_000);
    assert.deepEqual(server.sent, [{ type: "watch", source: 0, pid: 0 }]);
    mock.timers.reset();
});

test("a link decides over source, process and moment, as far as these are there", () => {
    const server = new Played({ source: 1, pid: 3, at: 7 });
    server.say(hello(from(0), from(1, false)));
    assert.deepEqual(server.sent, [{ type: "watch", source: 1, pid: 3 }, { type: "cursor", command: "seek", at_ns: 7 }]);
    assert.equal(source.value?.source, 1);
    forget();
    const other = new Played({ source: 9, pid: 3, at: 7 });
    other.say(hello(from(0)));
    other.say({ type: "processes", source: 0, processes: [one(1, 10)] });
    assert.deepEqual(other.sent, [{ type: "watch", source: 0, pid: 1 }]);
});

test("a link with a moment alone is of what is looked at anyway", () => {
    const server = new Played({ at: 7 });
    server.say(hello(from(0)));
    server.say({ type: "processes", source: 0, processes: [one(1, 10)] });
    assert.deepEqual(server.sent, [{ type: "watch", source: 0, pid: 1 }, { type: "cursor", command: "seek", at_ns: 7 }]);
});

test("after a lost connection the same is watched, at the same moment unless it was live", () => {
    globalThis.fetch = () => Promise.reject(new Error("down"));
    const server = new Played();
    server.say(hello(from(0)));
    server.say({ type: "processes", source: 0, processes: [one(1, 10)] });
    server.say(state(1, "paused", 4));
    server.link({ phase: "waiting", retry_at: 99, attempt: 1 });
    assert.deepEqual(connection.value, { state: "lost", retryAt: 99 });
    server.say(hello(from(0)));
    assert.deepEqual(server.sent.slice(1), [{ type: "watch", source: 0, pid: 1 }, { type: "cursor", command: "seek", at_ns: 4 }]);
    assert.equal(connection.value.state, "open");
    server.say(state(1, "live"));
    server.link({ phase: "waiting", retry_at: 99, attempt: 1 });
    server.say(hello(from(0)));
    assert.deepEqual(server.sent.slice(3), [{ type: "watch", source: 0, pid: 1 }]);
});

test("a token that is refused ends the tries", async () => {
    const asked: string[] = [];
    globalThis.fetch = (async (url: string, init: RequestInit) => {
        asked.push(`${url} ${(init.headers as Record<string, string>)["Authorization"]}`);
        return new Response(null, { status: 401 });
    }) as typeof fetch;
    const server = new Played();
    server.link({ phase: "waiting", retry_at: 99, attempt: 1 });
    await new Promise((done) => setTimeout(done, 5));
    assert.equal(connection.value.state, "refused");
    assert.deepEqual(asked, ["/api/recording?source=0 Bearer t"]);
});

test("space pauses what moves, and plays what stands at the chosen speed", () => {
    const server = new Played();
    receive(state(1, "live"));
    assert.equal(live.value, true);
    cursor.toggle();
    receive(state(1, "paused"));
    speed.value = 4;
    cursor.toggle();
    cursor.seek(-3.7);
    assert.deepEqual(server.sent, [{ type: "cursor", command: "pause" }, { type: "cursor", command: "play", speed: 4 }, { type: "cursor", command: "seek", at_ns: 0 }]);
    assert.equal(status.value?.state, "paused");
});

test("watching says so to the server and forgets the moment before", () => {
    const server = new Played();
    processes.value = new Map([[0, [one(1, 1), one(2, 2)]]]);
    watch(0, 1);
    watch(0, 2, 8);
    assert.deepEqual(server.sent, [{ type: "watch", source: 0, pid: 1 }, { type: "watch", source: 0, pid: 2 }, { type: "cursor", command: "seek", at_ns: 8 }]);
});

test("notes are kept once, at most fifty, and can be dismissed", () => {
    note("info", "a");
    note("info", "a");
    assert.equal(notes.value.length, 1);
    for (let n = 0; n < 200; n += 1) note("warning", `n${n}`);
    assert.equal(notes.value.length, 50);
    dismiss(notes.value[0]!.id);
    assert.equal(notes.value.length, 49);
    receive({ type: "error", id: 4, message: "of a query" });
    assert.equal(notes.value.length, 49, "errors of queries are their panel's");
});

test("the largest process counts what is resident, and one that runs before one that has ended", () => {
    const ended = { ...one(1, 10), ended_ns: 5 };
    assert.equal(largest([ended, one(2, 10)])?.pid, 2);
    assert.equal(largest([{ ...one(1, 0), rss_bytes: 900 }, one(2, 10)])?.pid, 1);
    assert.equal(largest([]), null);
});

test("a policy is asked for while it is looked at, and again of a server that is back", () => {
    const server = new Played();
    const named = { name: "first-fit", about: "the lowest hole", environment: null };
    const stop = keepBeside();
    const asked = () => server.sent.flatMap((one) => (one.type === "model" ? [one.policy] : []));
    const greet = () => server.say({ ...hello(from(0)), policies: [named] } as ServerMessage);
    greet();
    assert.deepEqual(policies.value, [named]);
    beside.value = "first-fit";
    assert.deepEqual(asked(), [], "nobody looks");
    tab.value = "compare";
    assert.deepEqual(asked(), ["first-fit"]);
    server.say({ type: "model", policy: "first-fit" } as ServerMessage);
    assert.equal(model.value?.policy, "first-fit");
    beside.value = "buddy";
    assert.equal(model.value, null, "what was told is of another one");
    server.link({ phase: "waiting", retry_at: 99, attempt: 1 });
    globalThis.fetch = () => Promise.reject(new Error("down"));
    greet();
    tab.value = "overview";
    assert.deepEqual(asked(), ["first-fit", "buddy", "buddy", null]);
    stop();
    beside.value = null;
});
