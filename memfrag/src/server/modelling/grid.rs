//! A heap as at most some thousand cells of one size, gaps between what it holds left out.

use crate::server::tiles::share;
use serde::{Serialize, Serializer};
use std::ops::Range;

/// Cells of a grid, at most: 64 rows of 64.
pub(super) const MOST_CELLS: u64 = 4096;
/// The smallest cell.
const LEAST_BYTES: u64 = 64;
/// Nothing takes the cell, and it is held.
const HELD: u8 = 1;
/// The values above tell how much of a cell is taken, as on the map.
const TAKEN: u8 = 3;

/// The addresses that a heap holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis(Vec<Range<u64>>);

impl Axis {
    /// Ranges that rise.
    pub(super) fn new(held: Vec<Range<u64>>) -> Self {
        Self(held)
    }

    /// Its cells of a size, as runs of their numbers upwards, none touching the next.
    fn cells(&self, bytes: u64) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for range in self.0.iter().filter(|range| !range.is_empty()) {
            let cells = range.start / bytes..(range.end - 1) / bytes + 1;
            match runs.last_mut() {
                Some(last) if last.end >= cells.start => last.end = last.end.max(cells.end),
                _ => runs.push(cells),
            }
        }
        runs
    }
}

/// The smallest size of cells at which none of the axes has too many of them.
pub(super) fn cell_bytes(axes: [&Axis; 2]) -> u64 {
    let fits = |axis: &Axis, bytes| axis.cells(bytes).iter().map(|run| run.end - run.start).sum::<u64>() <= MOST_CELLS;
    let mut bytes = LEAST_BYTES;
    while !axes.iter().all(|axis| fits(axis, bytes)) {
        bytes *= 2;
    }
    bytes
}

/// The cells' values. As JSON they are a text in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid(Vec<u8>);

impl Grid {
    /// Of the parts of an axis that places take, which are in the order of their beginnings.
    pub(super) fn new(axis: &Axis, places: &[Range<u64>], bytes: u64) -> Self {
        let mut taken: Vec<u64> = Vec::new();
        let mut places = places.iter().peekable();
        // A place may reach into the next run.
        let mut open: Option<Range<u64>> = None;
        for run in axis.cells(bytes) {
            let first = taken.len();
            taken.resize(first + (run.end - run.start) as usize, 0);
            let addresses = run.start * bytes..run.end.saturating_mul(bytes);
            let mut at = addresses.start;
            while let Some(place) = open.take().or_else(|| places.next_if(|place| place.start < addresses.end).cloned())
            {
                let (start, end) = (place.start.max(at), place.end.min(addresses.end));
                if start < end {
                    for cell in start / bytes..=(end - 1) / bytes {
                        let part = end.min((cell + 1).saturating_mul(bytes)) - start.max(cell * bytes);
                        taken[first + (cell - run.start) as usize] += part;
                    }
                    // What overlaps counts once.
                    at = end;
                }
                if place.end > addresses.end {
                    open = Some(place);
                    break;
                }
            }
        }
        Self(taken.into_iter().map(|taken| value(taken, bytes)).collect())
    }
}

fn value(taken: u64, bytes: u64) -> u8 {
    if taken == 0 { HELD } else { TAKEN + share(252, taken, bytes) }
}

impl Serialize for Grid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64(&self.0))
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let at = word >> (18 - 6 * digit) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[at as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (bytes, text) in pairs {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[255, 254, 253]), "//79");
    }

    #[test]
    fn large_heaps_have_large_cells() {
        let packed = |bytes| Axis::new(std::iter::once(0..bytes).collect());
        let small = packed(4096 * 64);
        assert_eq!(cell_bytes([&small, &small]), 64);
        assert_eq!(cell_bytes([&small, &packed(4096 * 64 + 1)]), 128);
        assert_eq!(cell_bytes([&small, &packed(1 << 40)]), 1 << 28);
        // However many ranges there are, and wherever.
        let scattered = Axis::new((0..100_000).map(|at| at << 44..(at << 44) + 1).collect());
        assert!(scattered.cells(cell_bytes([&scattered, &small])).len() <= MOST_CELLS as usize);
        let none = Axis::new(Vec::new());
        assert_eq!((cell_bytes([&none, &none]), Grid::new(&none, &[], 64)), (64, Grid(Vec::new())));
    }

    proptest! {
        /// Against a look at every byte.
        #[test]
        fn cells_are_those_of_a_look_at_every_byte(
            held in prop::collection::vec((0..300_u64, 1..400_u64), 0..6),
            places in prop::collection::vec((0..2000_u64, 0..300_u64), 0..20),
        ) {
            let mut at = 0;
            let held: Vec<Range<u64>> = held
                .into_iter()
                .map(|(gap, length)| {
                    let start = at + gap;
                    at = start + length;
                    start..at
                })
                .collect();
            let mut places: Vec<Range<u64>> = places.into_iter().map(|(start, length)| start..start + length).collect();
            places.sort_unstable_by_key(|place| place.start);
            let bytes = 64;
            let mut expected = Vec::new();
            for cell in 0..80_u64 {
                let addresses = cell * bytes..(cell + 1) * bytes;
                if held.iter().any(|range| range.start < addresses.end && range.end > addresses.start) {
                    let taken = addresses.filter(|byte| places.iter().any(|place| place.contains(byte))).count();
                    expected.push(value(taken as u64, bytes));
                }
            }
            prop_assert_eq!(Grid::new(&Axis::new(held), &places, bytes), Grid(expected));
        }
    }
}
