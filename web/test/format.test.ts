import assert from "node:assert/strict";
import { test } from "node:test";
import { address, brief, bytes, count, duration, fileName, moment, percent, signedBytes, times } from "../src/format";

test("bytes are told in IEC units, and never as 1024 of the unit below", () => {
    assert.equal(bytes(0), "0 B");
    assert.equal(bytes(1023), "1023 B");
    assert.equal(bytes(1024), "1.0 KiB");
    assert.equal(bytes(1024 * 1024 - 1), "1.0 MiB");
    assert.equal(bytes(161_166_131), "153.7 MiB");
    assert.equal(bytes(-2048), "−2.0 KiB");
    assert.equal(bytes(null), "–");
    assert.equal(signedBytes(0), "±0 B");
    assert.equal(signedBytes(1536), "+1.5 KiB");
});

test("counts are grouped, short ones have three digits", () => {
    assert.equal(count(131800), "131\u202f800");
    assert.equal(count(-1234), "−1\u202f234");
    assert.equal(brief(999), "999");
    assert.equal(brief(1000), "1.00 k");
    assert.equal(brief(999_600), "1.00 M");
    assert.equal(brief(12_340_000), "12.3 M");
    assert.equal(brief(2.5), "2.5");
});

test("a share that is not zero never reads as zero", () => {
    assert.equal(percent(0), "0.0 %");
    assert.equal(percent(0.0001), "< 0.1 %");
    assert.equal(percent(0.5), "50.0 %");
    assert.equal(percent(1), "100 %");
    assert.equal(times(8.006), "8.0×");
});

test("durations change their unit where three digits end", () => {
    assert.equal(duration(12), "12 ns");
    assert.equal(duration(1350), "1.35 µs");
    assert.equal(duration(999_400), "999 µs");
    assert.equal(duration(999_600), "1.00 ms");
    assert.equal(duration(59.99e9), "60.0 s");
    assert.equal(duration(125e9), "2 min 05 s");
    assert.equal(duration(3599.6e9), "1 h 00 min");
    assert.equal(duration(50 * 3600e9), "2 d 02 h");
});

test("moments carry milliseconds, and hours when there are some", () => {
    assert.equal(moment(985e6), "0.985 s");
    assert.equal(moment(59.9996e9), "1:00.000");
    assert.equal(moment(125.125e9), "2:05.125");
    assert.equal(moment(3725.5e9), "1:02:05.500");
});

test("paths and addresses", () => {
    assert.equal(fileName("/usr/lib/libc.so.6"), "libc.so.6");
    assert.equal(fileName(null), "");
    assert.equal(address(255), "0xff");
    assert.equal(address("0x7f00"), "0x7f00");
});
