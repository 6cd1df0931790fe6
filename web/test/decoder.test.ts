import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeCells, decodeFrame, formatAddress, MalformedFrame, MAX_BESIDE_CELLS, parseAddress, parseMessage } from "../src/protocol";

type Tile = { tile: bigint; code: number; bytes: number[] };

function frame(tiles: Tile[], { type = 1, level = 0, count = tiles.length } = {}): Uint8Array<ArrayBuffer> {
    const bytes: number[] = [type, level & 255, 0x34, 0x12, 7, 0, 0, 0, 0, 0xca, 0x9a, 0x3b, 0, 0, 0, 0];
    bytes.push(count & 255, (count >> 8) & 255, (count >> 16) & 255, (count >>> 24) & 255);
    for (const { tile, code, bytes: rest } of tiles) {
        for (let n = 0n; n < 8n; n++) bytes.push(Number((tile >> (8n * n)) & 255n));
        bytes.push(code, ...rest);
    }
    return new Uint8Array(bytes);
}

const decode = (bytes: Uint8Array<ArrayBuffer>) => decodeFrame(bytes.buffer);

test("a frame with each kind of tile", () => {
    const cells = Array.from({ length: 4096 }, (_, n) => n & 255);
    const bytes = frame(
        [
            { tile: 0x7f1234n, code: 0, bytes: cells },
            { tile: 5n, code: 1, bytes: [2, 0, 3, 0, 9, 255, 15, 8] },
            { tile: 6n, code: 2, bytes: [77] },
        ],
        { level: -4 },
    );
    const { level, view, seq, at_ns, tiles } = decode(bytes);
    assert.deepEqual([level, view, seq, at_ns], [-4, 0x1234, 7, 1e9]);
    assert.deepEqual(tiles.map((t) => t.tile), [0x7f1234, 5, 6]);
    const [all, some, one] = tiles.map((t) => t.cells);
    assert.ok(all?.code === "all" && all.cells.length === 4096 && all.cells[300] === 44);
    assert.ok(some?.code === "changes" && some.count === 2);
    assert.deepEqual([some.at(0), some.value(0), some.at(1), some.value(1)], [3, 9, 4095, 8]);
    assert.ok(one?.code === "uniform" && one.value === 77);
});

test("a frame that ends at any byte but its last is refused, and says where", () => {
    const whole = frame([
        { tile: 1n, code: 1, bytes: [1, 0, 3, 0, 9] },
        { tile: 2n, code: 2, bytes: [1] },
    ]);
    assert.equal(decode(whole).tiles.length, 2);
    for (let end = 0; end < whole.length; end++) {
        assert.throws(() => decode(whole.slice(0, end)), MalformedFrame, `cut at ${end}`);
    }
    const longer = new Uint8Array(whole.length + 1);
    longer.set(whole);
    assert.throws(() => decode(longer), /behind the last tile/);
});

test("unknown types, codes and levels, and cells beyond the tile are refused", () => {
    assert.throws(() => decode(frame([], { type: 2 })), /unknown type 2/);
    assert.throws(() => decode(frame([{ tile: 1n, code: 3, bytes: [0] }])), /unknown code 3/);
    assert.throws(() => decode(frame([], { level: -5 })), /level -5/);
    assert.throws(() => decode(frame([], { level: 60 })), /level 60/);
    assert.throws(() => decode(frame([{ tile: 1n, code: 1, bytes: [1, 0, 0, 16, 1] }])), /beyond its tile/);
    assert.throws(() => decode(frame([{ tile: 2n ** 60n, code: 2, bytes: [1] }])), /beyond 2\^53/);
});

test("a declared number of tiles allocates nothing", () => {
    const bytes = frame([], { count: 0xffffffff });
    assert.throws(() => decode(bytes), /tile is cut off/);
});

test("random bytes are decoded or refused, never anything else", () => {
    let seed = 1;
    const random = () => ((seed = Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
    for (let round = 0; round < 3000; round++) {
        const bytes = new Uint8Array(20 + Math.floor(random() * 60)).map(() => Math.floor(random() * 256));
        bytes[0] = 1;
        bytes.set([0, 0, 0], 17);
        try {
            decode(bytes);
        } catch (error) {
            assert.ok(error instanceof MalformedFrame, String(error));
        }
    }
});

test("messages: unknown ones are passed over, what is no object is refused", () => {
    assert.equal(parseMessage('{"type":"from-the-future"}'), null);
    assert.equal(parseMessage("{}"), null);
    assert.equal(parseMessage('{"type":"notice","level":"info","text":"x"}')?.type, "notice");
    for (const text of ["", "[]", "1", "null", "{"]) assert.throws(() => parseMessage(text));
});

test("addresses", () => {
    assert.equal(parseAddress("0x7f12a4c00010"), 0x7f12a4c00010);
    assert.equal(parseAddress(" 7F10 "), 0x7f10);
    for (const text of ["", "0x", "heap", "0x12345678901234567", "-1", "1 2"]) assert.equal(parseAddress(text), null);
    assert.equal(formatAddress(0x7f12a4c00010), "0x7f12a4c00010");
});

test("cells of a model are its bytes, and nothing else is taken for cells", () => {
    assert.deepEqual([...decodeCells("AQP/")], [1, 3, 255]);
    assert.deepEqual([...decodeCells("")], []);
    const most = Buffer.alloc(MAX_BESIDE_CELLS, 77);
    assert.deepEqual(decodeCells(most.toString("base64")), new Uint8Array(most));
    for (const text of ["A", "*", "AQP/AQ=A", Buffer.alloc(MAX_BESIDE_CELLS + 1).toString("base64"), "A".repeat(1 << 20)]) {
        assert.equal(decodeCells(text).length, 0, text.slice(0, 20));
    }
});

test("a message on a model is known", () => {
    const text = '{"type":"model","source":0,"pid":7,"policy":"buddy","behind_events":3,"problem":null,"model":null,"real":null,"cells":null}';
    assert.equal(parseMessage(text)?.type, "model");
});
