// What the person looks at: the panel, the pins, the brush, the chosen site and address, the theme.

import { computed, effect, signal } from "@preact/signals";
import { decode, encode, type Look, type Span, type Tab } from "./permalink";
import { process, source, status, watched } from "./session";

export type Theme = "system" | "light" | "dark";
export type By = "site" | "thread" | "size" | "age" | "module";
export type Measure = "live" | "stranded" | "allocated" | "freed" | "count";
export type Overlay = "palette" | "help" | "import" | "export" | "goto" | "processes" | "notes";
/** A chosen call site: its text, and its address where it has one. */
export type ChosenSite = { site: string; address: string | null };

export const tab = signal<Tab>("overview");
export const theme = signal<Theme>("system");
/** The map's scales are cividis. */
export const cividis = signal(false);
export const range = signal<Span | null>(null);
export const pinA = signal<number | null>(null);
export const pinB = signal<number | null>(null);
export const mode = signal("occupancy");
/** Where the map is, as the link has it; null: all of the heap. */
export const place = signal<string | null>(null);
/** The pinned address: what the inspector shows. */
export const address = signal<string | null>(null);
export const site = signal<ChosenSite | null>(null);
export const by = signal<By>("site");
export const measure = signal<Measure>("live");
/** The policy beside the heap in the comparison; null where moments are compared. */
export const beside = signal<string | null>(null);
/** Of the event table: an address or a word of `op:`, as typed. */
export const filter = signal("");
export const overlay = signal<Overlay | null>(null);

/** The address bar is written at most so often in a second; browsers refuse more. */
const PERMALINKS_PER_S = 5;

/** What a permalink to this view holds. */
export const look = computed<Look>(() => ({
    source: watched.value?.source ?? null,
    pid: watched.value?.pid ?? null,
    tab: tab.value,
    // A cursor at the newest event, or at the end, has no moment of its own; one that plays would write the address bar many times a second.
    at: status.value?.state === "paused" ? status.value.at_ns : null,
    range: range.value,
    a: pinA.value,
    b: pinB.value,
    mode: mode.value === "occupancy" ? null : mode.value,
    map: place.value,
    address: address.value,
    site: site.value ? [site.value.address ?? "", site.value.site].join(" ") : null,
    by: by.value === "site" ? null : by.value,
    measure: measure.value === "live" ? null : measure.value,
    beside: beside.value,
    filter: filter.value || null,
}));

/** Takes over what a link says; the cursor and the process are asked for by who has the connection. */
export function restore(hash: string): Look {
    const from = decode(hash);
    tab.value = from.tab;
    range.value = from.range;
    pinA.value = from.a;
    pinB.value = from.b;
    if (from.mode) mode.value = from.mode;
    place.value = from.map;
    address.value = from.address;
    if (from.site) {
        const cut = from.site.indexOf(" ");
        site.value = { address: from.site.slice(0, cut) || null, site: from.site.slice(cut + 1) };
    }
    if (from.by) by.value = from.by as By;
    if (from.measure) measure.value = from.measure as Measure;
    beside.value = from.beside;
    filter.value = from.filter ?? "";
    return from;
}

/** Keeps the address bar at what is looked at, a few times a second at most. */
export function keepPermalink(): void {
    let due: ReturnType<typeof setTimeout> | null = null;
    effect(() => {
        if (due) clearTimeout(due);
        // Until it is known what is watched, and while the cursor is on its way, the link that led here stands.
        const now = status.value;
        if (watched.value === null || now === null || (now.state === "paused" && now.behind)) return;
        const text = encode(look.value);
        due = setTimeout(() => {
            const hash = text ? `#${text}` : "";
            if (location.hash !== hash) history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
        }, 1000 / PERMALINKS_PER_S);
    });
}

export function show(what: Tab): void {
    tab.value = what;
}

export function inspect(where: string): void {
    address.value = where;
    tab.value = "inspector";
}

/** The window's title tells what is watched: of several tabs one finds the right one. */
export function keepTitle(): void {
    effect(() => {
        const name = process.value ? `${process.value.comm} ${process.value.pid}` : source.value?.name;
        document.title = name ? `${name} · memfrag` : "memfrag";
    });
}

const THEME_KEY = "memfrag.theme";
const CIVIDIS_KEY = "memfrag.cividis";

/** Applies the theme to the document now and whenever it changes; keeps what was chosen of colours. */
export function keepTheme(): void {
    const saved = localStorage.getItem(THEME_KEY);
    if (saved === "light" || saved === "dark") theme.value = saved;
    effect(() => {
        if (theme.value === "system") localStorage.removeItem(THEME_KEY);
        else localStorage.setItem(THEME_KEY, theme.value);
    });
    cividis.value = localStorage.getItem(CIVIDIS_KEY) !== null;
    effect(() => {
        if (cividis.value) localStorage.setItem(CIVIDIS_KEY, "");
        else localStorage.removeItem(CIVIDIS_KEY);
    });
    effect(() => { document.documentElement.dataset["theme"] = dark.value ? "dark" : "light"; });
}

const THEMES: readonly Theme[] = ["system", "light", "dark"];

export function nextTheme(): void {
    theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length] ?? "system";
}

/** Whether dark is on screen now, by choice or by the system. */
export const dark = (() => {
    const query = typeof matchMedia === "function" ? matchMedia("(prefers-color-scheme: dark)") : null;
    const system = signal(query?.matches ?? false);
    query?.addEventListener("change", () => { system.value = query.matches; });
    return computed(() => (theme.value === "system" ? system.value : theme.value === "dark"));
})();
