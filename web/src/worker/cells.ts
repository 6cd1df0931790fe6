// The cells of the tiles in view, and which of them must be drawn again.
//
// A view begins with nothing: a tile that the server has not sent is all 0. So that the picture does not go blank at every step of the
// wheel, cells of the view before stay until the new view has had its first frame and a moment more; they are called stale.
import { CELLS_PER_TILE, cellBytes, type Mode, type TileFrame, type TileUpdate } from "../protocol";

/** First and last changed cell of a tile. */
export interface Dirty {
    first: number;
    last: number;
}

export class Cells {
    /** What the cells are of; differs from what the page asks for until the first frame of a new view is there. */
    mode: Mode;
    level: number;
    readonly dirty = new Map<number, Dirty>();
    private tiles = new Map<number, Uint8Array>();
    /** Tiles that the view has sent. */
    readonly fresh = new Set<number>();
    private view = -1;
    private pending: Mode | null = null;

    constructor(mode: Mode, level: number) {
        this.mode = mode;
        this.level = level;
    }

    get(tile: number): Uint8Array | undefined {
        return this.tiles.get(tile);
    }

    get size(): number {
        return this.tiles.size;
    }

    /** Whether the view has not had a frame yet. */
    get waiting(): boolean {
        return this.pending !== null;
    }

    /** A new view was asked for. Tiles outside `wanted` are forgotten; those of another level are guessed from what is there. */
    begin(view: number, mode: Mode, level: number, wanted: Iterable<number>): void {
        const before = this.tiles;
        const from = this.level;
        const kept = new Map<number, Uint8Array>();
        for (const tile of wanted) {
            const cells = from === level ? before.get(tile) : guess(before, from, tile, level);
            if (cells !== undefined) kept.set(tile, cells);
        }
        this.tiles = kept;
        this.level = level;
        this.view = view;
        this.fresh.clear();
        this.dirty.clear();
        this.pending = mode;
    }

    /** Forgets everything, as after a change of process. */
    clear(): void {
        for (const tile of this.tiles.keys()) this.touch(tile, 0, CELLS_PER_TILE - 1);
        this.tiles.clear();
        this.fresh.clear();
    }

    /** Takes a frame in. Returns what it changed: nothing for one of another view, "all" when the mode went over to that of the view. */
    apply(frame: TileFrame): "nothing" | "tiles" | "all" {
        if (frame.view !== this.view || frame.level !== this.level) return "nothing";
        const mode = this.pending;
        this.pending = null;
        const changed = mode !== null && mode !== this.mode;
        if (changed) {
            this.mode = mode;
            this.tiles.clear();
        }
        for (const update of frame.tiles) this.update(update);
        return changed ? "all" : "tiles";
    }

    /** Tiles that the view has not sent are all 0 by now. */
    settle(): boolean {
        let changed = this.pending !== null && this.pending !== this.mode;
        if (this.pending !== null) this.mode = this.pending;
        this.pending = null;
        for (const tile of [...this.tiles.keys()]) {
            if (this.fresh.has(tile)) continue;
            this.tiles.delete(tile);
            this.touch(tile, 0, CELLS_PER_TILE - 1);
            changed = true;
        }
        return changed;
    }

    private update({ tile, cells: sent }: TileUpdate): void {
        let cells = this.tiles.get(tile);
        if (cells === undefined || !this.fresh.has(tile)) {
            // Changes are against all 0, not against what was shown meanwhile.
            const stale = cells !== undefined;
            cells = new Uint8Array(CELLS_PER_TILE);
            this.tiles.set(tile, cells);
            this.fresh.add(tile);
            if (stale || sent.code !== "changes") this.touch(tile, 0, CELLS_PER_TILE - 1);
        }
        if (sent.code === "all") {
            cells.set(sent.cells);
            this.touch(tile, 0, CELLS_PER_TILE - 1);
        } else if (sent.code === "uniform") {
            cells.fill(sent.value);
            this.touch(tile, 0, CELLS_PER_TILE - 1);
        } else {
            for (let n = 0; n < sent.count; n++) {
                const at = sent.at(n);
                cells[at] = sent.value(n);
                this.touch(tile, at, at);
            }
        }
    }

    private touch(tile: number, first: number, last: number): void {
        const dirty = this.dirty.get(tile);
        if (dirty === undefined) this.dirty.set(tile, { first, last });
        else {
            if (first < dirty.first) dirty.first = first;
            if (last > dirty.last) dirty.last = last;
        }
    }
}

/** Cells of `tile` at `level`, as far as tiles at the level `from` tell: shown until the server has sent them. */
function guess(tiles: ReadonlyMap<number, Uint8Array>, from: number, tile: number, level: number): Uint8Array | undefined {
    const ratio = cellBytes(level) / cellBytes(from);
    if (ratio > 64 || ratio < 1 / 4096) return undefined;
    const cells = new Uint8Array(CELLS_PER_TILE);
    let any = false;
    for (let n = 0; n < CELLS_PER_TILE; n++) {
        const at = Math.floor((tile * CELLS_PER_TILE + n) * ratio);
        const source = tiles.get(Math.floor(at / CELLS_PER_TILE));
        if (source === undefined) continue;
        any = true;
        // Towards a coarser level one of the cells stands for all.
        cells[n] = source[at % CELLS_PER_TILE]!;
    }
    return any ? cells : undefined;
}
