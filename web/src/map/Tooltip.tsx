// The words beside the pointer.
import type { AtResult, Block } from "../protocol";
import { bytes, duration } from "../format";
import { roundBytes } from "./format";
import type { MapModel } from "./model";
import type { Pointer } from "./pointer";

const WIDTH = 330;

export function Tooltip({ model, pointer, width, height }: { model: MapModel; pointer: Pointer; width: number; height: number }) {
    const [point, reading] = [pointer.point.value, pointer.reading.value];
    if (point === null || reading === null) return null;
    const region = model.regionAt(reading.address);
    const cell = model.geometry.value.scaleBytes.cell;
    const left = point.x + WIDTH + 24 > width ? point.x - WIDTH - 14 : point.x + 16;
    const below = point.y < height / 2;
    const style = { left: `${Math.max(4, left)}px`, ...(below ? { top: `${point.y + 14}px` } : { bottom: `${height - point.y + 10}px` }) };
    return (
        <div class="map-tooltip" style={style} aria-hidden="true">
            <div class="map-tooltip-head">
                <b>0x{reading.address.toString(16)}</b>
                <span>{region?.label || region?.kind}</span>
            </div>
            <div>
                {roundBytes(cell)} here: {reading.words ?? "…"}
            </div>
            {reading.at !== null && <Found at={reading.at} />}
        </div>
    );
}

function Found({ at }: { at: AtResult }) {
    if (at.block !== null) return <BlockLines block={at.block} />;
    if (at.hole !== null) {
        const size = Number(at.hole.end) - Number(at.hole.start);
        const resident = at.hole.resident_bytes;
        return (
            <div>
                Hole of {bytes(size)}
                {resident === null ? "" : `, ${bytes(resident)} of it in memory`}
            </div>
        );
    }
    return <div>No block and no hole known here</div>;
}

function BlockLines({ block }: { block: Block }) {
    const usable = block.usable !== null && block.usable !== block.size ? ` (${bytes(block.usable)} usable)` : "";
    const facts = [
        block.older ? "older than the trace" : block.age_ns === null ? null : `${duration(block.age_ns)} old`,
        block.thread === null ? null : `thread ${block.thread}`,
    ].filter((fact) => fact !== null);
    return (
        <>
            <div>
                Block of <b>{bytes(block.size)}</b>
                {usable} at {block.address}
            </div>
            {facts.length > 0 && <div>{facts.join(" · ")}</div>}
            <div class="map-tooltip-site">{block.site}</div>
        </>
    );
}

/** The same in one sentence, for the screen reader. */
export function spoken(model: MapModel, pointer: Pointer): string {
    const reading = pointer.reading.value;
    if (reading === null) return "";
    const region = model.regionAt(reading.address);
    const at = reading.at;
    const found =
        at?.block != null
            ? `block of ${bytes(at.block.size)} from ${at.block.site}`
            : at?.hole != null
              ? `hole of ${bytes(Number(at.hole.end) - Number(at.hole.start))}`
              : "";
    return [`0x${reading.cell.toString(16)}`, region?.label, reading.words, found].filter(Boolean).join(", ");
}
