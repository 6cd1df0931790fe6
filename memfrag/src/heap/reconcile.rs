//! The state checked against the heap as it lies in memory, and mended where they differ.
//!
//! A walk from outside sees every chunk, but not whose it is; the stream of events knows whose, but only since the
//! trace began, and only what was not lost. Together they tell which blocks are older than the trace and which events
//! are missing.

use super::blocks::{Block, Blocks, MAX_SIZE};
use super::origin::OriginId;
use super::state::Heap;
use super::totals::Amount;
use crate::glibc::layout::HEADER;
use crate::glibc::{ChunkKind, Layout, Segment};
use crate::recording::{Input, Saved};
use std::collections::HashSet;

/// Blocks in use that no event told of: older than the trace, or their allocation was lost.
#[derive(Debug, Default)]
pub(super) struct Older {
    blocks: Blocks,
    amount: Amount,
    /// When the heap was walked last.
    walked_at: Option<u64>,
}

impl Older {
    fn insert(&mut self, block: &Block) {
        if self.blocks.insert(block).is_none() {
            self.amount.add(block.size);
        }
    }

    /// Takes a block out. It tells when the walk was that found it.
    pub(super) fn take(&mut self, addr: u64) -> Option<Block> {
        if self.amount.blocks == 0 {
            return None;
        }
        let block = self.blocks.remove(addr)?;
        self.amount.sub(block.size);
        Some(block)
    }

    /// Whether a block was found by the last walk, and not by the one with which the trace began.
    pub(super) fn is_stray(&self, block: &Block) -> bool {
        block.time != 0 && Some(block.time) == self.walked_at
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Block> + '_ {
        self.blocks.iter()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.blocks.memory_bytes()
    }

    pub(super) fn own_bytes(&self) -> u64 {
        self.blocks.own_bytes()
    }

    pub(super) fn rest(&mut self) {
        self.blocks.rest();
    }

    pub(super) fn walked_at(&self) -> Option<u64> {
        self.walked_at
    }

    /// Takes apart what was saved of such blocks: when the heap was walked, and they.
    pub(super) fn load(input: &mut Input<'_>, base: Option<&mut Self>) -> Option<Self> {
        let walked_at = Saved::load(input)?;
        let blocks = Blocks::load(input, base.map(|base| &mut base.blocks), is_unseen)?;
        let amount = Amount::of(blocks.iter());
        Some(Self { blocks, amount, walked_at })
    }

    /// Takes apart what was saved of the same blocks at another time.
    pub(super) fn load_like(&mut self, input: &mut Input<'_>) -> Option<Blocks> {
        Blocks::load(input, Some(&mut self.blocks), is_unseen)
    }

    pub(super) fn into_blocks(self) -> Blocks {
        self.blocks
    }

    /// The same blocks for another heap; the tables are shared until either side changes them.
    pub(super) fn fork(&mut self) -> Self {
        Self { blocks: self.blocks.fork(), amount: self.amount, walked_at: self.walked_at }
    }
}

impl Heap {
    /// Blocks in use that no event told of, mostly older than the trace: known since a walk, with the bytes that their
    /// chunks can hold as their size, and neither thread nor origin.
    pub fn older(&self) -> &Blocks {
        &self.older.blocks
    }

    /// How much that is.
    pub fn older_amount(&self) -> Amount {
        self.older.amount
    }

    /// When the heap was last checked against a walk.
    pub fn walked_at(&self) -> Option<u64> {
        self.older.walked_at
    }

    /// Takes a walk at `time` as the truth. `under_way` are the old blocks of reallocations that have begun: neither
    /// live nor gone.
    ///
    /// The first walk tells which blocks were there before; each later one finds the blocks whose allocation was not
    /// seen. Live blocks whose chunk is free have lost their free.
    pub(super) fn reconcile(&mut self, time: u64, layout: &Layout, under_way: &[u64]) {
        self.keep_past();
        let first = self.older.walked_at.is_none();
        let known = std::mem::take(&mut self.older);
        let mut known_blocks = known.blocks;
        self.older.walked_at = Some(time);
        let mut met = 0;
        for (addr, size) in used(layout) {
            if self.blocks.get(addr).is_some() {
                met += 1;
            } else if let Some(block) = known_blocks.remove(addr) {
                self.older.insert(&block);
            } else if !under_way.contains(&addr) {
                // Those of the first walk carry the time at which everything began.
                let time = if first { 0 } else { time };
                self.older.insert(&Block { addr, size: size.min(MAX_SIZE), time, thread: 0, origin: OriginId::UNSEEN });
                self.anomalies.missed_allocations += u64::from(!first);
            }
        }
        if met < self.live.blocks {
            let used: HashSet<u64> = used(layout).map(|(addr, _)| addr).collect();
            let dead: Vec<u64> =
                self.blocks.iter().map(|block| block.addr).filter(|addr| !used.contains(addr)).collect();
            for addr in dead {
                if let Some(block) = self.take(addr) {
                    self.totals.freed_bytes = self.totals.freed_bytes.wrapping_add(block.size);
                    self.anomalies.missed_frees += 1;
                }
            }
        }
        self.enter_blocks(self.pages.footprint());
    }
}

fn is_unseen(block: &Block) -> bool {
    block.origin == OriginId::UNSEEN
}

/// The blocks in the used chunks: address, and the bytes that they can hold.
fn used(layout: &Layout) -> impl Iterator<Item = (u64, u64)> + '_ {
    let segments = layout.arenas.iter().flat_map(|arena| &arena.segments);
    let small = segments
        .flat_map(Segment::iter)
        .filter(|(_, chunk)| chunk.kind() == ChunkKind::Used)
        .map(|(at, chunk)| (at + HEADER, chunk.bytes() - HEADER / 2));
    small.chain(layout.mapped.iter().map(|chunk| (chunk.address + HEADER, chunk.bytes.saturating_sub(HEADER))))
}
