//! The blocks that begin in one region: a small open-addressing table under the low bits of their addresses.

use super::{Block, MAX_SIZE, REGION_BITS};
use crate::heap::origin::OriginId;
use std::sync::Arc;

/// A block as it lies in its region's table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    time: u64,
    size_low: u32,
    size_high: u16,
    offset: u16,
    /// [`OriginId::NONE`] in an empty slot.
    origin: OriginId,
    thread: u32,
}

const _: () = assert!(size_of::<Slot>() == 24);

impl Slot {
    pub(super) const EMPTY: Self =
        Self { time: 0, size_low: 0, size_high: 0, offset: 0, origin: OriginId::NONE, thread: 0 };

    pub(super) fn new(block: &Block) -> Self {
        let size = block.size.min(MAX_SIZE);
        Self {
            time: block.time,
            size_low: size as u32,
            size_high: (size >> 32) as u16,
            offset: block.addr as u16,
            origin: block.origin,
            thread: block.thread,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.origin == OriginId::NONE
    }

    pub(super) fn addr(&self, region: u64) -> u64 {
        region << REGION_BITS | u64::from(self.offset)
    }

    pub(super) fn block(&self, region: u64) -> Block {
        Block {
            addr: self.addr(region),
            size: u64::from(self.size_low) | u64::from(self.size_high) << 32,
            time: self.time,
            thread: self.thread,
            origin: self.origin,
        }
    }
}

/// The slots of a region, and whether another process still reads the same ones.
#[derive(Clone, Debug)]
pub(super) enum Slots {
    Owned(Vec<Slot>),
    Shared(Arc<Vec<Slot>>),
}

/// The blocks that begin in one region.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) slots: Slots,
    pub(super) len: u32,
}

impl Region {
    pub(super) const EMPTY: Self = Self { slots: Slots::Owned(Vec::new()), len: 0 };

    pub(super) fn slots(&self) -> &[Slot] {
        match &self.slots {
            Slots::Owned(slots) => slots,
            Slots::Shared(slots) => slots,
        }
    }

    /// The slots that hold blocks, with their indices.
    pub(super) fn taken(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots().iter().enumerate().filter(|(_, slot)| !slot.is_empty())
    }

    /// The slots to write to: a shared table is copied now, unless the other process is gone already.
    pub(super) fn slots_mut(&mut self) -> &mut Vec<Slot> {
        if let Slots::Shared(shared) = &mut self.slots {
            let shared = std::mem::take(shared);
            self.slots = Slots::Owned(Arc::unwrap_or_clone(shared));
        }
        match &mut self.slots {
            Slots::Owned(slots) => slots,
            Slots::Shared(_) => unreachable!("made its own above"),
        }
    }

    /// A second handle on the same slots.
    pub(super) fn share(&mut self) -> Self {
        let shared = match std::mem::replace(&mut self.slots, Slots::Owned(Vec::new())) {
            Slots::Owned(slots) => Arc::new(slots),
            Slots::Shared(shared) => shared,
        };
        self.slots = Slots::Shared(Arc::clone(&shared));
        Self { slots: Slots::Shared(shared), len: self.len }
    }

    /// Where a block at `offset` would like to lie among `capacity` slots. Fibonacci hashing spreads the even strides
    /// in which blocks lie; the product of the range allows capacities that are no powers of two.
    pub(super) fn home(offset: u16, capacity: usize) -> usize {
        (usize::from(offset.wrapping_mul(40_503)) * capacity) >> REGION_BITS
    }

    /// The slot that holds `offset`, or the empty one where it would go. There is always an empty one.
    pub(super) fn probe(slots: &[Slot], offset: u16) -> usize {
        let mut at = Self::home(offset, slots.len());
        while !slots[at].is_empty() && slots[at].offset != offset {
            at += 1;
            if at == slots.len() {
                at = 0;
            }
        }
        at
    }

    pub(super) fn get(&self, offset: u16) -> Option<&Slot> {
        let slots = self.slots();
        if slots.is_empty() {
            return None;
        }
        let slot = &slots[Self::probe(slots, offset)];
        (!slot.is_empty()).then_some(slot)
    }

    /// Puts a slot in, and hands back the one it replaced.
    pub(super) fn insert(&mut self, slot: Slot) -> Option<Slot> {
        let len = self.len as usize;
        let slots = self.slots_mut();
        if !slots.is_empty() {
            let at = Self::probe(slots, slot.offset);
            if !slots[at].is_empty() {
                return Some(std::mem::replace(&mut slots[at], slot));
            }
            if len < Self::limit(slots.len()) {
                slots[at] = slot;
                self.len += 1;
                return None;
            }
        }
        let larger = match slots.len() {
            0 => 2,
            capacity if capacity.is_power_of_two() => capacity + capacity / 2,
            capacity => capacity / 3 * 4,
        };
        Self::rehash(slots, larger);
        let at = Self::probe(slots, slot.offset);
        slots[at] = slot;
        self.len += 1;
        None
    }

    /// How many of `capacity` slots may be taken.
    pub(super) fn limit(capacity: usize) -> usize {
        capacity * 3 / 4
    }

    pub(super) fn rehash(slots: &mut Vec<Slot>, capacity: usize) {
        let mut fresh = vec![Slot::EMPTY; capacity];
        for slot in slots.iter().filter(|slot| !slot.is_empty()) {
            let at = Self::probe(&fresh, slot.offset);
            fresh[at] = *slot;
        }
        *slots = fresh;
    }

    pub(super) fn remove(&mut self, offset: u16) -> Option<Slot> {
        let slots = self.slots();
        if slots.is_empty() {
            return None;
        }
        // Looked up before the slots are made their own: a free that finds nothing must not copy a shared table.
        let mut hole = Self::probe(slots, offset);
        if slots[hole].is_empty() {
            return None;
        }
        let left = self.len as usize - 1;
        let slots = self.slots_mut();
        let removed = slots[hole];
        // Those behind move up as long as that brings them nearer to their homes, so that no slot need be marked as
        // deleted and a long life leaves no trace.
        let capacity = slots.len();
        let mut at = hole;
        loop {
            at = if at + 1 == capacity { 0 } else { at + 1 };
            if slots[at].is_empty() {
                break;
            }
            let wanted = Self::home(slots[at].offset, capacity);
            let distance = |from: usize| if at >= from { at - from } else { at + capacity - from };
            if distance(wanted) >= distance(hole) {
                slots[hole] = slots[at];
                hole = at;
            }
        }
        slots[hole] = Slot::EMPTY;
        if capacity >= 64 && left < capacity / 8 {
            Self::rehash(slots, 16.max(capacity.next_power_of_two() / 4));
        }
        self.len -= 1;
        Some(removed)
    }
}
