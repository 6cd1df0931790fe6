// How the timeline is drawn: uPlot's options from the theme's colours.

import uPlot from "uplot";
import { brief, bytes, moment, percent } from "../format";

export type Kind = "bytes" | "rates" | "overhead";

export interface Shape {
    kind: Kind;
    width: number;
    height: number;
    /** Which of the lines of `bytes` are shown: mapped, rss, taken, live. */
    shown: readonly boolean[];
    /** A brush has ended, in seconds. */
    brushed(from: number, to: number): void;
    /** The pointer is over a moment, or over none. */
    pointed(at: number | null, index: number | null): void;
    /** Scale or size have changed. */
    laid(chart: uPlot): void;
}

const AXIS_WIDTH = 72;
const SYNC = "timeline";

/** Reads a custom property of the page's theme. */
export function colour(name: string): string {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function options(shape: Shape): uPlot.Options {
    const soft = colour("--text-soft");
    const font = "11px system-ui, sans-serif";
    const axis: uPlot.Axis = { stroke: soft, font, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const show = shape.kind === "bytes" ? bytes : shape.kind === "rates" ? brief : percent;
    return {
        width: shape.width,
        height: shape.height,
        padding: [6, 12, 0, 0],
        legend: { show: false },
        cursor: {
            sync: { key: SYNC, setSeries: false },
            drag: { x: true, y: false, setScale: false, dist: 4 },
            points: { show: false },
            y: false,
        },
        select: { show: true, left: 0, top: 0, width: 0, height: 0 },
        scales: {
            x: { time: false, range: (_, least, most) => [least, most] },
            y: { range: (_, _least, most) => [0, shape.kind === "overhead" ? 1 : Math.max(most * 1.06, 1)] },
        },
        axes: [
            { ...axis, size: 22, space: 90, values: (_, marks) => marks.map((at) => label(at, marks)) },
            { ...axis, size: AXIS_WIDTH, space: 21, values: (_, marks) => marks.map((at) => show(at)), ...(shape.kind === "bytes" ? { incrs: BYTE_STEPS } : {}) },
        ],
        series: [{}, ...lines(shape)],
        bands: shape.kind === "bytes" ? [{ series: [2, 4], fill: hatch }] : [],
        hooks: {
            setSelect: [(chart) => {
                const { left, width } = chart.select;
                if (width > 3) shape.brushed(chart.posToVal(left, "x"), chart.posToVal(left + width, "x"));
            }],
            setCursor: [(chart) => {
                const { left, idx } = chart.cursor;
                const inside = left !== undefined && left >= 0;
                shape.pointed(inside ? chart.posToVal(left, "x") : null, inside ? idx ?? null : null);
            }],
            setScale: [(chart, key) => { if (key === "x") shape.laid(chart); }],
            setSize: [shape.laid],
            ready: [shape.laid],
        },
    };
}

function lines(shape: Shape): uPlot.Series[] {
    if (shape.kind === "rates") {
        return [{ stroke: colour("--live"), width: 1, spanGaps: true }, { stroke: colour("--rss"), width: 1, dash: [3, 2], spanGaps: true }];
    }
    if (shape.kind === "overhead") return [{ stroke: colour("--rss"), width: 1.25, spanGaps: true }];
    const [mapped, rss, taken, live] = shape.shown;
    return [
        { show: mapped ?? true, stroke: colour("--mapped"), width: 1, dash: [6, 4], spanGaps: true },
        { show: rss ?? true, stroke: colour("--rss"), width: 1.5, spanGaps: true },
        { show: taken ?? true, stroke: colour("--taken"), width: 1, dash: [2, 3], spanGaps: true },
        { show: live ?? true, stroke: colour("--live"), width: 1.5, fill: colour("--live-area"), spanGaps: true },
    ];
}

/** The gap between resident and live is hatched, so that it is told by more than its colour. */
function hatch(): CanvasPattern | string {
    const side = 7 * devicePixelRatio;
    const tile = document.createElement("canvas");
    tile.width = tile.height = Math.round(side);
    const draw = tile.getContext("2d");
    if (!draw) return colour("--gap-area");
    draw.fillStyle = colour("--gap-area");
    draw.fillRect(0, 0, side, side);
    draw.strokeStyle = colour("--gap-hatch");
    draw.lineWidth = devicePixelRatio;
    draw.beginPath();
    for (const shift of [-side, 0, side]) {
        draw.moveTo(shift, side);
        draw.lineTo(shift + side, 0);
    }
    draw.stroke();
    return draw.createPattern(tile, "repeat") ?? colour("--gap-area");
}

const BYTE_STEPS = Array.from({ length: 50 }, (_, n) => 2 ** n);

/** Marks of the time axis: as fine as they are apart. */
export function label(at: number, marks: readonly number[]): string {
    const step = marks.length > 1 ? (marks[1] ?? 0) - (marks[0] ?? 0) : 1;
    if (at >= 60) return moment(at * 1e9).replace(/\.000$/, "");
    const digits = step >= 1 ? 0 : step >= 0.1 ? 1 : step >= 0.01 ? 2 : step >= 0.001 ? 3 : 6;
    return `${at.toFixed(digits)} s`;
}
