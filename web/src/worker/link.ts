// The connection to the server: one WebSocket at a time, opened again when it is lost, and the queries that wait for an answer.
import { parseMessage, SUBPROTOCOL, type ClientMessage, type QueryKind, type ServerMessage } from "../protocol";
import type { Link as State } from "./messages";

const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 15_000;
/** What the server lets one client have under way. */
const QUERIES_AT_ONCE = 4;
/** Queries that wait beyond this are refused: something asks without end. */
const QUERIES_WAITING = 256;

export interface LinkEvents {
    state(state: State): void;
    message(message: ServerMessage): void;
    frame(buffer: ArrayBuffer): void;
    answered(id: number, result: unknown): void;
    failed(id: number, message: string): void;
    malformed(message: string): void;
}

interface Query {
    id: number;
    kind: QueryKind;
    args: Record<string, unknown>;
}

export class Link {
    private socket: WebSocket | null = null;
    private target: { url: string; token: string } | null = null;
    private attempt = 0;
    private timer: ReturnType<typeof setTimeout> | undefined;
    private readonly underWay = new Set<number>();
    private waiting: Query[] = [];

    constructor(private readonly events: LinkEvents) {}

    get open(): boolean {
        return this.socket !== null && this.socket.readyState === WebSocket.OPEN;
    }

    connect(url: string, token: string): void {
        this.close();
        this.target = { url, token };
        this.attempt = 0;
        this.dial();
    }

    close(): void {
        clearTimeout(this.timer);
        this.target = null;
        const socket = this.socket;
        this.socket = null;
        socket?.close();
        this.fail("the connection was closed");
        this.events.state({ phase: "closed" });
    }

    /** Sends when there is a connection; says whether there was one. */
    send(message: ClientMessage): boolean {
        if (!this.open) return false;
        this.socket!.send(JSON.stringify(message));
        return true;
    }

    query(query: Query): void {
        if (!this.open) this.events.failed(query.id, "not connected");
        else if (this.waiting.length >= QUERIES_WAITING) this.events.failed(query.id, "too many queries are waiting");
        else {
            this.waiting.push(query);
            this.ask();
        }
    }

    private ask(): void {
        while (this.underWay.size < QUERIES_AT_ONCE) {
            const query = this.waiting.shift();
            if (query === undefined) return;
            this.underWay.add(query.id);
            this.send({ ...query.args, type: "query", id: query.id, kind: query.kind });
        }
    }

    private dial(): void {
        const target = this.target;
        if (target === null) return;
        this.events.state({ phase: "connecting" });
        let socket: WebSocket;
        try {
            socket = new WebSocket(target.url, [SUBPROTOCOL, `bearer.${target.token}`]);
        } catch (error) {
            // A token of characters that a subprotocol cannot have.
            this.events.malformed(String(error));
            this.retry();
            return;
        }
        this.socket = socket;
        socket.binaryType = "arraybuffer";
        socket.onopen = () => {
            if (socket !== this.socket) return;
            this.attempt = 0;
            this.events.state({ phase: "open" });
        };
        socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
            if (socket !== this.socket) return;
            if (typeof data === "string") this.text(data);
            else this.events.frame(data);
        };
        socket.onclose = () => {
            if (socket !== this.socket) return;
            this.socket = null;
            this.fail("the connection was lost");
            this.retry();
        };
    }

    private retry(): void {
        const wait = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.attempt);
        this.attempt++;
        this.events.state({ phase: "waiting", retry_at: Date.now() + wait, attempt: this.attempt });
        this.timer = setTimeout(() => this.dial(), wait);
    }

    private text(data: string): void {
        let message: ServerMessage | null;
        try {
            message = parseMessage(data);
        } catch (error) {
            this.events.malformed(`malformed message: ${error instanceof Error ? error.message : String(error)}`);
            return;
        }
        if (message === null) return;
        if (message.type === "reply" || (message.type === "error" && message.id !== null)) {
            const id = message.id!;
            if (!this.underWay.delete(id)) return;
            if (message.type === "reply") this.events.answered(id, message.result);
            else this.events.failed(id, message.message);
            this.ask();
        } else this.events.message(message);
    }

    private fail(why: string): void {
        for (const id of this.underWay) this.events.failed(id, why);
        for (const { id } of this.waiting) this.events.failed(id, why);
        this.underWay.clear();
        this.waiting = [];
    }
}
