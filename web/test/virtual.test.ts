import assert from "node:assert/strict";
import { test } from "node:test";
import { contentHeight, lastFirst, offsetOf, rowAt, rowsShown, type Extent } from "../src/list/virtual";

const small: Extent = { total: 1000, rowHeight: 22, viewport: 440 };
const large: Extent = { total: 1_000_000_000, rowHeight: 22, viewport: 440 };

test("a list that fits has exact offsets", () => {
    assert.equal(contentHeight(small), 22_000);
    assert.equal(rowsShown(small), 20);
    assert.equal(lastFirst(small), 980);
    for (let row = 0; row <= 980; row += 7) assert.equal(rowAt(small, offsetOf(small, row)), row);
});

test("a list of any length stays below what browsers can scroll, and reaches its last row", () => {
    assert.ok(contentHeight(large) <= 8_000_000);
    assert.equal(rowAt(large, 0), 0);
    assert.equal(rowAt(large, contentHeight(large) - large.viewport), lastFirst(large));
    assert.equal(lastFirst(large) + Math.floor(large.viewport / large.rowHeight), large.total);
    const middle = rowAt(large, offsetOf(large, 500_000_000));
    assert.ok(Math.abs(middle - 500_000_000) < 200, String(middle));
});

test("offsets never leave the list", () => {
    for (const extent of [small, large, { ...small, total: 0 }, { ...small, total: 3 }]) {
        for (const row of [-5, 0, 1, extent.total, extent.total * 2]) {
            const offset = offsetOf(extent, row);
            assert.ok(offset >= 0 && offset <= Math.max(0, contentHeight(extent) - extent.viewport));
        }
        for (const offset of [-100, 0, 1e9]) {
            const row = rowAt(extent, offset);
            assert.ok(row >= 0 && row <= lastFirst(extent));
        }
    }
});
