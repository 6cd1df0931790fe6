// The page's end of the connection: sends to the engine, hands out what comes from the server, and pairs queries with answers.
import type { Cursor, Queries, QueryKind, Region, ServerMessage } from "../protocol";
import type { FromEngine, Link, Probe, Scene, Timing, ToEngine } from "./messages";

/** Whatever runs the engine: a worker, or the engine itself on this thread. */
export interface Host {
    post(message: ToEngine, transfer?: Transferable[]): void;
    listen(listener: (message: FromEngine) => void): void;
}

/** A query that was not answered, and why. */
export class QueryError extends Error {
    constructor(message: string) {
        super(message);
        this.name = "QueryError";
    }
}

interface Pending {
    resolve: (value: any) => void;
    reject: (reason: Error) => void;
}

type Off = () => void;

export class Client {
    private readonly messages = new Set<(message: ServerMessage) => void>();
    private readonly links = new Set<(link: Link) => void>();
    private readonly draws = new Set<(at_ns: number) => void>();
    private readonly troubles = new Set<(message: string) => void>();
    private readonly pending = new Map<number, Pending>();
    private next = 1;
    private link: Link = { phase: "connecting" };

    constructor(private readonly host: Host) {
        host.listen((message) => this.take(message));
    }

    /** Opens the socket at `url` (`ws://…/api/socket`), and again whenever it is lost. */
    connect(url: string, token: string): void {
        this.host.post({ to: "connect", url, token });
    }

    close(): void {
        this.host.post({ to: "close" });
    }

    /** Sends a command that has no answer of its own. */
    watch(source: number, pid: number): void {
        this.host.post({ to: "send", message: { type: "watch", source, pid } });
    }

    cursor(command: Cursor extends infer C ? (C extends Cursor ? Omit<C, "type"> : never) : never): void {
        this.host.post({ to: "send", message: { type: "cursor", ...command } as Cursor });
    }

    /** Wants a policy beside the heap that is watched, or none. */
    model(policy: string | null): void {
        this.host.post({ to: "send", message: { type: "model", policy } });
    }

    /** Asks the server; no more than four are under way, the others wait for their turn. Fails when the connection is lost. */
    query<K extends QueryKind>(kind: K, args: Queries[K]["takes"]): Promise<Queries[K]["gives"]> {
        return this.ask((id) => ({ to: "query", id, kind, args: args as Record<string, unknown> }));
    }

    /** Every message of the server except replies and the errors of queries. */
    onMessage(listener: (message: ServerMessage) => void): Off {
        return subscribe(this.messages, listener);
    }

    /** How the connection is: now, and whenever it changes. */
    onLink(listener: (link: Link) => void): Off {
        listener(this.link);
        return subscribe(this.links, listener);
    }

    /** After each drawn frame. */
    onDrawn(listener: (at_ns: number) => void): Off {
        return subscribe(this.draws, listener);
    }

    /** Frames that could not be decoded. */
    onMalformed(listener: (message: string) => void): Off {
        return subscribe(this.troubles, listener);
    }

    canvas(canvas: OffscreenCanvas): void {
        this.host.post({ to: "canvas", canvas }, [canvas]);
    }

    regions(regions: Region[]): void {
        this.host.post({ to: "regions", regions });
    }

    scene(scene: Scene): void {
        this.host.post({ to: "scene", scene });
    }

    /** A hidden page asks for one frame a second. */
    visible(visible: boolean): void {
        this.host.post({ to: "visible", visible });
    }

    probe(x: number, y: number): Promise<Probe> {
        return this.ask((id) => ({ to: "probe", id, x, y }));
    }

    timing(reset: boolean): Promise<Timing> {
        return this.ask((id) => ({ to: "timing", id, reset }));
    }

    private ask(message: (id: number) => ToEngine): Promise<any> {
        const id = this.next++;
        return new Promise((resolve, reject) => {
            this.pending.set(id, { resolve, reject });
            this.host.post(message(id));
        });
    }

    private take(message: FromEngine): void {
        switch (message.from) {
            case "link":
                this.link = message.link;
                for (const listener of this.links) listener(message.link);
                break;
            case "message":
                for (const listener of this.messages) listener(message.message);
                break;
            case "drawn":
                for (const listener of this.draws) listener(message.at_ns);
                break;
            case "malformed":
                for (const listener of this.troubles) listener(message.message);
                break;
            case "answer":
                this.settle(message.id)?.resolve(message.result);
                break;
            case "failed":
                this.settle(message.id)?.reject(new QueryError(message.message));
                break;
            case "probe":
                this.settle(message.id)?.resolve(message.probe);
                break;
            case "timing":
                this.settle(message.id)?.resolve(message.timing);
                break;
        }
    }

    private settle(id: number): Pending | undefined {
        const pending = this.pending.get(id);
        this.pending.delete(id);
        return pending;
    }
}

function subscribe<T>(listeners: Set<T>, listener: T): Off {
    listeners.add(listener);
    return () => listeners.delete(listener);
}
