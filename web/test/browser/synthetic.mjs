// A server of the dashboard's protocol over a heap that is made up: deterministic, of any size, busy as one likes. For what no recording
// can be made to do at will: 40 tiles a frame, frames that are wrong, a heap that grows on command.
import { sockets } from "./socket.mjs";

const CELLS = 4096;
const GIB = 2 ** 30;
const MIB = 2 ** 20;

export const REGIONS = [
    region(0x55d0_3a40_0000, 96 * MIB, "brk", "[heap]"),
    region(0x7f10_2000_0000, 64 * MIB, "arena", "arena 1"),
    region(0x7f10_2800_0000, 41 * MIB, "arena", "arena 2"),
    region(0x7f1a_1000_0000, 260 * MIB, "mapped", "mmap"),
    region(0x7f1a_9000_0000, 12 * MIB, "mapped", "mmap"),
];
export const SITES = ["session_open+0x2c (server.c:210)", "parse_request+0x91 (http.c:88)", "cache_insert+0x40 (cache.c:51)",
    "log_line+0x18 (log.c:19)", "tls_record+0x77 (tls.c:402)", "json_value+0x1a (json.c:120)", "operator new", "strdup"];

function region(start, size, kind, label) {
    const live = Math.round(size * 0.46);
    return { start: `0x${start.toString(16)}`, end: `0x${(start + size).toString(16)}`, kind, label,
        live_bytes: live, live_blocks: Math.round(live / 443), resident_bytes: Math.round(size * 0.8) };
}

function mix(n) {
    n = Math.imul(n ^ (n >>> 16), 0x45d9f3b);
    n = Math.imul(n ^ (n >>> 16), 0x45d9f3b);
    return ((n ^ (n >>> 16)) >>> 0) / 2 ** 32;
}

/** From 0 to 1, in slopes and steps of several lengths. */
function noise(x, seed) {
    const at = Math.floor(x);
    const share = x - at;
    const smooth = share * share * (3 - 2 * share);
    return mix((at ^ seed) | 0) * (1 - smooth) + mix(((at + 1) ^ seed) | 0) * smooth;
}

/** The value of the cell of `size` bytes at `address`. */
export function cellValue(mode, address, size, time) {
    const inside = REGIONS.find((one) => address + size > Number(one.start) && address < Number(one.end));
    if (inside === undefined) return 0;
    const page = Math.floor(address / 4096);
    const far = (address - Number(inside.start)) / (Number(inside.end) - Number(inside.start));
    const full = 0.62 * noise(page / 900, 7) + 0.3 * noise(page / 60, 11) + 0.24 * mix((page >> 1) ^ 0x51) - 0.06;
    const resident = noise(page / 3000, 5) > 0.16 || far < 0.5;
    const share = Math.max(0, Math.min(1, size < 4096 ? (mix((Math.floor(address / 96) * 2654435761) | 0) < full ? 1 : 0) : full - 0.35 * far));
    if (!resident) return 0;
    const active = noise(page / 500 + time * 0.15, 31);
    switch (mode) {
        case "occupancy":
            if (active > 0.86 && mix((page ^ Math.floor(time * 4)) | 0) > 0.8) return 2;
            return share < 0.02 ? 1 : 3 + Math.round(252 * share);
        case "heat":
            return active < 0.3 ? 0 : Math.round(1 + 254 * Math.max(0, active - 0.3) * mix(page ^ 3) ** 0.4);
        case "age":
            return share < 0.02 ? 0 : Math.round(30 + 190 * noise(page / 700, 77) * (0.6 + 0.4 * mix(page ^ 5)));
        case "resident":
            return Math.round(1 + 254 * (1 - share));
        default:
            return share < 0.02 ? 0 : 1 + Math.floor(noise(page / 260, 99) ** 1.5 * 8.99);
    }
}

/** A binary frame of tiles `{tile, cells}`, `{tile, changes: [[cell, value]]}` or `{tile, value}`. */
export function frame(level, view, seq, at, tiles) {
    const parts = [];
    const head = Buffer.alloc(20);
    head.writeUInt8(1, 0);
    head.writeInt8(level, 1);
    head.writeUInt16LE(view, 2);
    head.writeUInt32LE(seq, 4);
    head.writeBigUInt64LE(BigInt(Math.round(at)), 8);
    head.writeUInt32LE(tiles.length, 16);
    parts.push(head);
    for (const { tile, cells, changes, value } of tiles) {
        const name = Buffer.alloc(9);
        name.writeBigUInt64LE(BigInt(tile), 0);
        name.writeUInt8(cells ? 0 : changes ? 1 : 2, 8);
        parts.push(name);
        if (cells) parts.push(Buffer.from(cells));
        else if (changes) {
            const list = Buffer.alloc(2 + 3 * changes.length);
            list.writeUInt16LE(changes.length, 0);
            changes.forEach(([cell, to], n) => {
                list.writeUInt16LE(cell, 2 + 3 * n);
                list.writeUInt8(to, 4 + 3 * n);
            });
            parts.push(list);
        } else parts.push(Buffer.from([value]));
    }
    return Buffer.concat(parts);
}

/**
 * Serves the protocol on `server`. `busy` tiles of the view are sent anew in every frame. Returns what happened, and ways to interfere:
 * `log` of messages, `clients`, `drop()` all connections, `send(text)`, `malformed` to send once.
 */
export function synthetic(server, { busy = 0, regions = REGIONS } = {}) {
    const state = { log: [], clients: new Set(), regions, busy, sent: 0, acked: 0, time: () => (Date.now() - began) / 1000, drop, tell, raw };
    const began = Date.now();
    sockets(server, "memfrag.v1", (socket, request) => {
        const client = { socket, view: null, seq: 0, acked: 0, first: true, offered: request.headers["sec-websocket-protocol"] };
        state.clients.add(client);
        const say = (message) => socket.send(JSON.stringify(message));
        say({ type: "hello", protocol: 1, version: "0.0.0", sources: [{ source: 0, name: "synthetic", backend: "ebpf", command: ["server"],
            host: "host", kernel: "6.1", began_unix_ns: 0, growing: true, complete: false, damage: { chunks: 0, bytes: 0, events: 0 },
            duration_ns: 0, events: 0 }] });
        const timer = setInterval(() => tick(client), 1000 / 30);
        socket.onclose = () => {
            clearInterval(timer);
            state.clients.delete(client);
        };
        socket.onmessage = (text) => {
            const message = JSON.parse(text);
            state.log.push(message);
            if (message.type === "watch") {
                say({ type: "regions", epoch: 1, pid: message.pid, regions: state.regions });
                const classes = (labels) => [{ value: 1, label: "other" }, ...labels.map((label, n) => ({ value: n + 2, label }))];
                say({ type: "palette", mode: "site", classes: classes(SITES) });
                say({ type: "palette", mode: "thread", classes: classes(["4242", "4243", "4244", "4245"]) });
                say({ type: "palette", mode: "size", classes: classes(["16 B", "32 B", "64 B", "128 B", "256 B", "512 B", "1 KiB", "4 KiB"]) });
            } else if (message.type === "view") {
                client.view = message;
                client.first = true;
                client.wait = 0;
            } else if (message.type === "ack") {
                client.acked++;
                state.acked++;
            } else if (message.type === "query") {
                const result = answer(message, state.time());
                say(result === null ? { type: "error", id: message.id, message: "not in a test" } : { type: "reply", id: message.id, result });
            }
        };
    });

    function tick(client) {
        const { view } = client;
        if (view === null || client.seq - client.acked >= 2) return;
        client.wait = (client.wait ?? 0) + view.hz / 30;
        if (!client.first && client.wait < 1) return;
        client.wait = 0;
        const all = view.tiles.flatMap(([first, count]) => Array.from({ length: count }, (_, n) => first + n));
        const size = 4096 * 4 ** view.level;
        const time = state.time();
        let tiles = [];
        if (client.first) tiles = all.map((tile) => ({ tile, cells: cellsOf(view.mode, tile, size, time) }));
        else {
            for (let n = 0; n < Math.min(state.busy, all.length); n++) {
                const tile = all[(client.seq * 7 + n) % all.length];
                const cells = cellsCache.get(`${view.mode} ${tile} ${size}`) ?? cellsOf(view.mode, tile, size, time);
                const from = (client.seq * 97) % CELLS;
                tiles.push({ tile, cells: Buffer.concat([Buffer.from(cells).subarray(from), Buffer.from(cells).subarray(0, from)]) });
            }
            if (state.busy === 0 && all.length > 0) {
                const tile = all[client.seq % all.length];
                const changes = Array.from({ length: 40 }, (_, n) => {
                    const cell = (client.seq * 131 + n * 17) % CELLS;
                    return [cell, cellValue(view.mode, (tile * CELLS + cell) * size, size, time)];
                });
                tiles = [{ tile, changes }];
            }
        }
        client.first = false;
        client.socket.send(frame(view.level, view.view, ++client.seq, time * 1e9, tiles));
        state.sent++;
    }

    function drop() {
        for (const client of state.clients) client.socket.close();
    }
    function tell(message) {
        for (const client of state.clients) client.socket.send(JSON.stringify(message));
    }
    function raw(bytes) {
        for (const client of state.clients) client.socket.send(bytes);
    }
    return state;
}

const cellsCache = new Map();

function cellsOf(mode, tile, size, time) {
    const cells = new Uint8Array(CELLS);
    for (let cell = 0; cell < CELLS; cell++) cells[cell] = cellValue(mode, (tile * CELLS + cell) * size, size, time);
    if (cellsCache.size < 2000) cellsCache.set(`${mode} ${tile} ${size}`, cells);
    return cells;
}

function answer({ kind, address, limit }) {
    if (kind === "at") {
        const start = Math.floor(Number(address) / 96) * 96;
        const block = { address: `0x${start.toString(16)}`, size: 80, usable: 88, time_ns: 1e9, age_ns: 42.5e9, thread: 4243, older: false,
            site: SITES[start % SITES.length], module: "server", offset: null, function: null, file: null, line: null };
        return { address, page: { address, live_bytes: 2048, blocks: 20, resident: true, region: "[heap]" }, block, hole: null, before: null, after: null };
    }
    if (kind === "holes") {
        return { holes: Array.from({ length: Math.min(limit, 5) }, (_, n) => ({ start: `0x${(0x7f1a10000000 + n * 0x100000).toString(16)}`,
            end: `0x${(0x7f1a10080000 + n * 0x100000).toString(16)}`, bytes: 0x80000, resident_bytes: n * 4096 })) };
    }
    return null;
}

export { GIB };
