//! A heap that grows and shrinks at its end, with a free list: what the three sequential fits share.

use super::driven::{Free, Place};
use crate::arena::{FreeList, Hole};
use crate::heap::MAX_SIZE;
use allocator_api2::alloc::Global;
use std::ops::Range;

/// Where it begins; nothing lies at address 0.
const START: u64 = 1 << 20;
/// It grows and shrinks by whole pages.
const PAGE: u64 = 4096;
/// So much free memory at its end goes back to the system, as it does in glibc unless that is told otherwise.
const TRIM: u64 = 128 << 10;
/// Where it can grow no more.
const END: u64 = 1 << 62;

/// The heap. What is free of it is in the list.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) list: FreeList,
    top: u64,
}

impl Segment {
    pub(super) fn new() -> Self {
        Self { list: FreeList::new(START..START), top: START }
    }

    /// The free range at the end, empty when the last block reaches it.
    pub(super) fn last(&self) -> Hole {
        self.list.hole_at(self.top - 1).unwrap_or(Hole { start: self.top, size: 0 })
    }

    /// Makes room for a block at the end, of which no hole is large enough. The hole that there is then.
    pub(super) fn grow(&mut self, size: u64, align: u64) -> Option<Hole> {
        if size > MAX_SIZE || align > MAX_SIZE {
            return None;
        }
        let size = FreeList::<Global>::rounded(size)?;
        let end = (self.last().start.checked_next_multiple_of(align)? + size).next_multiple_of(PAGE);
        if end > END {
            return None;
        }
        if end > self.top {
            self.list.release(self.top, end - self.top).ok()?;
            self.top = end;
        }
        Some(self.last())
    }

    /// Takes a block back. The hole that it is part of then, with its neighbours, and what is left of it when the end of
    /// the heap has been given back to the system.
    pub(super) fn release(&mut self, place: Place) -> Option<(Hole, Option<Hole>)> {
        let released = self.list.release(place.start, place.taken);
        debug_assert!(released.is_ok(), "{released:?}");
        let hole = released.ok()?;
        if hole.end() < self.top || hole.size < TRIM {
            return Some((hole, Some(hole)));
        }
        let top = hole.start.next_multiple_of(PAGE);
        self.list.take(top, self.top - top);
        self.top = top;
        let left = Hole { start: hole.start, size: top - hole.start };
        Some((hole, Some(left).filter(|left| left.size > 0)))
    }

    /// Resizes a block in place. Whether that was possible, and the bytes that it takes then.
    pub(super) fn resize(&mut self, place: Place, size: u64) -> Option<u64> {
        let taken = FreeList::<Global>::rounded(size.min(MAX_SIZE))?;
        if taken > place.taken && !self.list.take(place.start + place.taken, taken - place.taken) {
            return None;
        }
        if taken < place.taken {
            self.release(Place { start: place.start + taken, taken: place.taken - taken });
        }
        Some(taken)
    }

    pub(super) fn held(&self) -> u64 {
        self.top - START
    }

    pub(super) fn range(&self) -> Range<u64> {
        START..self.top
    }

    pub(super) fn free(&self) -> Free {
        Free { bytes: self.list.free(), holes: self.list.len() as u64, largest: self.list.largest() }
    }
}
