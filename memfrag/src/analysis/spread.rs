//! How blocks lie in what a heap holds: free memory, holes, the pages that blocks keep.

use super::{ResidentPages, regions};
use crate::heap::Heap;
use crate::target::Residency;
use crate::target::residency::PAGE;
use std::ops::Range;

/// A heap as it lies in addresses, real ones or those of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    held: Vec<Range<u64>>,
    places: Vec<Range<u64>>,
}

impl Spread {
    /// What a heap holds, upwards and none overlapping the next, and what blocks take, in any order; these may overlap.
    pub fn new(held: Vec<Range<u64>>, mut places: Vec<Range<u64>>) -> Self {
        // Mostly some runs that rise, which this sort merges.
        places.sort_by_key(|place| place.start);
        Self { held, places }
    }

    /// The real heap, with what is known of its mappings from the last look at them: it holds the ranges that
    /// [`regions::held`] tells, and its blocks take what they do by the rule of its allocator.
    pub fn of(heap: &Heap, look: Option<&Residency>) -> Self {
        let footprint = heap.pages().footprint();
        let blocks = heap.blocks().by_address().chain(heap.older().by_address());
        Self::new(regions::held(heap, look), blocks.map(|block| footprint.of(block.addr, block.size)).collect())
    }

    /// What the heap holds, upwards.
    pub fn held(&self) -> &[Range<u64>] {
        &self.held
    }

    /// What blocks take, in the order of the beginnings; one for each block.
    pub fn places(&self) -> &[Range<u64>] {
        &self.places
    }

    /// Bytes that the heap holds.
    pub fn footprint(&self) -> u64 {
        self.held.iter().map(length).sum()
    }

    /// Bytes that blocks take, each by itself.
    pub fn taken(&self) -> u64 {
        self.places.iter().map(length).sum()
    }

    /// Bytes of the pages into which blocks reach. Once these were written to, the heap cannot be smaller while they live.
    pub fn resident_bound(&self) -> u64 {
        let (mut pages, mut next) = (0, 0);
        for place in self.places.iter().filter(|place| !place.is_empty()) {
            let first = (place.start / PAGE).max(next);
            let end = (place.end - 1) / PAGE + 1;
            if end > first {
                pages += end - first;
                next = end;
            }
        }
        pages * PAGE
    }

    /// Bytes of what the heap holds that were resident at a look.
    pub fn resident(&self, look: &Residency) -> u64 {
        let resident = ResidentPages::new(look);
        self.held.iter().map(|range| resident.bytes_in(range.clone())).sum()
    }

    /// What of the held ranges no block takes.
    pub fn free(&self) -> Free {
        let mut free = Free::default();
        let mut add = |hole: Range<u64>| {
            if hole.start < hole.end {
                let bytes = hole.end - hole.start;
                free.bytes += bytes;
                free.holes += 1;
                free.largest_hole = free.largest_hole.max(bytes);
            }
        };
        let mut places = self.places.iter().filter(|place| !place.is_empty()).peekable();
        let mut at = 0;
        for range in &self.held {
            at = range.start.max(at);
            while let Some(place) = places.next_if(|place| place.start < range.end) {
                add(at..place.start);
                at = at.max(place.end);
            }
            add(at..range.end);
        }
        free
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// What blocks leave of the ranges that a heap holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// Bytes.
    pub bytes: u64,
    /// Ranges between blocks, and between them and the ends of what is held.
    pub holes: u64,
    /// Bytes of the largest.
    pub largest_hole: u64,
}

/// The share of a whole that something else leaves, between 0 and 1: internal fragmentation where the whole is what blocks
/// take and the part what they asked for, external where the whole is the footprint and the part what blocks take. `None`
/// where there is no whole, or the part is larger: then they are of different moments, or blocks share memory.
pub fn fragmentation(part: u64, whole: u64) -> Option<f64> {
    (whole > 0 && part <= whole).then(|| (whole - part) as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Heaps;
    use crate::target::ProcessInfo;
    use crate::target::residency::{Region, RegionKind};
    use memfrag_common::{Event, Function, Op};
    use proptest::prelude::*;

    proptest! {
        /// Against a look at every byte and every page.
        #[test]
        fn holes_and_pages_are_those_of_a_look_at_every_byte(
            held in prop::collection::vec((0..4_u64, 1..30_u64), 0..5),
            places in prop::collection::vec((0..150_u64, 0..20_u64), 0..12),
        ) {
            let mut at = 0;
            let held: Vec<Range<u64>> = held
                .into_iter()
                .map(|(gap, length)| {
                    // None touch.
                    let start = at + gap + 1;
                    at = start + length;
                    start..at
                })
                .collect();
            let places: Vec<Range<u64>> = places.into_iter().map(|(start, length)| start..start + length).collect();
            let is_taken = |byte: u64| places.iter().any(|place| place.contains(&byte));
            let mut holes: Vec<u64> = Vec::new();
            for range in &held {
                let mut length = 0;
                for byte in range.clone() {
                    if is_taken(byte) {
                        holes.push(std::mem::take(&mut length));
                    } else {
                        length += 1;
                    }
                }
                holes.push(length);
            }
            holes.retain(|&hole| hole > 0);
            let expected = Free {
                bytes: holes.iter().sum(),
                holes: holes.len() as u64,
                largest_hole: holes.iter().copied().max().unwrap_or(0),
            };
            let spread = Spread::new(held.clone(), places.clone());
            prop_assert_eq!(spread.free(), expected);
            prop_assert_eq!(spread.footprint(), held.iter().map(|range| range.clone().count() as u64).sum::<u64>());
            prop_assert_eq!(spread.taken(), places.iter().map(|place| place.clone().count() as u64).sum::<u64>());
            let paged: Vec<Range<u64>> = places.iter().map(|place| place.start * 500..place.end * 500).collect();
            let pages = (0..30).filter(|page| {
                paged.iter().any(|place| !place.is_empty() && place.start < (page + 1) * PAGE && place.end > page * PAGE)
            });
            prop_assert_eq!(Spread::new(Vec::new(), paged.clone()).resident_bound(), pages.count() as u64 * PAGE);
        }

        /// What was used lately is remembered of a watched heap alone, and counts in neither.
        #[test]
        fn whoever_watches_sees_no_other_heap(
            steps in prop::collection::vec((0..24_u64, 1..60_000_u64, any::<bool>()), 0..60),
            mapped in prop::collection::vec(any::<bool>(), 24),
        ) {
            const APART: u64 = 1 << 20;
            const BASE: u64 = 0x7f00_0000_0000;
            let go = |is_watched: bool| {
                let mut heaps = Heaps::default();
                heaps.learn(&ProcessInfo { pid: 1, ..ProcessInfo::default() });
                if is_watched {
                    heaps.watch(0);
                }
                for (time, &(at, size, frees)) in (1..).zip(&steps) {
                    let (addr, function) = (BASE + at * APART + 16, Function::Malloc);
                    let op = if frees {
                        Op::Free { function: Function::Free, addr, size: 0, site: 0 }
                    } else {
                        Op::Alloc { function, align_log2: 0, addr, size, site: 1, stack: 0 }
                    };
                    heaps.apply(&Event { time, pid: 1, tid: 1, op });
                }
                let regions = (0..).zip(&mapped).filter(|(_, is_mapped)| **is_mapped).map(|(at, _)| {
                    let range = BASE + at * APART..BASE + at * APART + 0x1_0000;
                    let resident = vec![range.clone()];
                    Region { range, kind: RegionKind::Anonymous, resident_bytes: 0x1_0000, swapped_bytes: 0, resident }
                });
                let look = Residency { time: 1, pid: 1, regions: regions.collect() };
                Spread::of(heaps.heap(&heaps.processes()[0]), Some(&look))
            };
            prop_assert_eq!(go(true), go(false));
        }
    }

    #[test]
    fn a_fragmentation_is_a_share_or_nothing() {
        let all =
            [fragmentation(3, 4), fragmentation(4, 4), fragmentation(0, 4), fragmentation(0, 0), fragmentation(5, 4)];
        assert_eq!(all, [Some(0.25), Some(0.0), Some(1.0), None, None]);
    }
}
