//! The holes of a free list, in order of address. Everything is in granules here, addresses too.
//!
//! A hole is kept in the [`Word`] in which it begins, as bits, and the words are found through a [`Radix`] tree.

use super::radix::{FAN, Found, Radix};
use super::word::{WORD, Word};
use allocator_api2::alloc::{Allocator, Global};

/// A free range of granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    /// Never 0.
    pub(super) size: u64,
}

impl Run {
    pub(super) const fn end(self) -> u64 {
        self.start + self.size
    }

    /// Where `size` granules, aligned to a power of two of them, lie lowest here; `None` when they do not fit.
    #[inline]
    fn place(self, size: u64, align: u64) -> Option<u64> {
        let place = self.start.next_multiple_of(align);
        (place + size <= self.end()).then_some(place)
    }
}

/// Where a hole is kept. It holds until a hole is changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    leaf: Found,
    place: usize,
    at: u32,
    run: Run,
}

impl Spot {
    #[inline]
    fn new(leaf: Found, place: usize, word: Word, at: u32) -> Self {
        let start = leaf.word(place) * WORD + u64::from(at);
        Self { leaf, place, at, run: Run { start, size: word.length(at) } }
    }

    /// The hole.
    #[inline]
    pub(super) const fn run(&self) -> Run {
        self.run
    }
}

/// The word that a granule is in, and its bit there.
#[inline]
const fn split(granule: u64) -> (u64, u32) {
    (granule / WORD, (granule % WORD) as u32)
}

/// Holes by address. None touches or overlaps another one.
#[derive(Clone, Debug)]
pub(super) struct Holes<A: Allocator = Global> {
    words: Radix<A>,
    len: usize,
}

impl<A: Allocator + Clone> Holes<A> {
    pub(super) fn new_in(tables: A) -> Self {
        Self { words: Radix::new_in(tables), len: 0 }
    }
}

impl<A: Allocator> Holes<A> {
    /// The number of holes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The size of the largest hole, 0 without any.
    pub(super) fn largest(&self) -> u64 {
        self.words.largest()
    }

    /// The leftmost hole, among those that begin at `from` or later, into which an aligned block fits, and where it
    /// would lie. With an alignment above 1 some that are large enough may be passed over one by one.
    #[inline]
    pub(super) fn first_fit(&self, from: u64, size: u64, align: u64) -> Option<(Spot, u64)> {
        if from == 0 && align == 1 && Radix::<A>::tells(size) {
            let (leaf, place) = self.words.first_fit(size)?;
            let word = self.words.word(leaf, place);
            let spot = Spot::new(leaf, place, word, word.first_fit(size)?);
            return Some((spot, spot.run.start));
        }
        self.seek(from, size, align)
    }

    fn seek(&self, from: u64, size: u64, align: u64) -> Option<(Spot, u64)> {
        let (first, bit) = split(from);
        self.words.seek(first, size, |leaf, place, word| {
            let mut at = if leaf.word(place) == first { bit } else { 0 };
            while let Some(start) = word.first_from(at) {
                let spot = Spot::new(leaf, place, word, start);
                if let Some(found) = spot.run.place(size, align) {
                    return Some((spot, found));
                }
                // Behind the last bit there is no hole.
                at = start + 1;
                if u64::from(at) == WORD {
                    break;
                }
            }
            None
        })
    }

    /// The last hole that begins at a granule or before it.
    #[inline]
    pub(super) fn at_or_before(&self, granule: u64) -> Option<Spot> {
        let (word, bit) = split(granule);
        self.upto(self.words.leaf(word), word, bit)
    }

    /// As [`Self::at_or_before`], with the word's leaf if there is one.
    #[inline]
    fn upto(&self, leaf: Option<Found>, word: u64, bit: u32) -> Option<Spot> {
        if let Some(leaf) = leaf {
            let last_of = |word: u64, bit: u32| {
                let place = leaf.place(word)?;
                let found = self.words.word(leaf, place);
                Some(Spot::new(leaf, place, found, found.last_upto(bit)?))
            };
            // Mostly it is in this word or in the one before.
            if let Some(spot) = last_of(word, bit).or_else(|| last_of(word.checked_sub(1)?, 63)) {
                return Some(spot);
            }
        }
        let (leaf, place) = self.words.last_before(word)?;
        let found = self.words.word(leaf, place);
        Some(Spot::new(leaf, place, found, found.last_upto(63)?))
    }

    /// Sends for what tells of the holes around a granule.
    #[inline]
    pub(super) fn send_for(&self, granule: u64) {
        let (word, _) = split(granule);
        if let Some(leaf) = self.words.leaf(word)
            && let Some(place) = leaf.place(word)
        {
            self.words.send_for(leaf, place);
        }
    }

    /// The first hole that begins at a granule or behind it.
    pub(super) fn first_from(&self, granule: u64) -> Option<Spot> {
        self.seek(granule, 1, 1).map(|(spot, _)| spot)
    }

    /// The first hole that begins at `start` or behind it, with the leaf of `start` if there is one. It may be left out
    /// when it begins behind `end`.
    #[inline]
    fn first_within(&self, leaf: Option<Found>, start: u64, end: u64) -> Option<Spot> {
        let ((first, bit), (last, _)) = (split(start), split(end));
        if last > first + 1 {
            return self.first_from(start);
        }
        let first_of = |leaf: Found, word: u64, bit: u32| {
            let place = leaf.place(word)?;
            let found = self.words.word(leaf, place);
            Some(Spot::new(leaf, place, found, found.first_from(bit)?))
        };
        if let Some(spot) = leaf.and_then(|leaf| first_of(leaf, first, bit)) {
            return Some(spot);
        }
        if last == first {
            return None;
        }
        let next = leaf.filter(|leaf| leaf.place(last).is_some()).or_else(|| self.words.leaf(last))?;
        first_of(next, last, 0)
    }

    /// Takes granules out of a hole, in which they are.
    #[inline]
    pub(super) fn carve(&mut self, spot: &Spot, start: u64, size: u64)
    where
        A: Clone,
    {
        let Spot { leaf, place, at, run } = *spot;
        let front = start - run.start;
        let rest = Run { start: start + size, size: run.end() - (start + size) };
        self.len = self.len + usize::from(front > 0) + usize::from(rest.size > 0) - 1;
        let (word, behind) = split(rest.start);
        if word == leaf.word(place) || rest.size == 0 {
            return self.words.shrink(leaf, place, (at, run.size), front, (behind, rest.size));
        }
        // The rest begins in another word. It is put there first, lest the leaf be taken out meanwhile.
        let next = if leaf.place(word).is_some() { leaf } else { self.words.make_leaf(word) };
        self.words.cover(next, word as usize % FAN, behind, rest.size);
        self.words.shrink(leaf, place, (at, run.size), front, (0, 0));
    }

    /// Adds a range, which grows together with the holes that it touches. The hole that it is part of then, `None` if it
    /// overlaps one, and nothing is changed.
    #[inline]
    pub(super) fn release(&mut self, start: u64, size: u64) -> Option<Run>
    where
        A: Clone,
    {
        let end = start + size;
        let (word, bit) = split(start);
        let own = self.words.leaf(word);
        let left = self.upto(own, word, bit);
        if left.is_some_and(|left| left.run.end() > start) {
            return None;
        }
        let right = self.first_within(own, start, end);
        if right.is_some_and(|right| right.run.start < end) {
            return None;
        }
        let left = left.filter(|left| left.run.end() == start);
        let right = right.filter(|right| right.run.start == end);
        self.len = self.len + 1 - usize::from(left.is_some()) - usize::from(right.is_some());
        let begin = left.map_or(start, |left| left.run.start);
        let whole = Run { start: begin, size: right.map_or(end, |right| right.run.end()) - begin };
        let (leaf, place, at) = match left {
            Some(left) => (left.leaf, left.place, left.at),
            None => (own.unwrap_or_else(|| self.words.make_leaf(word)), word as usize % FAN, bit),
        };
        self.words.cover(leaf, place, at, whole.size);
        if let Some(right) = right
            && right.leaf.word(right.place) != leaf.word(place)
        {
            self.words.uncover(right.leaf, right.place, right.at, right.run.size);
        }
        Some(whole)
    }

    /// Panics when the holes contradict themselves.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.words.check();
        let mut holes = 0;
        let mut next = self.first_from(0);
        while let Some(spot) = next {
            holes += 1;
            next = self.first_from(spot.run.start + 1);
            assert!(next.is_none_or(|next| spot.run.end() < next.run.start), "holes neither touch nor overlap");
        }
        assert_eq!(holes, self.len);
    }
}
