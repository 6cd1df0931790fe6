// Everything that the page can do, by name and key: the palette, the help sheet and the keyboard read this one list.

import { beside, cividis, pinA, pinB, nextTheme, overlay, range, show, tab, theme, address, site } from "./view";
import { TABS, type Tab } from "./permalink";
import { cursor, SPEEDS, speed } from "./server";
import { cursorNs, status } from "./session";

export interface Command {
    name: string;
    group: "Go" | "Time" | "View" | "Recording" | "Help";
    /** As `event.key`, with `Ctrl+` or `Shift+` in front; the first is shown. */
    keys: string[];
    run: () => void;
}

export const TAB_NAMES: Record<Tab, string> = {
    overview: "Overview", blame: "Blame", inspector: "Inspector", range: "Range",
    flame: "Flame", events: "Events", compare: "Compare", distributions: "Sizes",
};

function faster(by: 1 | -1): void {
    const at = SPEEDS.indexOf(speed.value as (typeof SPEEDS)[number]);
    const next = SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, at + by))] ?? 1;
    speed.value = next;
    if (status.value?.state === "playing") cursor.play(next);
}

/** Forgets what is selected, the nearest first. */
function clear(): void {
    if (site.value) site.value = null;
    else if (range.value) range.value = null;
    else if (address.value) address.value = null;
}

export const COMMANDS: readonly Command[] = [
    { name: "Command palette", group: "Help", keys: ["Ctrl+k"], run: () => { overlay.value = "palette"; } },
    { name: "Keyboard and words", group: "Help", keys: ["?"], run: () => { overlay.value = "help"; } },
    { name: "Go to an address, a time or an event", group: "Go", keys: ["g", "/"], run: () => { overlay.value = "goto"; } },
    { name: "Choose a process or recording", group: "Go", keys: ["p"], run: () => { overlay.value = "processes"; } },
    ...TABS.map((one, n): Command => ({ name: `Show ${TAB_NAMES[one]}`, group: "Go", keys: [String(n + 1)], run: () => show(one) })),
    { name: "Clear the selection", group: "Go", keys: ["Escape"], run: clear },
    { name: "Play or pause", group: "Time", keys: [" ", "k"], run: cursor.toggle },
    { name: "Live", group: "Time", keys: ["l"], run: cursor.live },
    { name: "Stop", group: "Time", keys: ["Shift+S"], run: cursor.stop },
    { name: "One event forward", group: "Time", keys: ["."], run: () => cursor.step(1) },
    { name: "One event back", group: "Time", keys: [","], run: () => cursor.step(-1) },
    { name: "Faster", group: "Time", keys: [">"], run: () => faster(1) },
    { name: "Slower", group: "Time", keys: ["<"], run: () => faster(-1) },
    { name: "Play at 4×", group: "Time", keys: ["x"], run: () => cursor.play(4) },
    { name: "Set A here", group: "Time", keys: ["["], run: () => { pinA.value = cursorNs.value; } },
    { name: "Set B here", group: "Time", keys: ["]"], run: () => { pinB.value = cursorNs.value; } },
    { name: "Compare A with B", group: "Go", keys: ["c"], run: () => { tab.value = "compare"; } },
    { name: "Compare the heap with another policy", group: "Go", keys: ["b"], run: () => { beside.value ??= "first-fit"; tab.value = "compare"; } },
    { name: "Change the theme", group: "View", keys: ["t"], run: nextTheme },
    { name: "Cividis colours on the map, or its own", group: "View", keys: ["v"], run: () => { cividis.value = !cividis.value; } },
    { name: "Theme of the system", group: "View", keys: [], run: () => { theme.value = "system"; } },
    { name: "Light theme", group: "View", keys: [], run: () => { theme.value = "light"; } },
    { name: "Dark theme", group: "View", keys: [], run: () => { theme.value = "dark"; } },
    { name: "Import a recording", group: "Recording", keys: ["i"], run: () => { overlay.value = "import"; } },
    { name: "Export the recording", group: "Recording", keys: ["e"], run: () => { overlay.value = "export"; } },
    { name: "Messages", group: "Help", keys: ["m"], run: () => { overlay.value = "notes"; } },
];

/** What a key event is called in `keys`. */
export function keyName(event: { key: string; ctrlKey: boolean; metaKey: boolean; altKey: boolean; shiftKey: boolean }): string {
    const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
    const key = event.key.length === 1 && (control || !event.shiftKey) ? event.key.toLowerCase() : event.key;
    // Signs already say that shift was held; letters do not.
    const shift = event.shiftKey && /^[A-Z]$/.test(key) ? "Shift+" : "";
    return `${event.altKey ? "Alt+" : ""}${control}${shift}${key}`;
}

export function commandFor(event: Parameters<typeof keyName>[0]): Command | null {
    const name = keyName(event);
    return COMMANDS.find((one) => one.keys.includes(name)) ?? null;
}

/** How a key is written for people. */
export function keyLabel(key: string): string {
    return key.replace("Ctrl+k", "Ctrl K").replace("Escape", "Esc").replace(/^ $/, "Space").replace("Shift+S", "Shift S");
}

/** Commands whose name holds all the words, in the order of the list. */
export function matching(text: string): Command[] {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return COMMANDS.filter((one) => words.every((word) => one.name.toLowerCase().includes(word)));
}

const TAKES_TEXT = new Set(["INPUT", "TEXTAREA", "SELECT"]);

/** Keys of the whole page; fields, dialogs and what handled the key itself go first. */
export function listenToKeys(target: Window): void {
    target.addEventListener("keydown", (event) => {
        if (event.defaultPrevented) return;
        const on = event.target instanceof Element ? event.target : null;
        const control = event.ctrlKey || event.metaKey;
        // With what had the focus gone, keys come to the page though a dialog is open.
        if (on && !control && (TAKES_TEXT.has(on.tagName) || target.document.querySelector("dialog[open]"))) return;
        // A focused button is pressed by the space bar, and a tab strip moves by its own keys.
        if (on && (event.key === " " || event.key === "Enter") && on.closest("button, summary, a, [role=button], [role=tab], [role=row]")) return;
        const command = commandFor(event);
        if (!command) return;
        event.preventDefault();
        command.run();
    });
}
