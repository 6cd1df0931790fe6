// A query whose answer follows the cursor: asked again when the cursor or what it takes has changed, not too often, not while
// the page is hidden, and not while the person points at what it fills.

import { effect, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Queries, QueryKind } from "../protocol";
import { query } from "./server";
import { connection, status, watched } from "./session";

export interface Answer<T> {
    /** The last answer; it stays while a new one is awaited. */
    value: T | null;
    error: string | null;
    asking: boolean;
}

export interface Options {
    /** Milliseconds between two questions while the cursor moves. */
    every?: number;
    /** False for what does not depend on the cursor. */
    follows?: boolean;
    /** While true nothing is asked again just because the cursor moved. */
    held?: ReadonlySignal<boolean>;
    /** Whether an answer is shown even when something a little different is wanted by now. */
    late?: boolean;
}

/** Asks while the component is shown. `takes` null asks nothing. */
export function useQuery<K extends QueryKind>(kind: K, takes: Queries[K]["takes"] | null, options: Options = {}): Signal<Answer<Queries[K]["gives"]>> {
    const answer = useMemo(() => signal<Answer<Queries[K]["gives"]>>(NOTHING), []);
    const wanted = useMemo(() => signal<string | null>(null), []);
    useEffect(() => { wanted.value = takes === null ? null : JSON.stringify(takes); });
    useEffect(() => new Follower(kind, wanted, answer, options).follow(), []);
    return answer;
}

const NOTHING: Answer<never> = { value: null, error: null, asking: false };

/** Asks one kind of question again and again, one at a time. */
class Follower<K extends QueryKind> {
    private timer: ReturnType<typeof setTimeout> | null = null;
    private asking = false;
    private again = false;
    private over = false;
    private last = -Infinity;
    /** How long the last answer took, in milliseconds. */
    private took = 0;
    /** Source, process and, if it matters, the cursor, as of the last question. */
    private seen = "";
    private key: string | null = null;

    constructor(
        private readonly kind: K,
        private readonly wanted: ReadonlySignal<string | null>,
        private readonly answer: Signal<Answer<Queries[K]["gives"]>>,
        private readonly options: Options,
    ) {}

    follow(): () => void {
        const stop = effect(() => this.look());
        return () => {
            this.over = true;
            stop();
            if (this.timer !== null) clearTimeout(this.timer);
        };
    }

    /** Decides whether and when to ask; runs whenever something that it reads has changed. */
    private look(): void {
        const key = this.wanted.value;
        const open = connection.value.state === "open";
        const who = watched.value ? `${watched.value.source}/${watched.value.pid}` : "";
        const now = status.value;
        const held = this.options.held?.value ?? false;
        if (!open || who === "" || now === null || key === null) {
            if (key === null && this.key !== null) this.answer.value = NOTHING;
            this.key = key;
            return;
        }
        const running = now.state === "live" || now.state === "playing";
        // What does not depend on the cursor does on how much of the recording has been read.
        const read = (now.progress ?? 1) >= 1;
        const place = `${who}/${this.options.follows === false ? read : `${now.at_ns}/${now.events}/${running}`}`;
        const another = !this.seen.startsWith(`${who}/`);
        const asked = key !== this.key;
        if (!another && !asked && (place === this.seen || held || document.hidden)) return;
        if (another && this.seen !== "") this.answer.value = { value: null, error: null, asking: true };
        this.seen = place;
        this.key = key;
        // A cursor that was set somewhere is answered at once; one that runs, at its pace.
        this.schedule(another || asked || !running ? 0 : this.pace());
    }

    /** When a running cursor's next answer is due. One that takes long is asked for less often: heaps of ten million blocks would
     *  otherwise keep the server at questions, and it would not come along with the events. */
    private pace(): number {
        return this.last + Math.max(this.options.every ?? 1000, 4 * this.took) - performance.now();
    }

    private schedule(wait: number): void {
        if (this.asking) {
            this.again = true;
            return;
        }
        if (this.timer !== null) {
            if (wait > 0) return;
            clearTimeout(this.timer);
        }
        this.timer = setTimeout(() => void this.ask(), Math.max(0, wait));
    }

    private async ask(): Promise<void> {
        this.timer = null;
        const key = this.key;
        const who = this.seen.split("/", 2).join("/");
        if (this.over || key === null) return;
        this.asking = true;
        this.again = false;
        this.last = performance.now();
        this.answer.value = { ...this.answer.peek(), asking: true };
        // An answer to what is no longer asked would stand under another name.
        const wantedStill = () => !this.over && (key === this.key || this.options.late === true) && this.seen.startsWith(`${who}/`);
        try {
            const value = await query(this.kind, JSON.parse(key) as Queries[K]["takes"]);
            if (wantedStill()) this.answer.value = { value, error: null, asking: false };
        } catch (error) {
            // What was known stays on screen: a lost connection is told elsewhere.
            if (wantedStill()) this.answer.value = { value: this.answer.peek().value, error: (error as Error).message, asking: false };
        }
        this.asking = false;
        this.took = performance.now() - this.last;
        if (this.again && !this.over) this.schedule(this.key === key ? this.pace() : 0);
    }
}
