//! Two heaps under first fit, one for call sites whose blocks live long: what separating them would buy. Which sites
//! those are is known beforehand, as no allocator can.

use super::driven::{Free, Place, Placer};
use super::first_fit::FirstFit;
use crate::model::policy::Caller;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// Where the addresses of the heap for long-lived blocks begin, behind all those of the other.
const LONG: u64 = 1 << 62;

#[derive(Clone, Debug)]
pub(super) struct Lifetimes {
    long_sites: Arc<HashSet<u64>>,
    short: FirstFit,
    long: FirstFit,
}

impl Lifetimes {
    pub(super) fn new(long_sites: Arc<HashSet<u64>>) -> Self {
        Self { long_sites, short: FirstFit::new(), long: FirstFit::new() }
    }

    /// The heap in which a place lies, and the place as that heap knows it.
    fn heap(&mut self, place: Place) -> (&mut FirstFit, Place) {
        if place.start < LONG {
            (&mut self.short, place)
        } else {
            (&mut self.long, Place { start: place.start - LONG, ..place })
        }
    }
}

impl Placer for Lifetimes {
    fn place(&mut self, caller: &Caller, size: u64, align: u64) -> Option<Place> {
        if !self.long_sites.contains(&caller.site) {
            return self.short.place(caller, size, align);
        }
        self.long.place(caller, size, align).map(|place| Place { start: place.start + LONG, ..place })
    }

    fn release(&mut self, caller: &Caller, place: Place) {
        let (heap, place) = self.heap(place);
        heap.release(caller, place);
    }

    fn resize(&mut self, place: Place, size: u64) -> Option<u64> {
        let (heap, place) = self.heap(place);
        heap.resize(place, size)
    }

    fn held(&self) -> u64 {
        self.short.held() + self.long.held()
    }

    fn free(&self) -> Free {
        let (short, long) = (self.short.free(), self.long.free());
        Free {
            bytes: short.bytes + long.bytes,
            holes: short.holes + long.holes,
            largest: short.largest.max(long.largest),
        }
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        let long = self.long.ranges().into_iter().map(|range| range.start + LONG..range.end + LONG);
        self.short.ranges().into_iter().chain(long).collect()
    }
}
