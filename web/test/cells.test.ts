import assert from "node:assert/strict";
import { test } from "node:test";
import type { TileCells, TileFrame } from "../src/protocol";
import { Cells } from "../src/worker/cells";
import { ranges } from "../src/worker/engine";
import { joined, united } from "../src/worker/painter";

const uniform = (value: number): TileCells => ({ code: "uniform", value });
const changes = (list: [number, number][]): TileCells => ({
    code: "changes",
    count: list.length,
    at: (n) => list[n]![0],
    value: (n) => list[n]![1],
});

function frame(view: number, level: number, tiles: [number, TileCells][]): TileFrame {
    return { view, level, seq: 1, at_ns: 0, tiles: tiles.map(([tile, cells]) => ({ tile, cells })) };
}

test("changes add up, and say which cells are to be drawn", () => {
    const cells = new Cells("occupancy", 0);
    cells.begin(1, "occupancy", 0, [7]);
    cells.apply(frame(1, 0, [[7, changes([[3, 9], [4000, 8]])]]));
    assert.deepEqual([cells.get(7)?.[3], cells.get(7)?.[4000], cells.get(7)?.[5]], [9, 8, 0]);
    assert.deepEqual(cells.dirty.get(7), { first: 3, last: 4000 });
    cells.dirty.clear();
    cells.apply(frame(1, 0, [[7, changes([[10, 1]])]]));
    assert.deepEqual(cells.dirty.get(7), { first: 10, last: 10 });
    assert.equal(cells.get(7)?.[3], 9);
});

test("frames of another view or level change nothing", () => {
    const cells = new Cells("occupancy", 0);
    cells.begin(2, "occupancy", 0, [7]);
    assert.equal(cells.apply(frame(1, 0, [[7, uniform(5)]])), "nothing");
    assert.equal(cells.apply(frame(2, 1, [[7, uniform(5)]])), "nothing");
    assert.equal(cells.get(7), undefined);
});

test("cells of the view before are shown until the new view has sent its own; then they are gone", () => {
    const cells = new Cells("occupancy", 0);
    cells.begin(1, "occupancy", 0, [7, 8, 9]);
    cells.apply(frame(1, 0, [[7, uniform(5)], [8, uniform(6)], [9, uniform(7)]]));
    cells.begin(2, "occupancy", 0, [8, 9, 10]);
    assert.equal(cells.get(7), undefined, "what is no longer in view is forgotten");
    assert.equal(cells.get(8)?.[0], 6);
    // Changes are against nothing, not against what is still shown.
    cells.apply(frame(2, 0, [[9, changes([[1, 3]])]]));
    assert.deepEqual([cells.get(9)?.[0], cells.get(9)?.[1]], [0, 3]);
    assert.deepEqual(cells.dirty.get(9), { first: 0, last: 4095 });
    assert.ok(cells.settle());
    assert.equal(cells.get(8), undefined);
    assert.ok(cells.dirty.has(8));
    assert.equal(cells.settle(), false);
});

test("a change of mode shows with its first frame, all at once", () => {
    const cells = new Cells("occupancy", 0);
    cells.begin(1, "occupancy", 0, [7, 8]);
    cells.apply(frame(1, 0, [[7, uniform(5)], [8, uniform(5)]]));
    cells.begin(2, "heat", 0, [7, 8]);
    assert.equal(cells.mode, "occupancy");
    assert.equal(cells.get(8)?.[0], 5);
    assert.equal(cells.apply(frame(2, 0, [[7, uniform(1)]])), "all");
    assert.equal(cells.mode, "heat");
    assert.equal(cells.get(8), undefined, "a value of occupancy is never read as heat");
    // A heap without any heat sends no frame.
    cells.begin(3, "age", 0, [7]);
    assert.ok(cells.settle());
    assert.equal(cells.mode, "age");
});

test("between levels the cells at hand stand in for the new ones", () => {
    const cells = new Cells("occupancy", 1);
    cells.begin(1, "occupancy", 1, [2]);
    cells.apply(frame(1, 1, [[2, changes([[0, 50], [1, 60], [1024, 70]])]]));
    cells.begin(2, "occupancy", 0, [8, 9, 12]);
    assert.deepEqual([cells.get(8)?.[3], cells.get(8)?.[4], cells.get(9)?.[0]], [50, 60, 70]);
    assert.equal(cells.get(12), undefined);
    cells.begin(3, "occupancy", 1, [2]);
    assert.deepEqual([cells.get(2)?.[0], cells.get(2)?.[1], cells.get(2)?.[1024]], [50, 60, 70]);
});

test("another process leaves nothing behind", () => {
    const cells = new Cells("occupancy", 0);
    cells.begin(1, "occupancy", 0, [7]);
    cells.apply(frame(1, 0, [[7, uniform(5)]]));
    cells.dirty.clear();
    cells.clear();
    assert.equal(cells.get(7), undefined);
    assert.ok(cells.dirty.has(7));
});

test("tiles are asked for as ranges, rectangles are drawn as columns", () => {
    assert.deepEqual(ranges([5, 3, 4, 9]), [[3, 3], [9, 1]]);
    assert.deepEqual(ranges([]), []);
    const rect = (y: number, height: number, x = 0) => ({ x, y, width: 10, height });
    assert.deepEqual(joined([rect(20, 10), rect(0, 10), rect(10, 10), rect(40, 5), rect(12, 3), rect(0, 10, 50)]), [
        rect(0, 30),
        rect(40, 5),
        rect(0, 10, 50),
    ]);
});

test("a tile's squares are put on the canvas at once, unless they are far apart", () => {
    const square = (x: number, y: number) => ({ x, y, width: 16, height: 16 });
    assert.deepEqual(united([square(0, 0), square(16, 0), square(16, 16), square(0, 16)]), [{ x: 0, y: 0, width: 32, height: 32 }]);
    const apart = [square(0, 0), square(500, 300)];
    assert.deepEqual(united(apart), apart);
    assert.deepEqual(united([]), []);
});
