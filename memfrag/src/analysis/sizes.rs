//! Live blocks by their sizes, and by whatever else tells them apart: threads, call sites.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

/// The largest size of the first class; each of the others ends at twice the one before.
const FIRST: u64 = 8;
/// Size classes, the last one open.
pub const CLASSES: usize = 46;

/// The class of a requested size.
pub fn class(size: u64) -> usize {
    let doublings = size.max(1).div_ceil(FIRST).checked_next_power_of_two().map_or(64, u64::trailing_zeros);
    (doublings as usize).min(CLASSES - 1)
}

/// The smallest size of a class.
pub const fn lower(class: usize) -> u64 {
    if class == 0 { 0 } else { (FIRST << (class - 1)) + 1 }
}

/// How many blocks, and their requested bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Blocks.
    pub blocks: u64,
    /// Bytes requested for them.
    pub bytes: u64,
}

impl Cell {
    fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.bytes += other.bytes;
    }
}

/// The blocks of one owner by size.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// All of them.
    pub all: Cell,
    /// By class.
    pub each: [Cell; CLASSES],
}

impl Row {
    const EMPTY: Self = Self { all: Cell { blocks: 0, bytes: 0 }, each: [Cell { blocks: 0, bytes: 0 }; CLASSES] };
}

/// Blocks by owner and size.
#[derive(Clone, Debug)]
pub struct Rows<K>(HashMap<K, Box<Row>>);

impl<K> Default for Rows<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash + Ord> Rows<K> {
    /// Counts a block.
    pub fn enter(&mut self, of: K, size: u64) {
        let row = self.0.entry(of).or_insert_with(|| Box::new(Row::EMPTY));
        let block = Cell { blocks: 1, bytes: size };
        row.all.add(block);
        row.each[class(size)].add(block);
    }

    /// The `most` rows with most bytes, these first; the others in one under `None`, if there are others.
    pub fn largest(self, most: usize) -> Vec<(Option<K>, Box<Row>)> {
        let mut rows: Vec<(K, Box<Row>)> = self.0.into_iter().collect();
        rows.sort_unstable_by_key(|(of, row)| (Reverse(row.all.bytes), *of));
        let rest = rows.split_off(most.min(rows.len()));
        let mut rows: Vec<_> = rows.into_iter().map(|(of, row)| (Some(of), row)).collect();
        if !rest.is_empty() {
            let mut others = Box::new(Row::EMPTY);
            for (_, row) in rest {
                others.all.add(row.all);
                others.each.iter_mut().zip(row.each).for_each(|(sum, cell)| sum.add(cell));
            }
            rows.push((None, others));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_beyond_the_largest_are_one() {
        let mut rows = Rows::default();
        for (of, size) in [(1, 100), (2, 8), (2, 8), (3, 9), (4, 200)] {
            rows.enter(of, size);
        }
        let rows = rows.largest(2);
        assert_eq!(rows.iter().map(|(of, _)| *of).collect::<Vec<_>>(), [Some(4), Some(1), None]);
        let others = &rows[2].1;
        assert_eq!(others.each[..2], [Cell { blocks: 2, bytes: 16 }, Cell { blocks: 1, bytes: 9 }]);
        assert_eq!(others.all, Cell { blocks: 3, bytes: 25 });
    }

    #[test]
    fn classes_follow_one_another() {
        assert_eq!((class(0), class(8), class(9), class(16), class(17)), (0, 0, 1, 1, 2));
        for at in 1..CLASSES {
            assert_eq!((class(lower(at) - 1), class(lower(at))), (at - 1, at));
        }
        assert_eq!(class(u64::MAX), CLASSES - 1);
    }
}
