//! Which parts of which blocks lie in each cell.

use std::ops::Range;

/// Goes over ranges of memory, upwards by their starts, and says for each of the cells `first..end` of 2^`bits` bytes what
/// lies in it: `emit` gets runs of cells with the same parts in all of them, each with its bytes a cell. Cells in which
/// nothing lies are passed over.
pub(super) fn sweep<T: Copy>(
    ranges: &[(Range<u64>, T)],
    cells: Range<u64>,
    bits: u32,
    mut emit: impl FnMut(Range<u64>, &[(u64, T)]),
) {
    // Those that go on into the next cell, by their ends.
    let mut open: Vec<(u64, T)> = Vec::new();
    let mut parts: Vec<(u64, T)> = Vec::new();
    let mut next = 0;
    let mut cell = cells.start;
    while cell < cells.end {
        let (start, end) = (cell << bits, (cell + 1) << bits);
        parts.clear();
        open.retain(|&(until, of)| {
            parts.push((until.min(end) - start, of));
            until > end
        });
        while let Some((range, of)) = ranges.get(next).filter(|(range, _)| range.start < end) {
            next += 1;
            if range.end > start && !range.is_empty() {
                parts.push((range.end.min(end) - range.start.max(start), *of));
                if range.end > end {
                    open.push((range.end, *of));
                }
            }
        }
        if !parts.is_empty() {
            emit(cell..cell + 1, &parts);
        }
        cell += 1;
        // Up to where the next one begins or the first of these ends, all cells are alike.
        let begins = ranges.get(next).map_or(cells.end, |(range, _)| range.start >> bits).min(cells.end);
        let alike = open.iter().map(|(until, _)| until >> bits).min().unwrap_or(begins).min(begins);
        if alike > cell {
            if !open.is_empty() {
                parts.clear();
                parts.extend(open.iter().map(|&(_, of)| (1_u64 << bits, of)));
                emit(cell..alike, &parts);
                open.retain(|&(until, _)| until > alike << bits);
            }
            cell = alike;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_look_at_every_cell(
            mut ranges in prop::collection::vec((0..600_u64, 0..200_u64), 0..30),
            cells in (0..30_u64, 0..40_u64),
            bits in 2..6_u32,
        ) {
            ranges.sort_unstable();
            let ranges: Vec<(Range<u64>, usize)> =
                ranges.iter().enumerate().map(|(at, &(start, size))| (start..start + size, at)).collect();
            let cells = cells.0..cells.0 + cells.1;
            let mut told = vec![Vec::new(); cells.end as usize];
            sweep(&ranges, cells.clone(), bits, |run, parts| {
                for cell in run {
                    assert!(cells.contains(&cell) && told[cell as usize].is_empty());
                    told[cell as usize] = parts.to_vec();
                }
            });
            for cell in cells {
                let (start, end) = (cell << bits, (cell + 1) << bits);
                let parts = ranges.iter().map(|(range, of)| (range.end.min(end).saturating_sub(range.start.max(start)), *of));
                let expected: Vec<(u64, usize)> = parts.filter(|(bytes, _)| *bytes > 0).collect();
                let mut told = told[cell as usize].clone();
                told.sort_unstable_by_key(|part| part.1);
                prop_assert_eq!(told, expected);
            }
        }
    }
}
