//! Live blocks by thread and size.

use super::Plot;
use super::heatmap::{Heatmap, by_logarithm};
use crate::analysis::sizes::{Cell, Rows, lower};
use crate::heap::Heap;
use crate::report::units;

/// Threads with a row of their own; the others share one.
const THREADS: usize = 24;

/// `None` where nothing is live.
pub(super) fn draw(heap: &Heap) -> Option<Plot> {
    let mut rows = Rows::default();
    heap.blocks().iter().for_each(|block| rows.enter(block.thread, block.size));
    let rows = rows.largest(THREADS);
    let holds = |cell: &Cell| cell.blocks > 0;
    let first = rows.iter().filter_map(|(_, row)| row.each.iter().position(holds)).min()?;
    let last = rows.iter().filter_map(|(_, row)| row.each.iter().rposition(holds)).max()?;
    // A column beside the outermost ones, so that these are seen to be the outermost.
    let classes = first.saturating_sub(1)..=(last + 1).min(crate::analysis::sizes::CLASSES - 1);
    let most = rows.iter().flat_map(|(_, row)| row.each).map(|cell| cell.bytes).max()?;
    let title = "Live blocks by thread and size";
    let words = "Requested bytes that are live at the end, by the thread that allocated them and by size: a column holds the \
                 sizes up to its right mark, from above its left one. Each step of the colour is several times the one before."
        .to_owned();
    let every = classes.clone().count().div_ceil(12).max(1);
    let marks = classes.clone().enumerate().step_by(every);
    let map = Heatmap {
        title,
        rows: rows
            .iter()
            .map(|(thread, _)| Some(thread.map_or("other threads".into(), |tid| format!("thread {tid}"))))
            .collect(),
        row_height: 22,
        marks: marks.map(|(column, class)| (column, units::bytes(lower(class).saturating_sub(1)))).collect(),
        across: "requested size",
        cells: rows
            .iter()
            .map(|(_, row)| row.each[classes.clone()].iter().map(|cell| by_logarithm(cell.bytes, most)).collect())
            .collect(),
        scale: ("1 B".into(), units::bytes(most)),
    };
    Some(Plot { name: "sizes", title, words, svg: map.svg()? })
}
