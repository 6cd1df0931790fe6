// One chart of the timeline: keeps uPlot in step with data, theme, size and selection, and draws what lies over it.

import { useSignal, useSignalEffect, type ReadonlySignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Series } from "../protocol";
import { cursor } from "../store/server";
import { cursorNs } from "../store/session";
import { dark, pinA, pinB, range, show } from "../store/view";
import { options, type Kind } from "./plot";
import { columns, overheadColumns, rateColumns, shownLines, shownSpan, zoom, zoomAbout } from "./state";

/** Where the pointer is, for the readout. */
export interface Pointed {
    ns: number;
    index: number | null;
}

interface Props {
    kind: Kind;
    series: ReadonlySignal<Series | null>;
    height: number;
    pointed(at: Pointed | null): void;
}

const DATA = { bytes: columns, rates: rateColumns, overhead: overheadColumns };

export function Chart({ kind, series, height, pointed }: Props) {
    const host = useRef<HTMLDivElement>(null);
    const chart = useRef<uPlot | null>(null);
    const laid = useSignal(0);
    const size = useSignal(0);

    useEffect(() => {
        const element = host.current;
        if (!element) return undefined;
        const watcher = new ResizeObserver(() => { size.value = element.clientWidth; });
        watcher.observe(element);
        size.value = element.clientWidth;
        return () => watcher.disconnect();
    }, []);

    // The theme's colours and the choice of lines are fixed when a chart is made.
    useEffect(() => {
        const element = host.current;
        if (!element || size.value === 0) return undefined;
        const shown = (["mapped", "rss", "taken", "live"] as const).map((name) => shownLines.value.has(name));
        const made = new uPlot(options({
            kind, height, shown, width: size.value,
            brushed: (from, to) => {
                range.value = { from: Math.max(0, Math.round(from * 1e9)), to: Math.round(to * 1e9) };
                show("range");
            },
            pointed: (at, index) => pointed(at === null ? null : { ns: Math.max(0, at * 1e9), index }),
            laid: () => { laid.value += 1; },
        }), [[]], element);
        chart.current = made;
        const undo = gestures(made);
        // Data given in the frame of the making would collapse the scale of time.
        const frame = requestAnimationFrame(() => fill(made, kind, series.peek()));
        return () => {
            cancelAnimationFrame(frame);
            undo();
            made.destroy();
            chart.current = null;
        };
    }, [dark.value, shownLines.value, kind, height, size.value > 0]);

    useSignalEffect(() => {
        const width = size.value;
        if (chart.current && width > 0 && chart.current.width !== width) chart.current.setSize({ width, height });
    });
    useSignalEffect(() => {
        const data = series.value;
        void shownSpan.value;
        if (chart.current) fill(chart.current, kind, data);
    });
    useSignalEffect(() => {
        void laid.value;
        if (chart.current) marks(chart.current);
    });
    return <div ref={host} class={`chart ${kind}`} />;
}

function fill(made: uPlot, kind: Kind, data: Series | null): void {
    const { from, to } = shownSpan.peek();
    made.batch(() => {
        if (data) made.setData(DATA[kind](data) as uPlot.AlignedData, false);
        made.setScale("x", { min: from / 1e9, max: to / 1e9 });
    });
}

/** A click goes to its moment, the wheel zooms, a double click shows all. */
function gestures(made: uPlot): () => void {
    let downAt = 0;
    const at = (event: MouseEvent) => made.posToVal(event.clientX - made.over.getBoundingClientRect().left, "x") * 1e9;
    const down = (event: PointerEvent) => { downAt = event.clientX; };
    const click = (event: MouseEvent) => {
        if (Math.abs(event.clientX - downAt) < 4) cursor.seek(at(event));
    };
    const wheel = (event: WheelEvent) => {
        event.preventDefault();
        if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX / made.over.clientWidth);
        else zoomAbout(at(event), event.deltaY > 0 ? 1.25 : 0.8);
    };
    const all = () => { zoom.value = null; };
    made.over.addEventListener("pointerdown", down);
    made.over.addEventListener("click", click);
    made.over.addEventListener("wheel", wheel, { passive: false });
    made.over.addEventListener("dblclick", all);
    return () => {
        made.over.removeEventListener("pointerdown", down);
        made.over.removeEventListener("click", click);
        made.over.removeEventListener("wheel", wheel);
        made.over.removeEventListener("dblclick", all);
    };
}

function pan(share: number): void {
    const span = zoom.value;
    if (!span) return;
    const by = Math.max(-span.from, share * (span.to - span.from));
    zoom.value = { from: Math.round(span.from + by), to: Math.round(span.to + by) };
}

/** The cursor, the pins and the brush, as elements over the plot: moving them draws nothing anew. */
function marks(made: uPlot): void {
    const place = (name: string, ns: number | null, text: string) => {
        let mark = made.over.querySelector<HTMLElement>(`.mark.${name}`);
        if (ns === null) {
            mark?.remove();
            return;
        }
        if (!mark) {
            mark = document.createElement("i");
            mark.className = `mark ${name}`;
            mark.textContent = text;
            made.over.append(mark);
        }
        const left = made.valToPos(ns / 1e9, "x");
        mark.hidden = !(left >= -1 && left <= made.over.clientWidth + 1);
        mark.style.transform = `translateX(${left}px)`;
    };
    place("playhead", cursorNs.value, "");
    place("pin-a", pinA.value, "A");
    place("pin-b", pinB.value, "B");
    const span = range.value;
    if (!span) {
        if (made.select.width > 0) made.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        return;
    }
    const left = made.valToPos(span.from / 1e9, "x");
    const width = made.valToPos(span.to / 1e9, "x") - left;
    made.setSelect({ left, top: 0, width: Math.max(1, width), height: made.over.clientHeight }, false);
}
