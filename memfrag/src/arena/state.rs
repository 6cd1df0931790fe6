//! What an arena holds at a moment.

use super::block::{Block, Tag};
use super::free_list::Hole;
use super::lines::Lines;
use super::padding::Padding;
use std::ops::Range;

/// Sums, kept at every operation, so that asking costs nothing. All in bytes unless they are counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// All of the arena.
    pub capacity: u64,
    /// Live blocks.
    pub blocks: u64,
    /// Requested, of live blocks.
    pub requested: u64,
    /// Taken by live blocks: requests, guards and rounding.
    pub used: u64,
    /// The rest.
    pub free: u64,
    /// The number of holes.
    pub holes: u64,
    /// The largest hole.
    pub largest_hole: u64,
    /// The most that `requested` ever was.
    pub peak_requested: u64,
    /// The most that `used` ever was.
    pub peak_used: u64,
    /// From the arena's first address to the highest that a block ever ended at.
    pub footprint: u64,
    /// Blocks ever given out.
    pub allocations: u64,
    /// Blocks ever given back.
    pub frees: u64,
    /// Blocks that got another size.
    pub resizes: u64,
    /// Requests refused, for want of room or for an impossible alignment.
    pub refused: u64,
    /// Pointers refused: foreign, free already, not at a block's beginning, with a wrong layout, or with a spoilt guard.
    pub misuses: u64,
}

impl Figures {
    /// `1 − largest hole / free`: 0 when all that is free is one hole or nothing is, near 1 when it is in crumbs.
    /// The report calls it `free_fragmentation_index`.
    pub fn fragmentation(&self) -> f64 {
        if self.free == 0 { 0.0 } else { 1.0 - self.largest_hole as f64 / self.free as f64 }
    }

    /// `1 − requested / used`: what rounding and guards take of the blocks; 0 without any.
    pub fn internal_fragmentation(&self) -> f64 {
        if self.used == 0 { 0.0 } else { 1.0 - self.requested as f64 / self.used as f64 }
    }
}

/// Everything in an arena at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The arena's addresses.
    pub range: Range<u64>,
    /// The sums.
    pub figures: Figures,
    /// Live blocks, upwards.
    pub blocks: Vec<Block>,
    /// Holes, upwards. With the blocks they fill the range.
    pub holes: Vec<Hole>,
}

impl State {
    /// The block that an address lies in.
    pub fn block_at(&self, address: u64) -> Option<&Block> {
        let upto = self.blocks.partition_point(|block| block.address <= address);
        self.blocks[..upto].last().filter(|block| address < block.end())
    }

    /// What blocks take beyond what was requested.
    pub fn padding(&self) -> Padding {
        Padding::of(&self.blocks)
    }

    /// How the blocks lie on cache lines of this many bytes; see [`cache_line`](super::cache_line) for this machine's.
    ///
    /// # Panics
    /// When that is no power of two.
    pub fn lines(&self, line: u64) -> Lines {
        Lines::of(&self.range, &self.blocks, line)
    }

    /// The tags of live blocks with their blocks and requested bytes, the largest first.
    pub fn tags(&self) -> Vec<(Tag, u64, u64)> {
        let padding = self.padding();
        padding.tags.iter().map(|tag| (tag.tag, tag.blocks, tag.requested)).collect()
    }
}
