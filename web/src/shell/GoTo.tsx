// Going to an address, a moment, an event or a call site by typing it.

import { useSignal } from "@preact/signals";
import { count, moment } from "../format";
import { places, type Place } from "../store/places";
import { cursor } from "../store/server";
import { filter, inspect, overlay, show } from "../store/view";
import { goToAddress } from "../store/map";
import { firstEvent } from "../panels/events/state";
import { Dialog } from "./Dialog";

export function GoTo() {
    const text = useSignal("");
    const found = places(text.value);
    const go = (place: Place | undefined) => {
        if (!place) return;
        overlay.value = null;
        visit(place);
    };
    const submit = (event: Event) => {
        event.preventDefault();
        go(found[0]);
    };
    return (
        <Dialog title="Go to" kind="palette">
            <form onSubmit={submit}>
                <input class="field wide mono" type="text" autofocus aria-label="Address, time or event" placeholder="0x7f12…, 1.5 s, 2:05.1, #12345, a site" onInput={(event) => { text.value = event.currentTarget.value; }} />
            </form>
            <ul>
                {found.map((place, n) => (
                    <li key={n} class={n === 0 ? "first" : ""}>
                        <button type="button" class="row" onClick={() => go(place)}>{label(place)}</button>
                    </li>
                ))}
            </ul>
        </Dialog>
    );
}

function label(place: Place): string {
    switch (place.kind) {
        case "address": return `Address ${place.address} in map and inspector`;
        case "moment": return `The moment ${moment(place.ns)}`;
        case "event": return `Event ${count(place.n)} in the table`;
        case "site": return `Call sites with “${place.text}” in Blame`;
    }
}

function visit(place: Place): void {
    switch (place.kind) {
        case "address":
            goToAddress(place.address);
            inspect(place.address);
            break;
        case "moment":
            cursor.seek(place.ns);
            break;
        case "event":
            firstEvent.value = place.n;
            show("events");
            break;
        case "site":
            filter.value = place.text;
            show("blame");
            break;
    }
}
