// Numbers as people read them. Bytes in IEC units, times since the trace began, counts with thin spaces.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const NARROW = "\u202f";

/** `153.7 MiB`; below a KiB whole bytes. */
export function bytes(value: number | null | undefined): string {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    let scaled = Math.abs(value);
    let unit = 0;
    while (scaled >= 1023.95 && unit < UNITS.length - 1) {
        scaled /= 1024;
        unit += 1;
    }
    const digits = unit === 0 ? String(Math.round(scaled)) : scaled.toFixed(1);
    return `${value < 0 ? "−" : ""}${digits} ${UNITS[unit]}`;
}

/** The same with its sign: `+1.2 MiB`, `−40 B`, `±0 B`. */
export function signedBytes(value: number): string {
    if (value === 0) return "±0 B";
    return value > 0 ? `+${bytes(value)}` : bytes(value);
}

/** `131 800`, grouped by thousands. */
export function count(value: number | null | undefined): string {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const text = String(Math.abs(Math.round(value)));
    const grouped = text.replace(/\B(?=(\d{3})+$)/g, NARROW);
    return value < 0 ? `−${grouped}` : grouped;
}

export function signedCount(value: number): string {
    if (value === 0) return "±0";
    return value > 0 ? `+${count(value)}` : count(value);
}

/** Three digits at most: `1.24 M`, `830 k`, `12`. */
export function brief(value: number | null | undefined): string {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    for (const [least, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
        if (size >= least * 0.9995) {
            const scaled = value / least;
            const digits = Math.abs(scaled) >= 99.95 ? 0 : Math.abs(scaled) >= 9.995 ? 1 : 2;
            return `${scaled.toFixed(digits)} ${unit}`;
        }
    }
    return size >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

/** `4.0 %`; what is not zero never reads as zero. */
export function percent(share: number | null | undefined): string {
    if (share === null || share === undefined || !Number.isFinite(share)) return "–";
    const value = share * 100;
    if (value !== 0 && Math.abs(value) < 0.1) return value < 0 ? "> −0.1 %" : "< 0.1 %";
    return `${Math.abs(value) >= 99.95 ? value.toFixed(0) : value.toFixed(1)} %`;
}

/** `8.0×`. */
export function times(ratio: number | null | undefined): string {
    if (ratio === null || ratio === undefined || !Number.isFinite(ratio)) return "–";
    return `${Math.abs(ratio) >= 99.95 ? ratio.toFixed(0) : ratio.toFixed(1)}×`;
}

/** How long something took or is old: `12 ns`, `1.35 ms`, `2 min 05 s`, `3 h 04 min`. */
export function duration(ns: number | null | undefined): string {
    if (ns === null || ns === undefined || !Number.isFinite(ns)) return "–";
    if (ns < 0) return `−${duration(-ns)}`;
    if (ns < 1e3) return `${Math.round(ns)} ns`;
    if (ns < 999.5e3) return `${three(ns / 1e3)} µs`;
    if (ns < 999.5e6) return `${three(ns / 1e6)} ms`;
    if (ns < 59.995e9) return `${three(ns / 1e9)} s`;
    const seconds = Math.round(ns / 1e9);
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
    const minutes = Math.round(seconds / 60);
    if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
    const hours = Math.round(minutes / 60);
    return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

/** A moment of the trace with milliseconds: `0.985 s`, `2:05.125`, `1:02:05.125`. */
export function moment(ns: number | null | undefined): string {
    if (ns === null || ns === undefined || !Number.isFinite(ns)) return "–";
    const ms = Math.max(0, Math.round(ns / 1e6));
    const seconds = Math.floor(ms / 1000);
    const rest = String(ms % 1000).padStart(3, "0");
    if (seconds < 60) return `${seconds}.${rest} s`;
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes}:${two(seconds % 60)}.${rest}`;
    return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}.${rest}`;
}

/** Wall clock of a moment, in the reader's own zone. */
export function clock(beganUnixNs: number, ns: number): string {
    const date = new Date(beganUnixNs / 1e6 + ns / 1e6);
    return `${date.toLocaleDateString(undefined, { month: "short", day: "numeric" })} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** The last part of a path. */
export function fileName(path: string | null | undefined): string {
    return path ? path.slice(path.lastIndexOf("/") + 1) : "";
}

/** An address as text, from either form in which documents carry it. */
export function address(value: string | number | null | undefined): string {
    if (value === null || value === undefined) return "–";
    return typeof value === "number" ? `0x${value.toString(16)}` : value;
}

function three(value: number): string {
    return value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

function two(value: number): string {
    return String(value).padStart(2, "0");
}
