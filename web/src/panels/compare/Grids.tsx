// The heap and a policy as two maps of cells of one size, side by side: so area is memory, and both have one scale of colours.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { bytes, count, percent } from "../../format";
import { formatRgb } from "../../map/colour";
import { cellColour, lookup } from "../../map/palettes";
import { decodeCells, type ModelMessage } from "../../protocol";
import { cividis, dark } from "../../store/view";

const COLUMNS = 64;
const HELD = 1;
const FIRST_TAKEN = 3;
const FULL = 255;

export function Grids({ cells, policy, shared }: { cells: NonNullable<ModelMessage["cells"]>; policy: string; shared: boolean }) {
    const [real, model] = [decodeCells(cells.real), decodeCells(cells.model)];
    const rows = Math.max(1, Math.ceil(Math.max(real.length, model.length) / COLUMNS));
    const theme = dark.value ? "dark" : "light";
    const colour = (value: number) => formatRgb(cellColour("occupancy", theme, value, 0, cividis.value));
    return (
        <section class="grids" aria-labelledby="grids-title">
            <h2 id="grids-title">Where blocks lie <span class="muted">1 cell = {bytes(cells.bytes)}, a row is {bytes(cells.bytes * COLUMNS)}; ranges upwards, gaps between them left out</span></h2>
            <div class="grid-pair">
                <Grid name="Real heap" cells={real} rows={rows} size={cells.bytes} />
                <Grid name={policy} cells={model} rows={rows} size={cells.bytes} />
            </div>
            <p class="fineprint muted grid-legend">
                <i class="key" style={{ background: colour(HELD) }} aria-hidden="true" /> obtained, no live block
                <i class="ramp" style={{ background: `linear-gradient(to right, ${[3, 66, 129, 192, 255].map(colour).join(", ")})` }} aria-hidden="true" /> taken by live blocks, 0 to 100 % of the cell
            </p>
            {shared && <p class="fineprint muted">Spans that share memory are drawn at each of their addresses.</p>}
        </section>
    );
}

function Grid({ name, cells, rows, size }: { name: string; cells: Uint8Array; rows: number; size: number }) {
    const canvas = useRef<HTMLCanvasElement>(null);
    const over = useSignal<number | null>(null);
    useEffect(() => {
        const element = canvas.current;
        const draw = element?.getContext("2d");
        if (!element || !draw) return;
        element.width = COLUMNS;
        element.height = rows;
        const image = draw.createImageData(COLUMNS, rows);
        const table = lookup("occupancy", dark.value ? "dark" : "light", 0, null, cividis.value);
        const pixels = new Uint32Array(image.data.buffer);
        cells.forEach((value, n) => { pixels[n] = table[value]!; });
        draw.putImageData(image, 0, 0);
    }, [cells, rows, dark.value, cividis.value]);
    const free = cells.reduce((sum, value) => sum + (value === HELD ? 1 : 0), 0);
    const full = cells.reduce((sum, value) => sum + (value === FULL ? 1 : 0), 0);
    const words = `${count(cells.length)} cells, ${bytes(cells.length * size)}: ${count(full)} full, ${count(cells.length - full - free)} partly, ${count(free)} without a live block`;
    const at = over.value;
    const value = at === null ? undefined : cells[at];
    const move = (event: PointerEvent) => {
        const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
        const column = Math.floor(((event.clientX - box.left) / box.width) * COLUMNS);
        const cell = Math.floor(((event.clientY - box.top) / box.height) * rows) * COLUMNS + column;
        over.value = cell >= 0 && cell < cells.length ? cell : null;
    };
    return (
        <figure>
            <figcaption><strong>{name}</strong></figcaption>
            <canvas ref={canvas} role="img" aria-label={`${name}: ${words}`} data-cells={cells.length} onPointerMove={move} onPointerLeave={() => { over.value = null; }} />
            <p class="fineprint muted">{at === null || value === undefined ? words : `Cell ${count(at + 1)}: ${value < FIRST_TAKEN ? "no live block" : `${percent((value - FIRST_TAKEN) / (FULL - FIRST_TAKEN))} taken`}`}</p>
        </figure>
    );
}
