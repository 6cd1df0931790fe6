// Rows of a power of two of bytes, one below the other, as people read addresses: pages and 2 MiB boundaries stand in columns, size
// classes become stripes. What lies between the ranges is left out, and marked by a strip between two rows.
import { CELLS_PER_TILE, cellBytes } from "../protocol";
import { runOf, runs, spanAt, spanFrom, type Run, type Span } from "./axis";
import type { Frame, Gap, Geometry, Rect, Spot } from "./geometry";
import { zoomStep } from "./zoom";

/** Of this height a gap has room for its label, in pixels of the page. */
const LABELLED_GAP = 18;

export class LinearGeometry implements Geometry {
    readonly layout = "linear";
    readonly level: number;
    readonly contentHeight: number;
    readonly cellWidth: number;
    readonly cellHeight: number;
    readonly scaleBytes: { row: number; cell: number };
    /** Cells in a row; a power of two. */
    readonly columns: number;
    readonly rowBytes: number;
    /** Which cell of a row lies at an x. */
    readonly cellOfX: Uint16Array;
    private readonly cell: number;
    private readonly runs: readonly Run[];
    private readonly gapHeight: number;

    constructor(
        readonly spans: readonly Span[],
        zoom: number,
        private readonly frame: Frame,
    ) {
        const { level, doublings } = zoomStep(zoom);
        this.level = level;
        this.cell = cellBytes(level);
        const most = 2 ** Math.floor(Math.log2(Math.max(16, frame.width / frame.grain)));
        const widest = Math.min(most, CELLS_PER_TILE / 2);
        this.columns = Math.max(8, widest / 2 ** Math.ceil(doublings / 2));
        this.cellWidth = frame.width / this.columns;
        this.rowBytes = this.columns * this.cell;
        this.scaleBytes = { row: this.rowBytes, cell: this.cell };
        this.cellOfX = new Uint16Array(frame.width);
        for (let x = 0; x < frame.width; x++) this.cellOfX[x] = Math.floor((x * this.columns) / frame.width);
        this.runs = runs(spans, this.rowBytes);
        const gaps = Math.max(0, this.runs.length - 1);
        const room = (0.3 * frame.height) / Math.max(1, gaps);
        const labelled = Math.round(LABELLED_GAP * frame.unit);
        this.gapHeight = room >= labelled ? labelled : Math.max(2, Math.min(6, Math.floor(room)));
        const last = this.runs.at(-1);
        const rows = last === undefined ? 0 : last.before + last.count;
        const least = Math.max(frame.grain, Math.round(frame.width / widest)) * 2 ** Math.floor(doublings / 2);
        const filling = frame.fill ? Math.floor((frame.height - gaps * this.gapHeight) / Math.max(1, rows)) : 0;
        this.cellHeight = Math.max(least, Math.min(2 * least - 1, filling));
        this.contentHeight = rows === 0 ? 0 : rows * this.cellHeight + gaps * this.gapHeight;
    }

    /** Where the first pixel of a column lies. */
    columnX(column: number): number {
        return Math.ceil((column * this.frame.width) / this.columns);
    }

    private runTop(n: number): number {
        return this.runs[n]!.before * this.cellHeight + n * this.gapHeight;
    }

    /** The last run that begins at or above `y`. */
    private runAt(y: number): number {
        let [low, high] = [0, this.runs.length];
        while (low < high) {
            const middle = (low + high) >> 1;
            if (this.runTop(middle) <= y) low = middle + 1;
            else high = middle;
        }
        return low - 1;
    }

    spots(top: number, height: number): Spot[] {
        const spots: Spot[] = [];
        const rowsPerTile = CELLS_PER_TILE / this.columns;
        for (let n = Math.max(0, this.runAt(top)); n < this.runs.length; n++) {
            const run = this.runs[n]!;
            const y = this.runTop(n);
            if (y >= top + height) break;
            let row = Math.max(0, Math.floor((top - y) / this.cellHeight));
            const end = Math.min(run.count, Math.ceil((top + height - y) / this.cellHeight));
            while (row < end) {
                const within = (run.first + row) % rowsPerTile;
                const rows = Math.min(rowsPerTile - within, end - row);
                spots.push({
                    tile: Math.floor((run.first + row) / rowsPerTile),
                    first: within * this.columns,
                    count: rows * this.columns,
                    x: 0,
                    y: y + row * this.cellHeight,
                    turn: 0,
                });
                row += rows;
            }
        }
        return spots;
    }

    addressAt(x: number, y: number): number | null {
        const n = this.runAt(y);
        if (n < 0 || x < 0 || x >= this.frame.width) return null;
        const run = this.runs[n]!;
        const row = Math.floor((y - this.runTop(n)) / this.cellHeight);
        if (row >= run.count) return null;
        const address = (run.first + row) * this.rowBytes + this.cellOfX[Math.floor(x)]! * this.cell;
        return this.inside(address) ? address : null;
    }

    /** Whether the cell at `address` belongs to a range, if only by a part. */
    private inside(address: number): boolean {
        if (spanAt(this.spans, address) !== null) return true;
        return spanAt(this.spans, address + this.cell - 1) !== null;
    }

    private rowY(address: number): number | null {
        const row = Math.floor(address / this.rowBytes);
        const n = runOf(this.runs, row);
        return n < 0 ? null : this.runTop(n) + (row - this.runs[n]!.first) * this.cellHeight;
    }

    cellRect(address: number): Rect | null {
        const y = this.rowY(address);
        if (y === null) return null;
        const column = Math.floor((address % this.rowBytes) / this.cell);
        const x = this.columnX(column);
        return { x, y, width: this.columnX(column + 1) - x, height: this.cellHeight };
    }

    outline(start: number, end: number): number[] {
        const first = this.cellRect(start);
        const last = this.cellRect(Math.max(start, end - 1));
        if (first === null || last === null) return [];
        const right = last.x + last.width;
        const [top, bottom, width] = [first.y, last.y + last.height, this.frame.width];
        if (first.y === last.y) {
            return [first.x, top, right, top, right, top, right, bottom, right, bottom, first.x, bottom, first.x, bottom, first.x, top];
        }
        const [under, over] = [first.y + first.height, last.y];
        const corners = [first.x, top, width, top, width, over, right, over, right, bottom, 0, bottom, 0, under, first.x, under, first.x, top];
        const lines: number[] = [];
        for (let i = 0; i + 3 < corners.length; i += 2) lines.push(corners[i]!, corners[i + 1]!, corners[i + 2]!, corners[i + 3]!);
        return lines;
    }

    gaps(top: number, height: number): Gap[] {
        const gaps: Gap[] = [];
        for (let n = Math.max(1, this.runAt(top)); n < this.runs.length; n++) {
            const y = this.runTop(n) - this.gapHeight;
            if (y >= top + height) break;
            const run = this.runs[n]!;
            const base = run.first * this.rowBytes;
            const until = this.spans[spanFrom(this.spans, base)]?.start ?? base;
            gaps.push({ y, height: this.gapHeight, bytes: run.gap, until });
        }
        return gaps;
    }

    /** Rows that begin a range, and between them rows at multiples of a power of two. */
    marks(top: number, height: number, apart: number): { y: number; address: number }[] {
        const step = 2 ** Math.max(0, Math.ceil(Math.log2(apart / this.cellHeight)));
        const least = apart / 2;
        const marks: { y: number; address: number }[] = [];
        let below = -Infinity;
        for (let n = Math.max(0, this.runAt(top)); n < this.runs.length; n++) {
            const run = this.runs[n]!;
            const y = this.runTop(n);
            if (y >= top + height) break;
            const next = n + 1 < this.runs.length ? this.runTop(n + 1) : Infinity;
            if (y >= top && y >= below) {
                marks.push({ y, address: run.first * this.rowBytes });
                below = y + apart;
            }
            const from = Math.max(0, Math.floor((top - y) / this.cellHeight));
            for (let row = Math.ceil((run.first + from) / step) * step; row < run.first + run.count; row += step) {
                const at = y + (row - run.first) * this.cellHeight;
                // The beginning of the next range is worth more than a round address.
                if (at >= top + height || at + least > next) break;
                if (at < below) continue;
                marks.push({ y: at, address: row * this.rowBytes });
                below = at + apart;
            }
            below = Math.min(below, next - least + apart / 2);
        }
        return marks;
    }
}
