//! Slabs by size class, as jemalloc has them: four classes in each doubling, small ones in slabs of few pages of which
//! the lowest is filled first, large ones in pages of their own. Pages that are given back stay resident for ten seconds.

use super::driven::{Free, Place, Placer};
use super::extents::Extents;
use super::slabs::{Class, Released, Slabs, class_of};
use crate::model::policy::Caller;
use std::ops::Range;

/// Classes in a doubling.
const STEPS: u64 = 4;
/// The largest request that lies in a slab.
const SMALL: u64 = 14 << 10;
const PAGE: u64 = 4096;
/// How long pages stay.
const DECAY_NS: u64 = 10_000_000_000;

#[derive(Clone, Debug)]
pub(super) struct Segregated {
    slabs: Slabs,
    extents: Extents,
}

impl Segregated {
    pub(super) fn new() -> Self {
        Self { slabs: Slabs::default(), extents: Extents::new(DECAY_NS) }
    }

    /// The class of a small size. A slab has as few pages as leave nothing over.
    fn class(size: u64) -> Option<Class> {
        if size > SMALL {
            return None;
        }
        let (number, size) = class_of(size, STEPS);
        let slab = (1..=size / 16).map(|pages| pages * PAGE).find(|slab| slab.is_multiple_of(size))?;
        Some(Class { number, size, slab })
    }

    /// A size such that places of its class are aligned.
    fn aligned(size: u64, align: u64) -> Option<u64> {
        // A class of a multiple of the alignment, in a slab that begins with a page.
        if align <= 16 { Some(size) } else { size.max(align).checked_next_power_of_two() }
    }

    fn small(size: u64, align: u64) -> Option<Class> {
        if align > PAGE { None } else { Self::class(Self::aligned(size, align)?) }
    }

    fn large(size: u64) -> Option<u64> {
        Extents::rounded(size).map(|size| class_of(size, STEPS).1.next_multiple_of(PAGE))
    }
}

impl Placer for Segregated {
    fn place(&mut self, caller: &Caller, size: u64, align: u64) -> Option<Place> {
        if let Some(class) = Self::small(size, align) {
            return self.slabs.place(class, || self.extents.take(caller.time, class.slab, PAGE));
        }
        let taken = Self::large(size)?;
        let start = self.extents.take(caller.time, taken, align)?;
        Some(Place { start, taken })
    }

    fn release(&mut self, caller: &Caller, place: Place) {
        match self.slabs.release(place) {
            Released::Slab { start, bytes } => self.extents.release(caller.time, start, bytes),
            Released::Place => {}
            Released::Unknown => self.extents.release(caller.time, place.start, place.taken),
        }
    }

    fn resize(&mut self, place: Place, size: u64) -> Option<u64> {
        let taken = match Self::class(size) {
            Some(class) => class.size,
            None => Self::large(size)?,
        };
        (taken == place.taken).then_some(taken)
    }

    fn held(&self) -> u64 {
        self.extents.held()
    }

    fn free(&self) -> Free {
        let (slabs, (bytes, runs, largest)) = (self.slabs.free(), self.extents.dirty());
        Free { bytes: slabs.bytes + bytes, holes: slabs.holes + runs, largest: slabs.largest.max(largest) }
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        self.extents.ranges()
    }
}
