//! What a heap held at a moment, kept while it goes on.

use super::blocks::{Block, Blocks};
use super::state::Heap;

/// The blocks of a heap at a moment. Taking one costs time by 64 KiB regions, not by blocks: tables are shared until
/// the heap changes them.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(super) blocks: Blocks,
    pub(super) older: Blocks,
}

impl Heap {
    pub(super) fn snapshot(&mut self) -> Snapshot {
        Snapshot { blocks: self.blocks.fork(), older: self.older.fork().into_blocks() }
    }
}

impl Snapshot {
    pub(super) fn new(blocks: Blocks, older: Blocks) -> Self {
        Self { blocks, older }
    }

    /// The blocks that events told of.
    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The others.
    pub(super) fn older(&self) -> &Blocks {
        &self.older
    }

    /// All blocks in order of their addresses, those that no event told of included.
    pub fn sorted(&self) -> Vec<Block> {
        Self::merged(self.blocks.sorted(), self.older.sorted())
    }

    /// All blocks of two sorted lists, those that events told of and the others.
    pub(super) fn merged(told: Vec<Block>, older: Vec<Block>) -> Vec<Block> {
        let mut all = told;
        if !older.is_empty() {
            all.extend(older);
            // Two sorted runs, which this sort merges in one go.
            all.sort_by_key(|block| block.addr);
            all.dedup_by_key(|block| block.addr);
        }
        all
    }
}
