// What is drawn over the cells: the ruler of addresses, labels of what was left out, outlines. On a canvas of its own, on the page,
// so that moving the pointer never redraws cells.
import { spanFrom, type Span } from "./axis";
import { bytes } from "../format";
import type { Geometry } from "./geometry";
import type { Inks } from "./palettes";

/** Width of the ruler, pixels of the page. */
export const RULER = 118;

export interface Picture {
    geometry: Geometry;
    scroll: number;
    /** Of the cells' canvas, device pixels. */
    width: number;
    height: number;
    unit: number;
    /** Cells to outline: under the pointer, under the keyboard's cursor. */
    hover: number | null;
    cursor: number | null;
    marked: { start: number; end: number } | null;
    inks: Inks;
}

export function drawOverlay(context: CanvasRenderingContext2D, picture: Picture): void {
    const { geometry, scroll, width, height, unit, inks } = picture;
    const ruler = Math.round(RULER * unit);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, ruler + width, height);
    drawRuler(context, picture, ruler);
    context.setTransform(1, 0, 0, 1, ruler, -scroll);
    context.save();
    context.beginPath();
    context.rect(0, scroll, width, height);
    context.clip();
    drawGaps(context, picture);
    if (picture.marked !== null) {
        const { start, end } = picture.marked;
        stroke(context, geometry.outline(start, end, scroll, height), inks.accent, inks.ground, 2 * unit);
    }
    for (const address of [picture.hover, picture.cursor]) {
        if (address === null) continue;
        const lines = geometry.outline(address, address + geometry.scaleBytes.cell, scroll, height);
        stroke(context, lines, address === picture.cursor ? inks.accent : inks.text, inks.ground, unit * (address === picture.cursor ? 2 : 1));
    }
    context.restore();
}

/** Lines with a rim of the ground's colour, so that they are seen on every cell. */
function stroke(context: CanvasRenderingContext2D, lines: number[], colour: string, rim: string, thick: number): void {
    context.lineCap = "square";
    for (const [ink, wide] of [
        [rim, thick + 2],
        [colour, thick],
    ] as const) {
        context.beginPath();
        for (let i = 0; i + 3 < lines.length; i += 4) {
            context.moveTo(lines[i]!, lines[i + 1]!);
            context.lineTo(lines[i + 2]!, lines[i + 3]!);
        }
        context.strokeStyle = ink;
        context.lineWidth = wide;
        context.stroke();
    }
}

function drawGaps(context: CanvasRenderingContext2D, { geometry, scroll, width, height, unit, inks }: Picture): void {
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.font = `${10.5 * unit}px ui-monospace, monospace`;
    for (const gap of geometry.gaps(scroll, height)) {
        const middle = Math.round(gap.y + gap.height / 2) + 0.5;
        context.strokeStyle = inks.line;
        context.lineWidth = unit;
        context.setLineDash([2 * unit, 4 * unit]);
        const line = (from: number, to: number) => {
            context.beginPath();
            context.moveTo(from, middle);
            context.lineTo(to, middle);
            context.stroke();
        };
        if (gap.height < 12 * unit) {
            line(0, width);
            continue;
        }
        const label = `${bytes(gap.bytes)} left out`;
        const half = context.measureText(label).width / 2 + 8 * unit;
        line(0, width / 2 - half);
        line(width / 2 + half, width);
        context.fillStyle = inks.muted;
        context.fillText(label, width / 2, middle);
    }
    context.setLineDash([]);
}

function drawRuler(context: CanvasRenderingContext2D, picture: Picture, right: number): void {
    const { geometry, scroll, height, unit, inks } = picture;
    const marks = geometry.marks(scroll, height, 34 * unit);
    context.textBaseline = "top";
    context.textAlign = "right";
    let labelled: Span | null = null;
    for (const { y, address } of marks) {
        const top = Math.round(y - scroll);
        context.fillStyle = inks.line;
        context.fillRect(right - 8 * unit, Math.max(0, top), 6 * unit, unit);
        if (top < -2 * unit) continue;
        context.font = `${11 * unit}px ui-monospace, monospace`;
        context.fillStyle = inks.text;
        context.fillText(`0x${address.toString(16)}`, right - 12 * unit, top + unit);
        // The range that begins at this row, once.
        const span = geometry.spans[spanFrom(geometry.spans, address)];
        if (span !== undefined && span !== labelled && top + 26 * unit < height) {
            labelled = span;
            context.font = `${10.5 * unit}px system-ui, sans-serif`;
            context.fillStyle = inks.muted;
            // Its address stands above already.
            const label = (span.region.label || span.region.kind).replace(/ 0x[0-9a-f]+$/, "");
            context.fillText(shorten(context, label, right - 16 * unit), right - 12 * unit, top + 15 * unit);
        }
    }
}

function shorten(context: CanvasRenderingContext2D, text: string, width: number): string {
    if (context.measureText(text).width <= width) return text;
    let end = text.length;
    while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end--;
    return `${text.slice(0, end)}…`;
}
