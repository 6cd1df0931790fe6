//! A free list over plain addresses, ordered by address, with first fit: no memory stands behind it, and none is
//! touched. The arena and the model of first fit are built on it.

use super::holes::{Holes, Run};
use allocator_api2::alloc::{Allocator, Global};
use std::ops::Range;

/// Every block's size is rounded up to a multiple of this, and blocks begin at such an address if the list does.
pub const GRANULE: u64 = 16;

/// A free range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first address.
    pub start: u64,
    /// Bytes, never 0.
    pub size: u64,
}

impl Hole {
    /// The address behind the last one.
    pub const fn end(self) -> u64 {
        self.start + self.size
    }
}

impl From<Run> for Hole {
    #[inline]
    fn from(run: Run) -> Self {
        Self { start: run.start * GRANULE, size: run.size * GRANULE }
    }
}

/// A range was freed that cannot have been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range {:#x}..{:#x} was not taken: some of it is free, or it begins within a granule", range.0, range.1)]
pub struct NotTaken {
    /// The first address freed, and the one behind the last.
    pub range: (u64, u64),
}

/// What is free of a range of addresses.
///
/// [`FreeList::allocate`] takes the leftmost hole that is large enough: a tree over the addresses knows of each part of
/// them the largest hole. Its levels are the logarithm of the span of addresses to the base of 16, three or four in a
/// heap of some megabytes and never more than 14, whatever the number of holes. Freed ranges grow together with the
/// holes on either side.
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
    /// Granules.
    free: u64,
}

impl FreeList {
    /// Of this range everything is free, as far as it is whole granules.
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
        let (start, end) = (range.start.div_ceil(GRANULE), range.end / GRANULE);
        if start < end {
            list.holes.release(start, end - start);
            list.free = end - start;
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

    /// As [`Self::rounded`], in granules.
    #[inline]
    const fn granules(size: u64) -> u64 {
        if size == 0 { 1 } else { size.div_ceil(GRANULE) }
    }

    /// First fit: takes a block of [`FreeList::rounded`] bytes out of the lowest hole that holds it, aligned to `align`,
    /// which is a power of two. `None` when no hole does. What lies before an aligned block stays free.
    #[inline]
    pub fn allocate(&mut self, size: u64, align: u64) -> Option<u64> {
        self.allocate_from(0, size, align)
    }

    /// First fit among the holes that begin at `from` or later.
    #[inline]
    pub fn allocate_from(&mut self, from: u64, size: u64, align: u64) -> Option<u64> {
        debug_assert!(align.is_power_of_two());
        let size = Self::granules(size);
        let align = (align / GRANULE).max(1);
        let (spot, place) = self.holes.first_fit(from.div_ceil(GRANULE), size, align)?;
        self.holes.carve(&spot, place, size);
        self.free -= size;
        Some(place * GRANULE)
    }

    /// Takes exactly this range, if all of it is free. As elsewhere the size is rounded up.
    pub fn take(&mut self, start: u64, size: u64) -> bool {
        if !start.is_multiple_of(GRANULE) {
            return false;
        }
        let (start, size) = (start / GRANULE, Self::granules(size));
        let Some(spot) = self.holes.at_or_before(start) else { return false };
        if spot.run().end().checked_sub(start).is_none_or(|left| left < size) {
            return false;
        }
        self.holes.carve(&spot, start, size);
        self.free -= size;
        true
    }

    /// Gives a range back, its size rounded up as when it was taken. It grows together with the holes that it touches;
    /// returns the hole that it is part of then. The range may also lie outside of everything that was free before: so
    /// the list grows.
    ///
    /// # Errors
    /// When some of it is free already, it begins at no multiple of [`GRANULE`], or it ends behind the last address; the
    /// list is as before.
    #[inline]
    pub fn release(&mut self, start: u64, size: u64) -> Result<Hole, NotTaken> {
        let refused = || NotTaken { range: (start, start.saturating_add(size)) };
        let rounded = Self::rounded(size).ok_or_else(refused)?;
        if !start.is_multiple_of(GRANULE) || start.checked_add(rounded).is_none() {
            return Err(refused());
        }
        let hole = self.holes.release(start / GRANULE, rounded / GRANULE).ok_or_else(refused)?;
        self.free += rounded / GRANULE;
        Ok(hole.into())
    }
}

impl<A: Allocator> FreeList<A> {
    /// Free bytes.
    pub fn free(&self) -> u64 {
        self.free * GRANULE
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
        self.holes.largest() * GRANULE
    }

    /// The hole that an address lies in.
    pub fn hole_at(&self, address: u64) -> Option<Hole> {
        let granule = address / GRANULE;
        let run = self.holes.at_or_before(granule)?.run();
        (granule < run.end()).then(|| run.into())
    }

    /// Sends for what giving back a range that begins here will read.
    pub(crate) fn send_for(&self, start: u64) {
        self.holes.send_for(start / GRANULE);
    }

    /// The holes, upwards.
    pub fn holes(&self) -> impl Iterator<Item = Hole> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let run = self.holes.first_from(from)?.run();
            from = run.end();
            Some(run.into())
        })
    }

    /// Panics when the list contradicts itself.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.holes.check();
        assert_eq!(self.free(), self.holes().map(|hole| hole.size).sum::<u64>());
        assert_eq!(self.largest(), self.holes().map(|hole| hole.size).max().unwrap_or(0));
    }
}
