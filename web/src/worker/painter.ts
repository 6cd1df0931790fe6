// Draws cells: bytes through a table of 256 colours into one image, and the changed rectangles of that onto the canvas.
// What comes out depends on nothing but cells, geometry, scroll and table.
import { type Span, spanFrom } from "../map/axis";
import type { Geometry, Rect, Spot } from "../map/geometry";
import { CELL_AT, SIDE } from "../map/hilbert";
import { LinearGeometry } from "../map/linear-geometry";
import { CELLS_PER_TILE, cellBytes } from "../protocol";
import type { Dirty } from "./cells";

export type Context = OffscreenCanvasRenderingContext2D;
type Source = (tile: number) => Uint8Array | undefined;

const NO_CELLS = new Uint8Array(CELLS_PER_TILE);
/** Cells smaller than this have no room for stripes. */
const STRIPED_CELL = 5;

/** How values become pixels. */
export interface Look {
    /** The colour of each value. */
    table: Uint32Array;
    /** A value whose cells have stripes of this colour besides, so that they differ not by colour alone. */
    striped: { value: number; pixel: number } | null;
}

export class Painter {
    private image: ImageData;
    private pixels: Uint32Array;
    /** Colours of one tile's cells. */
    private readonly colours = new Uint32Array(CELLS_PER_TILE);
    private spots: Spot[] = [];
    private byTile = new Map<number, Spot[]>();

    constructor(private readonly context: Context) {
        this.image = context.createImageData(Math.max(1, context.canvas.width), Math.max(1, context.canvas.height));
        this.pixels = new Uint32Array(this.image.data.buffer);
    }

    resize(width: number, height: number): void {
        const canvas = this.context.canvas;
        if (canvas.width === width && canvas.height === height) return;
        [canvas.width, canvas.height] = [width, height];
        this.image = this.context.createImageData(width, height);
        this.pixels = new Uint32Array(this.image.data.buffer);
    }

    /** Draws everything. */
    repaint(geometry: Geometry, scroll: number, cells: Source, look: Look): void {
        const { width, height } = this.image;
        this.spots = geometry.spots(scroll, height);
        this.byTile = new Map();
        for (const spot of this.spots) {
            const same = this.byTile.get(spot.tile);
            if (same === undefined) this.byTile.set(spot.tile, [spot]);
            else same.push(spot);
        }
        this.pixels.fill(0);
        for (const spot of this.spots) this.paint(geometry, scroll, spot, spot.first, spot.first + spot.count, cells, look);
        this.context.putImageData(this.image, 0, 0, 0, 0, width, height);
    }

    /** Draws the changed cells of tiles. The geometry and scroll are those of the last [repaint]. */
    update(geometry: Geometry, scroll: number, dirty: ReadonlyMap<number, Dirty>, cells: Source, look: Look): void {
        const rects: Rect[] = [];
        for (const [tile, { first, last }] of dirty) {
            const parts: Rect[] = [];
            for (const spot of this.byTile.get(tile) ?? []) {
                const from = Math.max(first, spot.first);
                const to = Math.min(last + 1, spot.first + spot.count);
                if (from >= to) continue;
                const rect = this.paint(geometry, scroll, spot, from, to, cells, look);
                if (rect !== null) parts.push(rect);
            }
            rects.push(...united(parts));
        }
        for (const rect of joined(rects)) this.context.putImageData(this.image, 0, 0, rect.x, rect.y, rect.width, rect.height);
    }

    /** Colour as drawn at a pixel. */
    at(x: number, y: number): [number, number, number, number] {
        const at = 4 * (Math.floor(y) * this.image.width + Math.floor(x));
        const data = this.image.data;
        return [data[at] ?? 0, data[at + 1] ?? 0, data[at + 2] ?? 0, data[at + 3] ?? 0];
    }

    private paint(
        geometry: Geometry,
        scroll: number,
        spot: Spot,
        from: number,
        to: number,
        cells: Source,
        { table, striped }: Look,
    ): Rect | null {
        const source = cells(spot.tile) ?? NO_CELLS;
        const stripes = striped !== null && Math.min(geometry.cellWidth, geometry.cellHeight) >= STRIPED_CELL ? striped : null;
        if (geometry instanceof LinearGeometry) {
            // Whole rows.
            const columns = geometry.columns;
            const begin = from - (from % columns);
            const end = Math.min(CELLS_PER_TILE, Math.ceil(to / columns) * columns);
            colour(this.colours, source, begin, end, spot.tile, geometry, table);
            const rect = this.rows(geometry, scroll, spot, begin, end);
            if (stripes !== null) this.stripe(geometry, scroll, spot, begin, end, source, stripes);
            return rect;
        }
        const [begin, end] = [spot.first, spot.first + spot.count];
        colour(this.colours, source, begin, end, spot.tile, geometry, table);
        const rect = this.square(spot, scroll, geometry.cellWidth);
        if (stripes !== null) this.stripe(geometry, scroll, spot, begin, end, source, stripes);
        return rect;
    }

    /** Stripes over the cells of one value, falling to the right. */
    private stripe(
        geometry: Geometry,
        scroll: number,
        spot: Spot,
        begin: number,
        end: number,
        source: Uint8Array,
        { value, pixel }: { value: number; pixel: number },
    ): void {
        const { width, height } = this.image;
        for (let cell = begin; cell < end; cell++) {
            // A clear cell belongs to no range.
            if (source[cell] !== value || this.colours[cell] === 0) continue;
            const rect = geometry.cellRect((spot.tile * CELLS_PER_TILE + cell) * geometry.scaleBytes.cell);
            if (rect === null) continue;
            const top = rect.y - scroll;
            for (let y = Math.max(0, top); y < Math.min(height, top + rect.height); y++) {
                for (let x = rect.x; x < Math.min(width, rect.x + rect.width); x++) {
                    if ((x - y + top) % 4 === 0) this.pixels[y * width + x] = pixel;
                }
            }
        }
    }

    private rows(geometry: LinearGeometry, scroll: number, spot: Spot, begin: number, end: number): Rect | null {
        const { width, height } = this.image;
        const { cellOfX, columns, cellHeight } = geometry;
        const top = spot.y + ((begin - spot.first) / columns) * cellHeight - scroll;
        let y = top;
        for (let cell = begin; cell < end; cell += columns, y += cellHeight) {
            const [from, to] = [Math.max(0, y), Math.min(height, y + cellHeight)];
            if (from >= to) continue;
            const line = from * width;
            for (let x = 0; x < width; x++) this.pixels[line + x] = this.colours[cell + cellOfX[x]!]!;
            for (let copy = from + 1; copy < to; copy++) this.pixels.copyWithin(copy * width, line, line + width);
        }
        return clipped({ x: 0, y: top, width, height: y - top }, width, height);
    }

    private square(spot: Spot, scroll: number, side: number): Rect | null {
        const { width, height } = this.image;
        const order = CELL_AT[spot.turn]!;
        const right = Math.min(width, spot.x + SIDE * side);
        let y = spot.y - scroll;
        for (let row = 0; row < SIDE; row++, y += side) {
            const [from, to] = [Math.max(0, y), Math.min(height, y + side)];
            if (from >= to) continue;
            const line = from * width;
            let x = spot.x;
            for (let column = 0; column < SIDE; column++) {
                const pixel = this.colours[spot.first + order[SIDE * row + column]!]!;
                const next = Math.min(right, x + side);
                for (; x < next; x++) this.pixels[line + x] = pixel;
            }
            for (let copy = from + 1; copy < to; copy++) {
                this.pixels.copyWithin(copy * width + spot.x, line + spot.x, line + right);
            }
        }
        const all = { x: spot.x, y: spot.y - scroll, width: SIDE * side, height: SIDE * side };
        return clipped(all, width, height);
    }
}

/** Colours of the cells from `begin` to `end` of a tile; those that belong to no range are left clear. */
function colour(
    colours: Uint32Array,
    cells: Uint8Array,
    begin: number,
    end: number,
    tile: number,
    { spans, level }: { spans: readonly Span[]; level: number },
    table: Uint32Array,
): void {
    const size = cellBytes(level);
    const base = tile * CELLS_PER_TILE;
    let cell = begin;
    for (let n = spanFrom(spans, (base + begin) * size); n < spans.length && cell < end; n++) {
        const span = spans[n]!;
        const from = Math.max(cell, Math.floor(span.start / size) - base);
        if (from >= end) break;
        const to = Math.min(end, Math.ceil(span.end / size) - base);
        if (from > cell) colours.fill(0, cell, from);
        for (cell = from; cell < to; cell++) colours[cell] = table[cells[cell]!]!;
    }
    if (cell < end) colours.fill(0, cell, end);
}

function clipped(rect: Rect, width: number, height: number): Rect | null {
    const [x0, y0] = [Math.max(0, rect.x), Math.max(0, rect.y)];
    const [x1, y1] = [Math.min(width, rect.x + rect.width), Math.min(height, rect.y + rect.height)];
    return x0 < x1 && y0 < y1 ? { x: x0, y: y0, width: x1 - x0, height: y1 - y0 } : null;
}

/** Rectangles as the one around them, where that is hardly larger than they are: a tile of a Hilbert curve is mostly a square. */
export function united(rects: Rect[]): Rect[] {
    if (rects.length < 2) return rects;
    let [left, top, right, bottom, area] = [Infinity, Infinity, 0, 0, 0];
    for (const { x, y, width, height } of rects) {
        [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x + width), Math.max(bottom, y + height)];
        area += width * height;
    }
    const around = { x: left, y: top, width: right - left, height: bottom - top };
    return around.width * around.height <= 2 * area ? [around] : rects;
}

/** Rectangles that stand one below the other, as one. */
export function joined(rects: readonly Rect[]): Rect[] {
    const sorted = [...rects].sort((a, b) => a.x - b.x || a.width - b.width || a.y - b.y);
    const result: Rect[] = [];
    for (const rect of sorted) {
        const above = result.at(-1);
        if (above !== undefined && above.x === rect.x && above.width === rect.width && rect.y <= above.y + above.height) {
            above.height = Math.max(above.height, rect.y + rect.height - above.y);
        } else result.push({ ...rect });
    }
    return result;
}
