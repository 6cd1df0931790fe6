// Amounts that are round by nature, as they stand on scales: `1 MiB`, not `1.0 MiB`.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes in binary units, three figures at most: `4 KiB`, `12.5 MiB`. */
export function roundBytes(value: number): string {
    let unit = 0;
    while (value >= 1024 && unit < UNITS.length - 1) {
        value /= 1024;
        unit++;
    }
    const digits = unit === 0 || value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
    return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** Nanoseconds in the unit that fits: `3.2 s`, `15 min`. */
export function roundDuration(ns: number): string {
    const steps: [number, string][] = [
        [86_400e9, "d"],
        [3600e9, "h"],
        [60e9, "min"],
        [1e9, "s"],
        [1e6, "ms"],
        [1e3, "µs"],
    ];
    for (const [size, unit] of steps) {
        if (ns >= size) {
            const value = ns / size;
            return `${value >= 10 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${unit}`;
        }
    }
    return `${Math.round(ns)} ns`;
}
