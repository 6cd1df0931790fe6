// The connection: who is watched after each greeting, commands to the cursor, queries.

import { batch, signal } from "@preact/signals";
import type { Process, Queries, QueryKind, ServerMessage } from "../protocol";
import type { Client } from "../worker/client";
import type { Link } from "../worker/messages";
import type { Look } from "./permalink";
import { connection, largest, note, processes, receive, sources, status, version, watched } from "./session";

/** What a link, or the time before a lost connection, wants back. */
type Wanted = { source: number | null; pid: number | null; at: number | null };

/** A speed to play with; 0 is as fast as possible. */
export const SPEEDS = [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 0] as const;
export const speed = signal<number>(1);

/** Null until the page has begun to connect. */
export const link = signal<Client | null>(null);

/** Stands for whichever process there is. */
const ANY = 0;
const PATIENCE = 500;

let token: string | null = null;
let wanted: Wanted = { source: null, pid: null, at: null };
/** Whether nobody has chosen a process: then it may change while the recording is still being read. */
let free = true;

/** Connects, and stays connected. */
export function connect(client: Client, url: string, withToken: string, look: Look): Client {
    token = withToken;
    wanted = { source: look.source, pid: look.pid, at: look.at };
    free = look.pid === null;
    client.onLink(linkChanged);
    client.onMessage(take);
    client.onMalformed((message) => note("warning", `A map frame could not be read: ${message}`));
    link.value = client;
    client.connect(url, withToken);
    return client;
}

function linkChanged(now: Link): void {
    if (now.phase === "connecting") {
        if (version.value === null && connection.value.state !== "lost") connection.value = { state: "connecting" };
    } else if (now.phase === "waiting") {
        keepMoment();
        connection.value = { state: "lost", retryAt: now.retry_at };
        void whyLost();
    } else if (now.phase === "closed") {
        keepMoment();
    }
}

/** Remembers where the cursor stood, for when the server is back. */
function keepMoment(): void {
    const now = status.value;
    if (watched.value) wanted = { ...watched.value, at: null };
    if (now && (now.state === "paused" || now.state === "playing")) wanted.at = now.at_ns;
}

/** A failed handshake does not say why to a page; a request does. */
async function whyLost(): Promise<void> {
    const abort = new AbortController();
    try {
        const answer = await request("/api/recording?source=0", { signal: abort.signal });
        if (answer.status === 401) {
            connection.value = { state: "refused" };
            link.value?.close();
        }
    } catch {
        // Not there: the worker goes on trying.
    } finally {
        abort.abort();
    }
}

/** A request below `/api/`, with the token. */
export function request(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(path, { ...init, headers: { Authorization: `Bearer ${token ?? ""}` }, cache: "no-store", credentials: "omit" });
}

/** Takes one message in and does what it asks of the page. */
function take(message: ServerMessage): void {
    if (message.type === "hello") greet(message.sources.map((one) => one.source));
    receive(message);
    if (message.type === "sources") leave(message.sources.map((one) => one.source));
    if (message.type === "processes") choose(message.source, message.processes);
    if (message.type === "status" && !watched.value && message.pid !== ANY && isWanted(message.source)) watched.value = { source: message.source, pid: message.pid };
}

/** After a greeting: the source of the link when the server has it, else the first. Its process may have to be learned. */
function greet(known: number[]): void {
    const first = known[0];
    if (first === undefined) return;
    const source = wanted.source !== null && known.includes(wanted.source) ? wanted.source : first;
    // A moment and a process are of the source that they were told with; where none was told, of the first.
    wanted = wanted.source === null || wanted.source === source ? { ...wanted, source } : { source, pid: null, at: null };
    const pid = wanted.pid ?? processes.value.get(source)?.[0]?.pid;
    watched.value = null;
    if (pid !== undefined) return show(source, pid, wanted.at);
    // A server that does not tell its processes by itself does when it is asked for any.
    setTimeout(() => { if (watched.value === null && isWanted(source)) link.value?.watch(source, ANY); }, PATIENCE);
}

/** Whether a source is still to be looked at: another one may have been chosen since, whose processes are yet to be learned. */
function isWanted(source: number): boolean {
    return wanted.source === null || wanted.source === source;
}

/** What is watched was removed: back to the first. */
function leave(known: number[]): void {
    const now = watched.value;
    if (now === null || known.includes(now.source) || known[0] === undefined) return;
    watchSource(known[0]);
}

/** Once the processes of a source are known: the one that is wanted, else the one that holds most. */
function choose(source: number, list: Process[]): void {
    if (!isWanted(source)) return;
    const now = watched.value;
    const there = now?.source === source && list.some((one) => one.pid === now.pid);
    if (there && !free) return;
    const pick = list.find((one) => one.pid === wanted.pid && !free) ?? largest(list);
    // The first list may be of the beginning of a recording that the server is still reading.
    if (status.value !== null && (status.value.progress ?? 1) >= 1) free = false;
    if (pick && !(there && pick.pid === now?.pid)) show(source, pick.pid, wanted.at);
}

/** Looks at a process of a source from now on, at a moment when one is given. */
export function watch(source: number, pid: number, at: number | null = null): void {
    free = false;
    show(source, pid, at);
}

function show(source: number, pid: number, at: number | null): void {
    batch(() => {
        watched.value = { source, pid };
        wanted = { source, pid, at: null };
        link.value?.watch(source, pid);
        if (at !== null) link.value?.cursor({ command: "seek", at_ns: at });
    });
}

/** Looks at another source: at its largest process, which the server tells. */
export function watchSource(source: number): void {
    const known = largest(processes.value.get(source) ?? []);
    if (known) return watch(source, known.pid);
    wanted = { source, pid: null, at: null };
    free = true;
    watched.value = null;
    link.value?.watch(source, ANY);
}

export const cursor = {
    live: () => link.value?.cursor({ command: "live" }),
    stop: () => link.value?.cursor({ command: "stop" }),
    pause: () => link.value?.cursor({ command: "pause" }),
    play: (at: number = speed.value) => {
        speed.value = at;
        link.value?.cursor({ command: "play", speed: at });
    },
    seek: (ns: number) => link.value?.cursor({ command: "seek", at_ns: Math.max(0, Math.round(ns)) }),
    step: (events: number) => link.value?.cursor({ command: "step", events }),
    /** Plays when it stands, pauses when it moves. */
    toggle: () => {
        const state = status.value?.state;
        if (state === "live" || state === "playing") cursor.pause();
        else cursor.play();
    },
};

export function query<K extends QueryKind>(kind: K, takes: Queries[K]["takes"]): Promise<Queries[K]["gives"]> {
    const client = link.value;
    if (!client) return Promise.reject(new Error("not connected"));
    return client.query(kind, takes);
}

/** A source by its number. */
export function sourceOf(number: number) {
    return sources.value.find((one) => one.source === number) ?? null;
}
