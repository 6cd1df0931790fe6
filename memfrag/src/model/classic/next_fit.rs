//! Next fit: first fit that goes on where the last block was put. Known to fragment most; a control.

use super::driven::{Free, Place, Placer, joined};
use super::segment::Segment;
use crate::arena::FreeList;
use crate::model::policy::Caller;
use allocator_api2::alloc::Global;
use std::ops::Range;

#[derive(Clone, Debug)]
pub(super) struct NextFit {
    segment: Segment,
    /// The end of the block placed last. The search begins at the hole there or the next one behind, and comes round.
    rover: u64,
}

impl NextFit {
    pub(super) fn new() -> Self {
        Self { segment: Segment::new(), rover: 0 }
    }
}

impl Placer for NextFit {
    fn place(&mut self, _: &Caller, size: u64, align: u64) -> Option<Place> {
        let taken = FreeList::<Global>::rounded(size)?;
        let list = &mut self.segment.list;
        let from = list.hole_at(self.rover).map_or(self.rover, |hole| hole.start);
        let found = list.allocate_from(from, size, align).or_else(|| list.allocate(size, align));
        let start =
            found.or_else(|| self.segment.grow(size, align).and_then(|_| self.segment.list.allocate(size, align)))?;
        self.rover = start + taken;
        Some(Place { start, taken })
    }

    fn release(&mut self, _: &Caller, place: Place) {
        self.segment.release(place);
    }

    fn send_for(&self, place: Place) {
        self.segment.list.send_for(place.start);
    }

    fn resize(&mut self, place: Place, size: u64) -> Option<u64> {
        self.segment.resize(place, size)
    }

    fn held(&self) -> u64 {
        self.segment.held()
    }

    fn free(&self) -> Free {
        self.segment.free()
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        joined(vec![self.segment.range()])
    }
}
