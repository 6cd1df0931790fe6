// What the server has said: sources, processes, the cursor's status, regions, classes, notices, and how the connection is.

import { batch, computed, signal } from "@preact/signals";
import type { ModelMessage, Palette, Policy, Process, Region, ServerMessage, Source, Status } from "../protocol";

export type Connection =
    | { state: "connecting" }
    | { state: "open" }
    /** Was open, or could not be reached: tried again at `retryAt` (of Date.now). */
    | { state: "lost"; retryAt: number }
    /** The tab has no token. */
    | { state: "no-token" }
    /** The server does not take the token. */
    | { state: "refused" }
    /** The browser lacks what the page needs. */
    | { state: "unsupported"; lacks: string };

export interface Note {
    id: number;
    level: "info" | "warning" | "error";
    text: string;
}

export const connection = signal<Connection>({ state: "connecting" });
/** memfrag's version, once the server has greeted. */
export const version = signal<string | null>(null);
export const sources = signal<Source[]>([]);
/** By number of the source. */
export const processes = signal<ReadonlyMap<number, Process[]>>(new Map());
export const status = signal<Status | null>(null);
export const regions = signal<Region[]>([]);
export const palettes = signal<ReadonlyMap<string, Palette["classes"]>>(new Map());
export const notes = signal<Note[]>([]);
/** Policies that can be asked for. */
export const policies = signal<readonly Policy[]>([]);
/** The last that was told of the policy beside the heap; null since another one was asked for. */
export const model = signal<ModelMessage | null>(null);
/** What the client asked to watch; what the server shows is in `status`. */
export const watched = signal<{ source: number; pid: number } | null>(null);

export const source = computed<Source | null>(() => {
    const number = watched.value?.source ?? status.value?.source;
    return sources.value.find((one) => one.source === number) ?? null;
});

export const process = computed<Process | null>(() => {
    const now = watched.value;
    if (!now) return null;
    return processes.value.get(now.source)?.find((one) => one.pid === now.pid) ?? null;
});

/** Whether the cursor stands at the newest event of something that still grows. */
export const live = computed(() => status.value?.state === "live");
export const cursorNs = computed(() => status.value?.at_ns ?? 0);
export const endNs = computed(() => Math.max(status.value?.end_ns ?? 0, source.value?.duration_ns ?? 0));
/** What is shown is old: the connection is gone. */
export const stale = computed(() => connection.value.state !== "open" && status.value !== null);

const KEPT_NOTES = 50;
let nextNote = 1;

export function note(level: Note["level"], text: string): void {
    const last = notes.value.at(-1);
    if (last && last.text === text) return;
    notes.value = [...notes.value.slice(1 - KEPT_NOTES), { id: nextNote++, level, text }];
}

export function dismiss(id: number): void {
    notes.value = notes.value.filter((one) => one.id !== id);
}

/** Takes in one message, of any kind but replies to queries. */
export function receive(message: ServerMessage): void {
    batch(() => {
        switch (message.type) {
            case "hello":
                version.value = message.version;
                sources.value = message.sources;
                policies.value = message.policies ?? [];
                connection.value = { state: "open" };
                break;
            case "sources":
                sources.value = message.sources;
                processes.value = new Map([...processes.value].filter(([number]) => message.sources.some((one) => one.source === number)));
                break;
            case "processes":
                processes.value = new Map(processes.value).set(message.source, message.processes);
                break;
            case "status":
                status.value = message;
                break;
            case "regions":
                if (!watched.value || message.pid === watched.value.pid) regions.value = message.regions;
                break;
            case "palette":
                palettes.value = new Map(palettes.value).set(message.mode, message.classes);
                break;
            case "notice":
                note(message.level, message.text);
                break;
            case "model":
                model.value = message;
                break;
            case "error":
                if (message.id === null) note("error", message.message);
                break;
            default:
                break;
        }
    });
}

/** The process to look at first: the one that holds most. */
export function largest(list: readonly Process[]): Process | null {
    let best: Process | null = null;
    for (const one of list) if (best === null || rank(one) > rank(best)) best = one;
    return best;
}

function rank(one: Process): number {
    return Math.max(one.live_bytes, one.rss_bytes ?? 0) + (one.ended_ns === null ? 0.5 : 0);
}

/** As after a reload; for tests and for another server. */
export function forget(): void {
    batch(() => {
        version.value = null;
        sources.value = [];
        processes.value = new Map();
        status.value = null;
        regions.value = [];
        palettes.value = new Map();
        watched.value = null;
        notes.value = [];
        policies.value = [];
        model.value = null;
    });
}
