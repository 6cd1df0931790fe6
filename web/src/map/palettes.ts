// What a cell's value is called and how it looks: a table of 256 colours for each mode and theme, and the legend that explains it.
// Scales rise (or, on a light ground, fall) evenly in lightness, so that they read without colour as well.
import type { Mode, PaletteClass } from "../protocol";
import type { Highlight, Theme } from "../worker/messages";
import { formatRgb, mix, parseHex, pixel, scale, type Rgb } from "./colour";
import { roundDuration } from "./format";

/** Colours of what is drawn over and beside the cells. */
export interface Inks {
    text: string;
    muted: string;
    line: string;
    /** What lies around the cells. */
    ground: string;
    accent: string;
}

export const INKS: Record<Theme, Inks> = {
    dark: { text: "#cdd6e0", muted: "#8b97a5", line: "#3b4654", ground: "#0c0f14", accent: "#ffd440" },
    light: { text: "#24292f", muted: "#5f6a76", line: "#b9c0c8", ground: "#f4f5f4", accent: "#c40060" },
};

/** A cell of a heap range without anything in it. */
const EMPTY: Record<Theme, string> = { dark: "#141920", light: "#e5e7e6" };
const RESIDENT: Record<Theme, string> = { dark: "#353c49", light: "#c6c8c8" };
export const JUST_FREED = "#e69f00";
/** Beside cividis, which has that colour itself. */
const FREED_BY_CIVIDIS = "#d55e00";
/** Where there is room, what was just freed is striped besides. */
export const FREED_STRIPES = { value: 2, pixel: pixel(parseHex("#7a4e00")) };
const OTHER: Record<Theme, string> = { dark: "#5d6673", light: "#a9adb3" };

/** After Nuñez, Anderton and Renslow 2018: the same to the eye with and without red-green blindness. On a dark ground without its darkest end. */
const CIVIDIS: Record<Theme, readonly string[]> = {
    dark: ["#2b4377", "#7c7b78", "#fee838"],
    light: ["#d9d3b4", "#7c7b78", "#00224e"],
};

const SCALES: Record<"occupancy" | "heat" | "age" | "resident" | "size", Record<Theme, readonly string[]>> = {
    occupancy: { dark: ["#1d4a72", "#4ba9df", "#a3daf8"], light: ["#bcdcf0", "#3d95cf", "#07406e"] },
    heat: { dark: ["#16357a", "#b85c00", "#ff8673"], light: ["#9ecae1", "#f28e2b", "#a50f15"] },
    // From the oldest to the youngest.
    age: CIVIDIS,
    resident: { dark: ["#26344f", "#a8457e", "#ffb27a"], light: ["#d3dbe6", "#cc6a9c", "#5f0d3c"] },
    size: { dark: ["#3d3f8f", "#1f9a8a", "#f4e61e"], light: ["#d8dd5a", "#21918c", "#440154"] },
};

// Told apart with red-green blindness too, after Okabe and Ito; then the same hues lighter and darker.
const CLASSES: Record<Theme, readonly string[]> = {
    dark: ["#56b4e9", "#e69f00", "#2fbf8f", "#f0e442", "#e8743b", "#cc79a7", "#8f8bf2", "#d9d9d9"],
    light: ["#0072b2", "#d98a00", "#009e73", "#b8a800", "#c84e00", "#b3598c", "#5a4fcf", "#4d4d4d"],
};

const AGE_STEPS = 8;
const HEAT_STEPS = 31.75;

/** One line of a legend: a colour, or the stops of a scale, and its words. */
export interface LegendEntry {
    /** CSS colours; more than one is a scale from the first to the last. */
    colours: string[];
    /** Striped besides. */
    striped?: boolean;
    label: string;
    /** Words along a scale, each with its place from 0 to 1. */
    ticks?: { at: number; label: string }[];
    /** The cell value, where it is one; for pointing at a class. */
    value?: number;
}

/** Share of `value` on the scale of its mode, from 0 to 1; null for a value that is not on it. */
function share(mode: Mode, value: number): number | null {
    switch (mode) {
        case "occupancy":
            return value < 3 ? null : (value - 3) / 252;
        case "heat":
        case "resident":
            return value < 1 ? null : (value - 1) / 254;
        case "age":
            return value < 1 ? null : 1 - (value - 1) / 254;
        default:
            return null;
    }
}

function stops(mode: keyof typeof SCALES, theme: Theme, cividis: boolean): readonly string[] {
    return cividis ? CIVIDIS[theme] : SCALES[mode][theme];
}

function freed(cividis: boolean): string {
    return cividis ? FREED_BY_CIVIDIS : JUST_FREED;
}

/** How many classes the values of a palette have room for: those of sizes stand for a size each, whether it occurs or not. */
export function spread(classes: readonly PaletteClass[]): number {
    return classes.reduce((most, { value }) => Math.max(most, value - 1), 0);
}

function classColour(mode: Mode, theme: Theme, value: number, classes: number, cividis: boolean): Rgb {
    const rank = value - 2;
    if (mode === "size") return scale(stops("size", theme, cividis), classes < 2 ? 1 : rank / (classes - 1));
    const hues = CLASSES[theme];
    const base = parseHex(hues[rank % hues.length]!);
    const round = Math.floor(rank / hues.length);
    if (round === 0) return base;
    // Alternately towards white and black, farther each time but never there.
    const far = 0.25 + 0.45 * (1 - 1 / (1 + Math.floor((round - 1) / 2)));
    return mix(base, round % 2 === 1 ? [255, 255, 255] : [0, 0, 0], far);
}

/** The colour of a cell value. `classes` is the [spread] of the mode's palette; with `cividis` all scales are that one. */
export function cellColour(mode: Mode, theme: Theme, value: number, classes: number, cividis = false): Rgb {
    if (value === 0) return parseHex(EMPTY[theme]);
    const on = share(mode, value);
    if (on !== null) return scale(stops(mode as keyof typeof SCALES, theme, cividis), on);
    if (mode === "occupancy") return parseHex(value === 1 ? RESIDENT[theme] : freed(cividis));
    return value === 1 ? parseHex(OTHER[theme]) : classColour(mode, theme, value, classes, cividis);
}

/** 256 pixels, one for each cell value. With a highlight all other classes are faint. */
export function lookup(mode: Mode, theme: Theme, classes: number, highlight: Highlight, cividis = false): Uint32Array {
    const table = new Uint32Array(256);
    const lit = highlight === null ? null : new Set(highlight);
    const ground = parseHex(EMPTY[theme]);
    for (let value = 0; value < 256; value++) {
        const colour = cellColour(mode, theme, value, classes, cividis);
        if (lit === null || value === 0) table[value] = pixel(colour);
        else if (lit.has(value)) table[value] = pixel(theme === "dark" ? [255, 212, 64] : [196, 0, 96]);
        else table[value] = pixel(mix(ground, colour, 0.22));
    }
    return table;
}

function ramp(mode: keyof typeof SCALES, theme: Theme, cividis: boolean): string[] {
    return Array.from({ length: 9 }, (_, i) => formatRgb(scale(stops(mode, theme, cividis), i / 8)));
}

/**
 * Legend of a mode, in words and numbers. At most `most` classes are named, the others counted. A cell of a level above 0 is many
 * pages, and the legend says which of them it shows.
 */
export function legend(mode: Mode, theme: Theme, classes: readonly PaletteClass[], level: number, cividis = false, most = 8): LegendEntry[] {
    const empty = (label: string): LegendEntry => ({ colours: [EMPTY[theme]], label });
    switch (mode) {
        case "occupancy":
            return [
                empty("not in memory"),
                { colours: [RESIDENT[theme]], label: "in memory, no live block" },
                { colours: [freed(cividis)], striped: true, label: "freed within the last second" },
                {
                    colours: ramp("occupancy", theme, cividis),
                    label: "taken by live blocks",
                    ticks: [0, 0.5, 1].map((at) => ({ at, label: `${100 * at} %` })),
                },
            ];
        case "heat":
            return [
                empty("never used"),
                {
                    colours: ramp("heat", theme, cividis),
                    label: `allocations and frees of the ${level > 0 ? "hottest " : ""}page, halved every 4 s`,
                    ticks: [1, 15, 255].map((h) => ({ at: (HEAT_STEPS * Math.log2(1 + h)) / 254, label: h === 255 ? "255+" : `${h}` })),
                },
            ];
        case "age":
            return [
                empty("no live block"),
                {
                    colours: ramp("age", theme, cividis).reverse(),
                    label: `since the last allocation ${level > 0 ? "in the youngest page" : "there"}`,
                    ticks: [1, 1000, 60_000, 3_600_000, 86_400_000].map((ms) => ({
                        at: (AGE_STEPS * Math.log2(1 + ms)) / 254,
                        label: roundDuration(ms * 1e6),
                    })),
                },
            ];
        case "resident":
            return [
                empty("not in memory"),
                {
                    colours: ramp("resident", theme, cividis),
                    label: "in memory, but taken by no live block",
                    ticks: [0, 0.5, 1].map((at) => ({ at, label: `${100 * at} %` })),
                },
            ];
        default: {
            const named = classes.filter((c) => c.value >= 2);
            const rows = named.slice(0, most).map((c) => ({
                colours: [formatRgb(cellColour(mode, theme, c.value, spread(classes), cividis))],
                label: c.label,
                value: c.value,
            }));
            const rest = named.length - rows.length;
            const more = rest > 0 ? [{ colours: [], label: `and ${rest} more` }] : [];
            return [...rows, ...more, { colours: [OTHER[theme]], label: "other", value: 1 }, empty("no live block")];
        }
    }
}

/** What a cell value says, in words. */
export function describe(mode: Mode, value: number, classes: readonly PaletteClass[]): string {
    switch (mode) {
        case "occupancy":
            if (value === 0) return "not in memory, not in use";
            if (value === 1) return "in memory, no live block";
            if (value === 2) return "freed within the last second";
            return `${percent((value - 3) / 252)} taken by live blocks`;
        case "heat": {
            if (value === 0) return "never used";
            const events = 2 ** ((value - 1) / HEAT_STEPS) - 1;
            return value === 1 ? "has cooled down" : `heat ${events < 10 ? events.toFixed(1) : Math.round(events)}${value === 255 ? " or more" : ""}`;
        }
        case "age": {
            if (value === 0) return "no live block";
            const ms = 2 ** ((value - 1) / AGE_STEPS) - 1;
            return value === 1 ? "allocated just now" : `last allocation ${roundDuration(ms * 1e6)} ago`;
        }
        case "resident":
            return value === 0 ? "not in memory" : `${percent((value - 1) / 254)} of the memory there taken by no live block`;
        default:
            if (value === 0) return "no live block";
            if (value === 1) return "mostly others";
            return `mostly ${classes.find((c) => c.value === value)?.label ?? `class ${value}`}`;
    }
}

function percent(share: number): string {
    const value = 100 * share;
    if (value > 0 && value < 1) return "under 1 %";
    return `${value > 99 && value < 100 ? "over 99" : Math.round(value)} %`;
}
