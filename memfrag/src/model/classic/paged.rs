//! A page of 64 KiB for each size class, as mimalloc and tcmalloc have them: eight classes in each doubling, larger
//! requests in pages of 512 KiB, huge ones by themselves. A page that is empty goes back at once.

use super::driven::{Free, Place, Placer};
use super::extents::Extents;
use super::slabs::{Class, Released, Slabs, class_of};
use crate::model::policy::Caller;
use std::ops::Range;

/// Classes in a doubling.
const STEPS: u64 = 8;
/// The largest request in a page of each kind, and the bytes of such a page.
const KINDS: [(u64, u64); 2] = [(8 << 10, 64 << 10), (64 << 10, 512 << 10)];
const PAGE: u64 = 4096;

#[derive(Clone, Debug)]
pub(super) struct Paged {
    pages: Slabs,
    extents: Extents,
}

impl Paged {
    pub(super) fn new() -> Self {
        Self { pages: Slabs::default(), extents: Extents::new(0) }
    }

    fn class(size: u64, align: u64) -> Option<Class> {
        let wanted = if align <= 16 { size } else { size.max(align).checked_next_power_of_two()? };
        if wanted > KINDS[1].0 {
            return None;
        }
        let (number, size) = class_of(wanted, STEPS);
        let &(_, slab) = KINDS.iter().find(|(largest, _)| size <= *largest && align <= PAGE)?;
        Some(Class { number, size, slab })
    }
}

impl Placer for Paged {
    fn place(&mut self, caller: &Caller, size: u64, align: u64) -> Option<Place> {
        if let Some(class) = Self::class(size, align) {
            return self.pages.place(class, || self.extents.take(caller.time, class.slab, class.slab));
        }
        let taken = Extents::rounded(size)?;
        let start = self.extents.take(caller.time, taken, align)?;
        Some(Place { start, taken })
    }

    fn release(&mut self, caller: &Caller, place: Place) {
        match self.pages.release(place) {
            Released::Slab { start, bytes } => self.extents.release(caller.time, start, bytes),
            Released::Place => {}
            Released::Unknown => self.extents.release(caller.time, place.start, place.taken),
        }
    }

    fn resize(&mut self, place: Place, size: u64) -> Option<u64> {
        let taken = match Self::class(size, 16) {
            Some(class) => class.size,
            None => Extents::rounded(size)?,
        };
        (taken == place.taken).then_some(taken)
    }

    fn held(&self) -> u64 {
        self.extents.held()
    }

    fn free(&self) -> Free {
        self.pages.free()
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        self.extents.ranges()
    }
}
