// What panels ask of the heap map.

import { signal } from "@preact/signals";
import { MODES, type Address, type Mode } from "../protocol";
import { MapModel } from "../map/model";
import type { Client } from "../worker/client";
import { readPlace } from "../map/selection";
import { address, mode, place } from "./view";

/** Null until the page has begun to connect. */
export const heapMap = signal<MapModel | null>(null);

/** Makes the map of a connection, as a permalink says. */
export function makeMap(client: Client): void {
    const model = new MapModel(client);
    const wanted = mode.value as Mode;
    if (MODES.includes(wanted)) model.setMode(wanted);
    if (address.value !== null) model.select(address.value);
    const where = place.value === null ? null : readPlace(place.value);
    if (where !== null) model.restore(where);
    heapMap.value = model;
}

/** Brings an address into view. */
export function goToAddress(where: Address): void {
    heapMap.value?.goTo(where);
}

/** Lights up a call site's blocks; null lights up all. */
export function highlightSite(label: string | null): void {
    heapMap.value?.highlight(label === null ? null : { mode: "site", label });
}
