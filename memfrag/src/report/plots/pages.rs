//! How full the addresses were over time.

use super::Plot;
use super::heatmap::{Heatmap, by_share};
use crate::analysis::strip::Strip;
use crate::report::units;

/// Pixels of all rows together, as far as whole pixels for each allow.
const HEIGHT: i32 = 420;
/// A row is named where its range begins, and after so many others.
const NAMED: usize = 16;
/// Marks of time.
const MARKS: usize = 6;

/// Low addresses lie below. `None` where nothing was seen.
pub(super) fn draw(strip: &Strip) -> Option<Plot> {
    let starts: Vec<u64> = strip.rows().collect();
    let (times, columns): (Vec<u64>, Vec<Vec<u64>>) = strip.columns().unzip();
    if starts.is_empty() || times.len() < 2 {
        return None;
    }
    let bytes = strip.row_bytes();
    let row = |row: usize| columns.iter().map(|column| by_share(column[row], bytes)).collect();
    let mut since = NAMED;
    let mut names = Vec::with_capacity(starts.len());
    for (at, start) in starts.iter().enumerate() {
        let begins = at == 0 || starts[at - 1] + bytes != *start;
        // Names of neighbouring rows would lie one on the other.
        let room = since * row_height(starts.len()).unsigned_abs() as usize >= 16;
        let is_named = at == 0 || room && (begins || since >= NAMED);
        since = if is_named { 1 } else { since + 1 };
        names.push(is_named.then(|| format!("{start:#x}")));
    }
    names.reverse();
    let title = "How full the heap's addresses were";
    let words = format!(
        "Each row is {} of address space, low addresses below; the deeper the colour, the more of it live blocks took. \
         Rows that stay pale to the end hold few blocks each and keep their pages. Address space without a block in all \
         the time is left out.",
        units::bytes(bytes)
    );
    let mark = |mark: usize| {
        let column = mark * (times.len() - 1) / MARKS;
        (column, units::duration(times[column]))
    };
    let map = Heatmap {
        title,
        rows: names,
        row_height: row_height(starts.len()),
        marks: (0..=MARKS).map(mark).collect(),
        across: "time since the trace began",
        cells: (0..starts.len()).rev().map(row).collect(),
        scale: ("almost empty".into(), "full".into()),
    };
    Some(Plot { name: "pages", title, words, svg: map.svg()? })
}

fn row_height(rows: usize) -> i32 {
    let rows = i32::try_from(rows).unwrap_or(i32::MAX);
    (HEIGHT / rows.max(1)).clamp(2, 24)
}
