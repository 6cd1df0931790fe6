//! The live blocks of a heap by their real address.

use super::policy::BlockId;
use memfrag_common::prefetch::prefetch;

/// 2⁶⁴ divided by the golden ratio, odd.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// No block: there are never so many.
const FREE: BlockId = BlockId(u32::MAX);
/// Slots of the smallest table, as a logarithm.
const SMALLEST: u32 = 6;

/// A place in the table.
#[derive(Clone, Copy, Debug)]
struct Slot {
    addr: u64,
    block: BlockId,
}

/// Blocks by address: an open-addressing table, so that a look-up reads one line of memory, which can be
/// [sent for](Live::send_for) beforehand.
#[derive(Clone, Debug)]
pub(super) struct Live {
    slots: Vec<Slot>,
    len: usize,
    /// 64 less the logarithm of the number of slots.
    shift: u32,
}

impl Default for Live {
    fn default() -> Self {
        Self::with_slots(SMALLEST)
    }
}

impl Live {
    fn with_slots(log2: u32) -> Self {
        Self { slots: vec![Slot { addr: 0, block: FREE }; 1 << log2], len: 0, shift: u64::BITS - log2 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where a block would lie if all places were free.
    #[inline]
    fn home(&self, addr: u64) -> usize {
        (addr.wrapping_mul(FACTOR) >> self.shift) as usize
    }

    /// The place behind one, the first behind the last.
    #[inline]
    fn behind(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// The place of an address, or the free one where it would go. There is always a free one.
    #[inline]
    fn probe(&self, addr: u64) -> usize {
        let mut at = self.home(addr);
        while self.slots[at].block != FREE && self.slots[at].addr != addr {
            at = self.behind(at);
        }
        at
    }

    /// Sends for the place of an address.
    #[inline]
    pub(super) fn send_for(&self, addr: u64) {
        prefetch(&self.slots[self.home(addr)]);
    }

    /// The block at an address.
    #[inline]
    pub(super) fn get(&self, addr: u64) -> Option<BlockId> {
        let block = self.slots[self.probe(addr)].block;
        (block != FREE).then_some(block)
    }

    /// All blocks, in no particular order.
    pub(super) fn blocks(&self) -> impl Iterator<Item = BlockId> {
        self.slots.iter().map(|slot| slot.block).filter(|&block| block != FREE)
    }

    /// Puts a block at an address, and gives the one that was there.
    #[inline]
    pub(super) fn insert(&mut self, addr: u64, block: BlockId) -> Option<BlockId> {
        let at = self.probe(addr);
        let before = std::mem::replace(&mut self.slots[at], Slot { addr, block }).block;
        if before != FREE {
            return Some(before);
        }
        self.len += 1;
        if self.len > self.slots.len() / 8 * 5 {
            self.grow();
        }
        None
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = Self::with_slots(u64::BITS - self.shift + 1);
        for slot in self.slots.iter().filter(|slot| slot.block != FREE) {
            let at = larger.probe(slot.addr);
            larger.slots[at] = *slot;
        }
        larger.len = self.len;
        *self = larger;
    }

    /// Takes the block at an address away.
    #[inline]
    pub(super) fn remove(&mut self, addr: u64) -> Option<BlockId> {
        let mut hole = self.probe(addr);
        let block = self.slots[hole].block;
        if block == FREE {
            return None;
        }
        self.len -= 1;
        // Those behind move up as long as that brings them nearer to their homes: no place need be marked as left.
        let mut at = hole;
        loop {
            at = self.behind(at);
            let slot = self.slots[at];
            if slot.block == FREE {
                break;
            }
            let last = self.slots.len() - 1;
            let distance = |from: usize| at.wrapping_sub(from) & last;
            if distance(self.home(slot.addr)) >= distance(hole) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole].block = FREE;
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Addresses that are close together, far apart, and the widest; some have the same home.
        #[test]
        fn equals_a_map(steps in prop::collection::vec((0..6_u8, 0..90_u64, 0..4_u32), 1..800)) {
            let mut live = Live::default();
            let mut map = BTreeMap::new();
            for (number, (what, low, high)) in (0_u32..).zip(steps) {
                let addr = match high {
                    0 => low * 16,
                    1 => u64::MAX - low,
                    2 => low << 58,
                    // The factor's inverse: the homes are one and the same.
                    _ => low.wrapping_mul(0xf1de_83e1_9937_733d),
                };
                match what {
                    0..3 => prop_assert_eq!(live.insert(addr, BlockId(number)), map.insert(addr, BlockId(number))),
                    3..5 => prop_assert_eq!(live.remove(addr), map.remove(&addr)),
                    _ => prop_assert_eq!(live.get(addr), map.get(&addr).copied()),
                }
                prop_assert_eq!(live.len(), map.len());
            }
            for (&addr, &block) in &map {
                prop_assert_eq!(live.get(addr), Some(block));
            }
            let (mut blocks, mut expected): (Vec<_>, Vec<_>) = (live.blocks().collect(), map.values().copied().collect());
            blocks.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(blocks, expected);
            for addr in map.keys() {
                live.remove(*addr);
            }
            prop_assert!(live.slots.iter().all(|slot| slot.block == FREE));
        }
    }
}
