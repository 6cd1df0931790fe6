// Two panes with a bar between them that is moved by pointer and keys; where it stands is kept for the next visit.

import { useSignal, useSignalEffect } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";

const KEY = "memfrag.split";
const STEP = 0.02;
const [LEAST, MOST, USUAL] = [0.25, 0.75, 0.56];

export function Split({ left, right }: { left: ComponentChildren; right: ComponentChildren }) {
    const box = useRef<HTMLDivElement>(null);
    const share = useSignal(kept());
    useSignalEffect(() => {
        const value = share.value;
        box.current?.style.setProperty("--split", `${(value * 100).toFixed(2)}%`);
        if (value !== USUAL) localStorage.setItem(KEY, String(value));
        else localStorage.removeItem(KEY);
    });
    const move = (to: number) => { share.value = Math.min(MOST, Math.max(LEAST, to)); };
    const drag = (event: PointerEvent) => {
        const element = box.current;
        const bar = event.currentTarget as HTMLElement;
        if (!element || !bar.hasPointerCapture(event.pointerId)) return;
        const around = element.getBoundingClientRect();
        move((event.clientX - around.left) / around.width);
    };
    const key = (event: KeyboardEvent) => {
        if (event.key === "ArrowLeft") move(share.value - STEP);
        else if (event.key === "ArrowRight") move(share.value + STEP);
        else if (event.key === "Home") move(LEAST);
        else if (event.key === "End") move(MOST);
        else return;
        event.preventDefault();
        event.stopPropagation();
    };
    return (
        <div ref={box} class="split">
            {left}
            <div
                class="split-bar" role="separator" aria-orientation="vertical" aria-label="Between map and panels" tabIndex={0}
                aria-valuemin={LEAST * 100} aria-valuemax={MOST * 100} aria-valuenow={Math.round(share.value * 100)}
                onPointerDown={(event) => event.currentTarget.setPointerCapture(event.pointerId)} onPointerMove={drag} onKeyDown={key} onDblClick={() => { share.value = USUAL; }}
            />
            {right}
        </div>
    );
}

function kept(): number {
    const saved = Number(localStorage.getItem(KEY));
    return saved >= LEAST && saved <= MOST ? saved : USUAL;
}
