// Where frames lie in the icicle: rows of boxes by depth, in shares of the width, for finding and drawing. Pure.

import type { Frame } from "./tree";

export interface Box {
    frame: Frame;
    /** Shares of the width, 0 to 1. */
    from: number;
    to: number;
}

/** Row by row from the top: the path to `zoomed` at full width, then what is below it, down to boxes of `least` of the width. */
export function layout(zoomed: Frame, least: number): Box[][] {
    const rows: Box[][] = [];
    for (let up: Frame | null = zoomed; up; up = up.parent) rows[up.depth] = [{ frame: up, from: 0, to: 1 }];
    const work: Box[] = [{ frame: zoomed, from: 0, to: 1 }];
    // First in, first out: so each row is filled from left to right.
    for (let n = 0; n < work.length; n += 1) {
        const { frame, from, to } = work[n]!;
        let at = from;
        for (const child of frame.children) {
            const width = ((to - from) * child.value) / Math.max(frame.value, Number.MIN_VALUE);
            if (width < least) break;
            const box = { frame: child, from: at, to: at + width };
            (rows[child.depth] ??= []).push(box);
            work.push(box);
            at += width;
        }
    }
    return rows;
}

/** The box at a share of the width in a row; by halving, as rows are in order. */
export function boxAt(row: readonly Box[] | undefined, share: number): Box | null {
    if (!row) return null;
    let low = 0;
    let high = row.length - 1;
    while (low <= high) {
        const middle = (low + high) >> 1;
        const box = row[middle]!;
        if (share < box.from) high = middle - 1;
        else if (share >= box.to) low = middle + 1;
        else return box;
    }
    return null;
}
