// The dialogs for recordings: one to bring in, one to take away.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { bytes } from "../format";
import { exportSource, importFile, transfer } from "../store/recordings";
import { source } from "../store/session";
import { overlay } from "../store/view";
import { Dialog } from "./Dialog";

export function Import() {
    const chosen = useSignal<File | null>(null);
    const pick = (event: Event) => { chosen.value = (event.target as HTMLInputElement).files?.[0] ?? null; };
    const go = () => {
        if (!chosen.value) return;
        overlay.value = null;
        void importFile(chosen.value);
    };
    return (
        <Dialog title="Import a recording">
            <p>A file that memfrag has recorded (<code>.mfrag</code>). It is read by the server of this page and becomes another source beside the ones that are open. Dropping a file anywhere on the page does the same.</p>
            <input type="file" class="field wide" accept=".mfrag" aria-label="Recording" onChange={pick} />
            <footer>
                {chosen.value && <span class="muted">{bytes(chosen.value.size)}</span>}
                <button type="button" class="primary" disabled={!chosen.value} onClick={go}>Import</button>
            </footer>
        </Dialog>
    );
}

export function Export() {
    const redacted = useSignal(false);
    const one = source.value;
    if (!one) return null;
    const whole = one.name.endsWith(".mfrag") ? one.name.slice(one.name.lastIndexOf("/") + 1) : `${one.name}.mfrag`;
    const name = redacted.value ? "redacted.mfrag" : whole;
    const go = () => {
        overlay.value = null;
        void exportSource(one.source, name, redacted.value);
    };
    return (
        <Dialog title="Export the recording">
            <p>All of <strong>{one.name}</strong> as it is now: every event since the trace began, not only what is on screen.{one.growing ? " It goes on growing here." : ""}</p>
            <label class="check"><input type="checkbox" checked={redacted.value} onChange={(event) => { redacted.value = event.currentTarget.checked; }} /> Redact it, so that it may leave the machine</label>
            {redacted.value
                ? <p class="caution">Addresses are moved by a multiple of 64 MiB that is not kept. Paths are left out but for those of the system's own libraries, and with them the names of functions; so are names of programs and of the machine, and command lines. It keeps sizes, times, how many threads and processes there were, and where blocks lie to each other.</p>
                : <p class="caution">A recording reveals addresses (and with them how the system placed the program in memory), paths of files (and to whom has these files, names of functions), command lines and the machine's name. It holds no contents of memory. Give it only to whom you would give these, or redact it.</p>}
            <footer>
                <button type="button" onClick={() => { overlay.value = null; }}>Cancel</button>
                <button type="button" class="primary" onClick={go}>Save {name}</button>
            </footer>
        </Dialog>
    );
}

/** Takes files that are dropped anywhere, and says so while one hovers. */
export function DropZone() {
    const over = useSignal(false);
    useEffect(() => {
        const files = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
        const drag = (event: DragEvent) => {
            if (!files(event)) return;
            event.preventDefault();
            over.value = true;
        };
        const leave = (event: DragEvent) => {
            if (event.relatedTarget === null) over.value = false;
        };
        const drop = (event: DragEvent) => {
            if (!files(event)) return;
            event.preventDefault();
            over.value = false;
            const file = event.dataTransfer?.files[0];
            if (file) void importFile(file);
        };
        window.addEventListener("dragover", drag);
        window.addEventListener("dragleave", leave);
        window.addEventListener("drop", drop);
        return () => {
            window.removeEventListener("dragover", drag);
            window.removeEventListener("dragleave", leave);
            window.removeEventListener("drop", drop);
        };
    }, []);
    return (
        <>
            {over.value && <div class="dropzone">Drop a recording to open it</div>}
            {transfer.value && <div class="toast" role="status">{transfer.value}</div>}
        </>
    );
}
