// Squares of 16 × 16 cells along a Hilbert curve: what is near in memory is near in the picture, holes are blots. The squares that the
// ranges touch, one after the other, fill large squares of a power of two of them, which stand side by side like words.
import { CELLS_PER_TILE, cellBytes } from "../protocol";
import { runBefore, runOf, runs, spanAt, type Run, type Span } from "./axis";
import type { Frame, Gap, Geometry, Rect, Spot } from "./geometry";
import { CELL_AT, find, PLACE_OF, SIDE, SQUARE_CELLS, walk } from "./hilbert";
import { zoomStep } from "./zoom";

/** More cells than this are outlined by their squares. */
const OUTLINED_CELLS = 20_000;

/**
 * How squares of cells of `side` pixels are put into large ones of 2^order a side, `across` of them side by side: as large as they get,
 * or up to a sixteenth of that when only so everything can be seen.
 */
function place(count: number, side: number, frame: Frame): { order: number; across: number; height: number } {
    const small = side * SIDE;
    const widest = Math.max(0, Math.floor(Math.log2(Math.min(frame.width, frame.height) / small)));
    const largest = Math.min(widest, Math.floor(Math.log2(Math.max(1, count)) / 2));
    const of = (order: number) => {
        const large = small * 2 ** order;
        const across = Math.max(1, Math.floor(frame.width / large));
        return { order, across, height: large * Math.ceil(count / 4 ** order / across) };
    };
    for (let order = largest; order >= Math.max(0, largest - 2); order--) {
        const placed = of(order);
        if (placed.height <= frame.height) return placed;
    }
    return of(largest);
}

export class HilbertGeometry implements Geometry {
    readonly layout = "hilbert";
    readonly level: number;
    readonly contentHeight: number;
    readonly cellWidth: number;
    readonly cellHeight: number;
    readonly scaleBytes: { row: null; cell: number };
    private readonly runs: readonly Run[];
    private readonly count: number;
    /** Of the large squares: 2^order small ones a side. */
    private readonly order: number;
    private readonly large: number;
    private readonly across: number;
    private readonly small: number;
    /** The large squares stand in the middle. */
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
        this.runs = runs(spans, SQUARE_CELLS * cellBytes(level));
        const last = this.runs.at(-1);
        this.count = last === undefined ? 0 : last.before + last.count;
        const least = Math.max(1, Math.min(room, Math.round(frame.grain * Math.SQRT2 ** doublings)));
        let side = least;
        if (frame.fill) while (side + 1 < 2 * least && place(this.count, side + 1, frame).height <= frame.height) side++;
        const placed = place(this.count, side, frame);
        this.cellWidth = side;
        this.cellHeight = side;
        this.small = side * SIDE;
        this.order = placed.order;
        this.across = placed.across;
        this.large = this.small * 2 ** placed.order;
        this.contentHeight = placed.height;
        const squares = Math.min(this.across, Math.ceil(this.count / 4 ** this.order));
        this.left = Math.max(0, Math.floor((frame.width - squares * this.large) / 2));
    }

    private slotSpot(slot: number): { x: number; y: number; turn: number } {
        const squares = 4 ** this.order;
        const square = Math.floor(slot / squares);
        const { x, y, turn } = walk(this.order, slot % squares);
        return {
            x: this.left + (square % this.across) * this.large + x * this.small,
            y: Math.floor(square / this.across) * this.large + y * this.small,
            turn,
        };
    }

    private squareOf(slot: number): number {
        const run = this.runs[runBefore(this.runs, slot)]!;
        return run.first + slot - run.before;
    }

    private slotOf(square: number): number | null {
        const n = runOf(this.runs, square);
        return n < 0 ? null : this.runs[n]!.before + square - this.runs[n]!.first;
    }

    spots(top: number, height: number): Spot[] {
        const spots: Spot[] = [];
        const perRow = 4 ** this.order * this.across;
        const first = Math.max(0, Math.floor(top / this.large)) * perRow;
        const end = Math.min(this.count, Math.ceil((top + height) / this.large) * perRow);
        for (let slot = first; slot < end; slot++) {
            const { x, y, turn } = this.slotSpot(slot);
            if (y + this.small <= top || y >= top + height) continue;
            const cell = this.squareOf(slot) * SQUARE_CELLS;
            const first = cell % CELLS_PER_TILE;
            spots.push({ tile: (cell - first) / CELLS_PER_TILE, first, count: SQUARE_CELLS, x, y, turn });
        }
        return spots;
    }

    addressAt(pointX: number, y: number): number | null {
        const x = pointX - this.left;
        if (x < 0 || y < 0) return null;
        const column = Math.floor(x / this.large);
        if (column >= this.across) return null;
        const square = Math.floor(y / this.large) * this.across + column;
        const [tileX, tileY] = [Math.floor((x % this.large) / this.small), Math.floor((y % this.large) / this.small)];
        const { index, turn } = find(this.order, tileX, tileY);
        const slot = square * 4 ** this.order + index;
        if (slot >= this.count) return null;
        const side = this.cellWidth;
        const place = Math.floor((x % this.small) / side) + SIDE * Math.floor((y % this.small) / side);
        const cell = this.scaleBytes.cell;
        const address = (this.squareOf(slot) * SQUARE_CELLS + CELL_AT[turn]![place]!) * cell;
        const inside = spanAt(this.spans, address) !== null || spanAt(this.spans, address + cell - 1) !== null;
        return inside ? address : null;
    }

    cellRect(address: number): Rect | null {
        const size = this.scaleBytes.cell;
        const slot = this.slotOf(Math.floor(address / size / SQUARE_CELLS));
        if (slot === null) return null;
        const { x, y, turn } = this.slotSpot(slot);
        const place = PLACE_OF[turn]![Math.floor(address / size) % SQUARE_CELLS]!;
        const side = this.cellWidth;
        return { x: x + (place % SIDE) * side, y: y + Math.floor(place / SIDE) * side, width: side, height: side };
    }

    outline(start: number, end: number, top: number, height: number): number[] {
        const cell = this.scaleBytes.cell;
        const count = Math.ceil(end / cell) - Math.floor(start / cell);
        // Cells, or squares of them when these were too many.
        const unit = count <= OUTLINED_CELLS ? cell : cell * SQUARE_CELLS;
        const side = unit === cell ? this.cellWidth : this.small;
        const squares = new Map<number, [number, number]>();
        const width = this.across * this.large + side;
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

    /** Address at which each row of large squares begins. */
    marks(top: number, height: number, apart: number): { y: number; address: number }[] {
        const marks: { y: number; address: number }[] = [];
        const perRow = 4 ** this.order * this.across;
        const step = Math.max(1, Math.ceil(apart / this.large));
        for (let row = Math.max(0, Math.floor(top / this.large)); row * perRow < this.count; row += step) {
            const y = row * this.large;
            if (y >= top + height) break;
            marks.push({ y, address: this.squareOf(row * perRow) * SQUARE_CELLS * this.scaleBytes.cell });
        }
        return marks;
    }
}
