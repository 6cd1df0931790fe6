// The Hilbert curve, as tables. It enters its square at the top left and leaves it at the top right; each quarter holds the same
// curve, turned. Turns are two bits: 1 swaps the axes, 2 then mirrors both; they combine by exclusive or.

/** Side of the smallest square that is laid out whole, in cells. Any aligned power of 4 of cells is a square of the curve; smaller ones
 * leave less empty at the ends of ranges, larger ones are fewer. */
export const SIDE = 16;
export const SQUARE_CELLS = SIDE * SIDE;
const SQUARE_ORDER = 4;

// Column and row of the quarters in the order of the curve, and how the curve in each is turned.
const QUARTERS = [
    [0, 0, 1],
    [0, 1, 0],
    [1, 1, 0],
    [1, 0, 3],
] as const;

export interface Spot {
    x: number;
    y: number;
    /** How the curve inside is turned. */
    turn: number;
}

/** Where the curve of a square of 2^`order` a side is at its step `index`. */
export function walk(order: number, index: number, turn = 0): Spot {
    let [x, y] = [0, 0];
    for (let level = order - 1; level >= 0; level--) {
        const digit = Math.floor(index / 4 ** level) % 4;
        const [column, row, next] = QUARTERS[digit]!;
        let [across, down]: [number, number] = turn & 1 ? [row, column] : [column, row];
        if (turn & 2) [across, down] = [1 - across, 1 - down];
        x = 2 * x + across;
        y = 2 * y + down;
        turn ^= next;
    }
    return { x, y, turn };
}

/** The step at which the curve of a square of 2^`order` a side comes by (`x`, `y`). */
export function find(order: number, x: number, y: number): { index: number; turn: number } {
    let [index, turn] = [0, 0];
    for (let level = order - 1; level >= 0; level--) {
        let [across, down] = [(x >> level) & 1, (y >> level) & 1];
        if (turn & 2) [across, down] = [1 - across, 1 - down];
        const [column, row] = turn & 1 ? [down, across] : [across, down];
        const digit = QUARTERS.findIndex((quarter) => quarter[0] === column && quarter[1] === row);
        index = 4 * index + digit;
        turn ^= QUARTERS[digit]![2];
    }
    return { index, turn };
}

/** For each turn: which cell of a square lies at x + [SIDE] · y. */
export const CELL_AT: readonly Uint16Array[] = [0, 1, 2, 3].map((turn) => {
    const table = new Uint16Array(SQUARE_CELLS);
    for (let cell = 0; cell < SQUARE_CELLS; cell++) {
        const { x, y } = walk(SQUARE_ORDER, cell, turn);
        table[x + SIDE * y] = cell;
    }
    return table;
});

/** For each turn: where a cell lies, as x + [SIDE] · y. */
export const PLACE_OF: readonly Uint16Array[] = CELL_AT.map((cells) => {
    const table = new Uint16Array(SQUARE_CELLS);
    cells.forEach((cell, place) => (table[cell] = place));
    return table;
});
