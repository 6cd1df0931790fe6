// What would be resident instead: after trimming, after a restart, under an allocator that moves blocks.

import { bytes, percent } from "../../format";
import type { Remedy } from "../../store/documents";
import { process, source } from "../../store/session";
import { show } from "../../store/view";

/** What a remedy is, in a few words. */
const WORDS: Record<string, string> = {
    none: "as it is",
    trim: "whole free pages given back",
    restart: "what is live, built up anew",
    compaction: "blocks packed without a gap",
};

/** Whether any remedy is worth showing: what they save is known. */
export function worthwhile(remedies: Remedy[]): boolean {
    return remedies.some((one) => one.kind !== "none" && one.predicted_bytes !== null);
}

function saved(now: number, left: number): string {
    const share = now > 0 ? (now - left) / now : 0;
    return share < 0.001 ? "0 %" : `−${percent(share)}`;
}

export function Remedies({ remedies }: { remedies: Remedy[] }) {
    const now = remedies.find((one) => one.kind === "none")?.predicted_bytes ?? 0;
    const pid = process.value?.pid ?? "PID";
    const file = source.value?.name ?? "FILE";
    return (
        <section class="remedies" aria-labelledby="remedies-title">
            <h2 id="remedies-title">What would be resident instead</h2>
            <table>
                <tbody>
                    {remedies.map((one) => {
                        const left = one.predicted_bytes;
                        if (left === null) return null;
                        const share = now > 0 ? (100 * left) / now : 0;
                        return (
                            <tr key={one.name}>
                                <th scope="row">{one.kind === "none" ? "now" : one.name}</th>
                                <td class="num" title={`${left} B`}>{bytes(left)}</td>
                                <td class="num muted">{one.kind === "none" ? "" : saved(now, left)}</td>
                                <td class="bar">
                                    <svg class="bar-svg" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
                                        <rect class="below" x="0" y="0" height="10" width={Math.max(0, Math.min(100, share))} />
                                    </svg>
                                </td>
                                <td class="step">{WORDS[one.kind] ?? one.how}</td>
                            </tr>
                        );
                    })}
                </tbody>
            </table>
            <p class="fineprint muted">
                Foretold from where the blocks lie. Settings of the allocator and other policies: <button type="button" class="link" onClick={() => show("compare")}>Compare</button>.
                Measured, and under other allocators: <code>memfrag remedies --run --pid {pid} {file}</code>
            </p>
        </section>
    );
}
