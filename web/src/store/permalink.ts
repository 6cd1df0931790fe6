// What one looks at, as the fragment of the URL: readable, order kept, unknown parts passed over. Never the token.

export type Tab = "overview" | "blame" | "inspector" | "range" | "flame" | "events" | "compare" | "distributions";
export const TABS: readonly Tab[] = ["overview", "blame", "inspector", "range", "flame", "events", "compare", "distributions"];

export type Span = { from: number; to: number };

/** Everything that a link restores. What is null is not in it. */
export interface Look {
    source: number | null;
    pid: number | null;
    tab: Tab;
    at: number | null;
    range: Span | null;
    a: number | null;
    b: number | null;
    mode: string | null;
    /** Place in the map. */
    map: string | null;
    address: string | null;
    site: string | null;
    by: string | null;
    measure: string | null;
    /** The policy beside the heap. */
    beside: string | null;
    filter: string | null;
}

export const NOTHING: Look = {
    source: null, pid: null, tab: "overview", at: null, range: null, a: null, b: null,
    mode: null, map: null, address: null, site: null, by: null, measure: null, beside: null, filter: null,
};

const NUMBERS = { source: "source", pid: "pid", t: "at", a: "a", b: "b" } as const;
const TEXTS = { mode: "mode", map: "map", addr: "address", site: "site", by: "by", flame: "measure", beside: "beside", filter: "filter" } as const;

export function encode(look: Look): string {
    const parts: string[] = [];
    const put = (name: string, value: string | number | null) => {
        if (value !== null && value !== "") parts.push(`${name}=${encodeURIComponent(value)}`);
    };
    put("source", look.source);
    put("pid", look.pid);
    if (look.tab !== "overview") put("tab", look.tab);
    put("t", look.at);
    if (look.range) put("range", `${look.range.from}-${look.range.to}`);
    put("a", look.a);
    put("b", look.b);
    for (const [name, field] of Object.entries(TEXTS)) put(name, look[field]);
    return parts.join("&");
}

export function decode(hash: string): Look {
    const look: Look = { ...NOTHING };
    for (const part of hash.replace(/^#/, "").split("&")) {
        const cut = part.indexOf("=");
        if (cut < 1) continue;
        const name = part.slice(0, cut);
        const value = unescape(part.slice(cut + 1));
        if (value === null) continue;
        if (name in NUMBERS) look[NUMBERS[name as keyof typeof NUMBERS]] = whole(value);
        else if (name in TEXTS) look[TEXTS[name as keyof typeof TEXTS]] = value.slice(0, 1000);
        else if (name === "tab" && (TABS as readonly string[]).includes(value)) look.tab = value as Tab;
        else if (name === "range") look.range = span(value);
    }
    return look;
}

function span(value: string): Span | null {
    const [from, to] = value.split("-").map(whole);
    if (from === null || from === undefined || to === null || to === undefined || to <= from) return null;
    return { from, to };
}

function whole(value: string): number | null {
    if (!/^\d{1,16}$/.test(value)) return null;
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : null;
}

/** Null where the escapes are broken. */
function unescape(value: string): string | null {
    try {
        return decodeURIComponent(value);
    } catch {
        return null;
    }
}
