// Where the event table stands.

import { signal } from "@preact/signals";

/** Number of the first event on screen. */
export const firstEvent = signal(0);
/** Whether the table follows the newest event. */
export const tailing = signal(true);
