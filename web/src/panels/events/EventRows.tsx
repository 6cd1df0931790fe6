// The rows of the event table on screen, and the scroll bar for all of them.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { bytes, count, moment } from "../../format";
import { contentHeight, lastFirst, offsetOf, rowAt, rowsShown, type Extent } from "../../list/virtual";
import type { Queries, TracedEvent } from "../../protocol";
import { goToAddress } from "../../store/map";
import { cursor } from "../../store/server";
import { inspect } from "../../store/view";
import { firstEvent, tailing } from "./state";

const ROW = 22;

interface Props {
    answer: Queries["events"]["gives"] | null;
    restricted: boolean;
    total: number;
    from: number;
}

export function EventRows({ answer, restricted, total, from }: Props) {
    const box = useRef<HTMLDivElement>(null);
    const viewport = useSignal(0);
    const own = useRef(-1);
    const extent: Extent = { total, rowHeight: ROW, viewport: Math.max(ROW, viewport.value) };
    const rows = shownRows(answer, restricted, from, rowsShown(extent));

    useEffect(() => {
        const element = box.current;
        if (!element) return undefined;
        const watcher = new ResizeObserver(() => { viewport.value = element.clientHeight; });
        watcher.observe(element);
        return () => watcher.disconnect();
    }, []);
    useEffect(() => {
        const element = box.current;
        if (!element) return;
        const offset = Math.round(offsetOf(extent, from));
        if (Math.abs(element.scrollTop - offset) < ROW) return;
        own.current = offset;
        element.scrollTop = offset;
    });

    const move = (to: number) => {
        tailing.value = false;
        firstEvent.value = Math.min(lastFirst(extent), Math.max(0, Math.round(to)));
    };
    const scroll = () => {
        const element = box.current;
        if (!element || Math.abs(element.scrollTop - own.current) < 1) return;
        own.current = -1;
        const row = rowAt(extent, element.scrollTop);
        if (row !== from) move(row);
    };
    const by = (many: number) => {
        // In a filtered list rows are further apart than their numbers.
        const stride = restricted && rows.length > 1 ? ((rows.at(-1)?.n ?? 0) - (rows[0]?.n ?? 0)) / (rows.length - 1) : 1;
        const target = many > 0 && restricted ? rows[Math.min(rows.length - 1, many)]?.n ?? from : from + many * Math.max(1, stride);
        move(target);
    };
    const wheel = (event: WheelEvent) => {
        event.preventDefault();
        by(Math.sign(event.deltaY) * Math.max(1, Math.round(Math.abs(event.deltaY) / ROW)));
    };
    const key = (event: KeyboardEvent) => {
        const page = Math.max(1, Math.floor(extent.viewport / ROW) - 1);
        const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key];
        if (event.key === "Home") move(0);
        else if (event.key === "End") move(total);
        else if (step) by(step);
        else return;
        event.preventDefault();
        event.stopPropagation();
    };
    return (
        <div class="event-table" role="table" aria-label="Events" aria-rowcount={total}>
            <div class="event head" role="row">
                {["number", "time", "pid", "thread", "call", "size", "address", "site"].map((name) => <span key={name} role="columnheader">{name}</span>)}
            </div>
            <div ref={box} class="event-scroll" tabIndex={0} role="rowgroup" aria-label="Events, by their number" onScroll={scroll} onWheel={wheel} onKeyDown={key}>
                <div class="event-window">
                    {rows.map((one) => <Row key={one.n} event={one} />)}
                    {answer && rows.length === 0 && <p class="empty">{restricted ? "No event from here on is of this kind." : "No events."}</p>}
                </div>
                <Spacer height={contentHeight(extent)} />
            </div>
        </div>
    );
}

/** Those of the answer that belong on screen: an answer for a place before is shown until the next has come. */
function shownRows(answer: Props["answer"], restricted: boolean, from: number, many: number): TracedEvent[] {
    if (!answer) return [];
    const begin = restricted ? 0 : Math.max(0, answer.events.findIndex((one) => one.n >= from));
    return answer.events.slice(begin, begin + many);
}

function Spacer({ height }: { height: number }) {
    const box = useRef<HTMLDivElement>(null);
    useEffect(() => { if (box.current) box.current.style.height = `${height}px`; }, [height]);
    return <div ref={box} class="spacer" aria-hidden="true" />;
}

function Row({ event }: { event: TracedEvent }) {
    const go = () => {
        cursor.seek(event.time_ns);
        if (event.address) {
            goToAddress(event.address);
            inspect(event.address);
        }
    };
    return (
        <div class={`event op-${event.op.replace(/_.*/, "")}`} role="row" aria-rowindex={event.n + 1}>
            <span role="cell" class="num">{count(event.n)}</span>
            <span role="cell" class="num">{moment(event.time_ns)}</span>
            <span role="cell" class="num">{event.pid}</span>
            <span role="cell" class="num">{event.tid}</span>
            <span role="cell" class="op">{event.function ?? event.op.replace("_", " ")}{event.op.endsWith("_begin") && event.function ? " …" : ""}</span>
            <span role="cell" class="num">{event.size === null || (event.op === "free" && event.size === 0) ? "" : bytes(event.size)}</span>
            <span role="cell" class="mono">{event.address && event.address !== "0x0" ? <button type="button" class="link mono" title="Go to this event and its address" onClick={go}>{event.address}</button> : ""}</span>
            <span role="cell" class="mono cut" title={event.file ? `${event.site} ${event.file}:${event.line ?? "?"}` : event.site}>{event.site}</span>
        </div>
    );
}
