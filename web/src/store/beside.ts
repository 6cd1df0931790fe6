// Asks the server for the policy beside the heap, for as long as somebody looks at it.

import { effect } from "@preact/signals";
import { link } from "./server";
import { connection, model } from "./session";
import { beside, tab } from "./view";

/** From now on the server knows which policy is wanted; it works for none that nobody sees. */
export function keepBeside(): () => void {
    let asked: string | null = null;
    return effect(() => {
        const wanted = tab.value === "compare" ? beside.value : null;
        // A server that greets has been asked for nothing yet.
        if (connection.value.state !== "open") asked = null;
        else if (wanted !== asked) {
            asked = wanted;
            model.value = null;
            link.value?.model(wanted);
        }
    });
}
