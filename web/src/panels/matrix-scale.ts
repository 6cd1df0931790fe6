// A heat map of rows and columns: brightness by the logarithm of the value, since counts span many orders of magnitude.

/** 0 for nothing, else between 0 and 1. */
export function strength(value: number, most: number): number {
    if (value <= 0 || most <= 0) return 0;
    return Math.max(0.08, Math.log1p(value) / Math.log1p(most));
}

export function most(values: readonly (readonly number[])[]): number {
    let found = 0;
    for (const row of values) for (const value of row) if (value > found) found = value;
    return found;
}

/** Columns from the first to the last that hold anything, so that empty ends take no room. */
export function used(values: readonly (readonly number[])[], columns: number): { from: number; to: number } {
    let from = columns;
    let to = 0;
    for (const row of values) {
        row.forEach((value, n) => {
            if (value <= 0) return;
            if (n < from) from = n;
            if (n + 1 > to) to = n + 1;
        });
    }
    return from < to ? { from, to } : { from: 0, to: columns };
}
