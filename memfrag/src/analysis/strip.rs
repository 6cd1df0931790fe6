//! How full a heap was, by address and over time: fragmentation as a picture.

use crate::heap::{PageRun, Pages};
use crate::target::residency::PAGE;
use std::collections::{BTreeMap, BTreeSet};

/// A strip is coarsened until it has no more rows.
const MOST_ROWS: usize = 128;
/// Base-2 logarithm of the bytes of a row at first.
const FIRST_BITS: u32 = 16;

/// Bytes that live blocks took, by row number.
type Column = BTreeMap<u64, u64>;

/// Occupancy of a heap's addresses at several times.
///
/// A row is a power of two of bytes of address space; rows that never held a block are left out, so a heap in several
/// places makes one picture. Where there would be too many rows, all become twice as large.
#[derive(Clone, Debug)]
pub struct Strip {
    bits: u32,
    columns: Vec<(u64, Column)>,
    rows: BTreeSet<u64>,
}

impl Default for Strip {
    fn default() -> Self {
        Self { bits: FIRST_BITS, columns: Vec::new(), rows: BTreeSet::new() }
    }
}

impl Strip {
    /// Looks at the pages at a time, in nanoseconds since the trace began. Times rise.
    pub fn look(&mut self, time: u64, pages: &Pages) {
        self.columns.push((time, Column::new()));
        for run in pages.runs(0..u64::MAX) {
            self.enter(&run);
        }
    }

    fn enter(&mut self, run: &PageRun) {
        let (start, end) = (run.address, run.address.saturating_add(run.pages * PAGE));
        while ((end - 1) >> self.bits) - (start >> self.bits) >= MOST_ROWS as u64 {
            self.coarsen();
        }
        let mut at = start;
        while at < end {
            let row = at >> self.bits;
            // The last row ends where addresses do.
            let next = (at | (self.row_bytes() - 1)).saturating_add(1).min(end);
            if let Some((_, column)) = self.columns.last_mut() {
                let bytes = column.entry(row).or_default();
                *bytes = bytes.saturating_add(run.each.bytes.saturating_mul((next - at).div_ceil(PAGE)));
            }
            self.rows.insert(row);
            at = next;
        }
        while self.rows.len() > MOST_ROWS {
            self.coarsen();
        }
    }

    /// Makes the rows twice as large.
    fn coarsen(&mut self) {
        self.bits += 1;
        for (_, column) in &mut self.columns {
            let finer = std::mem::take(column);
            for (row, bytes) in finer {
                let both = column.entry(row >> 1).or_default();
                *both = both.saturating_add(bytes);
            }
        }
        self.rows = self.rows.iter().map(|row| row >> 1).collect();
    }

    /// Bytes of address space that a row stands for.
    pub fn row_bytes(&self) -> u64 {
        1 << self.bits
    }

    /// Where the rows begin, upwards.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.rows.iter().map(|row| row << self.bits)
    }

    /// The times, and the bytes that live blocks took of each row then.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (u64, Vec<u64>)> + '_ {
        let of = |column: &Column| self.rows.iter().map(|row| column.get(row).copied().unwrap_or(0)).collect();
        self.columns.iter().map(move |(time, column)| (*time, of(column)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::{Block, Footprint, OriginId};

    fn pages(blocks: &[(u64, u64)]) -> Pages {
        let block = |&(addr, size)| Block { addr, size, time: 0, thread: 1, origin: OriginId::new(0) };
        Pages::of(Footprint::Requested, blocks.iter().map(block))
    }

    #[test]
    fn every_byte_is_in_one_row() {
        let mut strip = Strip::default();
        strip.look(5, &pages(&[(0x10_0000, 100), (0x10_fff0, 32), (0x7f00_0000_0000, 0x2_0000)]));
        strip.look(9, &pages(&[(0x10_0000, 7)]));
        assert_eq!(strip.row_bytes(), 0x1_0000);
        assert_eq!(strip.rows().collect::<Vec<_>>(), [0x10_0000, 0x11_0000, 0x7f00_0000_0000, 0x7f00_0001_0000]);
        let columns: Vec<_> = strip.columns().collect();
        assert_eq!(columns, [(5, vec![116, 16, 0x1_0000, 0x1_0000]), (9, vec![7, 0, 0, 0])]);
    }

    #[test]
    fn the_last_addresses_are_in_a_row_too() {
        let mut strip = Strip::default();
        strip.look(1, &pages(&[(u64::MAX - 99, 99)]));
        assert_eq!(strip.columns().collect::<Vec<_>>(), [(1, vec![99])]);
    }

    #[test]
    fn too_many_rows_become_coarser_and_lose_nothing() {
        let mut strip = Strip::default();
        strip.look(1, &pages(&[(0x10_0000, 64)]));
        let scattered: Vec<_> = (0..1000).map(|at| (0x5000_0000 + at * 0x30_0000, 48)).collect();
        strip.look(2, &pages(&scattered));
        strip.look(3, &pages(&[(0x7f00_0000_0000, 1 << 40)]));
        assert!(strip.rows().len() <= MOST_ROWS);
        let sums: Vec<u64> = strip.columns().map(|(_, bytes)| bytes.iter().sum()).collect();
        assert_eq!(sums, [64, 48_000, 1 << 40]);
    }
}
