//! Which thread had a block in hand last.
//!
//! The order of threads' records matters where they are of one block: a free must stand behind the allocation, and
//! before the next one at that address. A thread that was itself the last to allocate or free at an address keeps that
//! order in its own ring, whatever stamp it takes; only a block that comes from another thread asks for the time, which
//! is the dearest part of a record. Most programs hand few blocks over.
//!
//! A thread is known by the number of its ring. What is known lies in the [`shadow`](crate::shadow) where that has room
//! for the block: neighbours there are neighbours in the heap, so that it costs few cache lines and pages beyond those
//! that the program itself has in use. Else in a table, which has a place for each of many addresses and forgets what
//! another address overwrites: then the time is asked for. An address that has come to be in the shadow stays there.
//!
//! No lock is needed, since whoever touches a block has it to himself: what the thread before him wrote here, he sees by
//! the same way by which he got the block.

use crate::shadow::Shadow;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Places of the table, a power of two. They take memory only as far as blocks come to lie on them.
const PLACES: usize = 1 << 16;

static TOUCHED: Touched = Touched::new();

/// Whether the thread of this number was the last to touch the block; from now on it is. Numbers begin at 1 and may be
/// given out anew, as long as a thread's first stamp is behind those of whoever had its number.
#[inline(always)]
pub(crate) fn again(block: u64, number: u16) -> bool {
    TOUCHED.again(block, number)
}

/// There is more than one thread from now on. Called under the process's lock, any number of times.
pub(crate) fn several_threads() {
    TOUCHED.shadow.open();
}

/// Takes the parent's shadow out of a forked child. `interrupted`: a hook that the child returns into may still write to
/// it, so that it stays mapped.
pub(crate) fn forget_parent(interrupted: bool) {
    TOUCHED.shadow.forget_parent(interrupted);
}

struct Touched {
    shadow: Shadow,
    table: [AtomicU64; PLACES],
}

impl Touched {
    #[expect(clippy::large_stack_arrays, reason = "only statics are made by it")]
    const fn new() -> Self {
        Self { shadow: Shadow::new(), table: [const { AtomicU64::new(0) }; PLACES] }
    }

    #[inline(always)]
    fn again(&self, block: u64, number: u16) -> bool {
        let Some(place) = self.shadow.place(block) else { return self.again_by_table(block, number) };
        let before = place.load(Relaxed);
        if before != number {
            place.store(number, Relaxed);
        }
        before == number
    }

    fn again_by_table(&self, block: u64, number: u16) -> bool {
        // Of an address of 48 bits the place tells 16, and the entry the others.
        let high = block >> 20;
        let place = &self.table[(block >> 4 ^ high) as usize % PLACES];
        let entry = u64::from(number) << 32 | high << 4 | block & 15;
        let before = place.load(Relaxed);
        if before != entry {
            place.store(entry, Relaxed);
        }
        before == entry && block >> 48 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::array;
    use std::collections::HashMap;

    /// Lets three threads touch random blocks, and gives how often one of them was found to be its own predecessor.
    fn touch_at_random(touched: &Touched, truth: &mut HashMap<u64, u16>, heaps: &[u64]) -> usize {
        let (mut seed, mut own) = (7u64, 0);
        for _ in 0..1_000_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // Blocks eight bytes apart, on both sides of the heap's beginning.
            let heap = heaps[seed as usize % heaps.len()];
            let (block, number) = (heap - 12_000 + (seed >> 8) % 3000 * 8, 1 + (seed >> 40) as u16 % 3);
            let last = truth.insert(block, number);
            if touched.again(block, number) {
                assert!(last.is_none_or(|last| last == number), "{block:x}: {last:?}, not {number}");
                own += 1;
            }
        }
        own
    }

    #[test]
    fn no_block_of_another_thread_passes_for_ones_own() {
        static TOUCHED: Touched = Touched::new();
        let mut truth = HashMap::new();
        // Heaps that share all lower bits, one of them beyond 48 bits; then more regions than the shadow has places.
        let few = [0x5555_5560_0000, 0x7f00_0010_0000, 0x7f00_0410_0000, 0xffff_7f00_0000_0000];
        let many: Vec<u64> = (1..=400).map(|n| 0x7f00_0000_0000 + (n << 20)).collect();
        let by_table = touch_at_random(&TOUCHED, &mut truth, &few);
        TOUCHED.shadow.open();
        let by_shadow = touch_at_random(&TOUCHED, &mut truth, &few);
        let by_both = touch_at_random(&TOUCHED, &mut truth, &many);
        assert!(by_table > 30_000 && by_shadow > 200_000 && by_both > 10_000, "{by_table}, {by_shadow}, {by_both}");
        // A child's first stamp is behind all that its parent's threads did: who they were does not matter.
        truth.clear();
        TOUCHED.shadow.forget_parent(false);
        let child_by_table = touch_at_random(&TOUCHED, &mut truth, &few);
        TOUCHED.shadow.open();
        let child_by_shadow = touch_at_random(&TOUCHED, &mut truth, &few);
        assert!(child_by_table > 30_000 && child_by_shadow > 200_000, "{child_by_table}, {child_by_shadow}");
    }

    #[test]
    fn blocks_of_one_heap_do_not_meet() {
        static TOUCHED: Touched = Touched::new();
        for heap in [0x7f12_3456_0010, 0x7f56_3456_0010] {
            let blocks: [u64; 4096] = array::from_fn(|n| heap + 240 * n as u64);
            let again = || blocks.iter().filter(|&&block| TOUCHED.again(block, 1)).count();
            assert_eq!([again(), again()], [0, blocks.len()]);
            TOUCHED.shadow.open();
        }
    }
}
