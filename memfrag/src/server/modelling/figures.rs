//! What is told of a policy, and of the heap beside it.

use super::grid::{self, Axis, Grid};
use super::worker::Target;
use crate::heap::{Block, Heap};
use crate::model::{ModelHeap, Models, Policy};
use crate::recording::Cursor;
use crate::report::policies::Outcome;
use crate::server::player::Extent;
use crate::server::queries::by_address;
use crate::server::tiles;
use crate::target::Residency;
use crate::target::residency::PAGE;
use serde::Serialize;
use std::ops::Range;

/// A message `model`, who and what it is of aside.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Shown {
    pub at_ns: u64,
    pub events: u64,
    pub behind_events: u64,
    pub behind_ns: u64,
    pub learning: bool,
    pub problem: Option<String>,
    pub model: Option<Modelled>,
    pub real: Option<Real>,
    pub cells: Option<Cells>,
}

/// What a policy made of the events.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Modelled {
    #[serde(flatten)]
    pub outcome: Outcome,
    pub live_blocks: u64,
    pub resident_bound_bytes: u64,
    pub lost_events: u64,
    pub unknown_blocks: u64,
}

/// The heap that the recording tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Real {
    pub at_ns: u64,
    pub live_blocks: u64,
    pub requested_bytes: u64,
    pub taken_bytes: u64,
    pub footprint_bytes: u64,
    pub resident_bytes: Option<u64>,
    pub resident_at_ns: Option<u64>,
    pub resident_bound_bytes: u64,
    pub free_bytes: u64,
    pub holes: u64,
    pub largest_hole_bytes: u64,
    pub failed: u64,
    pub growths: Option<u64>,
    pub avoidable_growths: Option<u64>,
}

/// Both as cells of one size: how much of each is taken, in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Cells {
    pub bytes: u64,
    pub model: Grid,
    pub real: Grid,
}

/// What there is to tell at a place on the way to a target, or `there`.
pub(super) fn shown(models: &Models, cursor: &Cursor, pid: u32, target: &Target, there: bool) -> Shown {
    let heap = models.heap(pid).filter(|heap| !heap.policies().is_empty());
    let modelled = heap.map(|heap| Side::of_policy(heap, heap.policies()[0].as_ref()));
    let real = Side::of_heap(target, pid);
    let cells = modelled.as_ref().zip(real.as_ref()).map(|((_, model), (_, real))| {
        let bytes = grid::cell_bytes([&model.axis, &real.axis]);
        Cells { bytes, model: model.grid(bytes), real: real.grid(bytes) }
    });
    let (at_ns, behind_events) = if there {
        (target.at_ns, 0)
    } else {
        let to = match target.extent {
            Extent::Event(event) => event,
            Extent::Time(time) => target.state.reader.event_at(time),
        };
        // An end that is not reached is at least one event away.
        (cursor.latest(), to.saturating_sub(cursor.event()).max(1))
    };
    Shown {
        at_ns,
        events: cursor.event(),
        behind_events,
        behind_ns: if there { 0 } else { target.at_ns.saturating_sub(at_ns) },
        learning: false,
        problem: None,
        model: modelled.map(|(figures, _)| figures),
        real: real.map(|(figures, _)| figures),
        cells,
    }
}

/// A heap as it lies in addresses.
struct Side {
    axis: Axis,
    /// What blocks take, upwards.
    places: Vec<Range<u64>>,
    /// What they take without lying at any address.
    packed: u64,
}

impl Side {
    fn of_policy(heap: &ModelHeap, policy: &dyn Policy) -> (Modelled, Self) {
        let outcome = Outcome::new(policy);
        let held = policy.held();
        let oddities = heap.oddities();
        let packed = if held.is_empty() { outcome.taken_bytes } else { 0 };
        let mut places: Vec<Range<u64>> = if packed > 0 { Vec::new() } else { heap.places(policy).collect() };
        places.sort_unstable_by_key(|place| place.start);
        let resident_bound_bytes = if packed > 0 { packed.next_multiple_of(PAGE) } else { pages_of(&places) * PAGE };
        let axis = if packed > 0 { Axis::packed(outcome.final_footprint_bytes) } else { Axis::new(held) };
        let modelled = Modelled {
            outcome,
            live_blocks: heap.live_blocks(),
            resident_bound_bytes,
            lost_events: oddities.lost_events,
            unknown_blocks: oddities.unknown_blocks,
        };
        (modelled, Self { axis, places, packed })
    }

    fn of_heap(target: &Target, pid: u32) -> Option<(Real, Self)> {
        let builder = &target.state.builder;
        let heaps = builder.heaps();
        let process = heaps.index_of(pid)?;
        let heap = heaps.heap(&heaps.processes()[process]);
        let look = builder.last_residency(process);
        let footprint = heap.pages().footprint();
        let places: Vec<Range<u64>> =
            by_address(heap).map(|block: Block| footprint.of(block.addr, block.size)).collect();
        let regions: Vec<Range<u64>> = tiles::regions(heap, look).into_iter().map(|region| region.range).collect();
        let free = Free::between(&regions, &places);
        let growths = Some(heap.growths()).filter(|growths| growths.count > 0);
        let taken_bytes: u64 = places.iter().map(|place| place.end - place.start).sum();
        let real = Real {
            at_ns: target.at_ns,
            live_blocks: places.len() as u64,
            requested_bytes: requested(heap),
            taken_bytes,
            footprint_bytes: regions.iter().map(|range| range.end - range.start).sum(),
            resident_bytes: look.map(|look| resident(look, &regions)),
            resident_at_ns: look.map(|look| look.time),
            resident_bound_bytes: pages_of(&places) * PAGE,
            free_bytes: free.bytes,
            holes: free.holes,
            largest_hole_bytes: free.largest,
            failed: heap.functions().iter().map(|(_, totals)| totals.failed).sum(),
            growths: growths.map(|growths| growths.count),
            avoidable_growths: growths.map(|growths| growths.avoidable),
        };
        Some((real, Self { axis: Axis::new(regions), places, packed: 0 }))
    }

    fn grid(&self, bytes: u64) -> Grid {
        if self.packed > 0 {
            Grid::packed(&self.axis, self.packed, bytes)
        } else {
            Grid::new(&self.axis, &self.places, bytes)
        }
    }
}

/// Bytes asked for, and in blocks that are older than the trace, what these can hold.
fn requested(heap: &Heap) -> u64 {
    heap.live().bytes.saturating_add(heap.older_amount().bytes)
}

/// Resident bytes of ranges that rise, at the last look.
fn resident(look: &Residency, ranges: &[Range<u64>]) -> u64 {
    let resident = crate::analysis::ResidentPages::new(look);
    ranges.iter().map(|range| resident.bytes_in(range.clone())).sum()
}

/// Pages into which ranges reach, which are in the order of their beginnings.
fn pages_of(places: &[Range<u64>]) -> u64 {
    let (mut pages, mut next) = (0, 0);
    for place in places.iter().filter(|place| !place.is_empty()) {
        let first = (place.start / PAGE).max(next);
        let end = (place.end - 1) / PAGE + 1;
        if end > first {
            pages += end - first;
            next = end;
        }
    }
    pages
}

/// What of ranges nothing takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Free {
    bytes: u64,
    holes: u64,
    largest: u64,
}

impl Free {
    /// Both rise; places may overlap, and empty ones cut nothing.
    fn between(ranges: &[Range<u64>], places: &[Range<u64>]) -> Self {
        let mut free = Self::default();
        let mut add = |hole: Range<u64>| {
            if hole.start < hole.end {
                let bytes = hole.end - hole.start;
                free.bytes += bytes;
                free.holes += 1;
                free.largest = free.largest.max(bytes);
            }
        };
        let mut places = places.iter().filter(|place| !place.is_empty()).peekable();
        let mut at = 0;
        for range in ranges {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a look at every byte and every page.
        #[test]
        fn holes_and_pages_are_those_of_a_look_at_every_byte(
            ranges in prop::collection::vec((0..4_u64, 1..30_u64), 0..5),
            places in prop::collection::vec((0..150_u64, 0..20_u64), 0..12),
        ) {
            let mut at = 0;
            let ranges: Vec<Range<u64>> = ranges
                .into_iter()
                .map(|(gap, length)| {
                    // None touch.
                    let start = at + gap + 1;
                    at = start + length;
                    start..at
                })
                .collect();
            let mut places: Vec<Range<u64>> = places.into_iter().map(|(start, length)| start..start + length).collect();
            places.sort_unstable_by_key(|place| place.start);
            let is_taken = |byte: u64| places.iter().any(|place| place.contains(&byte));
            let mut holes: Vec<u64> = Vec::new();
            for range in &ranges {
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
                largest: holes.iter().copied().max().unwrap_or(0),
            };
            prop_assert_eq!(Free::between(&ranges, &places), expected);
            let paged: Vec<Range<u64>> = places.iter().map(|place| place.start * 500..place.end * 500).collect();
            let pages = (0..30).filter(|page| {
                paged.iter().any(|place| !place.is_empty() && place.start < (page + 1) * PAGE && place.end > page * PAGE)
            });
            prop_assert_eq!(pages_of(&paged), pages.count() as u64);
        }
    }
}
