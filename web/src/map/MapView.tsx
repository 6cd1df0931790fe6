// The heap map: cells drawn by the engine, and over them what the page draws and answers to.
import { effect, useComputed, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { formatAddress } from "../protocol";
import { offscreen } from "../worker/host";
import { Legend } from "./Legend";
import { drawMinimap, minimapAddress, minimapSpans } from "./minimap";
import type { MapModel } from "./model";
import { drawOverlay, RULER } from "./overlay";
import { INKS } from "./palettes";
import { Pointer } from "./pointer";
import { RegionTable } from "./RegionTable";
import { Toolbar } from "./Toolbar";
import { spoken, Tooltip } from "./Tooltip";

/** Pixels that the pointer may move in a click. */
const CLICK = 4;
/** How far a wheel turns for one step of the zoom; a notch of a mouse is 100 to 120. */
const NOTCH = 90;
const LINE = 16;
/** A reading under a resting pointer is renewed no more often than this. */
const RENEW_MS = 200;

const KEYS_HELP =
    "Arrow keys move from cell to cell, Enter pins what is there, W and S or plus and minus zoom, A and D scroll, F shows the whole heap, Escape goes back.";

export function MapView({ model }: { model: MapModel }) {
    const table = useSignal(false);
    const pointer = useMemo(() => new Pointer(model), [model]);
    const stale = useSignal(false);
    useEffect(() => model.client.onLink((link) => (stale.value = link.phase !== "open")), [model]);
    const show = (address: string) => {
        table.value = false;
        model.goTo(address);
        model.select(address);
    };
    return (
        <section class="map" data-map-theme={model.theme.value} data-stale={stale.value} aria-label="Heap map">
            <Toolbar model={model} table={table.value} onTable={(shown) => (table.value = shown)} />
            {table.value && <RegionTable model={model} onShow={show} />}
            <Stage model={model} pointer={pointer} hidden={table.value} />
            <Legend model={model} />
        </section>
    );
}

function Stage({ model, pointer, hidden }: { model: MapModel; pointer: Pointer; hidden: boolean }) {
    const picture = useRef<HTMLDivElement>(null);
    const cells = useRef<HTMLCanvasElement>(null);
    const overlay = useRef<HTMLCanvasElement>(null);
    const strip = useRef<HTMLCanvasElement>(null);
    const size = useSignal({ width: 0, height: 0 });
    const empty = useComputed(() => model.spans.value.length === 0);

    useEffect(() => model.client.canvas(offscreen(cells.current!)), [model]);
    useEffect(() => {
        const element = picture.current!;
        const measure = () => {
            const [width, height] = [element.clientWidth - RULER, element.clientHeight];
            if (width < 16 || height < 16) return;
            size.value = { width, height };
            model.resize(width, height, devicePixelRatio);
        };
        const observer = new ResizeObserver(measure);
        observer.observe(element);
        measure();
        return () => observer.disconnect();
    }, [model]);
    useEffect(() => keepOverlay(model, pointer, overlay.current!), [model, pointer]);
    useEffect(() => keepMinimap(model, strip.current!, size), [model]);
    useEffect(() => keepVisible(model), [model]);
    useEffect(() => {
        let last = 0;
        return model.client.onDrawn(() => {
            if (pointer.point.value === null || performance.now() - last < RENEW_MS) return;
            last = performance.now();
            pointer.refresh(model.frame.value.unit);
        });
    }, [model, pointer]);
    useEffect(() => listen(model, pointer, picture.current!), [model, pointer]);

    const { width, height } = size.value;
    return (
        <div class="map-stage" hidden={hidden}>
            <div
                class="map-picture"
                ref={picture}
                tabIndex={0}
                role="img"
                aria-label={`Map of the heap: ${summary(model)}`}
                aria-describedby="map-keys"
            >
                <canvas class="map-cells" ref={cells} style={{ left: `${RULER}px`, width: `${width}px`, height: `${height}px` }} />
                <canvas class="map-overlay" ref={overlay} />
                {empty.value && <p class="map-empty">No memory of the heap is known yet.</p>}
                <div class="map-over" style={{ left: `${RULER}px` }}>
                    <Tooltip model={model} pointer={pointer} width={width} height={height} />
                </div>
            </div>
            <canvas
                class="map-minimap"
                ref={strip}
                title="All ranges of the heap, from the lowest address; click to go there"
                aria-hidden="true"
                onPointerDown={(event) => jump(model, event)}
                onPointerMove={(event) => event.buttons === 1 && jump(model, event)}
            />
            <p class="map-unseen" id="map-keys">
                {KEYS_HELP}
            </p>
            <p class="map-unseen" aria-live="polite">
                {model.cursor.value === null ? "" : spoken(model, pointer)}
            </p>
        </div>
    );
}

function summary(model: MapModel): string {
    const regions = model.regions.value.length;
    return `${regions} ranges, ${model.mode.value}, ${model.chosenZoom.value === null ? "all of it" : "a part"}. The same as a table is behind the button Table.`;
}

// ---- drawing on the page's side ---------------------------------------------------------------------------------------------

function keepOverlay(model: MapModel, pointer: Pointer, canvas: HTMLCanvasElement): () => void {
    const context = canvas.getContext("2d");
    if (context === null) return () => {};
    let due = 0;
    const stop = effect(() => {
        const { width, height, unit } = model.frame.value;
        const picture = {
            geometry: model.geometry.value,
            scroll: model.scroll.value,
            width,
            height,
            unit,
            hover: pointer.point.value === null ? null : (pointer.reading.value?.cell ?? null),
            cursor: model.cursor.value,
            marked: model.marked.value,
            inks: INKS[model.theme.value],
        };
        cancelAnimationFrame(due);
        due = requestAnimationFrame(() => {
            const wide = width + Math.round(RULER * unit);
            if (canvas.width !== wide || canvas.height !== height) [canvas.width, canvas.height] = [wide, height];
            drawOverlay(context, picture);
        });
    });
    return () => {
        stop();
        cancelAnimationFrame(due);
    };
}

function keepMinimap(model: MapModel, canvas: HTMLCanvasElement, size: { value: { height: number } }): () => void {
    const context = canvas.getContext("2d");
    if (context === null) return () => {};
    return effect(() => {
        const height = size.value.height;
        const spans = model.spans.value;
        const ratio = model.frame.value.unit;
        const [first, last] = visibleRange(model);
        if (height === 0) return;
        [canvas.width, canvas.height] = [Math.round(canvas.clientWidth * ratio), Math.round(height * ratio)];
        context.scale(ratio, ratio);
        drawMinimap(context, canvas.clientWidth, height, spans, first, last, model.theme.value, INKS[model.theme.value]);
    });
}

/** Lowest and highest address in the picture. */
function visibleRange(model: MapModel): [number, number] {
    const { height } = model.frame.value;
    const spots = model.geometry.value.spots(model.scroll.value, height);
    const cell = model.geometry.value.scaleBytes.cell;
    let [first, last] = [Infinity, 0];
    for (const spot of spots) {
        const start = (spot.tile * 4096 + spot.first) * cell;
        first = Math.min(first, start);
        last = Math.max(last, start + spot.count * cell);
    }
    return [first, last];
}

function keepVisible(model: MapModel): () => void {
    const tell = () => model.client.visible(document.visibilityState === "visible");
    document.addEventListener("visibilitychange", tell);
    tell();
    return () => document.removeEventListener("visibilitychange", tell);
}

// ---- what the person does ---------------------------------------------------------------------------------------------------

function jump(model: MapModel, event: PointerEvent): void {
    const canvas = event.currentTarget as HTMLCanvasElement;
    canvas.setPointerCapture(event.pointerId);
    const placed = minimapSpans(model.spans.value, canvas.clientHeight);
    const address = minimapAddress(placed, event.offsetY);
    if (address !== null) model.centre(address);
}

function listen(model: MapModel, pointer: Pointer, element: HTMLElement): () => void {
    const place = (event: { clientX: number; clientY: number }) => {
        const box = element.getBoundingClientRect();
        return { x: event.clientX - box.left - element.clientLeft - RULER, y: event.clientY - box.top - element.clientTop };
    };
    const ratio = () => model.frame.value.unit;
    let pressed: { x: number; y: number; moved: boolean } | null = null;
    let turned = 0;

    const on = {
        pointerdown: (event: PointerEvent) => {
            if (event.button !== 0) return;
            pressed = { x: event.clientX, y: event.clientY, moved: false };
            element.setPointerCapture(event.pointerId);
        },
        pointermove: (event: PointerEvent) => {
            const { x, y } = place(event);
            if (pressed === null) return pointer.move(x, y, ratio());
            const far = Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y);
            if (!pressed.moved && far < CLICK) return;
            pressed.moved = true;
            element.classList.add("panning");
            pointer.leave();
            model.panBy((pressed.y - event.clientY) * ratio());
            pressed.y = event.clientY;
        },
        pointerup: (event: PointerEvent) => {
            const click = pressed !== null && !pressed.moved;
            pressed = null;
            element.classList.remove("panning");
            if (!click) return;
            const { x, y } = place(event);
            const address = model.byteAt(x * ratio(), y * ratio());
            model.cursor.value = null;
            if (address === null) model.select(null);
            else model.select(formatAddress(address));
        },
        pointercancel: () => {
            pressed = null;
            element.classList.remove("panning");
        },
        pointerleave: () => pointer.leave(),
        dblclick: () => model.fit(),
        wheel: (event: WheelEvent) => {
            event.preventDefault();
            const delta = event.deltaY * (event.deltaMode === 1 ? LINE : event.deltaMode === 2 ? element.clientHeight : 1);
            if (event.shiftKey) return model.panBy((delta || event.deltaX) * ratio());
            // A notch of a mouse is one step; a touchpad's many small turns, and pinches, add up to one.
            if (Math.sign(delta) !== Math.sign(turned)) turned = 0;
            turned += event.ctrlKey ? 8 * delta : delta;
            if (Math.abs(turned) < NOTCH) return;
            const { x, y } = place(event);
            model.zoomBy(-Math.sign(turned), x * ratio(), y * ratio());
            turned = 0;
            pointer.move(x, y, ratio());
        },
        keydown: (event: KeyboardEvent) => {
            if (event.ctrlKey || event.altKey || event.metaKey) return;
            if (key(model, pointer, event.key)) event.preventDefault();
        },
    };
    for (const [name, handler] of Object.entries(on)) {
        element.addEventListener(name, handler as EventListener, name === "wheel" ? { passive: false } : undefined);
    }
    return () => {
        for (const [name, handler] of Object.entries(on)) element.removeEventListener(name, handler as EventListener);
    };
}

/** Takes a key up; says whether it was one of the map's. */
function key(model: MapModel, pointer: Pointer, name: string): boolean {
    const { width, height } = model.frame.value;
    const cursor = model.cursor.value;
    const rect = cursor === null ? null : model.geometry.value.cellRect(cursor);
    const [x, y] = rect === null ? [width / 2, height / 2] : [rect.x, rect.y - model.scroll.value];
    const step = (across: number, down: number) => {
        const cell = model.moveCursor(across, down);
        if (cell !== null) pointer.focus(cell);
    };
    switch (name) {
        case "ArrowRight":
            step(1, 0);
            return true;
        case "ArrowLeft":
            step(-1, 0);
            return true;
        case "ArrowDown":
            step(0, 1);
            return true;
        case "ArrowUp":
            step(0, -1);
            return true;
        case "Enter":
        case " ":
            if (cursor === null) return false;
            model.select(formatAddress(cursor));
            return true;
        case "w":
        case "+":
        case "=":
            model.zoomBy(1, x, y);
            return true;
        case "s":
        case "-":
            model.zoomBy(-1, x, y);
            return true;
        case "a":
        case "PageUp":
            model.panBy((name === "a" ? -0.25 : -0.9) * height);
            return true;
        case "d":
        case "PageDown":
            model.panBy((name === "d" ? 0.25 : 0.9) * height);
            return true;
        case "Home":
            model.scrollTo(0);
            return true;
        case "End":
            model.scrollTo(Infinity);
            return true;
        case "f":
        case "0":
            model.fit();
            return true;
        case "Escape":
            if (cursor !== null) {
                model.cursor.value = null;
                pointer.leave();
                return true;
            }
            return model.back();
        default:
            return false;
    }
}
