import assert from "node:assert/strict";
import { test } from "node:test";
import { fromLab, parseHex, pixel, toLab, type Rgb } from "../src/map/colour";
import { cellColour, describe, JUST_FREED, legend, lookup } from "../src/map/palettes";
import { MODES } from "../src/protocol";
import type { Theme } from "../src/worker/messages";

const THEMES: Theme[] = ["dark", "light"];
const classes = Array.from({ length: 254 }, (_, n) => ({ value: n + 2, label: `class ${n}` }));

// Machado, Oliveira and Fernandes 2009, severity 1, on linear light.
const BLIND = {
    deuteranopia: [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
    protanopia: [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
};

function seen(rgb: Rgb, by: keyof typeof BLIND): Rgb {
    const linear = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    const m = BLIND[by];
    return [0, 3, 6].map((row) => {
        const v = Math.min(1, Math.max(0, m[row]! * linear[0]! + m[row + 1]! * linear[1]! + m[row + 2]! * linear[2]!));
        return Math.round(255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055));
    }) as unknown as Rgb;
}

function difference(a: Rgb, b: Rgb): number {
    const [p, q] = [toLab(a), toLab(b)];
    return Math.hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]);
}

test("colours go to CIELAB and back", () => {
    for (const hex of ["#000000", "#ffffff", "#56b4e9", "#16357a", "#e69f00"]) {
        const rgb = parseHex(hex);
        assert.deepEqual(fromLab(toLab(rgb)), rgb);
    }
    assert.equal(Math.round(toLab(parseHex("#16357a"))[0]), 24);
    assert.equal(pixel([1, 2, 3]), 0xff030201);
});

test("scales rise in lightness on dark ground and fall on light, without a step back", () => {
    const from = { occupancy: 3, heat: 1, resident: 1 } as const;
    for (const theme of THEMES) {
        const up = theme === "dark" ? 1 : -1;
        for (const mode of ["occupancy", "heat", "resident"] as const) {
            let before = toLab(cellColour(mode, theme, from[mode], 0))[0];
            for (let value = from[mode] + 1; value < 256; value++) {
                const now = toLab(cellColour(mode, theme, value, 0))[0];
                // Rounding to 8 bits moves lightness by some tenths.
                assert.ok(up * (now - before) > -0.5, `${mode} ${theme} at ${value}: ${before} to ${now}`);
                before = now;
            }
            const ends = [cellColour(mode, theme, from[mode], 0), cellColour(mode, theme, 255, 0)].map((c) => toLab(c)[0]);
            assert.ok(up * (ends[1]! - ends[0]!) > 30, `${mode} ${theme} spans ${ends}`);
        }
        for (const mode of ["occupancy", "heat", "resident"] as const) {
            const colours = [from[mode], 128, 255].map((value) => toLab(cellColour(mode, theme, value, 0, true))[0]);
            assert.ok(up * (colours[1]! - colours[0]!) > 15 && up * (colours[2]! - colours[1]!) > 15, `cividis ${mode} ${theme}: ${colours}`);
        }
        // Age: the younger, the farther from the ground.
        const [young, old] = [toLab(cellColour("age", theme, 1, 0))[0], toLab(cellColour("age", theme, 255, 0))[0]];
        assert.ok(up * (young - old) > 30);
        const sizes = Array.from({ length: 20 }, (_, n) => toLab(cellColour("size", theme, n + 2, 20))[0]);
        for (let n = 1; n < 20; n++) assert.ok(up * (sizes[n]! - sizes[n - 1]!) > 0);
    }
});

test("live, just freed, empty and resident are told apart, by the colour-blind too", () => {
    for (const [theme, cividis] of [["dark", false], ["light", false], ["dark", true], ["light", true]] as const) {
        const colours = [0, 1, 2, 130, 255].map((value) => cellColour("occupancy", theme, value, 0, cividis));
        for (const by of ["deuteranopia", "protanopia"] as const) {
            for (let a = 0; a < colours.length; a++) {
                for (let b = a + 1; b < colours.length; b++) {
                    const apart = difference(seen(colours[a]!, by), seen(colours[b]!, by));
                    assert.ok(apart > 10, `${theme} ${by} ${cividis}: ${a} and ${b} are ${apart.toFixed(1)} apart`);
                }
            }
            if (!cividis) assert.ok(difference(seen(parseHex(JUST_FREED), by), seen(cellColour("occupancy", theme, 200, 0), by)) > 60);
        }
    }
});

test("the first eight classes are told apart", () => {
    for (const theme of THEMES) {
        const colours = classes.slice(0, 8).map((c) => cellColour("site", theme, c.value, 8));
        for (let a = 0; a < 8; a++) for (let b = a + 1; b < 8; b++) assert.ok(difference(colours[a]!, colours[b]!) > 20, `${theme} ${a} ${b}`);
    }
});

test("a highlight lights its values and nothing else", () => {
    const plain = lookup("site", "dark", 5, null);
    const lit = lookup("site", "dark", 5, [4]);
    assert.equal(lit[0], plain[0]);
    const lightness = (p: number) => toLab([p & 255, (p >> 8) & 255, (p >> 16) & 255])[0];
    for (const value of [1, 2, 3, 5]) assert.ok(lightness(lit[value]!) < lightness(lit[4]!) - 30);
    // A class that is not in the palette: nothing is lit, everything is faint.
    const none = lookup("site", "dark", 5, []);
    for (const value of [1, 2, 3, 4]) assert.ok(lightness(none[value]!) < lightness(plain[value]!));
});

test("every value has a colour and words in every mode, and the legend names what is drawn", () => {
    for (const mode of MODES) {
        for (let value = 0; value < 256; value++) assert.ok(describe(mode, value, classes).length > 3, `${mode} ${value}`);
        for (const theme of THEMES) {
            const table = lookup(mode, theme, 254, null);
            for (const pixel of table) assert.equal(pixel >>> 24, 255);
            const entries = legend(mode, theme, classes, 0);
            assert.ok(entries.length >= 2 && entries.every((entry) => entry.label !== ""));
            for (const entry of entries) for (const tick of entry.ticks ?? []) assert.ok(tick.at >= 0 && tick.at <= 1.0001);
        }
    }
    assert.ok(legend("heat", "dark", [], 2).some((entry) => entry.label.includes("hottest page")), "zoomed out, it is said of which page");
    assert.match(describe("occupancy", 255, []), /^100 %/);
    assert.match(describe("occupancy", 2, []), /freed/);
    assert.match(describe("age", 1 + 8 * 10, []), /1\.0 s|1 s/);
    assert.match(describe("heat", 128, []), /15/);
    assert.equal(describe("site", 3, classes), "mostly class 1");
    assert.match(legend("site", "dark", classes, 0).map((e) => e.label).join(), /and 246 more/);
});
