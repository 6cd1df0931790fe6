// All ranges of the heap at once, from top to bottom in the order of their addresses, each as long as it has bytes: how full it is,
// and which part of it the map shows.
import type { Theme } from "../worker/messages";
import { spanFrom, type Span } from "./axis";
import { formatRgb } from "./colour";
import { cellColour, type Inks } from "./palettes";

export interface MinimapSpan {
    span: Span;
    y: number;
    height: number;
}

const GAP = 2;
const LEAST = 3;

/** Where each range lies in a strip of `height`; neighbours are joined when there are more than there is room for. */
export function minimapSpans(spans: readonly Span[], height: number): MinimapSpan[] {
    if (spans.length === 0 || height <= 0) return [];
    const fits = spans.length * (LEAST + GAP) <= height;
    const gap = fits ? GAP : 0;
    const least = fits ? LEAST : 0;
    const room = height - gap * (spans.length - 1) - least * spans.length;
    const total = spans.reduce((sum, span) => sum + span.end - span.start, 0);
    let y = 0;
    return spans.map((span) => {
        const long = least + (room * (span.end - span.start)) / total;
        const placed = { span, y, height: long };
        y += long + gap;
        return placed;
    });
}

/** Place of an address in the strip. */
export function minimapY(placed: readonly MinimapSpan[], spans: readonly Span[], address: number): number {
    const at = placed[Math.min(placed.length - 1, spanFrom(spans, address))];
    if (at === undefined) return 0;
    const { start, end } = at.span;
    return at.y + at.height * Math.min(1, Math.max(0, (address - start) / (end - start)));
}

/** The address at a place of the strip. */
export function minimapAddress(placed: readonly MinimapSpan[], y: number): number | null {
    const at = placed.find((one) => y < one.y + one.height) ?? placed.at(-1);
    if (at === undefined) return null;
    const share = Math.min(1, Math.max(0, (y - at.y) / at.height));
    const { start, end } = at.span;
    return Math.min(end - 1, Math.floor(start + share * (end - start)));
}

/** Draws the strip; what the map shows lies between `first` and `last`. */
export function drawMinimap(
    context: CanvasRenderingContext2D,
    width: number,
    height: number,
    spans: readonly Span[],
    first: number,
    last: number,
    theme: Theme,
    inks: Inks,
): void {
    context.clearRect(0, 0, width, height);
    const placed = minimapSpans(spans, height);
    const [left, right] = [5, width - 5];
    for (const { span, y, height: long } of placed) {
        const size = span.end - span.start;
        const live = Math.min(1, span.region.live_bytes / size);
        const resident = span.region.resident_bytes === null ? null : Math.min(1, span.region.resident_bytes / size);
        // Live and resident shares as bars from the left: the rest of a range is address space that nothing is in.
        context.fillStyle = formatRgb(cellColour("occupancy", theme, 0, 0));
        context.fillRect(left, y, right - left, Math.max(1, long));
        if (resident !== null) {
            context.fillStyle = formatRgb(cellColour("occupancy", theme, 1, 0));
            context.fillRect(left, y, (right - left) * resident, Math.max(1, long));
        }
        context.fillStyle = formatRgb(cellColour("occupancy", theme, 3 + Math.round(252 * live), 0));
        context.fillRect(left, y, (right - left) * live, Math.max(1, long));
    }
    if (first > last || placed.length === 0) return;
    const top = minimapY(placed, spans, first);
    const bottom = Math.max(top + 3, minimapY(placed, spans, Math.max(first, last - 1)));
    context.strokeStyle = inks.ground;
    context.lineWidth = 4;
    context.strokeRect(2, top + 0.5, width - 4, bottom - top - 1);
    context.strokeStyle = inks.accent;
    context.lineWidth = 1.5;
    context.strokeRect(2, top + 0.5, width - 4, bottom - top - 1);
}
