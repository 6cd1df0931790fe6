// Recordings in and out: an import becomes another source, until it is removed; an export is the recording whole.

import { signal } from "@preact/signals";
import { request, watchSource } from "./server";
import { note } from "./session";

/** What is under way, in words; null when nothing is. */
export const transfer = signal<string | null>(null);

/** What the server says is wrong. */
async function complaint(answer: Response): Promise<string> {
    const said = await answer.json().catch(() => ({}));
    return typeof said.error === "string" ? said.error : `the server answered ${answer.status}`;
}

/** Sends a file to the server and looks at it. */
export async function importFile(file: Blob & { name?: string }): Promise<number | null> {
    transfer.value = `Importing ${file.name ?? "recording"} …`;
    try {
        const answer = await request("/api/import", { method: "POST", body: file });
        if (!answer.ok) throw new Error(await complaint(answer));
        const source = Number((await answer.json()).source);
        watchSource(source);
        note("info", `${file.name ?? "The recording"} is open`);
        return source;
    } catch (error) {
        note("error", `Import failed: ${(error as Error).message}`);
        return null;
    } finally {
        transfer.value = null;
    }
}

/** Has the server forget an imported recording; it tells all its pages. */
export async function removeSource(source: number): Promise<void> {
    try {
        const answer = await request(`/api/recording?source=${source}`, { method: "DELETE" });
        if (!answer.ok) throw new Error(await complaint(answer));
    } catch (error) {
        note("error", `The recording was not removed: ${(error as Error).message}`);
    }
}

interface SavePicker {
    showSaveFilePicker?: (options: { suggestedName: string }) => Promise<{ createWritable(): Promise<WritableStream<Uint8Array>> }>;
}

/** Saves all of a recording, redacted if that is wanted: streamed to disk where the browser can, else through its own download. */
export async function exportSource(source: number, name: string, redacted: boolean): Promise<void> {
    const picker = (window as unknown as SavePicker).showSaveFilePicker;
    try {
        const target = picker ? await picker.call(window, { suggestedName: name }) : null;
        transfer.value = `Exporting ${name} …`;
        const answer = await request(`/api/recording?source=${source}${redacted ? "&redact" : ""}`);
        if (!answer.ok || !answer.body) throw new Error(await complaint(answer));
        if (target) await answer.body.pipeTo(await target.createWritable());
        else download(await answer.blob(), name);
        note("info", `${name} is saved`);
    } catch (error) {
        if ((error as Error).name !== "AbortError") note("error", `Export failed: ${(error as Error).message}`);
    } finally {
        transfer.value = null;
    }
}

function download(blob: Blob, name: string): void {
    const url = URL.createObjectURL(blob);
    const anchor = document.createElement("a");
    anchor.href = url;
    anchor.download = name;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

