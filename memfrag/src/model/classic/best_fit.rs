//! Best fit: the smallest hole that is large enough, the lowest of these.

use super::driven::{Free, Place, Placer, joined};
use super::segment::Segment;
use crate::arena::{FreeList, Hole};
use crate::model::policy::Caller;
use allocator_api2::alloc::Global;
use std::collections::BTreeSet;
use std::ops::Range;

#[derive(Clone, Debug)]
pub(super) struct BestFit {
    segment: Segment,
    /// The holes of the segment's list, as size and start.
    by_size: BTreeSet<(u64, u64)>,
}

impl BestFit {
    pub(super) fn new() -> Self {
        Self { segment: Segment::new(), by_size: BTreeSet::new() }
    }

    fn forget(&mut self, hole: Option<Hole>) {
        if let Some(hole) = hole {
            self.by_size.remove(&(hole.size, hole.start));
        }
    }

    fn learn(&mut self, hole: Option<Hole>) {
        if let Some(hole) = hole {
            self.by_size.insert((hole.size, hole.start));
        }
    }

    fn hole_at(&self, address: u64) -> Option<Hole> {
        self.segment.list.hole_at(address)
    }
}

impl Placer for BestFit {
    fn place(&mut self, _: &Caller, size: u64, align: u64) -> Option<Place> {
        let taken = FreeList::<Global>::rounded(size)?;
        let large_enough = self.by_size.range((taken, 0)..).map(|&(size, start)| Hole { start, size });
        let mut aligned = large_enough.map(|hole| (hole, hole.start.next_multiple_of(align)));
        let found = aligned.find(|(hole, start)| hole.end().checked_sub(*start).is_some_and(|left| left >= taken));
        let (hole, start) = if let Some(found) = found {
            found
        } else {
            // The last hole grows, or there is a new one.
            let last = self.segment.last();
            let grown = self.segment.grow(size, align)?;
            self.forget(Some(last));
            self.learn(Some(grown));
            (grown, grown.start.next_multiple_of(align))
        };
        self.forget(Some(hole));
        self.segment.list.take(start, taken);
        let (before, behind) = (self.hole_at(hole.start), self.hole_at(hole.end() - 1));
        self.learn(before);
        self.learn(behind);
        Some(Place { start, taken })
    }

    fn release(&mut self, _: &Caller, place: Place) {
        self.forget(self.hole_at(place.start - 1));
        self.forget(self.hole_at(place.start + place.taken));
        let left = self.segment.release(place);
        self.learn(left);
    }

    fn resize(&mut self, place: Place, size: u64) -> Option<u64> {
        let (before, after) = (place.start + place.taken, place.start + FreeList::<Global>::rounded(size)?);
        self.forget(self.hole_at(before));
        let resized = self.segment.resize(place, size);
        for address in [before, after] {
            self.learn(self.hole_at(address));
        }
        resized
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
