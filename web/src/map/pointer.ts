// What is under the pointer, or under the keyboard's cursor: the cell at once, the block as soon as the server has said it.
import { batch, signal } from "@preact/signals";
import { formatAddress, type AtResult } from "../protocol";
import type { MapModel } from "./model";
import { describe } from "./palettes";

/** The pointer rests this long before the server is asked. */
const REST_MS = 120;

export interface Reading {
    /** Byte that is pointed at, and the cell that it lies in. */
    address: number;
    cell: number;
    /** What the cell says in words; null until the engine has told. */
    words: string | null;
    /** What is there; null until the server has told. */
    at: AtResult | null;
}

export class Pointer {
    readonly reading = signal<Reading | null>(null);
    /** Where the tooltip stands, in pixels of the page, from the top left of the cells; null: no tooltip. */
    readonly point = signal<{ x: number; y: number } | null>(null);
    private timer: ReturnType<typeof setTimeout> | undefined;
    private asked = 0;

    constructor(private readonly model: MapModel) {}

    /** The pointer is at (`x`, `y`) of the canvas, in pixels of the page; `ratio` device pixels each. */
    move(x: number, y: number, ratio: number): void {
        const [dx, dy] = [x * ratio, y * ratio];
        const [cell, address] = [this.model.at(dx, dy), this.model.byteAt(dx, dy)];
        if (cell === null || address === null) return this.leave();
        this.point.value = { x, y };
        this.read(address, cell, dx, dy);
    }

    /** The keyboard's cursor is at `cell`. */
    focus(cell: number): void {
        const rect = this.model.geometry.value.cellRect(cell);
        if (rect === null) return;
        const y = rect.y - this.model.scroll.value;
        this.point.value = null;
        this.read(cell, cell, rect.x + rect.width / 2, y + rect.height / 2);
    }

    leave(): void {
        clearTimeout(this.timer);
        this.asked++;
        batch(() => {
            this.reading.value = null;
            this.point.value = null;
        });
    }

    /** Reads the same place again, after cells changed. */
    refresh(ratio: number): void {
        const point = this.point.value;
        if (point !== null) void this.probe(point.x * ratio, point.y * ratio);
    }

    private read(address: number, cell: number, x: number, y: number): void {
        const before = this.reading.value;
        const same = before !== null && before.address === address;
        const sameCell = before !== null && before.cell === cell;
        this.reading.value = { address, cell, words: sameCell ? before.words : null, at: same ? before.at : null };
        void this.probe(x, y);
        if (same) return;
        clearTimeout(this.timer);
        const turn = ++this.asked;
        this.timer = setTimeout(() => void this.ask(address, turn), REST_MS);
    }

    private async probe(x: number, y: number): Promise<void> {
        const { cell, mode } = await this.model.client.probe(x, y);
        const now = this.reading.value;
        if (now === null || cell === null || cell.address !== now.cell) return;
        const words = describe(mode, cell.value, this.model.palettes.value.get(mode) ?? []);
        if (words !== now.words) this.reading.value = { ...now, words };
    }

    private async ask(address: number, turn: number): Promise<void> {
        const at = await this.model.client.query("at", { address: formatAddress(address) }).catch(() => null);
        const now = this.reading.value;
        if (turn === this.asked && now !== null && at !== null) this.reading.value = { ...now, at };
    }
}
