// What the page and the map's engine say to each other. The engine runs in a worker, or on the page where a canvas cannot be handed
// to one; the messages are the same.
import type { ClientMessage, Mode, QueryKind, Region, ServerMessage } from "../protocol";

/** How the connection to the server is. */
export type Link =
    | { phase: "connecting" }
    | { phase: "open" }
    /** Lost or never made; tried again at `retry_at` (milliseconds, `Date.now()`). */
    | { phase: "waiting"; retry_at: number; attempt: number }
    /** Closed by the page. */
    | { phase: "closed" };

export type Layout = "linear" | "hilbert";
export type Theme = "dark" | "light";

/** Which values of a class mode are lit; all others are drawn faint. */
export type Highlight = readonly number[] | null;

/** Everything that the engine draws by. Lengths are device pixels. */
export interface Scene {
    mode: Mode;
    layout: Layout;
    theme: Theme;
    /** Position on the ladder of zooms; see `map/zoom.ts`. */
    zoom: number;
    /** Pixels between the top of the content and the top of the canvas. */
    scroll: number;
    width: number;
    height: number;
    /** The smallest side that a cell is drawn with. */
    grain: number;
    /** Device pixels in a pixel of the page. */
    unit: number;
    /** Everything is to be seen: cells may grow to fill the height. */
    fill: boolean;
    highlight: Highlight;
    /** All scales are cividis. */
    cividis: boolean;
    /** Frames per second asked of the server. */
    hz: number;
}

/** What the probe answers: the cell under a pixel of the canvas. */
export interface Probe {
    /** Null where no cell is drawn. */
    cell: { level: number; tile: number; cell: number; address: number; value: number } | null;
    /** As drawn: red, green, blue, alpha. */
    rgba: [number, number, number, number];
    /** The mode that the value is of: while a new view is under way, still that of the view before. */
    mode: Mode;
}

/** Durations of the last drawn frames, milliseconds. */
export interface Timing {
    frames: number;
    /** Decoding, changing cells, drawing: the work of one frame. */
    draw: number[];
    /** Between one animation frame and the next, while there was something to draw. */
    frame: number[];
    /** Tiles that changed, per frame. */
    tiles: number[];
}

export type ToEngine =
    | { to: "connect"; url: string; token: string }
    | { to: "close" }
    | { to: "send"; message: ClientMessage }
    | { to: "query"; id: number; kind: QueryKind; args: Record<string, unknown> }
    | { to: "canvas"; canvas: OffscreenCanvas }
    | { to: "regions"; regions: Region[] }
    | { to: "scene"; scene: Scene }
    | { to: "probe"; id: number; x: number; y: number }
    | { to: "timing"; id: number; reset: boolean }
    | { to: "visible"; visible: boolean };

export type FromEngine =
    | { from: "link"; link: Link }
    | { from: "message"; message: ServerMessage }
    | { from: "answer"; id: number; result: unknown }
    | { from: "failed"; id: number; message: string }
    | { from: "probe"; id: number; probe: Probe }
    | { from: "timing"; id: number; timing: Timing }
    /** A frame was drawn; cells under the pointer may have changed. */
    | { from: "drawn"; at_ns: number }
    /** A frame that could not be decoded. */
    | { from: "malformed"; message: string };
