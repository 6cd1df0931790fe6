// The painter against the definition: each pixel has the colour of the cell whose address the geometry finds there.
import assert from "node:assert/strict";
import { test } from "node:test";
import { spans } from "../src/map/axis";
import { fit, geometry, type Geometry } from "../src/map/geometry";
import { CELLS_PER_TILE, type Region } from "../src/protocol";
import { Painter, type Context, type Look } from "../src/worker/painter";
import type { Layout } from "../src/worker/messages";

const FRAME = { width: 301, height: 223, grain: 2, unit: 1, fill: false };

let seed = 7;
const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
};

/** A canvas of which only what was put there can be seen. */
function canvas(): { context: Context; screen: Uint32Array; puts: () => number } {
    const screen = new Uint32Array(FRAME.width * FRAME.height);
    let puts = 0;
    const context = {
        canvas: { width: FRAME.width, height: FRAME.height },
        createImageData: (width: number, height: number) => ({ width, height, data: new Uint8ClampedArray(4 * width * height) }),
        putImageData: (image: ImageData, x: number, y: number, left: number, top: number, width: number, height: number) => {
            assert.deepEqual([x, y], [0, 0]);
            assert.ok(left >= 0 && top >= 0 && left + width <= FRAME.width && top + height <= FRAME.height);
            const pixels = new Uint32Array(image.data.buffer);
            puts++;
            for (let row = top; row < top + height; row++) {
                const at = row * FRAME.width + left;
                screen.set(pixels.subarray(at, at + width), at);
            }
        },
    };
    return { context: context as unknown as Context, screen, puts: () => puts };
}

function heap(): Region[] {
    const regions: Region[] = [];
    let at = 0x7f0000000000 + 4096 * random(5000);
    for (let n = 0; n < 1 + random(6); n++) {
        const end = at + 4096 * (1 + random(3000));
        const hex = (value: number) => `0x${value.toString(16)}`;
        regions.push({ start: hex(at), end: hex(end), kind: "mapped", label: "", live_bytes: 0, live_blocks: 0, resident_bytes: 0 });
        at = end + 4096 * (16 + random(n % 2 === 0 ? 100 : 100_000));
    }
    return regions;
}

function expected(geometry: Geometry, scroll: number, cells: (tile: number) => Uint8Array | undefined, table: Uint32Array, x: number, y: number): number {
    const address = geometry.addressAt(x, y + scroll);
    if (address === null) return 0;
    const index = Math.floor(address / geometry.scaleBytes.cell);
    return table[cells(Math.floor(index / CELLS_PER_TILE))?.[index % CELLS_PER_TILE] ?? 0]!;
}

test("every pixel is that of its cell, after a full drawing and after changes", () => {
    const table = Uint32Array.from({ length: 256 }, (_, value) => 0xff000000 + value * 0x10101 + 1);
    const look: Look = { table, striped: null };
    for (let round = 0; round < 40; round++) {
        const layout: Layout = round % 2 === 0 ? "linear" : "hilbert";
        const all = spans(heap());
        const drawn = geometry(layout, all, fit(layout, all, FRAME) + random(6), { ...FRAME, fill: random(2) === 0 });
        const scroll = random(Math.max(1, drawn.contentHeight - FRAME.height));
        const tiles = new Map<number, Uint8Array>();
        for (const spot of drawn.spots(scroll, FRAME.height)) {
            if (random(5) > 0) tiles.set(spot.tile, new Uint8Array(CELLS_PER_TILE).map(() => random(256)));
        }
        const { context, screen } = canvas();
        const painter = new Painter(context);
        const cells = (tile: number) => tiles.get(tile);
        const check = (what: string) => {
            for (let y = 0; y < FRAME.height; y++) {
                for (let x = 0; x < FRAME.width; x++) {
                    const wanted = expected(drawn, scroll, cells, table, x, y);
                    if (screen[y * FRAME.width + x] !== wanted) {
                        assert.fail(`${what}, ${layout} in round ${round} at ${x}, ${y}: ${screen[y * FRAME.width + x]} for ${wanted}`);
                    }
                }
            }
        };
        painter.repaint(drawn, scroll, cells, look);
        check("drawn");
        const dirty = new Map<number, { first: number; last: number }>();
        for (const [tile, values] of tiles) {
            if (random(3) === 0) continue;
            const first = random(CELLS_PER_TILE);
            const last = Math.min(CELLS_PER_TILE - 1, first + random(700));
            for (let cell = first; cell <= last; cell++) values[cell] = random(256);
            dirty.set(tile, { first, last });
        }
        painter.update(drawn, scroll, dirty, cells, look);
        check("changed");
    }
});

test("only what changed is put on the canvas", () => {
    const all = spans(heap());
    const drawn = geometry("linear", all, fit("linear", all, FRAME), FRAME);
    const { context, puts } = canvas();
    const painter = new Painter(context);
    const look: Look = { table: new Uint32Array(256).fill(1), striped: null };
    painter.repaint(drawn, 0, () => undefined, look);
    assert.equal(puts(), 1);
    painter.update(drawn, 0, new Map(), () => undefined, look);
    assert.equal(puts(), 1);
    painter.update(drawn, 0, new Map([[12345, { first: 0, last: 9 }]]), () => undefined, look);
    assert.equal(puts(), 1, "a tile out of sight");
});

test("where there is room, cells of the striped value differ by more than colour, and only they", () => {
    const all = spans([{ start: "0x10000", end: "0x14000", kind: "brk", label: "", live_bytes: 0, live_blocks: 0, resident_bytes: 0 }]);
    for (const layout of ["linear", "hilbert"] as Layout[]) {
        const near = geometry(layout, all, 36, FRAME);
        assert.ok(near.cellWidth >= 3);
        const { context, screen } = canvas();
        const painter = new Painter(context);
        const cells = new Uint8Array(CELLS_PER_TILE).map((_, n) => 1 + (n % 2));
        painter.repaint(near, 0, () => cells, { table: Uint32Array.of(7, 8, 9), striped: { value: 2, pixel: 99 } });
        const kinds = new Map<number, Set<number>>();
        for (let y = 0; y < FRAME.height; y++) {
            for (let x = 0; x < FRAME.width; x++) {
                const address = near.addressAt(x, y);
                if (address === null) continue;
                const value = cells[(address / near.scaleBytes.cell) % CELLS_PER_TILE]!;
                kinds.set(value, (kinds.get(value) ?? new Set()).add(screen[y * FRAME.width + x]!));
            }
        }
        const room = Math.min(near.cellWidth, near.cellHeight) >= 5;
        assert.deepEqual([...(kinds.get(1) ?? [])], [8], layout);
        assert.deepEqual([...(kinds.get(2) ?? [])].sort(), room ? [9, 99] : [9], layout);
        if (layout === "linear") assert.ok(room);
    }
});
