//! An arena's lists of free chunks.

use super::chunks::{Chunks, Id, NONE, State};
use std::collections::BTreeMap;

/// Chunks of this size and larger are kept in bins of many sizes.
pub(super) const LARGE: u64 = 1024;
/// The bin of chunks that have not been sorted yet.
pub(super) const UNSORTED: u8 = 1;

/// The bin of a size; bins of chunks below [`LARGE`] hold one size each.
#[inline]
pub(super) fn bin_of(size: u64) -> u8 {
    let bin = match size {
        0..LARGE => size >> 4,
        _ if size >> 6 <= 48 => 48 + (size >> 6),
        _ if size >> 9 <= 20 => 91 + (size >> 9),
        _ if size >> 12 <= 10 => 110 + (size >> 12),
        _ if size >> 15 <= 4 => 119 + (size >> 15),
        _ if size >> 18 <= 2 => 124 + (size >> 18),
        _ => 126,
    };
    bin as u8
}

/// A list, the newest chunk first.
#[derive(Clone, Copy, Debug)]
struct List {
    first: Id,
    last: Id,
}

impl List {
    const EMPTY: Self = Self { first: NONE, last: NONE };

    fn push(&mut self, chunks: &mut Chunks, id: Id) {
        (chunks[id].newer, chunks[id].older) = (NONE, self.first);
        match self.first {
            NONE => self.last = id,
            first => chunks[first].newer = id,
        }
        self.first = id;
    }

    /// Puts a chunk second.
    fn push_second(&mut self, chunks: &mut Chunks, id: Id) {
        let (first, second) = (self.first, chunks[self.first].older);
        (chunks[id].newer, chunks[id].older) = (first, second);
        chunks[first].older = id;
        match second {
            NONE => self.last = id,
            second => chunks[second].newer = id,
        }
    }

    fn remove(&mut self, chunks: &mut Chunks, id: Id) {
        let (newer, older) = (chunks[id].newer, chunks[id].older);
        match newer {
            NONE => self.first = older,
            newer => chunks[newer].older = older,
        }
        match older {
            NONE => self.last = newer,
            older => chunks[older].newer = newer,
        }
    }
}

/// The unsorted list, the small bins and the large ones.
#[derive(Clone, Debug)]
pub(super) struct Bins {
    lists: [List; 64],
    /// Which of the small bins hold something.
    small: u64,
    /// Chunks of large bins by size.
    large: BTreeMap<u64, List>,
    /// Bytes of all.
    bytes: u64,
}

impl Bins {
    pub(super) const fn new() -> Self {
        Self { lists: [List::EMPTY; 64], small: 0, large: BTreeMap::new(), bytes: 0 }
    }

    /// The oldest unsorted chunk, and whether it is the only one.
    #[inline]
    pub(super) fn oldest_unsorted(&self) -> Option<(Id, bool)> {
        let list = &self.lists[usize::from(UNSORTED)];
        (list.last != NONE).then_some((list.last, list.first == list.last))
    }

    /// Puts a chunk among the unsorted ones.
    #[inline]
    pub(super) fn add_unsorted(&mut self, chunks: &mut Chunks, id: Id) {
        (chunks[id].state, chunks[id].bin) = (State::Free, UNSORTED);
        self.bytes += chunks[id].size;
        self.lists[usize::from(UNSORTED)].push(chunks, id);
    }

    /// Puts a chunk into the bin of its size.
    #[inline]
    pub(super) fn add(&mut self, chunks: &mut Chunks, id: Id) {
        let size = chunks[id].size;
        let bin = bin_of(size);
        (chunks[id].state, chunks[id].bin) = (State::Free, bin);
        self.bytes += size;
        if size < LARGE {
            self.small |= 1 << bin;
            self.lists[usize::from(bin)].push(chunks, id);
        } else {
            let group = self.large.entry(size).or_insert(List::EMPTY);
            if group.first == NONE { group.push(chunks, id) } else { group.push_second(chunks, id) }
        }
    }

    /// Takes a free chunk out of its list.
    #[inline]
    pub(super) fn remove(&mut self, chunks: &mut Chunks, id: Id) {
        let (size, bin) = (chunks[id].size, chunks[id].bin);
        if bin < 64 {
            let list = &mut self.lists[usize::from(bin)];
            list.remove(chunks, id);
            if list.first == NONE {
                self.small &= !(1 << bin);
            }
        } else if let Some(group) = self.large.get_mut(&size) {
            group.remove(chunks, id);
            if group.first == NONE {
                self.large.remove(&size);
            }
        }
        self.bytes -= size;
        chunks[id].state = State::Used;
    }

    /// Bytes of all free chunks.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest chunk of a small bin.
    #[inline]
    pub(super) fn small(&self, size: u64) -> Option<Id> {
        let last = self.lists[(size >> 4) as usize].last;
        (last != NONE).then_some(last)
    }

    /// The best fit for a size in the sorted bins, as glibc looks for it when the bin of that very size, if small,
    /// was found empty.
    pub(super) fn best_fit(&self, chunks: &Chunks, size: u64) -> Option<Id> {
        if size < LARGE {
            let larger = self.small & (!0 << (size >> 4)) & !(1 << (size >> 4)) & !0b11;
            if larger != 0 {
                return Some(self.lists[larger.trailing_zeros() as usize].last);
            }
        }
        let (&found, group) = self.large.range(size..).next()?;
        // In the bin of the size the second of equals is taken, so that the first stays where it stands for them.
        Some(match chunks[group.first].older {
            second if second != NONE && size >= LARGE && bin_of(found) == bin_of(size) => second,
            _ if size >= LARGE && bin_of(found) == bin_of(size) => group.first,
            _ => group.last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fall_into_the_bins_that_glibc_has() {
        let pairs = [(32, 2), (1008, 63), (1024, 64), (1087, 64), (1088, 65), (3072, 96), (3136, 97), (3584, 98)];
        let more =
            [(10752, 112), (11264, 112), (12288, 113), (45056, 120), (163_840, 124), (524_288, 126), (1 << 40, 126)];
        for (size, bin) in pairs.into_iter().chain(more) {
            assert_eq!(bin_of(size), bin, "{size}");
        }
    }
}
