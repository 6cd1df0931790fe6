import assert from "node:assert/strict";
import { test } from "node:test";
import { boxAt, layout } from "../src/flame/layout";
import { follow, frames, inverted, matched, path, type Frame } from "../src/flame/tree";
import type { FlameNode } from "../src/protocol";

const node = (name: string, value: number, ...children: FlameNode[]): FlameNode => ({ name, value, children });
const TREE = node("all", 98, node("main", 70, node("alloc", 30), node("parse", 40, node("alloc", 35))), node("thread", 28, node("alloc", 28)));

function all(top: Frame): Frame[] {
    return [top, ...top.children.flatMap(all)];
}

test("children are in order of size, and what is not theirs is the parent's own", () => {
    const top = frames(TREE);
    const main = top.children[0]!;
    assert.deepEqual(main.children.map((one) => one.name), ["parse", "alloc"]);
    assert.equal(main.children[0]!.own, 5);
    assert.equal(main.own, 0);
    assert.equal(all(top).filter((one) => one.children.length === 0).reduce((sum, one) => sum + one.value, 0) + 5, 98);
});

test("the inverted tree has the same sum, and every function once at its top", () => {
    const top = inverted(frames(TREE));
    assert.equal(top.value, 98);
    assert.deepEqual(top.children.map((one) => [one.name, one.value]), [["alloc", 93], ["parse", 5]]);
    assert.deepEqual(top.children[0]!.children.map((one) => [one.name, one.value]), [["parse", 35], ["main", 30], ["thread", 28]]);
});

test("a search counts a stack once, however often it matches", () => {
    const top = frames(node("all", 10, node("a", 10, node("a", 6, node("b", 6)))));
    assert.equal(matched(top, "a").value, 10);
    assert.equal(matched(top, "B").value, 6);
    assert.equal(matched(top, "all").value, 0, "the root is no frame");
    assert.equal(matched(top, "").value, 0);
});

test("boxes of a row do not overlap, lie within their parents, and are found by their place", () => {
    const rows = layout(frames(TREE), 0);
    rows.forEach((row, depth) => row.forEach((box, n) => {
        assert.equal(box.frame.depth, depth);
        if (n > 0) assert.ok(box.from >= row[n - 1]!.to - 1e-12);
        const above = rows[depth - 1]?.find((one) => one.frame === box.frame.parent);
        if (above) assert.ok(box.from >= above.from - 1e-12 && box.to <= above.to + 1e-12);
        assert.equal(boxAt(row, (box.from + box.to) / 2), box);
    }));
    assert.equal(boxAt(rows[2], 0.999), rows[2]!.at(-1) ?? null);
    assert.equal(boxAt(undefined, 0.5), null);
    assert.equal(boxAt(rows[0], 1), null);
});

test("zooming gives the frame the whole width under the path that leads to it", () => {
    const top = frames(TREE);
    const parse = follow(top, ["main", "parse"]);
    const rows = layout(parse, 0);
    assert.deepEqual(rows.slice(0, 3).map((row) => [row[0]!.frame.name, row[0]!.from, row[0]!.to]), [["all", 0, 1], ["main", 0, 1], ["parse", 0, 1]]);
    assert.deepEqual(path(parse).map((one) => one.name), ["all", "main", "parse"]);
    assert.equal(follow(top, ["main", "gone", "x"]).name, "main");
});

test("boxes too narrow to see are left out, and a tree of any depth is laid out", () => {
    assert.equal(layout(frames(TREE), 0.5).length, 2);
    let deep = node("end", 1);
    for (let n = 0; n < 20_000; n += 1) deep = node(`f${n}`, 1, deep);
    assert.equal(layout(frames(deep), 0).length, 20_001);
});
