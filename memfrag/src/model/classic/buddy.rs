//! Binary buddies: every block is rounded up to a power of two and lies at a multiple of its size. Halves that are both
//! free grow together. What that rounds up is known: 1.33 to 1.50 of what is requested, by the sizes.

use super::driven::{Free, Place, Placer, joined};
use crate::model::policy::Caller;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The smallest block, as a power of two.
const SMALLEST: u32 = 4;
/// The blocks that memory is obtained by, where no larger one is needed.
const OBTAINED: u32 = 20;
/// The largest block.
const LARGEST: u32 = 48;
/// Where addresses begin and end: multiples of the largest block.
const START: u64 = 1 << LARGEST;
const END: u64 = 1 << 62;

#[derive(Clone, Debug)]
pub(super) struct Buddy {
    /// Free blocks by the logarithm of their size; of each size the lowest is taken first.
    free: Vec<BTreeSet<u64>>,
    /// Blocks that were given back to the system, by the logarithm of their size; obtained again before new ones.
    returned: Vec<BTreeSet<u64>>,
    /// Bytes of each block that was obtained and not given back, by its start.
    obtained: BTreeMap<u64, u64>,
    next: u64,
    held: u64,
    free_bytes: u64,
}

impl Buddy {
    pub(super) fn new() -> Self {
        let none = vec![BTreeSet::new(); LARGEST as usize + 1];
        Self { free: none.clone(), returned: none, obtained: BTreeMap::new(), next: START, held: 0, free_bytes: 0 }
    }

    /// The logarithm of the block for a request.
    fn order(size: u64, align: u64) -> Option<u32> {
        let bytes = size.max(align).max(1 << SMALLEST).checked_next_power_of_two()?;
        Some(bytes.trailing_zeros()).filter(|&order| order <= LARGEST)
    }

    /// Obtains a block of at least an order.
    fn obtain(&mut self, order: u32) -> Option<u32> {
        let order = order.max(OBTAINED);
        let start = if let Some(start) = self.returned[order as usize].pop_first() {
            start
        } else {
            let start = self.next.next_multiple_of(1 << order);
            self.next = start.checked_add(1 << order).filter(|&end| end <= END)?;
            start
        };
        self.held += 1 << order;
        self.free_bytes += 1 << order;
        self.free[order as usize].insert(start);
        self.obtained.insert(start, 1 << order);
        Some(order)
    }

    /// The order of what a block of an order was obtained in: large ones come by themselves and are never split.
    fn limit(order: u32) -> u32 {
        order.max(OBTAINED)
    }
}

impl Placer for Buddy {
    fn place(&mut self, _: &Caller, size: u64, align: u64) -> Option<Place> {
        let order = Self::order(size, align)?;
        let most = Self::limit(order);
        let found = (order..=most).find(|&order| !self.free[order as usize].is_empty());
        let mut from = found.or_else(|| self.obtain(order))?;
        let start = self.free[from as usize].pop_first()?;
        while from > order {
            from -= 1;
            self.free[from as usize].insert(start + (1 << from));
        }
        self.free_bytes -= 1 << order;
        Some(Place { start, taken: 1 << order })
    }

    fn release(&mut self, _: &Caller, place: Place) {
        let mut order = place.taken.trailing_zeros();
        let mut start = place.start;
        let limit = Self::limit(order);
        self.free_bytes += place.taken;
        while order < limit && self.free[order as usize].remove(&(start ^ (1 << order))) {
            start &= !(1 << order);
            order += 1;
        }
        if order == limit {
            self.held -= 1 << order;
            self.free_bytes -= 1 << order;
            self.returned[order as usize].insert(start);
            self.obtained.remove(&start);
        } else {
            self.free[order as usize].insert(start);
        }
    }

    fn resize(&mut self, place: Place, size: u64) -> Option<u64> {
        let order = Self::order(size, 1)?;
        (1 << order == place.taken).then_some(place.taken)
    }

    fn held(&self) -> u64 {
        self.held
    }

    fn free(&self) -> Free {
        let holes: u64 = self.free.iter().map(|blocks| blocks.len() as u64).sum();
        let largest = self.free.iter().rposition(|blocks| !blocks.is_empty());
        Free { bytes: self.free_bytes, holes, largest: largest.map_or(0, |order| 1 << order) }
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        joined(self.obtained.iter().map(|(&start, &bytes)| start..start + bytes).collect())
    }
}
