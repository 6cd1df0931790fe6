// What the map tells the page, and what the page may tell the map.
import { parseAddress, type Address, type AtResult, type Mode } from "../protocol";
import type { Layout } from "../worker/messages";

/** A range of addresses that is outlined in the map. */
export interface Marked {
    start: number;
    /** Exclusive. */
    end: number;
}

/** Where one is in the map, as a permalink has it. */
export interface MapPlace {
    layout: Layout;
    /** Address at the top left, and the zoom; null while the whole heap is fitted in. */
    at: { address: Address; zoom: number } | null;
}

/** `hilbert`, `linear,38,0x7f…`; null for all of the heap in rows, as the map begins. */
export function writePlace({ layout, at }: MapPlace): string | null {
    if (at !== null) return `${layout},${at.zoom},${at.address}`;
    return layout === "linear" ? null : layout;
}

/** Null for what is no place. */
export function readPlace(text: string): MapPlace | null {
    const found = /^(linear|hilbert)(?:,(\d{1,2}),(0x[0-9a-f]{1,16}))?$/.exec(text);
    if (found === null) return null;
    const at = found[2] === undefined ? null : { zoom: Number(found[2]), address: found[3]! };
    return { layout: found[1] as Layout, at };
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
