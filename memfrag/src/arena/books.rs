//! The books of an arena: which blocks there are, what is free, and what was counted. They know addresses alone and
//! touch no memory but their own, so nothing that is written into blocks can reach them.

use super::block::{Block, Tag};
use super::error::{AllocError, FreeError, ResizeError};
use super::free_list::{FreeList, Hole};
use super::state::Figures;
use crate::heap::BuildWordHasher;
use allocator_api2::alloc::{Allocator, Global};
use hashbrown::HashMap;
use std::ops::Range;

/// What is kept of a block under its address.
#[derive(Clone, Copy, Debug)]
struct Entry {
    requested: u64,
    size: u64,
    number: u64,
    tag: Tag,
    align_log2: u8,
}

#[derive(Debug)]
pub(super) struct Books<A: Allocator = Global> {
    range: Range<u64>,
    list: FreeList<A>,
    live: HashMap<u64, Entry, BuildWordHasher, A>,
    requested: u64,
    peak_requested: u64,
    peak_used: u64,
    top: u64,
    allocations: u64,
    frees: u64,
    resizes: u64,
    refused: u64,
    misuses: u64,
}

impl<A: Allocator + Clone> Books<A> {
    pub(super) fn new_in(range: Range<u64>, tables: A) -> Self {
        Self {
            list: FreeList::new_in(range.clone(), tables.clone()),
            live: HashMap::with_hasher_in(BuildWordHasher::default(), tables),
            top: range.start,
            range,
            requested: 0,
            peak_requested: 0,
            peak_used: 0,
            allocations: 0,
            frees: 0,
            resizes: 0,
            refused: 0,
            misuses: 0,
        }
    }

    /// First fit for a request, and a guard behind it.
    pub(super) fn allocate(&mut self, requested: u64, guard: u64, align: u64, tag: Tag) -> Result<Block, AllocError> {
        let found = self.find_room(requested, guard, align);
        let (address, size) = found.inspect_err(|_| self.refused += 1)?;
        let block = Block { address, requested, size, align, tag, number: self.allocations };
        self.allocations += 1;
        self.enter(block);
        Ok(block)
    }

    fn find_room(&mut self, requested: u64, guard: u64, align: u64) -> Result<(u64, u64), AllocError> {
        if !align.is_power_of_two() {
            return Err(AllocError::InvalidAlignment { align });
        }
        let size = requested.checked_add(guard).and_then(FreeList::<A>::rounded);
        let place = size.and_then(|size| Some((self.list.allocate(size, align)?, size)));
        place.ok_or_else(|| AllocError::OutOfMemory {
            size: requested,
            align,
            free: self.list.free(),
            largest: self.list.largest(),
        })
    }

    /// Takes a block out of the books.
    pub(super) fn free(&mut self, address: u64) -> Result<Block, FreeError> {
        let block = self.block(address).inspect_err(|_| self.misuses += 1)?;
        self.leave(&block);
        self.list.release(block.address, block.size).map_err(|_| FreeError::DoubleFree { address })?;
        self.frees += 1;
        Ok(block)
    }

    /// Gives a block another size: where it is, if what lies behind it allows that, else at a place that first fit finds
    /// while the old one is still taken. Its other properties stay.
    pub(super) fn resize(&mut self, address: u64, requested: u64, guard: u64) -> Result<(Block, Block), ResizeError> {
        let before = self.block(address).inspect_err(|_| self.misuses += 1)?;
        let after = if let Some(size) = self.resize_in_place(&before, requested, guard) {
            Block { requested, size, ..before }
        } else {
            let found = self.find_room(requested, guard, before.align);
            let (address, size) = found.inspect_err(|_| self.refused += 1)?;
            self.list.release(before.address, before.size).map_err(|_| FreeError::DoubleFree { address })?;
            Block { address, requested, size, ..before }
        };
        self.leave(&before);
        self.enter(after);
        self.resizes += 1;
        Ok((before, after))
    }

    /// The bytes that the block then takes, if that was possible.
    fn resize_in_place(&mut self, block: &Block, requested: u64, guard: u64) -> Option<u64> {
        let size = FreeList::<A>::rounded(requested.checked_add(guard)?)?;
        if size > block.size && !self.list.take(block.end(), size - block.size) {
            return None;
        }
        if size < block.size {
            self.list.release(block.address + size, block.size - size).ok()?;
        }
        Some(size)
    }

    fn enter(&mut self, block: Block) {
        let Block { address, requested, size, align, tag, number } = block;
        let entry = Entry { requested, size, number, tag, align_log2: align.trailing_zeros() as u8 };
        self.live.insert(address, entry);
        self.requested += requested;
        self.peak_requested = self.peak_requested.max(self.requested);
        self.peak_used = self.peak_used.max(self.used());
        self.top = self.top.max(block.end());
    }

    fn leave(&mut self, block: &Block) {
        self.live.remove(&block.address);
        self.requested -= block.requested;
    }
}

impl<A: Allocator> Books<A> {
    /// The block that begins at an address, or why there is none.
    pub(super) fn block(&self, address: u64) -> Result<Block, FreeError> {
        if let Some(&entry) = self.live.get(&address) {
            return Ok(Self::describe(address, entry));
        }
        Err(if !self.range.contains(&address) {
            FreeError::Foreign { address, start: self.range.start, end: self.range.end }
        } else if self.list.hole_at(address).is_some() {
            FreeError::DoubleFree { address }
        } else {
            FreeError::Misaligned { address }
        })
    }

    /// Counts a misuse that the books themselves could not see.
    pub(super) fn misused(&mut self) {
        self.misuses += 1;
    }

    /// The blocks, upwards.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<_> = self.live.iter().map(|(&address, &entry)| Self::describe(address, entry)).collect();
        blocks.sort_unstable_by_key(|block| block.address);
        blocks
    }

    /// The holes, upwards.
    pub(super) fn holes(&self) -> impl Iterator<Item = Hole> {
        self.list.holes()
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            capacity: self.range.end - self.range.start,
            blocks: self.live.len() as u64,
            requested: self.requested,
            used: self.used(),
            free: self.list.free(),
            holes: self.list.len() as u64,
            largest_hole: self.list.largest(),
            peak_requested: self.peak_requested,
            peak_used: self.peak_used,
            footprint: self.top - self.range.start,
            allocations: self.allocations,
            frees: self.frees,
            resizes: self.resizes,
            refused: self.refused,
            misuses: self.misuses,
        }
    }

    fn used(&self) -> u64 {
        self.range.end - self.range.start - self.list.free()
    }

    fn describe(address: u64, entry: Entry) -> Block {
        let Entry { requested, size, number, tag, align_log2 } = entry;
        Block { address, requested, size, align: 1 << align_log2, tag, number }
    }

    /// Panics when the books contradict themselves.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.list.check();
        let blocks = self.blocks();
        let mut parts: Vec<_> = blocks.iter().map(|block| (block.address, block.end())).collect();
        parts.extend(self.holes().map(|hole| (hole.start, hole.end())));
        parts.sort_unstable();
        let mut at = self.range.start;
        for (start, end) in parts {
            assert_eq!(start, at, "blocks and holes leave no gap and do not overlap");
            at = end;
        }
        assert_eq!(at, self.range.end);
        assert!(blocks.iter().all(|block| block.address % block.align == 0 && block.requested <= block.size));
        assert_eq!(self.requested, blocks.iter().map(|block| block.requested).sum::<u64>());
    }
}
