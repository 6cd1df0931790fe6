// The heap map in its pane, in step with the rest of the page: theme, pinned address, chosen site, mode.

import { useSignalEffect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { MapView } from "../map/MapView";
import { writePlace } from "../map/selection";
import { heapMap } from "../store/map";
import { address, cividis, mode, place, dark, tab } from "../store/view";

export function MapPane() {
    const model = heapMap.value;
    useSignalEffect(() => {
        const map = heapMap.value;
        if (map) map.theme.value = dark.value ? "dark" : "light";
        if (map) map.cividis.value = cividis.value;
    });
    useSignalEffect(() => {
        const on = heapMap.value?.cividis.value;
        if (on !== undefined && on !== cividis.peek()) cividis.value = on;
    });
    // What is pinned on the map is inspected, and the other way round.
    useSignalEffect(() => {
        const picked = heapMap.value?.selected.value ?? null;
        if (picked === null || picked === address.peek()) return;
        address.value = picked;
        tab.value = "inspector";
    });
    useSignalEffect(() => {
        const map = heapMap.value;
        const pinned = address.value;
        if (map && map.selected.peek() !== pinned) map.select(pinned);
    });
    useSignalEffect(() => {
        const map = heapMap.value;
        if (!map) return;
        mode.value = map.mode.value;
        // Before the heap is known, the link's place stands.
        if (map.spans.value.length > 0) place.value = writePlace(map.place.value);
    });
    useEffect(() => () => heapMap.peek()?.select(null), []);
    return <div class="map-pane">{model && <MapView model={model} />}</div>;
}
