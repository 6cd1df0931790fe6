//! How long freed blocks have lived, by the threads that allocated them.

use super::hash::BuildWordHasher;
use crate::recording::{Count, Input, Saved, put};
use hashbrown::HashMap;

/// Classes of lifetimes: the first up to a microsecond, each of the others twice as long, the last one open.
const CLASSES: usize = 36;
/// Base-2 logarithm of the nanoseconds at which the first class ends.
const FIRST_LOG2: u32 = 10;
/// Threads with a row of their own. Those that come later share one under thread 0.
const THREADS: usize = 255;

/// How many blocks were freed after how long, by the threads that allocated them.
///
/// Counted where [it is asked for](super::Heaps::count_lifetimes). A block that was resized has ended, and a new one
/// begun.
#[derive(Clone, Debug, Default)]
pub struct Lifetimes {
    rows: Vec<(u32, [u64; CLASSES])>,
    places: HashMap<u32, u32, BuildWordHasher>,
    /// The row that was counted in last.
    last: usize,
}

impl Lifetimes {
    /// Where the classes begin, in nanoseconds.
    pub fn bounds() -> impl Iterator<Item = u64> {
        (0..CLASSES as u32).map(|class| if class == 0 { 0 } else { 1 << (FIRST_LOG2 + class - 1) })
    }

    /// The threads, and how many of their blocks were freed in each class.
    pub fn rows(&self) -> impl Iterator<Item = (u32, &[u64])> {
        self.rows.iter().map(|(thread, freed)| (*thread, &freed[..]))
    }

    /// A block of a thread was freed after so many nanoseconds.
    #[inline]
    pub(super) fn count(&mut self, thread: u32, lived: u64) {
        if self.rows.get(self.last).is_none_or(|row| row.0 != thread) {
            self.last = self.row(thread);
        }
        let class = (lived >> FIRST_LOG2).checked_ilog2().map_or(0, |log2| log2 as usize + 1);
        self.rows[self.last].1[class.min(CLASSES - 1)] += 1;
    }

    fn row(&mut self, thread: u32) -> usize {
        let Self { rows, places, .. } = self;
        let place = places.get(&thread).copied().unwrap_or_else(|| {
            let thread = if rows.len() < THREADS { thread } else { 0 };
            *places.entry(thread).or_insert_with(|| {
                rows.push((thread, [0; CLASSES]));
                rows.len() as u32 - 1
            })
        });
        place as usize
    }
}

impl Saved for Lifetimes {
    fn save(&self, out: &mut Vec<u8>) {
        put(out, self.rows.len() as u64);
        for (thread, freed) in &self.rows {
            thread.save(out);
            for count in freed {
                Count::save(count, out);
            }
        }
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        let mut lifetimes = Self::default();
        let rows = input.varint().filter(|&rows| rows <= THREADS as u64 + 1)?;
        for at in 0..rows as u32 {
            let thread = u32::load(input)?;
            let mut freed = [0; CLASSES];
            for count in &mut freed {
                *count = Count::load(input)?;
            }
            if lifetimes.places.insert(thread, at).is_some() {
                return None;
            }
            lifetimes.rows.push((thread, freed));
        }
        Some(lifetimes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_free_is_in_the_class_that_its_lifetime_begins() {
        let mut lifetimes = Lifetimes::default();
        let bounds: Vec<u64> = Lifetimes::bounds().collect();
        for (class, &bound) in bounds.iter().enumerate() {
            lifetimes.count(7, bound);
            lifetimes.count(8, bounds.get(class + 1).map_or(u64::MAX, |next| next - 1));
        }
        let rows: Vec<(u32, Vec<u64>)> = lifetimes.rows().map(|(thread, freed)| (thread, freed.to_vec())).collect();
        assert_eq!(rows, [(7, vec![1; CLASSES]), (8, vec![1; CLASSES])]);
    }

    #[test]
    fn threads_beyond_a_number_share_a_row() {
        let mut lifetimes = Lifetimes::default();
        (1..=1000).for_each(|thread| lifetimes.count(thread, 0));
        (1..=1000).for_each(|thread| lifetimes.count(thread, 0));
        assert_eq!(lifetimes.rows().count(), THREADS + 1);
        let shared = lifetimes.rows().find(|row| row.0 == 0).expect("there were too many").1[0];
        assert_eq!(shared, 2 * (1000 - THREADS as u64));
    }
}
