// A modal dialog: the browser's own, which keeps the focus inside and gives it back.

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { overlay } from "../store/view";

export function Dialog({ title, kind, children }: { title: string; kind?: string; children: ComponentChildren }) {
    const box = useRef<HTMLDialogElement>(null);
    // Before the next key arrives: what is typed at once after the key that opens the dialog belongs in it.
    useLayoutEffect(() => {
        const dialog = box.current;
        dialog?.showModal();
        return () => dialog?.close();
    }, []);
    // The browser tells of a closed dialog a moment later, when the next one may be open already.
    const mine = useRef(overlay.peek()).current;
    const close = () => {
        if (overlay.peek() === mine) overlay.value = null;
    };
    // At once, so that a key right after it is the page's.
    const escape = (event: KeyboardEvent) => {
        if (event.key !== "Escape" || event.defaultPrevented) return;
        event.preventDefault();
        close();
    };
    const outside = (event: MouseEvent) => {
        if (event.target === box.current) close();
    };
    return (
        <dialog ref={box} class={`dialog ${kind ?? ""}`} aria-label={title} onClose={close} onKeyDown={escape} onClick={outside}>
            <div class="dialog-body">
                <header>
                    <h2>{title}</h2>
                    <button type="button" class="icon" aria-label="Close" onClick={close}>✕</button>
                </header>
                {children}
            </div>
        </dialog>
    );
}
