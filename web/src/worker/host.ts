// Starts the engine: in a worker, or on this thread where a worker cannot draw.
import { Client, type Host } from "./client";
import { Engine } from "./engine";
import type { FromEngine, ToEngine } from "./messages";

/** Whether canvases can be handed to a worker: Chrome 69, Firefox 105, Safari 16.4. */
export function drawsInWorker(): boolean {
    return (
        typeof Worker !== "undefined" &&
        typeof OffscreenCanvas !== "undefined" &&
        typeof HTMLCanvasElement.prototype.transferControlToOffscreen === "function"
    );
}

/** Starts the engine in a worker with the script at `url`, or here. */
export function start(url: string): Client {
    return new Client(drawsInWorker() ? inWorker(url) : onPage());
}

interface TrustedTypes {
    createPolicy(name: string, rules: { createScriptURL: (url: string) => string }): { createScriptURL(url: string): unknown };
}

function inWorker(url: string): Host {
    const types = (globalThis as { trustedTypes?: TrustedTypes }).trustedTypes;
    const policy = types?.createPolicy("memfrag", { createScriptURL: (script) => script });
    const worker = new Worker((policy?.createScriptURL(url) ?? url) as string, { name: "map" });
    return {
        post: (message, transfer = []) => worker.postMessage(message, transfer),
        listen: (listener) => {
            worker.onmessage = ({ data }: MessageEvent<FromEngine>) => listener(data);
            worker.onerror = (event) => listener({ from: "malformed", message: `the map's worker failed: ${event.message}` });
        },
    };
}

function onPage(): Host {
    let listener: (message: FromEngine) => void = () => {};
    const engine = new Engine((message) => listener(message));
    return {
        // Not at once: whoever posts is not to be called back before it is done.
        post: (message: ToEngine) => queueMicrotask(() => engine.handle(message)),
        listen: (to) => (listener = to),
    };
}

/** The canvas in the form that the engine draws on. */
export function offscreen(canvas: HTMLCanvasElement): OffscreenCanvas {
    // On this thread the element itself does: the engine uses what both have.
    return drawsInWorker() ? canvas.transferControlToOffscreen() : (canvas as unknown as OffscreenCanvas);
}
