// Another policy beside the heap, at the cursor's moment: the figures of both, and both as maps.

import { bytes, count, duration, moment, percent, signedBytes, signedCount } from "../../format";
import type { Entry } from "../../explain/glossary";
import type { ModelMessage, Modelled, RealHeap } from "../../protocol";
import { Term } from "../../shell/Explain";
import { model, policies, watched } from "../../store/session";
import { FIGURES, type Figure } from "./figures";
import { Grids } from "./Grids";
import { Signed } from "./Moments";

export function Beside({ policy }: { policy: string }) {
    const now = watched.value;
    const found = model.value;
    const mine = found !== null && found.policy === policy && found.source === now?.source && found.pid === now.pid ? found : null;
    const about = policies.value.find((one) => one.name === policy) ?? null;
    return (
        <>
            {about && (
                <p class="muted">
                    <strong>{about.name}</strong>: {about.about}{about.environment && <>, <code>{about.environment}</code></>}. The same requests, placed by another rule.
                </p>
            )}
            <State found={mine} />
            {mine?.model && mine.real && <Both model={mine.model} real={mine.real} policy={policy} apart={mine.behind_events > 0} />}
            {mine?.cells && mine.model && <Grids cells={mine.cells} policy={policy} shared={mine.model.final_footprint_bytes < mine.model.taken_bytes} />}
            {mine?.model && mine.model.lost_events > 0 && <p class="banner caution">{count(mine.model.lost_events)} events were lost: from there on blocks of the model are where they should not be.</p>}
        </>
    );
}

/** Where the model is, and why there is none. Told politely to who cannot see it. */
function State({ found }: { found: ModelMessage | null }) {
    return <p class="fineprint as-of-model" role="status" data-behind={found === null || found.problem ? "" : String(found.behind_events)}>{said(found)}</p>;
}

function said(found: ModelMessage | null) {
    if (found === null) return "Waiting for the model …";
    if (found.problem !== null) return <><strong>There is no model.</strong> {found.problem}.</>;
    if (found.learning) return `Learning how long the blocks of each call site live, ${count(found.behind_events)} events to go …`;
    if (found.behind_events > 0) {
        return (
            <>
                <strong>{count(found.behind_events)} events behind</strong>
                : the model's figures are of {moment(found.at_ns)}{found.behind_ns > 0 && `, ${duration(found.behind_ns)} before`}, the heap's of the cursor.
            </>
        );
    }
    if (found.model === null) return `At ${moment(found.at_ns)} the process is not there.`;
    return `Both as of ${moment(found.at_ns)}, after ${count(found.events)} events.`;
}

/** While they are `apart` in time there are no differences: they would be those of two moments. */
function Both({ model: modelled, real, policy, apart }: { model: Modelled; real: RealHeap; policy: string; apart: boolean }) {
    return (
        <table class="facts">
            <thead><tr><th scope="col">Figure</th><th scope="col" class="num">Real heap</th><th scope="col" class="num">{policy}</th><th scope="col" class="num">Model − real</th></tr></thead>
            <tbody>{FIGURES.map((figure) => <Row key={figure.name} figure={figure} left={figure.real(real)} right={figure.model(modelled)} apart={apart} />)}</tbody>
        </table>
    );
}

const SHOW = { bytes, count, share: percent } as const;

function Row({ figure, left, right, apart }: { figure: Figure; left: number | null; right: number | null; apart: boolean }) {
    const show = SHOW[figure.kind];
    const entry: Entry = figure;
    const exact = (value: number | null) => (value === null ? "not known" : figure.kind === "bytes" ? `${value} B` : String(value));
    return (
        <tr>
            <th scope="row"><Term entry={entry}>{figure.name}</Term></th>
            <td class="num" title={exact(left)}>{show(left)}</td>
            <td class="num" title={exact(right)}>{show(right)}</td>
            <td class="num">{apart || left === null || right === null || figure.kind === "share" ? "–" : <Signed value={right - left} show={figure.kind === "bytes" ? signedBytes : signedCount} />}</td>
        </tr>
    );
}
