//! The same number for the same live blocks.

use super::{Limit, QueryError};
use crate::heap::{Block, Heap};

/// A digest of live blocks: their addresses, sizes, threads, times and call sites. It is the same whatever way the state
/// was reached, since sums do not depend on an order. Those that no event told of are among them, without a site.
pub(super) fn of(heap: &Heap, limit: &Limit) -> Result<String, QueryError> {
    let mut turns = limit.turns();
    let mut sum = 0_u128;
    for block in heap.blocks().iter().chain(heap.older().iter()) {
        turns.turn()?;
        let site = heap.origin(block.origin).map_or(0, |origin| origin.site);
        sum = sum.wrapping_add(hash(&block, site));
    }
    Ok(format!("{sum:032x}"))
}

/// Two independent words of 64 bits.
fn hash(block: &Block, site: u64) -> u128 {
    let words = [block.addr, block.size, block.time, u64::from(block.thread), site];
    let half = |seed| words.iter().fold(seed, |state: u64, word| mix(state ^ word));
    u128::from(half(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(half(0xd1b5_4a32_d192_ed03))
}

/// The finalizer of splitmix64: every bit of the word changes half of the bits.
fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}
