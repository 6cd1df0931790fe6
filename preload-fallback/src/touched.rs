//! Which thread had a block in hand last.
//!
//! The order of threads' records matters where they are of one block: a free must stand behind the allocation, and
//! before the next one at that address. A thread that was itself the last to allocate or free at an address keeps that
//! order in its own ring, whatever stamp it takes; only a block that comes from another thread asks for the time, which
//! is the dearest part of a record. Most programs hand few blocks over.
//!
//! The table has a place for each of many addresses and forgets what another address overwrites: then the time is asked
//! for. No lock is needed, since whoever touches a block has it to himself: what the thread before him wrote here, he
//! sees by the same way by which he got the block.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Places, a power of two. They take memory only as far as blocks come to lie on them.
const PLACES: usize = 1 << 16;

static TOUCHED: Table = Table([const { AtomicU64::new(0) }; PLACES]);

/// Whether the thread of this id was the last to touch the block; from now on it is. Ids may be given out anew, as long
/// as a thread's first stamp is behind those of whoever had its id.
#[inline(always)]
pub(crate) fn again(block: u64, tid: u32) -> bool {
    TOUCHED.again(block, tid)
}

struct Table([AtomicU64; PLACES]);

impl Table {
    #[inline(always)]
    fn again(&self, block: u64, tid: u32) -> bool {
        // Of an address of 48 bits the place tells 16, and the entry the others.
        let high = block >> 20;
        let place = &self.0[(block >> 4 ^ high) as usize % PLACES];
        let entry = u64::from(tid) << 32 | high << 4 | block & 15;
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

    #[test]
    fn no_block_of_another_thread_passes_for_ones_own() {
        static TABLE: Table = Table([const { AtomicU64::new(0) }; PLACES]);
        let (mut truth, mut seed, mut own) = (HashMap::new(), 7u64, 0);
        for _ in 0..2_000_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // Blocks eight bytes apart, in heaps that share all lower bits, and beyond 48 bits.
            let heap = [0x5555_5555_0000, 0x7f00_0000_0000, 0x7f00_0400_0000, 0xffff_7f00_0000_0000][seed as usize % 4];
            let (block, tid) = (heap + (seed >> 8) % 3000 * 8, 1 + (seed >> 40) as u32 % 3);
            let last = truth.insert(block, tid);
            if TABLE.again(block, tid) {
                assert_eq!(last, Some(tid), "{block:x}");
                own += 1;
            }
        }
        assert!(own > 50_000, "{own}");
    }

    #[test]
    fn blocks_of_one_heap_do_not_meet() {
        static TABLE: Table = Table([const { AtomicU64::new(0) }; PLACES]);
        let blocks: [u64; 4096] = array::from_fn(|n| 0x7f12_3456_0010 + 240 * n as u64);
        let first = blocks.iter().filter(|&&block| TABLE.again(block, 1)).count();
        let second = blocks.iter().filter(|&&block| TABLE.again(block, 1)).count();
        assert_eq!((first, second), (0, blocks.len()));
    }
}
