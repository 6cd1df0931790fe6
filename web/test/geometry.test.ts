import assert from "node:assert/strict";
import { test } from "node:test";
import { nearest, runs, spans, type Span } from "../src/map/axis";
import { fit, geometry, type Frame, type Geometry } from "../src/map/geometry";
import { CELL_AT, find, PLACE_OF, SIDE, SQUARE_CELLS, walk } from "../src/map/hilbert";
import { LinearGeometry } from "../src/map/linear-geometry";
import { minimapAddress, minimapSpans, minimapY } from "../src/map/minimap";
import { readPlace, writePlace } from "../src/map/selection";
import { CLOSEST, zoomOfLevel, zoomStep } from "../src/map/zoom";
import { cellBytes, type Region } from "../src/protocol";
import type { Layout } from "../src/worker/messages";

const FRAME: Frame = { width: 1000, height: 600, grain: 2, unit: 1, fill: false };
const MIB = 2 ** 20;

function region(start: number, end: number): Region {
    const hex = (n: number) => `0x${n.toString(16)}`;
    return { start: hex(start), end: hex(end), kind: "mapped", label: "", live_bytes: 0, live_blocks: 0, resident_bytes: 0 };
}

const HEAP: Span[] = spans([
    region(0x55d0_3a40_1000, 0x55d0_3a40_1000 + 9 * MIB),
    region(0x7f10_0000_0000, 0x7f10_0000_0000 + 3 * MIB),
    region(0x7f10_0100_0000, 0x7f10_0100_0000 + 132 * 1024),
    region(0x7f1a_1234_5000, 0x7f1a_1234_5000 + 40 * MIB),
]);

test("the ladder of zooms: each step shows half the bytes on the same area", () => {
    for (let zoom = 0; zoom < CLOSEST; zoom++) {
        const area = (z: number) => {
            const { level, doublings } = zoomStep(z);
            return cellBytes(level) / 2 ** doublings;
        };
        assert.equal(area(zoom) / area(zoom + 1), 2, `zoom ${zoom}`);
    }
    for (let level = 12; level >= -4; level--) assert.equal(zoomStep(zoomOfLevel(level)).level, level);
});

test("regions: sorted, unreadable and overlapping ones dropped", () => {
    const found = spans([region(0x9000, 0xa000), region(0x1000, 0x3000), region(0x2000, 0x4000), region(0x4000, 0x4000), { ...region(1, 2), start: "x" }]);
    assert.deepEqual(found.map((s) => [s.start, s.end]), [[0x1000, 0x3000], [0x9000, 0xa000]]);
    assert.equal(nearest(found, 0x1800), 0x1800);
    assert.equal(nearest(found, 0x3100), 0x2fff);
    assert.equal(nearest(found, 0x8fff), 0x9000);
    assert.equal(nearest(found, 0xf000), 0x9fff);
    assert.equal(nearest([], 1), null);
});

test("runs join what touches the same or the next unit", () => {
    const found = runs(spans([region(0x1000, 0x1800), region(0x1c00, 0x2400), region(0x3000, 0x3100), region(0x9000, 0xb000)]), 0x1000);
    assert.deepEqual(found.map((r) => [r.first, r.count, r.before]), [[1, 3, 0], [9, 2, 3]]);
    assert.deepEqual(found.map((r) => r.gap), [0, 0x9000 - 0x3100]);
});

test("the Hilbert curve visits every cell once, and each step goes to a neighbour", () => {
    for (let order = 1; order <= 5; order++) {
        const seen = new Set<number>();
        let before: { x: number; y: number } | null = null;
        for (let index = 0; index < 4 ** order; index++) {
            const spot = walk(order, index);
            assert.deepEqual(find(order, spot.x, spot.y), { index, turn: spot.turn });
            seen.add(spot.x + 1000 * spot.y);
            if (before !== null) assert.equal(Math.abs(spot.x - before.x) + Math.abs(spot.y - before.y), 1);
            before = spot;
        }
        assert.equal(seen.size, 4 ** order);
        assert.deepEqual([walk(order, 0).x, walk(order, 0).y], [0, 0]);
        assert.deepEqual([before?.x, before?.y], [2 ** order - 1, 0]);
    }
});

test("the tables of a square are bijections, turned curves join, a cell of the next level is a square of four", () => {
    for (const turn of [0, 1, 2, 3]) {
        assert.equal(new Set(CELL_AT[turn]).size, SQUARE_CELLS);
        for (let cell = 0; cell < SQUARE_CELLS; cell++) assert.equal(CELL_AT[turn]![PLACE_OF[turn]![cell]!], cell);
        for (let parent = 0; parent < SQUARE_CELLS / 4; parent++) {
            const places = [0, 1, 2, 3].map((n) => PLACE_OF[turn]![4 * parent + n]!);
            assert.equal(new Set(places.map((p) => ((p % SIDE) >> 1) + 64 * (Math.floor(p / SIDE) >> 1))).size, 1);
        }
    }
    // Across the squares of a larger one the curve goes on.
    let before: [number, number] | null = null;
    for (let slot = 0; slot < 16; slot++) {
        const { x, y, turn } = walk(2, slot);
        for (const cell of [0, SQUARE_CELLS - 1]) {
            const place = PLACE_OF[turn]![cell]!;
            const at: [number, number] = [x * SIDE + (place % SIDE), y * SIDE + Math.floor(place / SIDE)];
            if (cell === 0 && before !== null) assert.equal(Math.abs(at[0] - before[0]) + Math.abs(at[1] - before[1]), 1);
            before = at;
        }
    }
});

function each(check: (geometry: Geometry, name: string) => void) {
    for (const layout of ["linear", "hilbert"] as Layout[]) {
        const fitted = fit(layout, HEAP, FRAME);
        for (let zoom = Math.max(0, fitted - 3); zoom <= Math.min(CLOSEST, fitted + 9); zoom++) {
            for (const fill of [false, true]) check(geometry(layout, HEAP, zoom, { ...FRAME, fill }), `${layout} ${zoom} ${fill}`);
        }
    }
}

test("where a cell is drawn, its address is found", () => {
    each((geometry, name) => {
        const cell = geometry.scaleBytes.cell;
        for (const span of HEAP) {
            for (const share of [0, 0.3, 0.77, 1]) {
                const address = Math.min(span.end - 1, Math.floor(span.start + share * (span.end - span.start)));
                const rect = geometry.cellRect(address);
                assert.ok(rect !== null && rect.width >= 1 && rect.height >= 1, name);
                const base = address - (address % cell);
                for (const [x, y] of [[0, 0], [rect.width - 1, rect.height - 1]] as const) {
                    assert.equal(geometry.addressAt(rect.x + x, rect.y + y), base, `${name} 0x${address.toString(16)}`);
                }
            }
        }
    });
});

test("all cells of all ranges are in the spots of the whole content, once", () => {
    each((geometry, name) => {
        if (geometry.contentHeight > 200_000) return;
        const cell = geometry.scaleBytes.cell;
        const covered = new Map<number, number>();
        for (const spot of geometry.spots(0, geometry.contentHeight)) {
            assert.ok(spot.first >= 0 && spot.first + spot.count <= 4096, name);
            covered.set(spot.tile, (covered.get(spot.tile) ?? 0) + spot.count);
            const y = geometry.cellRect((spot.tile * 4096 + spot.first) * cell)?.y;
            if (geometry.layout === "linear") assert.equal(y, spot.y, name);
        }
        for (const [, cells] of covered) assert.ok(cells <= 4096, name);
        for (const span of HEAP) {
            for (let at = span.start; at < span.end; at += Math.max(cell * 512, 4096)) {
                assert.ok(covered.has(Math.floor(at / cell / 4096)), `${name} 0x${at.toString(16)}`);
            }
        }
    });
});

test("spots of a part are those that the part shows", () => {
    each((geometry, name) => {
        const top = Math.floor(geometry.contentHeight / 3);
        for (const spot of geometry.spots(top, 100)) {
            const height = geometry instanceof LinearGeometry ? (spot.count / geometry.columns) * geometry.cellHeight : SIDE * geometry.cellHeight;
            assert.ok(spot.y < top + 100 && spot.y + height > top, name);
        }
    });
});

test("fitted in, everything is seen, and a step closer it is not", () => {
    for (const layout of ["linear", "hilbert"] as Layout[]) {
        const zoom = fit(layout, HEAP, FRAME);
        assert.ok(geometry(layout, HEAP, zoom, FRAME).contentHeight <= FRAME.height);
        assert.ok(geometry(layout, HEAP, zoom + 1, FRAME).contentHeight > FRAME.height);
        const filled = geometry(layout, HEAP, zoom, { ...FRAME, fill: true });
        assert.ok(filled.contentHeight <= FRAME.height, `${layout} fills with ${filled.contentHeight}`);
    }
});

test("rows are a power of two, gaps are told, beside the ranges there is no address", () => {
    const linear = geometry("linear", HEAP, fit("linear", HEAP, FRAME), FRAME) as LinearGeometry;
    assert.equal(Math.log2(linear.rowBytes) % 1, 0);
    const gaps = linear.gaps(0, FRAME.height);
    assert.deepEqual(gaps.map((gap) => gap.until), HEAP.slice(1).map((span) => span.start));
    assert.equal(gaps[0]?.bytes, HEAP[1]!.start - HEAP[0]!.end);
    for (const gap of gaps) assert.equal(linear.addressAt(10, gap.y), null);
    assert.equal(linear.addressAt(-1, 0), null);
    assert.equal(linear.addressAt(10, linear.contentHeight + 1), null);
    const marks = linear.marks(0, FRAME.height, 34);
    for (const span of [HEAP[0]!, HEAP[1]!, HEAP[3]!]) {
        assert.ok(marks.some((mark) => Math.abs(mark.address - span.start) < linear.rowBytes), "each range's beginning is marked");
    }
});

test("outlines are closed", () => {
    each((geometry, name) => {
        const start = HEAP[3]!.start + MIB;
        for (const size of [1, 5000, 300_000]) {
            const lines = geometry.outline(start, start + size, 0, geometry.contentHeight);
            const ends = new Map<string, number>();
            for (let i = 0; i < lines.length; i += 2) {
                const key = `${lines[i]} ${lines[i + 1]}`;
                ends.set(key, (ends.get(key) ?? 0) + 1);
            }
            assert.ok(lines.length >= 16, name);
            for (const [at, count] of ends) assert.equal(count % 2, 0, `${name}: ${count} lines end at ${at}`);
        }
    });
});

test("the strip: places and addresses belong together, more ranges than pixels still fit", () => {
    const placed = minimapSpans(HEAP, 400);
    for (const span of HEAP) {
        const middle = Math.floor((span.start + span.end) / 2);
        const back = minimapAddress(placed, minimapY(placed, HEAP, middle))!;
        assert.ok(Math.abs(back - middle) <= (span.end - span.start) / 4);
    }
    const many = spans(Array.from({ length: 2000 }, (_, n) => region(0x10000 * (2 * n + 1), 0x10000 * (2 * n + 2))));
    const crowded = minimapSpans(many, 300);
    const last = crowded.at(-1)!;
    assert.ok(last.y + last.height <= 300.001);
    assert.equal(minimapAddress([], 5), null);
});

test("a place in the map as text, and back; anything else is no place", () => {
    for (const text of ["hilbert", "linear,38,0x7f10", "hilbert,0,0x0"]) assert.equal(writePlace(readPlace(text)!), text);
    assert.equal(writePlace({ layout: "linear", at: null }), null);
    for (const text of ["", "rows", "linear,x,0x1", "linear,3", "linear,3,7f", "linear,300,0x1", "hilbert,1,0x1,2"]) assert.equal(readPlace(text), null);
});
