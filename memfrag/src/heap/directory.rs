//! Finds pieces of an address space by their numbers.

use super::hash::BuildWordHasher;
use hashbrown::HashMap;

/// Places that are remembered at first. A heap of a gigabyte in pieces of 2 MiB has each at a place of its own.
const RECENT: usize = 512;

/// Pieces of an address space, found by their numbers.
///
/// Most look-ups are for a piece that was looked up not long before: its place is remembered under the low bits of its
/// number, and the map need not be asked. The places are remembered from the second look-up to change something on:
/// a directory that is only read, or hardly used, does not pay for them. There is room for as many as there are
/// pieces: neighbours, of which a heap mostly consists, never take each other's place.
#[derive(Debug)]
pub(super) struct Directory<T> {
    pieces: Vec<(u64, T)>,
    places: HashMap<u64, u32, BuildWordHasher>,
    /// Empty, or a power of two.
    recent: Box<[u32]>,
}

impl<T> Default for Directory<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), places: HashMap::default(), recent: Box::default() }
    }
}

impl<T> Directory<T> {
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    #[inline]
    fn recent(&self, number: u64) -> Option<usize> {
        let place = *self.recent.get(number as usize & self.recent.len().wrapping_sub(1))? as usize;
        self.pieces.get(place).is_some_and(|piece| piece.0 == number).then_some(place)
    }

    #[inline]
    fn place(&self, number: u64) -> Option<usize> {
        self.recent(number).or_else(|| self.places.get(&number).map(|&place| place as usize))
    }

    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        self.place(number).map(|place| &self.pieces[place].1)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = match self.recent(number) {
            Some(place) => place,
            None => self.recall(number)?,
        };
        Some(&mut self.pieces[place].1)
    }

    /// The piece, which is made first if there is none.
    #[inline]
    pub(super) fn get_or_insert_with(&mut self, number: u64, make: impl FnOnce() -> T) -> &mut T {
        let place = match self.recent(number) {
            Some(place) => place,
            None => match self.recall(number) {
                Some(place) => place,
                None => self.insert(number, make()),
            },
        };
        &mut self.pieces[place].1
    }

    /// Looks a place up and remembers it.
    #[cold]
    fn recall(&mut self, number: u64) -> Option<usize> {
        let &place = self.places.get(&number)?;
        if self.recent.len() < self.pieces.len().max(RECENT) {
            self.remember();
        }
        let at = number as usize & (self.recent.len() - 1);
        self.recent[at] = place;
        Some(place as usize)
    }

    /// Makes room for the places of all pieces, with as much to spare as there may be until the next time.
    fn remember(&mut self) {
        let room = (self.pieces.len() * 2).next_power_of_two().max(RECENT);
        self.recent = vec![0; room].into();
        for (place, (number, _)) in (0..).zip(&self.pieces) {
            self.recent[*number as usize & (room - 1)] = place;
        }
    }

    fn insert(&mut self, number: u64, piece: T) -> usize {
        let place = self.pieces.len();
        self.pieces.push((number, piece));
        self.places.insert(number, place as u32);
        let at = number as usize & self.recent.len().wrapping_sub(1);
        if let Some(recent) = self.recent.get_mut(at) {
            *recent = place as u32;
        }
        place
    }

    /// Gives up what only makes further changes quick: none are to be expected.
    pub(super) fn rest(&mut self) {
        self.recent = Box::default();
        self.pieces.shrink_to_fit();
    }

    /// Keeps only some pieces.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let pieces = std::mem::take(self).pieces;
        *self =
            pieces.into_iter().filter_map(|(number, mut piece)| keep(&mut piece).then_some((number, piece))).collect();
    }

    /// All pieces with their numbers, in the order in which they were made.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.pieces.iter().map(|(number, piece)| (*number, piece))
    }

    /// As [`Self::iter`], to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.pieces.iter_mut().map(|(number, piece)| (*number, piece))
    }

    /// Bytes of memory that it takes, what the pieces own aside.
    pub(super) fn memory_bytes(&self) -> usize {
        let recent = size_of_val(&*self.recent);
        self.pieces.capacity() * size_of::<(u64, T)>() + self.places.allocation_size() + recent
    }
}

/// Each number must occur once.
impl<T> FromIterator<(u64, T)> for Directory<T> {
    fn from_iter<I: IntoIterator<Item = (u64, T)>>(pieces: I) -> Self {
        let mut directory = Self::default();
        for (number, piece) in pieces {
            directory.insert(number, piece);
        }
        directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Numbers that fall on the same remembered places, pieces that come and go: as a map has them.
        #[test]
        fn equals_a_map(steps in prop::collection::vec((0..5_u64, 0..3_u64, 0..5_u8), 1..200)) {
            let mut directory = Directory::default();
            let mut oracle = BTreeMap::new();
            for (at, (low, high, what)) in (0_u64..).zip(steps) {
                let number = high * RECENT as u64 + low;
                match what {
                    0 | 1 => {
                        *directory.get_or_insert_with(number, || 0) += at;
                        *oracle.entry(number).or_insert(0) += at;
                    }
                    3 => directory.rest(),
                    2 => prop_assert_eq!(directory.get_mut(number), oracle.get_mut(&number)),
                    _ => {
                        directory.retain(|piece| *piece % 3 > 0);
                        oracle.retain(|_, piece| *piece % 3 > 0);
                    }
                }
                prop_assert_eq!(directory.len(), oracle.len());
                for number in (0..15).map(|n| n / 5 * RECENT as u64 + n % 5) {
                    prop_assert_eq!(directory.get(number), oracle.get(&number));
                }
            }
            let mut all: Vec<(u64, u64)> = directory.iter().map(|(number, piece)| (number, *piece)).collect();
            all.sort_unstable();
            prop_assert_eq!(all, oracle.into_iter().collect::<Vec<_>>());
        }
    }
}
