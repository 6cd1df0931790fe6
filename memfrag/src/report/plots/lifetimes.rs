//! How long freed blocks have lived, by the thread that allocated them.

use super::Plot;
use super::heatmap::{Heatmap, by_logarithm};
use crate::heap::{Heap, Lifetimes};
use crate::report::units;
use std::cmp::Reverse;
use std::fmt::Write as _;

/// Threads that are drawn, those with most freed blocks.
const THREADS: usize = 24;

/// `None` where nothing was freed, or lifetimes were not counted.
pub(super) fn draw(heap: &Heap) -> Option<Plot> {
    let lifetimes = heap.lifetimes()?;
    let mut rows: Vec<(u32, &[u64])> = lifetimes.rows().collect();
    rows.sort_by_key(|(_, freed)| Reverse(freed.iter().sum::<u64>()));
    let left_out = rows.split_off(THREADS.min(rows.len()));
    let first = rows.iter().filter_map(|(_, freed)| freed.iter().position(|&count| count > 0)).min()?;
    let last = rows.iter().filter_map(|(_, freed)| freed.iter().rposition(|&count| count > 0)).max()?;
    let most = rows.iter().flat_map(|(_, freed)| freed.iter().copied()).max()?;
    let bounds: Vec<u64> = Lifetimes::bounds().collect();
    let classes = first.saturating_sub(1)..=(last + 1).min(bounds.len() - 1);
    let title = "How long freed blocks have lived";
    let mut words =
        "Blocks by the thread that allocated them and by the time until they were freed. Many that die young \
                     beside a few that stay are how holes come about."
            .to_owned();
    if !left_out.is_empty() {
        let others = units::plural(left_out.len() as u64, "thread", "threads");
        let _ = write!(words, " {others} with fewer are left out.");
    }
    let every = classes.clone().count().div_ceil(12).max(1);
    let name = |thread: u32| if thread == 0 { "other threads".to_owned() } else { format!("thread {thread}") };
    let map = Heatmap {
        title,
        rows: rows.iter().map(|&(thread, _)| Some(name(thread))).collect(),
        row_height: 22,
        marks: classes
            .clone()
            .enumerate()
            .step_by(every)
            .map(|(column, at)| (column, units::duration(bounds[at])))
            .collect(),
        across: "time between allocation and free",
        cells: rows
            .iter()
            .map(|(_, freed)| freed[classes.clone()].iter().map(|&count| by_logarithm(count, most)).collect())
            .collect(),
        scale: ("1 block".into(), units::plural(most, "block", "blocks")),
    };
    Some(Plot { name: "lifetimes", title, words, svg: map.svg()? })
}
