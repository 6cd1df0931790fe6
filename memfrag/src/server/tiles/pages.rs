//! Draws the cells that come from the pages.

use super::cells::Cells;
use super::kept::Kept;
use super::measure::Measure;
use super::mode::Level;
use super::scene::{Scene, table_pages};
use crate::heap::{TABLE_PAGES, Tick};
use crate::target::residency::PAGE;
use std::ops::Range;

/// Base-2 logarithm of the bytes of a table.
const TABLE_BITS: u32 = (TABLE_PAGES as u64 * PAGE).trailing_zeros();

/// Whether the cells of a level take several tables, whose sums are then kept.
pub(super) const fn joins_tables(level: Level) -> bool {
    level.cell_bits() > TABLE_BITS
}

/// The sum of a table.
pub(super) fn sum_of<M: Measure>(scene: &Scene<'_>, table: u64) -> M::Sum {
    let mut sum = [M::Sum::default()];
    M::table(scene, &scene.table(table), &mut Cells::new(table, TABLE_BITS, &mut sum));
    sum[0]
}

/// Draws cells of a level from 0 on. Of levels that [join tables](joins_tables) it takes the sums that are kept.
/// Gives the moment from which a cell is another one without an event.
pub(super) fn draw<M: Measure>(
    scene: &Scene<'_>,
    level: Level,
    cells: Range<u64>,
    kept: &Kept<M::Sum>,
    out: &mut [u8],
) -> Option<Tick> {
    let bytes = level.bytes(&cells);
    let pages = bytes.start / PAGE..bytes.end / PAGE;
    let mut sums = vec![M::Sum::default(); out.len()];
    let mut summed = Cells::new(cells.start, level.cell_bits(), &mut sums);
    M::stretches(scene, &mut summed);
    for &table in scene.tables(&pages) {
        if joins_tables(level) {
            if let (Some(part), Some(sum)) = (kept.get(table), summed.at(table_pages(table).start * PAGE)) {
                M::join(sum, part);
            }
        } else {
            M::table(scene, &scene.table(table), &mut summed);
        }
    }
    let mut changes: Option<Tick> = None;
    for (cell, sum) in out.iter_mut().zip(&sums) {
        let (value, until) = M::value(scene, sum, level.cell_bytes());
        *cell = value;
        changes = [changes, until].into_iter().flatten().min();
    }
    changes
}
