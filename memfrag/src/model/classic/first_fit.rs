//! First fit: the lowest hole that is large enough. What the arena does.

use super::driven::{Free, Place, Placer, joined};
use super::segment::Segment;
use crate::arena::FreeList;
use crate::model::policy::Caller;
use allocator_api2::alloc::Global;
use std::ops::Range;

#[derive(Clone, Debug)]
pub(super) struct FirstFit(Segment);

impl FirstFit {
    pub(super) fn new() -> Self {
        Self(Segment::new())
    }
}

impl Placer for FirstFit {
    fn place(&mut self, _: &Caller, size: u64, align: u64) -> Option<Place> {
        let taken = FreeList::<Global>::rounded(size)?;
        let found = self.0.list.allocate(size, align);
        let start = found.or_else(|| self.0.grow(size, align).and_then(|_| self.0.list.allocate(size, align)))?;
        Some(Place { start, taken })
    }

    fn release(&mut self, _: &Caller, place: Place) {
        self.0.release(place);
    }

    fn send_for(&self, place: Place) {
        self.0.list.send_for(place.start);
    }

    fn resize(&mut self, place: Place, size: u64) -> Option<u64> {
        self.0.resize(place, size)
    }

    fn held(&self) -> u64 {
        self.0.held()
    }

    fn free(&self) -> Free {
        self.0.free()
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        joined(vec![self.0.range()])
    }
}
