// Where cells lie in the picture: the common face of the linear and the Hilbert layout. All lengths are device pixels; y counts from
// the top of the content, of which the canvas shows a part.
import type { Layout } from "../worker/messages";
import type { Span } from "./axis";
import { HilbertGeometry } from "./hilbert-geometry";
import { LinearGeometry } from "./linear-geometry";
import { CLOSEST } from "./zoom";

export interface Rect {
    x: number;
    y: number;
    width: number;
    height: number;
}

/** A part of a tile that lies in one piece. */
export interface Spot {
    tile: number;
    /** Cells of the tile. */
    first: number;
    count: number;
    x: number;
    y: number;
    /** Hilbert: how the curve is turned. */
    turn: number;
}

/** What was left out between two ranges. */
export interface Gap {
    y: number;
    height: number;
    bytes: number;
    /** Where the next range begins. */
    until: number;
}

export interface Frame {
    width: number;
    height: number;
    /** The smallest side of a cell. */
    grain: number;
    /** Device pixels in a pixel of the page. */
    unit: number;
    /** Cells may be drawn larger, less than twice, to fill the height. */
    fill: boolean;
}

export interface Geometry {
    readonly layout: Layout;
    readonly level: number;
    readonly contentHeight: number;
    /** About how large a cell is drawn. */
    readonly cellWidth: number;
    readonly cellHeight: number;
    readonly spans: readonly Span[];
    /** In words: what a row and a cell stand for. */
    readonly scaleBytes: { row: number | null; cell: number };
    /** The parts of tiles between `top` and `top + height`. */
    spots(top: number, height: number): Spot[];
    /** Address of the cell at a point, null beside all ranges. */
    addressAt(x: number, y: number): number | null;
    /** The cell that holds `address`, null when that is left out. */
    cellRect(address: number): Rect | null;
    /** Lines around the cells from `start` to `end`, as x0, y0, x1, y1; only those near the part that is shown. */
    outline(start: number, end: number, top: number, height: number): number[];
    gaps(top: number, height: number): Gap[];
    /** Addresses for a ruler at the left, at least `apart` from one another. */
    marks(top: number, height: number, apart: number): { y: number; address: number }[];
}

export function geometry(layout: Layout, spans: readonly Span[], zoom: number, frame: Frame): Geometry {
    return layout === "linear" ? new LinearGeometry(spans, zoom, frame) : new HilbertGeometry(spans, zoom, frame);
}

/** The closest zoom at which everything can be seen at once. */
export function fit(layout: Layout, spans: readonly Span[], frame: Frame): number {
    const plain = { ...frame, fill: false };
    let [low, high] = [0, CLOSEST];
    while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (geometry(layout, spans, middle, plain).contentHeight <= frame.height) low = middle;
        else high = middle - 1;
    }
    return low;
}
