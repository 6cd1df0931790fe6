//! Two bytes for each 16 of the heap, where blocks of most allocators begin.
//!
//! The heap's regions of a mebibyte get a place here as they are first asked for, and keep it; a region that finds its
//! place taken has none, and never will. So the shadow takes an eighth of the heap, and 16 MiB at the most, of memory
//! that is shared: in the sums by which the program's own memory is measured, private anonymous memory, it does not
//! appear. There is none before the process has a second thread, nor where there is no room for it.

use crate::sys;
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU16, AtomicU64};
use memfrag_common::session::SHADOW_BYTES;

/// Places for regions, a power of two.
const PLACES: usize = 128;
const REGION_BITS: u32 = 20;
/// Numbers of a region.
const NUMBERS: usize = 1 << (REGION_BITS - 4);
const _: () = assert!(PLACES * NUMBERS * size_of::<AtomicU16>() <= SHADOW_BYTES);

/// In place of a region's number: there is no shadow; nobody has the place yet.
const CLOSED: u64 = u64::MAX;
const FREE: u64 = u64::MAX - 1;

/// See the module.
pub(crate) struct Shadow {
    /// The number of the region that has each place: its address by its size.
    regions: [AtomicU64; PLACES],
    base: AtomicPtr<AtomicU16>,
}

impl Shadow {
    pub(crate) const fn new() -> Self {
        Self { regions: [const { AtomicU64::new(CLOSED) }; PLACES], base: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The place for what is known of the block, 0 at first. Once there is one, it is always the same.
    #[inline(always)]
    pub(crate) fn place(&self, block: u64) -> Option<&AtomicU16> {
        if !block.is_multiple_of(16) {
            return None;
        }
        let region = block >> REGION_BITS;
        let at = place_of(region);
        // Whoever sees that a region has its place sees the shadow, too.
        let holder = self.regions[at].load(Acquire);
        if holder != region && (holder != FREE || !self.claim(at, region)) {
            return None;
        }
        let number = at * NUMBERS + (block >> 4) as usize % NUMBERS;
        // SAFETY: the shadow is mapped while a region has a place, and the number is one of its `PLACES * NUMBERS`.
        let place = unsafe { self.base.load(Relaxed).add(number) };
        // SAFETY: as above.
        Some(unsafe { &*place })
    }

    #[cold]
    fn claim(&self, place: usize, region: u64) -> bool {
        let before = self.regions[place].compare_exchange(FREE, region, Acquire, Acquire);
        before.is_ok() || before == Err(region)
    }

    /// Maps it, unless it is there or there is no room. Only one thread calls this at a time.
    pub(crate) fn open(&self) {
        if !self.base.load(Relaxed).is_null() {
            return;
        }
        let Some(base) = sys::map_shared(SHADOW_BYTES) else { return };
        self.base.store(base.cast(), Relaxed);
        for region in &self.regions {
            region.store(FREE, Release);
        }
    }

    /// Takes it out of a forked child, which would share it with its parent; the child may open one of its own.
    /// `keep_mapped`: somebody may still write to it.
    pub(crate) fn forget_parent(&self, keep_mapped: bool) {
        for region in &self.regions {
            region.store(CLOSED, Relaxed);
        }
        let base = self.base.swap(ptr::null_mut(), Relaxed);
        if !base.is_null() && !keep_mapped {
            // SAFETY: this thread is the only one of its process, and nobody uses the mapping.
            unsafe { sys::unmap(base.cast(), SHADOW_BYTES) };
        }
    }
}

/// Regions beside each other get places apart from each other, by the golden ratio.
const fn place_of(region: u64) -> usize {
    (region.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn places_are_apart_from_each_other_and_stay() {
        let shadow = Shadow::new();
        assert!(shadow.place(0x7f00_0000_0000).is_none(), "closed");
        shadow.open();
        let blocks: Vec<u64> = (0..64 << 20).step_by(1 << 12).map(|at| 0x7f00_0000_0010 + at).collect();
        let places = || -> Vec<usize> {
            blocks.iter().filter_map(|&block| shadow.place(block)).map(|place| ptr::from_ref(place).addr()).collect()
        };
        let first = places();
        assert_eq!(first.len(), blocks.len(), "64 regions beside each other find places");
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), blocks.len());
        let others = (0..1000u64).filter(|n| shadow.place(0x5555_0000_0000 + (n << 20)).is_some()).count();
        assert_eq!(others, PLACES - 64, "the rest of the places, and no more");
        assert_eq!(places(), first);
        assert!(shadow.place(0x7f00_0000_0018).is_none(), "not where such blocks begin");
        shadow.forget_parent(false);
        assert!(places().is_empty());
        shadow.open();
        assert!(blocks.iter().all(|&block| shadow.place(block).is_some_and(|place| place.load(Relaxed) == 0)));
        shadow.forget_parent(false);
    }
}
