// Where rows are in a list of any length, of which only those on screen exist.
//
// Browsers end elements at some ten million pixels. Up to that a scroll offset is exact; beyond it the whole list is mapped on what
// there is, so that the bar goes everywhere, and wheel and keys move by rows.

const TALLEST = 8_000_000;

export interface Extent {
    total: number;
    rowHeight: number;
    viewport: number;
}

/** Height that the list pretends to have. */
export function contentHeight({ total, rowHeight }: Extent): number {
    return Math.min(total * rowHeight, TALLEST);
}

/** Rows that fit on screen, one that is cut included. */
export function rowsShown({ rowHeight, viewport }: Extent): number {
    return Math.ceil(viewport / rowHeight);
}

/** The largest row that can be first, so that the last one is seen whole. */
export function lastFirst(extent: Extent): number {
    return Math.max(0, extent.total - Math.floor(extent.viewport / extent.rowHeight));
}

/** The first row at a scroll offset. */
export function rowAt(extent: Extent, offset: number): number {
    const room = contentHeight(extent) - extent.viewport;
    if (room <= 0) return 0;
    const last = lastFirst(extent);
    const row = isScaled(extent) ? (offset / room) * last : offset / extent.rowHeight;
    return Math.min(last, Math.max(0, Math.round(row)));
}

/** The scroll offset at which a row is first. */
export function offsetOf(extent: Extent, row: number): number {
    const room = Math.max(0, contentHeight(extent) - extent.viewport);
    const last = lastFirst(extent);
    if (last === 0) return 0;
    const clamped = Math.min(last, Math.max(0, row));
    return Math.min(room, isScaled(extent) ? (clamped / last) * room : clamped * extent.rowHeight);
}

function isScaled({ total, rowHeight }: Extent): boolean {
    return total * rowHeight > TALLEST;
}
