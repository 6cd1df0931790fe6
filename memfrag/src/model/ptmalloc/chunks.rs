//! The chunks of all arenas: each knows its neighbours in memory and in its list.

use crate::heap::BuildWordHasher;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::ops::Range;

/// A chunk's number.
pub(super) type Id = u32;
/// No chunk.
pub(super) const NONE: Id = u32::MAX;

/// Pages whose chunks are found by one table.
const TABLE_PAGES: u64 = 64;
const PAGE_SHIFT: u32 = 12;

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The program's, or the allocator's own.
    Used,
    /// In the cache of the thread whose number stands in `back`.
    Cached,
    /// In a fastbin.
    Fast,
    /// In the bin whose number stands in `bin`.
    Free,
    /// An arena's last chunk.
    Top,
    /// What closes a piece of memory that its arena has left.
    Fence,
    /// Mapped by itself; `back` is how far its mapping begins before it, in pages of the chunk's address.
    Mapped,
    /// Not in use as a record.
    Gone,
}

/// A chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    /// Where it begins; the block begins 16 bytes behind.
    pub(super) addr: u64,
    /// Bytes.
    pub(super) size: u64,
    /// The chunks before and behind it in memory.
    pub(super) before: Id,
    pub(super) after: Id,
    /// The chunks before and behind it in its list, the newest first.
    pub(super) newer: Id,
    pub(super) older: Id,
    /// Number of its arena.
    pub(super) arena: u16,
    pub(super) state: State,
    /// Number of its bin, while it is free.
    pub(super) bin: u8,
}

impl Chunk {
    pub(super) const fn end(&self) -> u64 {
        self.addr + self.size
    }
}

/// A piece of memory: where it ends, and the chunk with which it begins.
#[derive(Clone, Copy, Debug)]
struct Piece {
    end: u64,
    first: Id,
}

/// All chunks. They lie in pieces of memory, of which no two overlap; in a piece one chunk follows the other without gaps.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunks {
    all: Vec<Chunk>,
    unused: Vec<Id>,
    /// For each page one of the chunks that begin there.
    tables: HashMap<u64, Box<[Id]>, BuildWordHasher>,
    /// The pieces by their beginning.
    pieces: BTreeMap<u64, Piece>,
}

impl std::ops::Index<Id> for Chunks {
    type Output = Chunk;
    #[inline]
    fn index(&self, id: Id) -> &Chunk {
        &self.all[id as usize]
    }
}

impl std::ops::IndexMut<Id> for Chunks {
    #[inline]
    fn index_mut(&mut self, id: Id) -> &mut Chunk {
        &mut self.all[id as usize]
    }
}

impl Chunks {
    /// All chunks that there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &Chunk)> {
        (0..).zip(&self.all).filter(|(_, chunk)| chunk.state != State::Gone)
    }

    /// The pieces of memory, upwards.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Range<u64>> {
        self.pieces.iter().map(|(&start, piece)| start..piece.end)
    }

    /// Begins a piece with one chunk. No other piece may lie there.
    pub(super) fn begin(&mut self, addr: u64, size: u64, arena: u16, state: State) -> Id {
        debug_assert!(self.overlapping(addr..addr + size).is_none(), "two pieces at {addr:x}");
        let first = self.add(addr, size, arena, state);
        self.pieces.insert(addr, Piece { end: addr + size, first });
        first
    }

    /// Ends the piece of a chunk that is alone in it.
    pub(super) fn end(&mut self, id: Id) {
        debug_assert_eq!((self[id].before, self[id].after), (NONE, NONE));
        let addr = self[id].addr;
        self.pieces.remove(&addr);
        self.remove(id);
    }

    /// Gives the last chunk of a piece another size. No other piece may lie there.
    pub(super) fn resize(&mut self, id: Id, size: u64) {
        let addr = self[id].addr;
        debug_assert_eq!(self[id].after, NONE);
        if let Some((_, piece)) = self.pieces.range_mut(..=addr).next_back() {
            piece.end = addr + size;
        }
        self[id].size = size;
    }

    /// The first chunk of the highest piece that has a part of a range.
    pub(super) fn overlapping(&self, range: Range<u64>) -> Option<Id> {
        let (_, piece) = self.pieces.range(..range.end).next_back()?;
        (piece.end > range.start).then_some(piece.first)
    }

    /// A new chunk without neighbours.
    fn add(&mut self, addr: u64, size: u64, arena: u16, state: State) -> Id {
        let chunk = Chunk { addr, size, before: NONE, after: NONE, newer: NONE, older: NONE, arena, state, bin: 0 };
        let id = if let Some(id) = self.unused.pop() {
            self.all[id as usize] = chunk;
            id
        } else {
            self.all.push(chunk);
            (self.all.len() - 1) as Id
        };
        let entry = self.entry(addr);
        if *entry == NONE {
            *entry = id;
        }
        id
    }

    fn entry(&mut self, addr: u64) -> &mut Id {
        let page = addr >> PAGE_SHIFT;
        let table = self.tables.entry(page / TABLE_PAGES);
        let table = table.or_insert_with(|| vec![NONE; TABLE_PAGES as usize].into_boxed_slice());
        &mut table[(page % TABLE_PAGES) as usize]
    }

    /// Takes a chunk out of memory: its neighbours become each other's.
    fn remove(&mut self, id: Id) {
        let Chunk { addr, before, after, .. } = self[id];
        if before != NONE {
            self[before].after = after;
        }
        if after != NONE {
            self[after].before = before;
        }
        if *self.entry(addr) == id {
            let same = |other: Id, all: &Self| other != NONE && all[other].addr >> PAGE_SHIFT == addr >> PAGE_SHIFT;
            let heir = [before, after].into_iter().find(|&other| same(other, self)).unwrap_or(NONE);
            *self.entry(addr) = heir;
        }
        self[id].state = State::Gone;
        self.unused.push(id);
    }

    /// Cuts a chunk after `size` bytes and gives the new one behind, in use.
    pub(super) fn split(&mut self, id: Id, size: u64) -> Id {
        let Chunk { addr, size: whole, after, arena, .. } = self[id];
        let rest = self.add(addr + size, whole - size, arena, State::Used);
        self[id].size = size;
        self[id].after = rest;
        self[rest].before = id;
        self[rest].after = after;
        if after != NONE {
            self[after].before = rest;
        }
        rest
    }

    /// Joins a chunk with the one behind it, which ceases to be.
    pub(super) fn absorb(&mut self, id: Id) {
        let next = self[id].after;
        self[id].size += self[next].size;
        self.remove(next);
    }

    /// The chunk in which an address lies.
    pub(super) fn find(&self, addr: u64) -> Option<Id> {
        let (&start, piece) = self.pieces.range(..=addr).next_back().filter(|(_, piece)| addr < piece.end)?;
        let mut id = self.begun_near(addr, start..piece.end).unwrap_or(piece.first);
        while self[id].addr > addr {
            id = self[id].before;
        }
        while self[id].end() <= addr {
            id = self[id].after;
        }
        Some(id)
    }

    /// One of the chunks of a piece that begin on an address's page or on the nearest one before.
    fn begun_near(&self, addr: u64, piece: Range<u64>) -> Option<Id> {
        let (first, last) = (piece.start >> PAGE_SHIFT, addr >> PAGE_SHIFT);
        // Where two pieces share a page, its entry may be of the other one.
        let is_of_piece = |id: &&Id| **id != NONE && piece.contains(&self[**id].addr);
        let in_table = |number: u64| {
            let table = self.tables.get(&number)?;
            let pages = number * TABLE_PAGES..(number + 1) * TABLE_PAGES;
            let pages = first.max(pages.start) - pages.start..=last.min(pages.end - 1) - pages.start;
            table[*pages.start() as usize..=*pages.end() as usize].iter().rev().find(is_of_piece).copied()
        };
        (first / TABLE_PAGES..=last / TABLE_PAGES).rev().find_map(in_table)
    }
}
