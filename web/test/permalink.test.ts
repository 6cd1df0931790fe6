import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode, NOTHING, type Look } from "../src/store/permalink";
import { takeToken } from "../src/store/token";

const FULL: Look = {
    source: 1, pid: 4242, tab: "flame", at: 985_000_000, range: { from: 10, to: 2_000_000_000 }, a: 5, b: 77,
    mode: "heat", map: "hilbert,38,0x7f10", address: "0x7f1a10000000", site: "0x55 main+0x1f & more#=%", by: "thread", measure: "stranded", beside: "first-fit", filter: "malloc 0x10",
};

test("what a link holds comes back", () => {
    assert.deepEqual(decode(`#${encode(FULL)}`), FULL);
    assert.deepEqual(decode(encode(NOTHING)), NOTHING);
    assert.equal(encode(NOTHING), "");
});

test("broken links give what of them can be read", () => {
    for (const hash of ["#", "#&&=&=x", "#pid=-1", "#pid=1e9", "#pid=99999999999999999999", "#tab=../x", "#range=9-3", "#range=a-b", "#range=5", "#site=%E0%A4%A", "#token"]) {
        assert.deepEqual(decode(hash), NOTHING, hash);
    }
    assert.equal(decode("#unknown=1&tab=blame").tab, "blame");
    assert.equal(decode(`#filter=${"x".repeat(5000)}`).filter?.length, 1000);
});

test("the token is taken out, and nothing else is", () => {
    const token = "A-z_0123456789abcdef";
    assert.deepEqual(takeToken(`#token=${token}&tab=blame&t=5`), { token, rest: "tab=blame&t=5" });
    assert.deepEqual(takeToken("#tab=blame"), { token: null, rest: "tab=blame" });
    assert.equal(takeToken("#token=short").token, null);
    assert.equal(takeToken("#token=0123456789abcdef,evil").token, null);
    assert.equal(takeToken(`#token=${token}`).rest, "");
});

test("a permalink never holds a token", () => {
    assert.doesNotMatch(encode({ ...FULL, filter: null }), /token/);
    assert.doesNotMatch(encode(decode("#token=0123456789abcdef0123&tab=blame")), /token|0123456789/);
});
