// Draws a heat map as one picture, with a readout below and a table for those who cannot see it.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { dark } from "../store/view";
import { colour } from "../timeline/plot";
import { most, strength, used } from "./matrix-scale";

interface Props {
    label: string;
    rows: readonly string[];
    /** Lower bounds of the columns, as text. */
    columns: readonly string[];
    values: readonly (readonly number[])[];
    show: (value: number) => string;
}

const HEAD = 18;
/** Of the names of rows: as wide as they need, within bounds. */
const LEAST_SIDE = 78;
const MOST_SIDE = 210;
const LETTER = 6.2;
const ROW = 18;
const FEWEST_PIXELS = 34;

/** So much of a name as there is room for. */
function shortened(name: string): string {
    const most = Math.floor((MOST_SIDE - 10) / LETTER);
    return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

export function Matrix({ label, rows, columns, values, show }: Props) {
    const canvas = useRef<HTMLCanvasElement>(null);
    const over = useSignal<{ row: number; column: number } | null>(null);
    const width = useSignal(0);
    const height = HEAD + ROW * rows.length;
    const side = Math.round(Math.min(MOST_SIDE, Math.max(LEAST_SIDE, 10 + LETTER * Math.max(0, ...rows.map((name) => name.length)))));
    const span = used(values, columns.length);
    const most_ = most(values);
    const cell = (width.value - side) / Math.max(1, span.to - span.from);
    useEffect(() => {
        const element = canvas.current?.parentElement;
        if (!element) return undefined;
        const watcher = new ResizeObserver(() => { width.value = element.clientWidth; });
        watcher.observe(element);
        return () => watcher.disconnect();
    }, []);
    useEffect(() => {
        const element = canvas.current;
        const draw = element?.getContext("2d");
        if (!element || !draw || width.value === 0) return;
        const ratio = devicePixelRatio;
        element.width = Math.round(width.value * ratio);
        element.height = Math.round(height * ratio);
        element.style.height = `${height}px`;
        draw.scale(ratio, ratio);
        draw.font = "11px system-ui, sans-serif";
        draw.textBaseline = "middle";
        const [text, full, ground] = [colour("--text-soft"), colour("--live"), colour("--well")];
        rows.forEach((name, r) => {
            draw.fillStyle = text;
            draw.textAlign = "right";
            draw.fillText(shortened(name), side - 8, HEAD + r * ROW + ROW / 2, side - 10);
            for (let c = span.from; c < span.to; c += 1) {
                const share = strength(values[r]?.[c] ?? 0, most_);
                draw.fillStyle = ground;
                const x = side + (c - span.from) * cell;
                draw.fillRect(x, HEAD + r * ROW, Math.max(1, cell - 1), ROW - 1);
                draw.globalAlpha = share;
                draw.fillStyle = full;
                draw.fillRect(x, HEAD + r * ROW, Math.max(1, cell - 1), ROW - 1);
                draw.globalAlpha = 1;
            }
        });
        draw.fillStyle = text;
        draw.textAlign = "left";
        const every = Math.max(1, Math.ceil(FEWEST_PIXELS * 1.4 / Math.max(1, cell)));
        for (let c = span.from; c < span.to; c += every) draw.fillText(columns[c] ?? "", side + (c - span.from) * cell, HEAD / 2);
    }, [values, width.value, dark.value, height]);
    const move = (event: PointerEvent) => {
        const row = Math.floor((event.offsetY - HEAD) / ROW);
        const column = Math.floor((event.offsetX - side) / cell) + span.from;
        over.value = row >= 0 && row < rows.length && column >= span.from && column < span.to ? { row, column } : null;
    };
    const at = over.value;
    return (
        <figure class="matrix">
            <canvas ref={canvas} role="img" aria-label={`${label}: ${rows.length} rows, ${columns.length} columns; the largest value is ${show(most_)}`} onPointerMove={move} onPointerLeave={() => { over.value = null; }} />
            <figcaption>
                <span class="scale" aria-hidden="true"><i /><i /><i /><i /><i /></span>
                <span class="muted">1 to {show(most_)}, by the logarithm</span>
                <span class="spring" />
                {at && <b>{rows[at.row]}, from {columns[at.column]}: {show(values[at.row]?.[at.column] ?? 0)}</b>}
            </figcaption>
        </figure>
    );
}
