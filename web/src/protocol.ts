// The messages of docs/PROTOCOL.md as types, and the decoder of binary frames.
//
// Addresses arrive as hexadecimal text. Where the map computes with them they are numbers: exact for every byte below 2^53, and
// for multiples of 16, the finest cell, up to 2^57, which is more than Linux gives to any program.

/** Hexadecimal with `0x`, as the server writes it. */
export type Address = string;

export const SUBPROTOCOL = "memfrag.v1";
export const CELLS_PER_TILE = 4096;
/** The server draws no coarser cells: 64 GiB. */
export const COARSEST_LEVEL = 12;
export const FINEST_LEVEL = -4;
/** The most tiles that one `view` may ask for. */
export const MAX_VIEW_TILES = 4096;

export const MODES = ["occupancy", "heat", "age", "resident", "site", "thread", "size"] as const;
export type Mode = (typeof MODES)[number];
/** Modes whose cells are classes that a `palette` message names. */
export const CLASS_MODES: readonly Mode[] = ["site", "thread", "size"];

// ---- server to page ---------------------------------------------------------------------------------------------------------

export interface Source {
    source: number;
    name: string;
    backend: string;
    command: string[];
    host: string;
    kernel: string;
    began_unix_ns: number;
    growing: boolean;
    complete: boolean;
    damage: { chunks: number; bytes: number; events: number };
    duration_ns: number;
    events: number;
}

export interface Allocator {
    name: string;
    version: string | null;
    path: string | null;
}

export interface Process {
    pid: number;
    ppid: number | null;
    comm: string;
    exe: string | null;
    cmdline: string[] | string | null;
    started_ns: number;
    ended_ns: number | null;
    status: string | number | null;
    allocator: Allocator | null;
    live_bytes: number;
    live_blocks: number;
    rss_bytes: number | null;
}

export type CursorState = "live" | "paused" | "playing" | "ended";

export interface Status {
    type: "status";
    source: number;
    pid: number;
    at_ns: number;
    end_ns: number;
    state: CursorState;
    speed: number;
    behind: boolean;
    events: number;
    events_per_s: number;
    lost: number;
    older_blocks: number;
    older_bytes: number;
    live_blocks: number;
    live_bytes: number;
    taken_bytes: number;
    peak_bytes: number;
    rss_bytes: number | null;
    hz: number;
    hz_wanted: number;
    clients: number;
    /** How much of the way to its place the cursor has gone, 0 to 1. */
    progress?: number;
}

export type RegionKind = "brk" | "mapped" | "arena" | "other";

export interface Region {
    start: Address;
    end: Address;
    kind: RegionKind;
    label: string;
    live_bytes: number;
    live_blocks: number;
    resident_bytes: number | null;
}

/** A policy that can be asked for. */
export interface Policy {
    name: string;
    about: string;
    /** What to set for glibc to act so. */
    environment: string | null;
}

export interface Hello {
    type: "hello";
    protocol: number;
    version: string;
    sources: Source[];
    policies?: Policy[];
}

/** What a policy made of the events; names are those of `memfrag model --json`. */
export interface Modelled {
    policy: string;
    peak_footprint_bytes: number;
    peak_at_ns: number;
    final_footprint_bytes: number;
    agreement?: number;
    placements: number;
    failed: number;
    growths: number;
    avoidable_growths: number;
    impossible_events: number;
    requested_bytes: number;
    taken_bytes: number;
    internal_fragmentation: number | null;
    external_fragmentation: number | null;
    free_bytes: number;
    holes: number;
    largest_hole_bytes: number;
    live_blocks: number;
    resident_bound_bytes: number;
    lost_events: number;
    unknown_blocks: number;
}

/** The heap that the recording tells of, beside a policy. */
export interface RealHeap {
    at_ns: number;
    live_blocks: number;
    requested_bytes: number;
    taken_bytes: number;
    footprint_bytes: number;
    resident_bytes: number | null;
    resident_at_ns: number | null;
    resident_bound_bytes: number;
    internal_fragmentation: number | null;
    external_fragmentation: number | null;
    free_bytes: number;
    holes: number;
    largest_hole_bytes: number;
    failed: number;
    growths: number | null;
    avoidable_growths: number | null;
}

export interface ModelMessage {
    type: "model";
    source: number;
    pid: number;
    policy: string;
    at_ns: number;
    events: number;
    behind_events: number;
    behind_ns: number;
    learning: boolean;
    problem: string | null;
    model: Modelled | null;
    real: RealHeap | null;
    /** Occupancy in cells of `bytes`; see [decodeCells]. */
    cells: { bytes: number; real: string; model: string } | null;
}

export interface Regions {
    type: "regions";
    epoch: number;
    pid: number;
    regions: Region[];
}

export interface PaletteClass {
    value: number;
    label: string;
}

export interface Palette {
    type: "palette";
    mode: Mode;
    classes: PaletteClass[];
}

export interface Notice {
    type: "notice";
    level: "info" | "warning" | "error";
    text: string;
}

export type ServerMessage =
    | Hello
    | { type: "sources"; sources: Source[] }
    | { type: "processes"; source: number; processes: Process[] }
    | Status
    | Regions
    | Palette
    | Notice
    | ModelMessage
    | { type: "reply"; id: number; result: unknown }
    | { type: "error"; id: number | null; message: string };

// ---- page to server ---------------------------------------------------------------------------------------------------------

export interface Watch {
    type: "watch";
    source: number;
    pid: number;
}

export interface View {
    type: "view";
    view: number;
    mode: Mode;
    level: number;
    tiles: [number, number][];
    hz: number;
}

export type Cursor =
    | { type: "cursor"; command: "live" | "pause" | "stop" }
    | { type: "cursor"; command: "play"; speed: number }
    | { type: "cursor"; command: "seek"; at_ns: number }
    | { type: "cursor"; command: "step"; events: number };

export type ClientMessage =
    | Watch
    | View
    | { type: "ack"; seq: number }
    | Cursor
    | { type: "model"; policy: string | null }
    | ({ type: "query"; id: number; kind: QueryKind } & Record<string, unknown>);

// ---- queries ----------------------------------------------------------------------------------------------------------------

export interface Site {
    site: string;
    address: Address | null;
    module: string | null;
    offset: number | string | null;
    function: string | null;
    file: string | null;
    line: number | null;
}

export interface Block {
    /** Of the block. */
    address: Address;
    size: number;
    usable: number | null;
    time_ns: number | null;
    age_ns: number | null;
    thread: number | null;
    older: boolean;
    /** The call's frames, the site first; absent where only callers were recorded, and of neighbours. */
    frames?: Site[];
    site: string;
    module: string | null;
    offset: number | string | null;
    function: string | null;
    file: string | null;
    line: number | null;
}

export interface AtResult {
    address: Address;
    page: { address: Address; live_bytes: number; blocks: number; resident: boolean | null; region: string | null } | null;
    block: Block | null;
    hole: { start: Address; end: Address; resident_bytes: number | null } | null;
    before: Block | null;
    after: Block | null;
}

export interface Owner {
    address: Address;
    size: number;
    from_ns: number;
    until_ns: number | null;
    thread: number | null;
    freed_by: number | null;
    site: string;
    module: string | null;
    function: string | null;
    file: string | null;
    line: number | null;
}

export interface Series {
    time_ns: number[];
    live_bytes: (number | null)[];
    live_peak_bytes: (number | null)[];
    taken_bytes: (number | null)[];
    rss_bytes: (number | null)[];
    mapped_bytes: (number | null)[];
    allocated_bytes: (number | null)[];
    allocations_per_s: (number | null)[];
    frees_per_s: (number | null)[];
}

export interface TracedEvent {
    n: number;
    time_ns: number;
    pid: number;
    tid: number;
    op: string;
    function: string | null;
    address: Address | null;
    size: number | null;
    site: string;
    module: string | null;
    file: string | null;
    line: number | null;
}

export interface Amount {
    blocks: number;
    bytes: number;
}

export interface RangeResult {
    from_ns: number;
    to_ns: number;
    grown: Amount;
    freed: Amount;
    temporary: Amount;
    survivors: Amount;
    allocated: Amount;
    sites: (Site & {
        grown_bytes: number;
        grown_blocks: number;
        freed_bytes: number;
        temporary_bytes: number;
        temporary_blocks: number;
        survivors_bytes: number;
    })[];
}

export interface Distributions {
    threads: number[];
    sizes: number[];
    live_blocks: number[][];
    live_bytes: number[][];
    /** Those that hold most, and where there are more a last one for all others. */
    sites: Site[];
    site_blocks: number[][];
    site_bytes: number[][];
    lifetimes: { bounds_ns: number[]; threads: number[]; freed: number[][] };
    waste: { size: number; blocks: number; requested_bytes: number; usable_bytes: number }[];
}

export interface FlameNode {
    name: string;
    value: number;
    children: FlameNode[];
}

export interface Hole {
    start: Address;
    end: Address;
    bytes: number;
    resident_bytes: number | null;
}

export interface Moment {
    source: number;
    pid: number;
    at_ns: number;
}

/** Fields beyond those that the page names are kept as they come: documents of the command line are open. */
export type Json = { [name: string]: any };

export interface Report {
    at_ns: number;
    process: Json;
    events: Json;
    digest: string;
    remedies: Json[];
}

/** What each query takes and what it is answered with. */
export interface Queries {
    report: { takes: {}; gives: Report };
    blame: { takes: { by?: "site" | "thread" | "size" | "module" }; gives: Json };
    series: { takes: { from_ns: number; to_ns: number; points: number }; gives: Series };
    at: { takes: { address: Address }; gives: AtResult };
    history: { takes: { address: Address; limit: number }; gives: { owners: Owner[]; complete: boolean } };
    blocks: {
        takes: { by: "site" | "thread" | "size"; value?: number | string; address?: Address; limit: number };
        gives: { blocks: Block[]; total: number };
    };
    events: {
        takes: { from: number; count: number; pid?: number | null; ops?: string[] | null; address?: Address | null };
        gives: { total: number; events: TracedEvent[]; next: number | null; sampled: number | boolean | null };
    };
    range: { takes: { from_ns: number; to_ns: number }; gives: RangeResult };
    distributions: { takes: {}; gives: Distributions };
    flame: { takes: { measure: "live" | "stranded" | "allocated" | "freed" | "count" }; gives: FlameNode };
    compare: {
        takes: { a: Moment; b: Moment };
        gives: { a: Report; b: Report; sites: (Site & { a_bytes: number; b_bytes: number; a_blocks: number; b_blocks: number })[] };
    };
    holes: { takes: { limit: number }; gives: { holes: Hole[] } };
}

export type QueryKind = keyof Queries;

// ---- text frames ------------------------------------------------------------------------------------------------------------

const SERVER_TYPES = new Set(["hello", "sources", "processes", "status", "regions", "palette", "notice", "model", "reply", "error"]);

/** The message in a text frame, or null for one that this page does not know and passes over. Throws on what is no JSON object. */
export function parseMessage(text: string): ServerMessage | null {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("a message that is no object");
    const type = (value as { type?: unknown }).type;
    return typeof type === "string" && SERVER_TYPES.has(type) ? (value as ServerMessage) : null;
}

/** Cells of a map beside another, at most. */
export const MAX_BESIDE_CELLS = 4096;

/** The values of cells that came as base64. Empty for what is no such text, or has more cells than there may be. */
export function decodeCells(text: string): Uint8Array {
    if (text.length > Math.ceil(MAX_BESIDE_CELLS / 3) * 4) return new Uint8Array();
    let bytes: string;
    try {
        bytes = atob(text);
    } catch {
        return new Uint8Array();
    }
    return bytes.length > MAX_BESIDE_CELLS ? new Uint8Array() : Uint8Array.from(bytes, (one) => one.charCodeAt(0));
}

// ---- binary frames ----------------------------------------------------------------------------------------------------------

const FRAME_TILES = 1;
const HEADER_BYTES = 20;
const TILE_BYTES = 9;

/** Cells of one tile: all of them, changes against those before, or one value for all. Arrays are views into the frame. */
export type TileCells =
    | { code: "all"; cells: Uint8Array }
    | { code: "changes"; count: number; at(n: number): number; value(n: number): number }
    | { code: "uniform"; value: number };

export interface TileUpdate {
    tile: number;
    cells: TileCells;
}

export interface TileFrame {
    level: number;
    view: number;
    seq: number;
    /** Time of the cursor, nanoseconds since the trace began. */
    at_ns: number;
    tiles: TileUpdate[];
}

/** A frame whose bytes do not add up; says where. */
export class MalformedFrame extends Error {
    constructor(what: string, offset: number) {
        super(`malformed frame: ${what} at byte ${offset}`);
        this.name = "MalformedFrame";
    }
}

/** Decodes a binary frame whole or throws [MalformedFrame]; nothing is allocated by a declared length. */
export function decodeFrame(buffer: ArrayBuffer): TileFrame {
    const data = new DataView(buffer);
    const need = (offset: number, bytes: number, what: string) => {
        if (offset + bytes > buffer.byteLength) throw new MalformedFrame(`${what} is cut off`, offset);
    };
    need(0, HEADER_BYTES, "header");
    const type = data.getUint8(0);
    if (type !== FRAME_TILES) throw new MalformedFrame(`unknown type ${type}`, 0);
    const level = data.getInt8(1);
    if (level < FINEST_LEVEL || level > COARSEST_LEVEL) throw new MalformedFrame(`level ${level}`, 1);
    const declared = data.getUint32(16, true);
    const tiles: TileUpdate[] = [];
    let offset = HEADER_BYTES;
    for (let n = 0; n < declared; n++) {
        need(offset, TILE_BYTES, "tile");
        const tile = Number(data.getBigUint64(offset, true));
        if (!Number.isSafeInteger(tile)) throw new MalformedFrame("tile number beyond 2^53", offset);
        const code = data.getUint8(offset + 8);
        offset += TILE_BYTES;
        if (code === 0) {
            need(offset, CELLS_PER_TILE, "cells");
            tiles.push({ tile, cells: { code: "all", cells: new Uint8Array(buffer, offset, CELLS_PER_TILE) } });
            offset += CELLS_PER_TILE;
        } else if (code === 1) {
            need(offset, 2, "changes");
            const count = data.getUint16(offset, true);
            const first = offset + 2;
            need(first, 3 * count, "changes");
            for (let i = 0; i < count; i++) {
                if (data.getUint16(first + 3 * i, true) >= CELLS_PER_TILE) throw new MalformedFrame("cell beyond its tile", first + 3 * i);
            }
            const at = (i: number) => data.getUint16(first + 3 * i, true);
            const value = (i: number) => data.getUint8(first + 3 * i + 2);
            tiles.push({ tile, cells: { code: "changes", count, at, value } });
            offset = first + 3 * count;
        } else if (code === 2) {
            need(offset, 1, "value");
            tiles.push({ tile, cells: { code: "uniform", value: data.getUint8(offset) } });
            offset += 1;
        } else {
            throw new MalformedFrame(`unknown code ${code}`, offset - 1);
        }
    }
    if (offset !== buffer.byteLength) throw new MalformedFrame("bytes behind the last tile", offset);
    const at_ns = Number(data.getBigUint64(8, true));
    return { level, view: data.getUint16(2, true), seq: data.getUint32(4, true), at_ns, tiles };
}

// ---- addresses and cells ----------------------------------------------------------------------------------------------------

/** Bytes of a cell at `level`. */
export function cellBytes(level: number): number {
    return 2 ** (12 + 2 * level);
}

/** Bytes of a tile at `level`. */
export function tileBytes(level: number): number {
    return CELLS_PER_TILE * cellBytes(level);
}

/** The number in `0x…` text, or null for anything else. */
export function parseAddress(text: string): number | null {
    const digits = /^(?:0x)?([0-9a-f]{1,16})$/i.exec(text.trim());
    return digits === null ? null : parseInt(digits[1]!, 16);
}

export function formatAddress(address: number): Address {
    return `0x${address.toString(16)}`;
}
