// Tiles as squares of 64 × 64 cells along a Hilbert curve: what is near in memory is near in the picture, holes are blots. The tiles
// that the ranges touch, one after the other, fill squares of a power of two of tiles, which stand side by side like words.
import { CELLS_PER_TILE, cellBytes, tileBytes } from "../protocol";
import { runBefore, runOf, runs, spanAt, type Run, type Span } from "./axis";
import type { Frame, Gap, Geometry, Rect, Spot } from "./geometry";
import { CELL_AT, find, PLACE_OF, SIDE, walk } from "./hilbert";
import { zoomStep } from "./zoom";

/** More cells than this are outlined by their tiles. */
const OUTLINED_CELLS = 20_000;

/** How tiles of cells of `side` pixels are put into squares of 2^order tiles a side, `across` of them side by side. */
function place(tiles: number, side: number, frame: Frame): { order: number; across: number; height: number } {
    const tile = side * SIDE;
    const widest = Math.max(0, Math.floor(Math.log2(Math.min(frame.width, frame.height) / tile)));
    const order = Math.min(widest, Math.floor(Math.log2(Math.max(1, tiles)) / 2));
    const square = tile * 2 ** order;
    const across = Math.max(1, Math.floor(frame.width / square));
    return { order, across, height: square * Math.ceil(tiles / 4 ** order / across) };
}

export class HilbertGeometry implements Geometry {
    readonly layout = "hilbert";
    readonly level: number;
    readonly contentHeight: number;
    readonly cellWidth: number;
    readonly cellHeight: number;
    readonly scaleBytes: { row: null; cell: number };
    private readonly runs: readonly Run[];
    private readonly tiles: number;
    /** Of the large squares: 2^order tiles a side. */
    private readonly order: number;
    private readonly square: number;
    private readonly across: number;
    private readonly tilePixels: number;
    /** The squares stand in the middle. */
    private readonly left: number;

    constructor(
        readonly spans: readonly Span[],
        zoom: number,
        frame: Frame,
    ) {
        const { level, doublings } = zoomStep(zoom);
        this.level = level;
        const room = Math.max(1, Math.floor(Math.min(frame.width, frame.height) / SIDE));
        this.scaleBytes = { row: null, cell: cellBytes(level) };
        this.runs = runs(spans, tileBytes(level));
        const last = this.runs.at(-1);
        this.tiles = last === undefined ? 0 : last.before + last.count;
        const least = Math.max(1, Math.min(room, Math.round(frame.grain * Math.SQRT2 ** doublings)));
        let side = least;
        if (frame.fill) while (side + 1 < 2 * least && place(this.tiles, side + 1, frame).height <= frame.height) side++;
        const placed = place(this.tiles, side, frame);
        this.cellWidth = side;
        this.cellHeight = side;
        this.tilePixels = side * SIDE;
        this.order = placed.order;
        this.across = placed.across;
        this.square = this.tilePixels * 2 ** placed.order;
        this.contentHeight = placed.height;
        const squares = Math.min(this.across, Math.ceil(this.tiles / 4 ** this.order));
        this.left = Math.max(0, Math.floor((frame.width - squares * this.square) / 2));
    }

    private slotSpot(slot: number): { x: number; y: number; turn: number } {
        const squares = 4 ** this.order;
        const square = Math.floor(slot / squares);
        const { x, y, turn } = walk(this.order, slot % squares);
        return {
            x: this.left + (square % this.across) * this.square + x * this.tilePixels,
            y: Math.floor(square / this.across) * this.square + y * this.tilePixels,
            turn,
        };
    }

    private tileOf(slot: number): number {
        const run = this.runs[runBefore(this.runs, slot)]!;
        return run.first + slot - run.before;
    }

    private slotOf(tile: number): number | null {
        const n = runOf(this.runs, tile);
        return n < 0 ? null : this.runs[n]!.before + tile - this.runs[n]!.first;
    }

    spots(top: number, height: number): Spot[] {
        const spots: Spot[] = [];
        const perRow = 4 ** this.order * this.across;
        const first = Math.max(0, Math.floor(top / this.square)) * perRow;
        const end = Math.min(this.tiles, Math.ceil((top + height) / this.square) * perRow);
        for (let slot = first; slot < end; slot++) {
            const { x, y, turn } = this.slotSpot(slot);
            if (y + this.tilePixels <= top || y >= top + height) continue;
            spots.push({ tile: this.tileOf(slot), first: 0, count: CELLS_PER_TILE, x, y, turn });
        }
        return spots;
    }

    addressAt(pointX: number, y: number): number | null {
        const x = pointX - this.left;
        if (x < 0 || y < 0) return null;
        const column = Math.floor(x / this.square);
        if (column >= this.across) return null;
        const square = Math.floor(y / this.square) * this.across + column;
        const [tileX, tileY] = [Math.floor((x % this.square) / this.tilePixels), Math.floor((y % this.square) / this.tilePixels)];
        const { index, turn } = find(this.order, tileX, tileY);
        const slot = square * 4 ** this.order + index;
        if (slot >= this.tiles) return null;
        const side = this.cellWidth;
        const place = Math.floor((x % this.tilePixels) / side) + SIDE * Math.floor((y % this.tilePixels) / side);
        const cell = this.scaleBytes.cell;
        const address = this.tileOf(slot) * CELLS_PER_TILE * cell + CELL_AT[turn]![place]! * cell;
        const inside = spanAt(this.spans, address) !== null || spanAt(this.spans, address + cell - 1) !== null;
        return inside ? address : null;
    }

    cellRect(address: number): Rect | null {
        const size = this.scaleBytes.cell;
        const tile = Math.floor(address / size / CELLS_PER_TILE);
        const slot = this.slotOf(tile);
        if (slot === null) return null;
        const { x, y, turn } = this.slotSpot(slot);
        const place = PLACE_OF[turn]![Math.floor(address / size) % CELLS_PER_TILE]!;
        const side = this.cellWidth;
        return { x: x + (place % SIDE) * side, y: y + Math.floor(place / SIDE) * side, width: side, height: side };
    }

    outline(start: number, end: number, top: number, height: number): number[] {
        const cell = this.scaleBytes.cell;
        const count = Math.ceil(end / cell) - Math.floor(start / cell);
        // Cells, or tiles when these were too many.
        const unit = count <= OUTLINED_CELLS ? cell : cell * CELLS_PER_TILE;
        const side = unit === cell ? this.cellWidth : this.tilePixels;
        const squares = new Map<number, [number, number]>();
        const width = this.across * this.square + side;
        const key = (x: number, y: number) => Math.round(y / side) * width + Math.round((x - this.left) / side);
        const first = Math.floor(start / unit) * unit;
        const beyond = Math.min(end, first + OUTLINED_CELLS * unit);
        for (let at = first; at < beyond; at += unit) {
            const rect = this.cellRect(at);
            if (rect === null || rect.y + side < top - side || rect.y > top + height + side) continue;
            const x = this.left + Math.floor((rect.x - this.left) / side) * side;
            const y = Math.floor(rect.y / side) * side;
            squares.set(key(x, y), [x, y]);
        }
        const lines: number[] = [];
        for (const [x, y] of squares.values()) {
            if (!squares.has(key(x, y - side))) lines.push(x, y, x + side, y);
            if (!squares.has(key(x, y + side))) lines.push(x, y + side, x + side, y + side);
            if (!squares.has(key(x - side, y))) lines.push(x, y, x, y + side);
            if (!squares.has(key(x + side, y))) lines.push(x + side, y, x + side, y + side);
        }
        return lines;
    }

    gaps(): Gap[] {
        return [];
    }

    /** Address of the first tile of each row of squares. */
    marks(top: number, height: number, apart: number): { y: number; address: number }[] {
        const marks: { y: number; address: number }[] = [];
        const perRow = 4 ** this.order * this.across;
        const step = Math.max(1, Math.ceil(apart / this.square));
        for (let row = Math.max(0, Math.floor(top / this.square)); row * perRow < this.tiles; row += step) {
            const y = row * this.square;
            if (y >= top + height) break;
            marks.push({ y, address: this.tileOf(row * perRow) * CELLS_PER_TILE * this.scaleBytes.cell });
        }
        return marks;
    }
}
