// The canvas of the icicle: pointer, keys, size, and a label that says what a picture cannot.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { dark } from "../store/view";
import { colour } from "../timeline/plot";
import { draw, ROW } from "./draw";
import { boxAt, layout, type Box } from "./layout";
import type { Frame } from "./tree";

interface Props {
    zoomed: Frame;
    focused: Frame;
    searching: boolean;
    hit: (frame: Frame) => boolean;
    zoom: (frame: Frame) => void;
    focus: (frame: Frame | null) => void;
    describe: (frame: Frame) => string;
}

export function Icicle({ zoomed, focused, searching, hit, zoom, focus, describe }: Props) {
    const canvas = useRef<HTMLCanvasElement>(null);
    const rows = useRef<Box[][]>([]);
    const size = useSignal({ width: 0, height: 0 });
    const first = useSignal(0);
    useEffect(() => {
        const box = canvas.current?.parentElement;
        if (!box) return undefined;
        const watcher = new ResizeObserver(() => { size.value = { width: box.clientWidth, height: box.clientHeight }; });
        watcher.observe(box);
        return () => watcher.disconnect();
    }, []);
    // Read here, so that a change draws again.
    const { width, height } = size.value;
    const top = first.value;
    useEffect(() => {
        const element = canvas.current;
        if (!element || width === 0) return;
        rows.current = layout(zoomed, 0.5 / width);
        draw(element, rows.current, {
            width, height, ratio: devicePixelRatio, first: top, hit, searching, focused,
            colours: { ground: colour("--well"), text: colour("--text"), faint: colour("--line"), hit: colour("--mark"), focus: colour("--focus"), lightness: dark.value ? 32 : 80 },
        });
    });
    const under = (event: MouseEvent) => boxAt(rows.current[Math.floor(event.offsetY / ROW) + top], event.offsetX / Math.max(1, width))?.frame ?? null;
    const scroll = (event: WheelEvent) => {
        const most = Math.max(0, rows.current.length - Math.floor(height / ROW));
        if (most === 0) return;
        event.preventDefault();
        first.value = Math.min(most, Math.max(0, top + Math.sign(event.deltaY)));
    };
    const key = (event: KeyboardEvent) => {
        const next = moved(event.key, focused);
        if (event.key === "Enter") zoom(focused);
        else if (event.key === "Backspace" && zoomed.parent) zoom(zoomed.parent);
        else if (next) focus(next);
        else return;
        event.preventDefault();
        event.stopPropagation();
    };
    return (
        <div class="icicle">
            <canvas
                ref={canvas} role="img" tabIndex={0} aria-label={`Flame graph. ${describe(focused)}. Arrows move, Enter zooms, Backspace zooms out.`}
                onPointerMove={(event) => focus(under(event))} onPointerLeave={() => focus(null)} onWheel={scroll} onKeyDown={key}
                onClick={(event) => { const frame = under(event); if (frame) zoom(frame); }}
            />
        </div>
    );
}

function moved(key: string, from: Frame): Frame | null {
    const beside = (by: number) => {
        const all = from.parent?.children ?? [];
        return all[all.indexOf(from) + by] ?? null;
    };
    switch (key) {
        case "ArrowDown": return from.children[0] ?? null;
        case "ArrowUp": return from.parent;
        case "ArrowRight": return beside(1);
        case "ArrowLeft": return beside(-1);
        default: return null;
    }
}
