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

    /// A range is no hole any more. An empty one never was.
    fn forget(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.by_size.remove(&(range.end - range.start, range.start));
        }
    }

    /// A range, unless it is empty, is a hole.
    fn learn(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.by_size.insert((range.end - range.start, range.start));
        }
    }

    fn hole_at(&self, address: u64) -> Range<u64> {
        self.segment.list.hole_at(address).map_or(0..0, |hole| hole.start..hole.end())
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
            self.forget(last.start..last.end());
            self.learn(grown.start..grown.end());
            (grown, grown.start.next_multiple_of(align))
        };
        self.forget(hole.start..hole.end());
        self.segment.list.take(start, taken);
        self.learn(hole.start..start);
        self.learn(start + taken..hole.end());
        Some(Place { start, taken })
    }

    fn release(&mut self, _: &Caller, place: Place) {
        if let Some((whole, left)) = self.segment.release(place) {
            self.forget(whole.start..place.start);
            self.forget(place.start + place.taken..whole.end());
            self.learn(left.map_or(0..0, |left| left.start..left.end()));
        }
    }

    fn send_for(&self, place: Place) {
        self.segment.list.send_for(place.start);
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
