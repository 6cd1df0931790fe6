//! What all classic policies have in common: the table of blocks, the sums, the counts.

use crate::model::policy::{BlockId, Caller, Contents, Counts, Footprint, Policy, Request, Step};
use memfrag_common::prefetch::prefetch;
use std::fmt::Debug;
use std::ops::Range;

/// The alignment of every block.
const NATURAL: u64 = 16;

/// A place that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: u64,
    /// Bytes that it takes, rounding included.
    pub(super) taken: u64,
}

/// Free ranges within what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) bytes: u64,
    pub(super) holes: u64,
    pub(super) largest: u64,
}

/// Decides where blocks lie. Addresses are its own and stand for no memory.
pub(super) trait Placer: Clone + Debug + Send + 'static {
    /// A place for `size` bytes; `align` is a power of two, at least 16. `None` when there is none in the addresses.
    fn place(&mut self, caller: &Caller, size: u64, align: u64) -> Option<Place>;

    /// A place is free again.
    fn release(&mut self, caller: &Caller, place: Place);

    /// Sends for what releasing a place will read.
    fn send_for(&self, _place: Place) {}

    /// Gives a block another size where it is; the bytes that it then takes, `None` when it has to move.
    fn resize(&mut self, place: Place, size: u64) -> Option<u64>;

    /// Bytes obtained from the system.
    fn held(&self) -> u64;

    /// What of them is free.
    fn free(&self) -> Free;

    /// The addresses of what was obtained, as [`Policy::held`].
    fn ranges(&self) -> Vec<Range<u64>>;
}

/// Ranges in any order as such that rise and do not touch.
pub(super) fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// A block and where it was put. It never lies on two lines of memory.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Placed {
    place: Place,
    requested: u64,
}

impl Placed {
    /// What is kept under the number of no block: every place takes something.
    const NOWHERE: Self = Self { place: Place { start: 0, taken: 0 }, requested: 0 };

    fn is_somewhere(&self) -> bool {
        self.place.taken > 0
    }
}

/// A placer as a policy.
#[derive(Clone, Debug)]
pub(super) struct Driven<P> {
    name: &'static str,
    placer: P,
    blocks: Vec<Placed>,
    requested: u64,
    taken: u64,
    footprint: Footprint,
    counts: Counts,
}

impl<P: Placer> Driven<P> {
    pub(super) fn new(name: &'static str, placer: P) -> Self {
        Self {
            name,
            placer,
            blocks: Vec::new(),
            requested: 0,
            taken: 0,
            footprint: Footprint::default(),
            counts: Counts::default(),
        }
    }

    fn get(&self, block: BlockId) -> Option<Placed> {
        self.blocks.get(block.index()).copied().filter(Placed::is_somewhere)
    }

    /// Finds a place, and counts what that took.
    fn place(&mut self, caller: &Caller, request: &Request) -> Option<Placed> {
        let (before, align) = (self.placer.held(), request.align(NATURAL));
        let free = before.saturating_sub(self.taken);
        let Some(place) = self.placer.place(caller, request.size, align) else {
            self.counts.failed += 1;
            return None;
        };
        self.counts.placements += 1;
        if self.placer.held() > before {
            self.counts.growths += 1;
            self.counts.avoidable_growths += u64::from(free >= place.taken);
        }
        Some(Placed { place, requested: request.size })
    }

    fn enter(&mut self, block: BlockId, placed: Placed) {
        self.requested += placed.requested;
        self.taken += placed.place.taken;
        if self.blocks.len() <= block.index() {
            self.blocks.resize(block.index() + 1, Placed::NOWHERE);
        }
        self.blocks[block.index()] = placed;
    }

    fn leave(&mut self, block: BlockId) -> Option<Placed> {
        let placed = std::mem::replace(self.blocks.get_mut(block.index())?, Placed::NOWHERE);
        if !placed.is_somewhere() {
            return None;
        }
        self.requested -= placed.requested;
        self.taken -= placed.place.taken;
        Some(placed)
    }

    fn measure(&mut self, caller: &Caller) {
        self.footprint.set(caller.time, self.placer.held());
    }
}

impl<P: Placer> Policy for Driven<P> {
    fn name(&self) -> &str {
        self.name
    }

    fn allocate(&mut self, caller: &Caller, block: BlockId, request: &Request, _observed: u64) -> Option<u64> {
        let placed = self.place(caller, request);
        if let Some(placed) = placed {
            self.enter(block, placed);
        }
        self.measure(caller);
        placed.map(|placed| placed.place.start)
    }

    fn free(&mut self, caller: &Caller, block: BlockId) {
        // What could not be placed has nothing to give back.
        if let Some(placed) = self.leave(block) {
            self.placer.release(caller, placed.place);
        }
        self.measure(caller);
    }

    fn reallocate(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64> {
        let Some(old) = self.get(block) else { return self.allocate(caller, block, request, observed) };
        if let Some(taken) = self.placer.resize(old.place, request.size) {
            self.counts.in_place += 1;
            self.leave(block);
            let place = Place { taken, ..old.place };
            self.enter(block, Placed { place, requested: request.size });
        } else {
            // The real allocator keeps what a block was aligned to only by chance, and so do these.
            let placed = self.place(caller, request)?;
            self.leave(block);
            self.placer.release(caller, old.place);
            self.enter(block, placed);
        }
        self.measure(caller);
        self.get(block).map(|placed| placed.place.start)
    }

    fn send_for(&self, block: BlockId, step: Step) {
        let Some(placed) = self.blocks.get(block.index()) else { return };
        match step {
            Step::Block => prefetch(placed),
            Step::Place => {
                if placed.is_somewhere() {
                    self.placer.send_for(placed.place);
                }
            }
            Step::Around => {}
        }
    }

    fn footprint(&self) -> Footprint {
        self.footprint
    }

    fn contents(&self) -> Contents {
        let free = self.placer.free();
        Contents {
            requested: self.requested,
            taken: self.taken,
            free: free.bytes,
            holes: free.holes,
            largest_hole: free.largest,
        }
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn place_of(&self, block: BlockId) -> Option<Range<u64>> {
        let place = self.get(block)?.place;
        Some(place.start..place.start + place.taken)
    }

    fn held(&self) -> Vec<Range<u64>> {
        self.placer.ranges()
    }

    fn fork(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}
