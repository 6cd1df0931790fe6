// A modal dialog: the browser's own, which keeps the focus inside and gives it back.

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { overlay } from "../store/view";

export function Dialog({ title, kind, children }: { title: string; kind?: string; children: ComponentChildren }) {
    const box = useRef<HTMLDialogElement>(null);
    useEffect(() => {
        const dialog = box.current;
        dialog?.showModal();
        return () => dialog?.close();
    }, []);
    const close = () => { overlay.value = null; };
    const outside = (event: MouseEvent) => {
        if (event.target === box.current) close();
    };
    return (
        <dialog ref={box} class={`dialog ${kind ?? ""}`} aria-label={title} onClose={close} onClick={outside}>
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
