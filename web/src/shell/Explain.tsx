// A number that explains itself: its name opens what it is, how it is made, and what to do.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { GLOSSARY, type Entry, type Term as TermName } from "../explain/glossary";

interface Open {
    entry: Entry;
    by: HTMLElement;
}

const open = signal<Open | null>(null);
const WIDTH = 320;
const MARGIN = 8;

/** The name of a quantity; a press explains it. */
export function Term({ of, entry, children }: { of?: TermName; entry?: Entry; children?: ComponentChildren }) {
    const said = entry ?? (of ? GLOSSARY[of] : null);
    if (!said) return <>{children}</>;
    const press = (event: MouseEvent) => {
        const by = event.currentTarget as HTMLElement;
        open.value = open.value?.by === by ? null : { entry: said, by };
        event.stopPropagation();
    };
    const shown = open.value?.by.isConnected && open.value.entry === said;
    return (
        <button type="button" class="term" aria-haspopup="dialog" aria-expanded={shown ? "true" : "false"} onClick={press}>
            {children ?? said.name}
        </button>
    );
}

/** The one explanation that is open, beside what it explains. */
export function Explanation() {
    const box = useRef<HTMLDivElement>(null);
    const now = open.value;
    useEffect(() => {
        const element = box.current;
        if (!element || !now) return undefined;
        place(element, now.by);
        const close = (event: Event) => {
            if (event instanceof KeyboardEvent && event.key !== "Escape") return;
            if (event.target instanceof Node && element.contains(event.target)) return;
            if (event.target instanceof Node && now.by.contains(event.target) && event.type !== "keydown") return;
            open.value = null;
            if (event instanceof KeyboardEvent) {
                event.preventDefault();
                now.by.focus();
            }
        };
        const events = ["pointerdown", "keydown"] as const;
        for (const name of events) window.addEventListener(name, close, true);
        window.addEventListener("resize", close);
        return () => {
            for (const name of events) window.removeEventListener(name, close, true);
            window.removeEventListener("resize", close);
        };
    }, [now]);
    if (!now) return null;
    const { entry } = now;
    return (
        <div ref={box} class="explanation" role="dialog" aria-label={entry.name}>
            <h3>{entry.name}</h3>
            <p>{entry.what}</p>
            <dl>
                <dt>How</dt>
                <dd>{entry.formula}</dd>
                {entry.todo && <dt>What to do</dt>}
                {entry.todo && <dd>{entry.todo}</dd>}
            </dl>
        </div>
    );
}

function place(element: HTMLElement, by: HTMLElement): void {
    const at = by.getBoundingClientRect();
    const height = element.offsetHeight;
    const left = Math.max(MARGIN, Math.min(at.left, innerWidth - WIDTH - MARGIN));
    const below = at.bottom + 6;
    const top = below + height + MARGIN < innerHeight ? below : Math.max(MARGIN, at.top - height - 6);
    element.style.left = `${left}px`;
    element.style.top = `${top}px`;
    element.classList.add("placed");
}
