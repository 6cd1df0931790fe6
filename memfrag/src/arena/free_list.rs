//! A free list over plain addresses, ordered by address, with first fit: no memory stands behind it, and none is
//! touched. The arena and the model of first fit are built on it.

use super::holes::{Hole, Holes};
use allocator_api2::alloc::{Allocator, Global};
use std::ops::Range;

/// Every block's size is rounded up to a multiple of this, and blocks begin at such an address if the list does.
pub const GRANULE: u64 = 16;

/// A range was freed, of which some is free already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("of the range {:#x}..{:#x} some is free already", range.0, range.1)]
pub struct Overlap {
    /// The first address freed, and the one behind the last.
    pub range: (u64, u64),
}

/// What is free of a range of addresses.
///
/// [`FreeList::allocate`] takes the leftmost hole that is large enough, in O(log n) of the holes: a B-tree knows of
/// each part of the list the largest hole. Freed ranges grow together with the holes on either side.
///
/// ```
/// use memfrag::arena::FreeList;
///
/// let mut list = FreeList::new(0..4096);
/// let [a, b, c] = [(); 3].map(|()| list.allocate(100, 16).unwrap());
/// assert_eq!([a, b, c], [0, 112, 224]);
/// list.release(b, 100).unwrap();
/// assert_eq!(list.allocate(200, 16), Some(336), "the hole of b is too small");
/// assert_eq!(list.allocate(64, 64), Some(128), "and takes this one, aligned");
/// ```
#[derive(Clone, Debug)]
pub struct FreeList<A: Allocator = Global> {
    holes: Holes<A>,
    free: u64,
}

impl FreeList {
    /// Of this range everything is free.
    pub fn new(range: Range<u64>) -> Self {
        Self::new_in(range, Global)
    }
}

impl<A: Allocator + Clone> FreeList<A> {
    /// As [`FreeList::new`], with its tables in the memory of another allocator.
    ///
    /// # Panics
    /// All methods that add a hole abort, as a `Vec` does, when that allocator has no memory.
    pub fn new_in(range: Range<u64>, tables: A) -> Self {
        let mut list = Self { holes: Holes::new_in(tables), free: 0 };
        if !range.is_empty() {
            list.add(range.start, range.end - range.start);
        }
        list
    }

    /// Bytes that a block of `size` requested bytes takes: a multiple of [`GRANULE`], and never 0. `None` when that is
    /// more than addresses can tell.
    pub const fn rounded(size: u64) -> Option<u64> {
        match size {
            0 => Some(GRANULE),
            _ => size.checked_next_multiple_of(GRANULE),
        }
    }

    /// First fit: takes a block of [`FreeList::rounded`] bytes out of the lowest hole that holds it, aligned to `align`,
    /// which is a power of two. `None` when no hole does. What lies before an aligned block stays free.
    pub fn allocate(&mut self, size: u64, align: u64) -> Option<u64> {
        self.allocate_from(0, size, align)
    }

    /// First fit among the holes that begin at `from` or later.
    pub fn allocate_from(&mut self, from: u64, size: u64, align: u64) -> Option<u64> {
        debug_assert!(align.is_power_of_two());
        let size = Self::rounded(size)?;
        let (spot, place) = self.holes.first_fit(from, size, align)?;
        let hole = self.holes.get(&spot);
        self.free -= size;
        let rest = Hole { start: place + size, size: hole.end() - (place + size) };
        if place > hole.start {
            self.holes.set(&spot, Hole { start: hole.start, size: place - hole.start });
            if rest.size > 0 {
                self.holes.insert(rest);
            }
        } else if rest.size > 0 {
            self.holes.set(&spot, rest);
        } else {
            self.holes.remove(&spot);
        }
        Some(place)
    }

    /// Takes exactly this range, if all of it is free. As elsewhere the size is rounded up.
    pub fn take(&mut self, start: u64, size: u64) -> bool {
        let Some(size) = Self::rounded(size) else { return false };
        let Some(spot) = self.holes.at_or_before(start) else { return false };
        let hole = self.holes.get(&spot);
        if hole.end().checked_sub(start).is_none_or(|left| left < size) {
            return false;
        }
        self.free -= size;
        let before = Hole { start: hole.start, size: start - hole.start };
        let behind = Hole { start: start + size, size: hole.end() - (start + size) };
        match (before.size > 0, behind.size > 0) {
            (false, false) => self.holes.remove(&spot),
            (true, false) => self.holes.set(&spot, before),
            (false, true) => self.holes.set(&spot, behind),
            (true, true) => {
                self.holes.set(&spot, before);
                self.holes.insert(behind);
            }
        }
        true
    }

    /// Gives a range back, its size rounded up as when it was taken. It grows together with the holes that it touches.
    /// The range may also lie outside of everything that was free before: so the list grows.
    ///
    /// # Errors
    /// When some of it is free already, or it ends behind the last address; the list is as before.
    pub fn release(&mut self, start: u64, size: u64) -> Result<(), Overlap> {
        let overlap = || Overlap { range: (start, start.saturating_add(size)) };
        let size = Self::rounded(size).ok_or_else(overlap)?;
        let end = start.checked_add(size).ok_or_else(overlap)?;
        let before = self.holes.at_or_before(start);
        let behind = match &before {
            Some(spot) => self.holes.next(spot),
            None => self.holes.first(),
        };
        let left = before.map(|spot| (spot, self.holes.get(&spot)));
        let right = behind.map(|spot| (spot, self.holes.get(&spot)));
        if left.is_some_and(|(_, hole)| hole.end() > start) || right.is_some_and(|(_, hole)| hole.start < end) {
            return Err(overlap());
        }
        self.free += size;
        let left = left.filter(|(_, hole)| hole.end() == start);
        let right = right.filter(|(_, hole)| hole.start == end);
        match (left, right) {
            (Some((at, hole)), None) => self.holes.set(&at, Hole { start: hole.start, size: hole.size + size }),
            (None, Some((at, hole))) => self.holes.set(&at, Hole { start, size: size + hole.size }),
            (Some((at, low)), Some((above, high))) => {
                self.holes.set(&at, Hole { start: low.start, size: low.size + size + high.size });
                self.holes.remove(&above);
            }
            (None, None) => self.holes.insert(Hole { start, size }),
        }
        Ok(())
    }

    fn add(&mut self, start: u64, size: u64) {
        self.holes.insert(Hole { start, size });
        self.free += size;
    }
}

impl<A: Allocator> FreeList<A> {
    /// Free bytes.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// The number of holes.
    pub fn len(&self) -> usize {
        self.holes.len()
    }

    /// Whether nothing is free.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the largest hole, 0 without any.
    pub fn largest(&self) -> u64 {
        self.holes.largest()
    }

    /// The hole that an address lies in.
    pub fn hole_at(&self, address: u64) -> Option<Hole> {
        let hole = self.holes.get(&self.holes.at_or_before(address)?);
        (address < hole.end()).then_some(hole)
    }

    /// The holes, upwards.
    pub fn holes(&self) -> impl Iterator<Item = Hole> {
        let mut next = self.holes.first();
        std::iter::from_fn(move || {
            let spot = next?;
            next = self.holes.next(&spot);
            Some(self.holes.get(&spot))
        })
    }

    /// Panics when the list contradicts itself.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.holes.check();
        assert_eq!(self.free, self.holes().map(|hole| hole.size).sum::<u64>());
        assert_eq!(self.largest(), self.holes().map(|hole| hole.size).max().unwrap_or(0));
    }
}
