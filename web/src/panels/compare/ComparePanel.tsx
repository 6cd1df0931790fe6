// What the heap is compared with: another moment or recording, or another policy beside it.

import { policies } from "../../store/session";
import { beside } from "../../store/view";
import { Beside } from "./Beside";
import { Moments } from "./Moments";

export function ComparePanel() {
    const all = policies.value;
    const now = beside.value;
    const glibc = all.filter((one) => one.name === "ptmalloc" || one.name === "default" || one.environment !== null);
    const others = all.filter((one) => !glibc.includes(one));
    return (
        <div class="compare">
            <label class="bar-line with">
                Compare with
                <select class="field" value={now ?? ""} onChange={(event) => { beside.value = event.currentTarget.value || null; }}>
                    <option value="">another moment or recording</option>
                    {[["glibc", glibc], ["Other policies", others]].map(([label, group]) => (
                        <optgroup key={label as string} label={label as string}>
                            {(group as typeof all).map((one) => <option key={one.name} value={one.name}>{one.name}: {one.environment ?? one.about}</option>)}
                        </optgroup>
                    ))}
                </select>
            </label>
            {now === null ? <Moments /> : <Beside policy={now} />}
        </div>
    );
}
