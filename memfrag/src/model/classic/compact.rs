//! Compaction: as if live blocks were moved together whenever one is freed. No allocator of C can; a bound.

use super::driven::{Free, Place, Placer};
use crate::heap::MAX_SIZE;
use crate::model::policy::Caller;
use std::ops::Range;

const PAGE: u64 = 4096;

#[derive(Clone, Debug, Default)]
pub(super) struct Compact {
    /// The next address. Blocks have no lasting ones, so each gets one that no other ever has.
    next: u64,
    taken: u64,
}

impl Placer for Compact {
    fn place(&mut self, _: &Caller, size: u64, align: u64) -> Option<Place> {
        if size > MAX_SIZE {
            return None;
        }
        let taken = size.max(1).next_multiple_of(16);
        let start = self.next.checked_next_multiple_of(align)?;
        self.next = start.checked_add(taken)?;
        self.taken += taken;
        Some(Place { start, taken })
    }

    fn release(&mut self, _: &Caller, place: Place) {
        self.taken -= place.taken;
    }

    fn resize(&mut self, _: Place, _: u64) -> Option<u64> {
        None
    }

    fn held(&self) -> u64 {
        self.taken.next_multiple_of(PAGE)
    }

    fn free(&self) -> Free {
        let bytes = self.held() - self.taken;
        Free { bytes, holes: u64::from(bytes > 0), largest: bytes }
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        Vec::new()
    }
}
