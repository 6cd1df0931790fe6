// What the map tells the page, and what the page may tell the map.
import { parseAddress, type Address, type AtResult, type Mode } from "../protocol";
import type { Layout } from "../worker/messages";

/** A range of addresses that is outlined in the map. */
export interface Marked {
    start: number;
    /** Exclusive. */
    end: number;
}

/** State of the map that belongs into a permalink. */
export interface MapPlace {
    mode: Mode;
    layout: Layout;
    /** Address at the top left, and the zoom; null while the whole heap is fitted in. */
    at: { address: Address; zoom: number } | null;
}

/** A class of blocks to light up: its label as in the palette of the mode. */
export interface HighlightRequest {
    mode: Extract<Mode, "site" | "thread" | "size">;
    label: string;
}

/** The range of the block or hole that the server found at an address. */
export function extent({ block, hole }: AtResult): Marked | null {
    if (block !== null) {
        const start = parseAddress(block.address);
        return start === null ? null : { start, end: start + Math.max(1, block.size) };
    }
    if (hole === null) return null;
    const [start, end] = [parseAddress(hole.start), parseAddress(hole.end)];
    return start === null || end === null ? null : { start, end };
}
