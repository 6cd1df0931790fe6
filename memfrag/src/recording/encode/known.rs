//! Where in a chunk an address was named last.

use super::Model;
use memfrag_common::prefetch::prefetch;

/// Finds the last block at an address, mostly: what it forgets is written out in full.
#[derive(Debug)]
pub(super) struct Known {
    /// Pairs of slots: generation in the upper half, block number in the lower.
    slots: Box<[[u32; 2]]>,
    generation: u16,
}

impl Known {
    const LOG2: u32 = 15;

    pub(super) fn new() -> Self {
        Self { slots: vec![[0; 2]; 1 << Self::LOG2].into_boxed_slice(), generation: 1 }
    }

    pub(super) fn reset(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.slots.fill([0; 2]);
            self.generation = 1;
        }
    }

    #[inline]
    const fn at(addr: u64) -> usize {
        ((addr >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::LOG2)) as usize
    }

    #[inline]
    pub(super) fn insert(&mut self, addr: u64, number: u16) {
        let pair = &mut self.slots[Self::at(addr)];
        *pair = [u32::from(self.generation) << 16 | u32::from(number), pair[0]];
    }

    /// The number noted last where that of `addr` would be.
    #[inline]
    pub(super) fn latest(&self, addr: u64) -> u16 {
        self.slots[Self::at(addr)][0] as u16
    }

    /// Sends for what is noted of `addr`.
    #[inline]
    pub(super) fn send_for(&self, addr: u64) {
        prefetch(&self.slots[Self::at(addr)]);
    }

    #[inline]
    pub(super) fn find(&self, addr: u64, model: &Model) -> Option<u16> {
        let pair = self.slots[Self::at(addr)];
        pair.into_iter()
            .filter(|slot| slot >> 16 == u32::from(self.generation))
            .map(|slot| slot as u16)
            .find(|&number| model.addr(usize::from(number)) == Some(addr))
    }
}
