// The ladder of zooms. Each step shows half as many bytes on the same area: one step narrows the cells of a level to half as many a
// row, the next goes to the next finer level, whose cells are a quarter. Below the finest level cells only grow.
import { COARSEST_LEVEL, FINEST_LEVEL } from "../protocol";

const LEVEL_STEPS = 2 * (COARSEST_LEVEL - FINEST_LEVEL);
const MAGNIFIED = 6;

/** The most magnified zoom; 0 is the one with the coarsest cells. */
export const CLOSEST = LEVEL_STEPS + MAGNIFIED;

export interface ZoomStep {
    level: number;
    /** How many times the area of a cell is doubled. */
    doublings: number;
}

export function zoomStep(zoom: number): ZoomStep {
    const step = Math.min(CLOSEST, Math.max(0, Math.round(zoom)));
    if (step >= LEVEL_STEPS) return { level: FINEST_LEVEL, doublings: step - LEVEL_STEPS };
    return { level: COARSEST_LEVEL - (step >> 1), doublings: step & 1 };
}

/** The first zoom that shows the cells of `level`. */
export function zoomOfLevel(level: number): number {
    return 2 * (COARSEST_LEVEL - level);
}
