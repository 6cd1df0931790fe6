// What a person types to go somewhere: an address, a moment, a number of an event, a word of a site.

export type Place =
    | { kind: "address"; address: string }
    | { kind: "moment"; ns: number }
    | { kind: "event"; n: number }
    | { kind: "site"; text: string };

const SECONDS: Record<string, number> = { ns: 1e-9, us: 1e-6, "µs": 1e-6, ms: 1e-3, s: 1, min: 60, m: 60, h: 3600 };

/** What the text can mean, the likeliest first. */
export function places(typed: string): Place[] {
    const text = typed.trim();
    const found: Place[] = [];
    if (text === "") return found;
    const hex = /^(?:0x)?([0-9a-f]{1,16})$/i.exec(text.replace(/[_`]/g, ""));
    const bare = hex !== null && !text.toLowerCase().startsWith("0x");
    if (hex && !bare) found.push({ kind: "address", address: `0x${hex[1]!.toLowerCase()}` });
    const ns = moment(text);
    if (ns !== null) found.push({ kind: "moment", ns });
    const event = /^#?(\d{1,15})$/.exec(text);
    if (event) found.push({ kind: "event", n: Number(event[1]) });
    if (hex && bare && text.length >= 6) found.push({ kind: "address", address: `0x${hex[1]!.toLowerCase()}` });
    if (found.length === 0) found.push({ kind: "site", text });
    return found;
}

/** `1.5s`, `250 ms`, `2:05.125`, `1:02:03`: nanoseconds since the trace began. */
export function moment(text: string): number | null {
    const unit = /^(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s|min|m|h)$/i.exec(text.trim());
    if (unit) return Math.round(Number(unit[1]) * (SECONDS[unit[2]!.toLowerCase()] ?? 1) * 1e9);
    const clock = /^(?:(\d+):)?(\d{1,2}):(\d{2}(?:\.\d+)?)$/.exec(text.trim());
    if (!clock) return null;
    return Math.round((Number(clock[1] ?? 0) * 3600 + Number(clock[2]) * 60 + Number(clock[3])) * 1e9);
}
