// Every event of the recording, by its number: only those on screen are asked for.

import { useSignal } from "@preact/signals";
import { brief, count } from "../../format";
import type { Queries } from "../../protocol";
import { useQuery } from "../../store/query";
import { live, source, status } from "../../store/session";
import { filter } from "../../store/view";
import { isRestricted, OPS, parseFilter } from "./filter";
import { EventRows } from "./EventRows";
import { firstEvent, tailing } from "./state";

type Answered = Queries["events"]["gives"];

const COUNT = 100;
const EVERY = 500;
const CHIPS = ["alloc", "realloc", "free", "mmap", "munmap"];

export function EventsPanel() {
    const narrowed = parseFilter(filter.value);
    const restricted = isRestricted(narrowed);
    const total = useSignal(0);
    const following = tailing.value && live.value && !restricted;
    const from = following ? Math.max(0, (status.value?.events ?? 0) - COUNT) : firstEvent.value;
    // While the newest are followed the number changes all the time; so the question is repeated at its own pace.
    const paced = usePaced(from, following);
    const takes = { from: paced, count: COUNT, pid: narrowed.pid, ops: narrowed.ops, address: narrowed.address };
    const answer = useQuery("events", takes, { follows: false, late: following });
    const value = answer.value.value;
    if (value && value.total !== total.peek()) queueMicrotask(() => { total.value = value.total; });
    return (
        <div class="events">
            <div class="bar-line">
                <input class="field grow mono" type="search" placeholder="Filter: alloc free 0x7f… pid:12" aria-label="Filter events" value={filter.value} onInput={(event) => setFilter(event.currentTarget.value)} />
                {CHIPS.map((op) => <Chip key={op} op={op} on={OPS[op]?.every((one) => narrowed.ops?.includes(one)) ?? false} />)}
                {source.value?.growing && <button type="button" class={following ? "small chosen" : "small"} aria-pressed={tailing.value ? "true" : "false"} title="Follow the newest event while live" onClick={() => { tailing.value = !tailing.value; }}>Tail</button>}
            </div>
            {narrowed.unknown.length > 0 && <p class="banner caution">Not understood: {narrowed.unknown.join(" ")}</p>}
            {answer.value.error && <p class="banner caution">{answer.value.error}</p>}
            <EventRows answer={value} restricted={restricted} total={total.value || (status.value?.events ?? 0)} from={paced} />
            <Foot answer={value} following={following} />
        </div>
    );
}

function usePaced(from: number, following: boolean): number {
    const kept = useSignal({ from, at: 0 });
    const now = performance.now();
    if (!following || now - kept.peek().at > EVERY) kept.value = { from, at: now };
    return kept.peek().from;
}

function setFilter(text: string): void {
    filter.value = text;
    firstEvent.value = 0;
}

function Chip({ op, on }: { op: string; on: boolean }) {
    const press = () => {
        const words = filter.value.split(/\s+/).filter(Boolean);
        setFilter((on ? words.filter((word) => word !== op) : [...words, op]).join(" "));
    };
    return <button type="button" class="chip" aria-pressed={on ? "true" : "false"} onClick={press}>{op}</button>;
}

function Foot({ answer, following }: { answer: Answered | null; following: boolean }) {
    if (!answer) return null;
    const rate = status.value?.events_per_s ?? 0;
    const sampled = typeof answer.sampled === "number" && answer.sampled > 1 ? `1 of ${count(answer.sampled)} is shown. ` : answer.sampled === true ? "A sample is shown. " : "";
    const tail = following ? `Following ${brief(rate)} events/s: ${rate > COUNT * 2 ? `the newest ${COUNT}, ${Math.round(1000 / EVERY)} times a second, those between are passed over` : "every one is shown"}` : "";
    return <p class="fineprint muted">{count(answer.total)} events in all. {sampled}{tail}</p>;
}
