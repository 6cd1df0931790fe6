// Draws the icicle on a canvas no taller than what is on screen.

import type { Box } from "./layout";
import type { Frame } from "./tree";

export const ROW = 20;

export interface Look {
    width: number;
    height: number;
    ratio: number;
    /** First row on screen. */
    first: number;
    hit: (frame: Frame) => boolean;
    searching: boolean;
    focused: Frame | null;
    colours: Colours;
}

export interface Colours {
    ground: string;
    text: string;
    faint: string;
    hit: string;
    focus: string;
    /** Lightness of frames' colours, percent. */
    lightness: number;
}

const TEXT_FROM = 26;

export function draw(canvas: HTMLCanvasElement, rows: readonly (readonly Box[])[], look: Look): void {
    const target = canvas.getContext("2d");
    if (!target) return;
    canvas.width = Math.round(look.width * look.ratio);
    canvas.height = Math.round(look.height * look.ratio);
    target.setTransform(look.ratio, 0, 0, look.ratio, 0, 0);
    target.clearRect(0, 0, look.width, look.height);
    target.font = "11.5px system-ui, sans-serif";
    target.textBaseline = "middle";
    const last = Math.min(rows.length, look.first + Math.ceil(look.height / ROW));
    for (let n = look.first; n < last; n += 1) {
        for (const box of rows[n] ?? []) drawBox(target, box, (n - look.first) * ROW, look);
    }
}

function drawBox(target: CanvasRenderingContext2D, box: Box, y: number, look: Look): void {
    const x = box.from * look.width;
    const width = (box.to - box.from) * look.width;
    const { colours, searching, hit, focused } = look;
    const found = searching && hit(box.frame);
    target.fillStyle = found ? colours.hit : searching ? colours.faint : fill(box.frame, colours.lightness);
    target.fillRect(x, y, Math.max(0.5, width - 1), ROW - 1);
    if (focused === box.frame) {
        target.strokeStyle = colours.focus;
        target.lineWidth = 2;
        target.strokeRect(x + 1, y + 1, Math.max(1, width - 3), ROW - 3);
    }
    if (width < TEXT_FROM) return;
    target.fillStyle = colours.text;
    target.fillText(cut(target, box.frame.name, width - 10), x + 5, y + ROW / 2);
}

/** The same name always has the same colour: between blue and orange, which the colour-blind tell apart, and pale. */
export function fill(frame: Frame, lightness: number): string {
    if (frame.parent === null) return `hsl(215 12% ${lightness}%)`;
    let hash = 2166136261;
    for (let n = 0; n < frame.name.length; n += 1) hash = Math.imul(hash ^ frame.name.charCodeAt(n), 16777619);
    const hue = (hash >>> 8) % 2 === 0 ? 28 + ((hash >>> 12) % 20) : 200 + ((hash >>> 12) % 24);
    return `hsl(${hue} ${38 + ((hash >>> 20) % 14)}% ${lightness + ((hash >>> 4) % 7) - 3}%)`;
}

function cut(target: CanvasRenderingContext2D, text: string, width: number): string {
    if (target.measureText(text).width <= width) return text;
    let low = 0;
    let high = text.length;
    while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (target.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle;
        else high = middle - 1;
    }
    return low < 2 ? "" : `${text.slice(0, low)}…`;
}
