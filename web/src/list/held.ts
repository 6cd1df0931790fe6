// Nothing moves under a pointer: a list that follows the cursor stands still while someone points at it.

import { signal, type Signal } from "@preact/signals";
import { useMemo } from "preact/hooks";

export interface Held {
    held: Signal<boolean>;
    props: { onPointerEnter(): void; onPointerLeave(): void };
}

export function useHeld(): Held {
    return useMemo(() => {
        const held = signal(false);
        return { held, props: { onPointerEnter: () => { held.value = true; }, onPointerLeave: () => { held.value = false; } } };
    }, []);
}
