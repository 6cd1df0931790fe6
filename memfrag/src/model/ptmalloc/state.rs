//! The allocator's state: arenas, threads with their caches, and what was obtained from the system.

use super::bins::Bins;
use super::chunks::{Chunks, Id, NONE, State};
use super::rules::Rules;
use super::tunables::Tunables;
use crate::glibc::layout::{HEADER, HEAP_MAX};
use crate::heap::BuildWordHasher;
use crate::model::policy::Footprint;
use hashbrown::HashMap;
use std::ops::Range;

/// Lists of a thread's cache.
pub(super) const CACHE_BINS: usize = 64;
/// Lists of the fastbins.
pub(super) const FAST_BINS: usize = 10;
/// Chunks up to this size go to fastbins.
pub(super) const FAST_LARGEST: u64 = 128;
/// No arena.
pub(super) const NO_ARENA: u16 = u16::MAX;

/// A piece of address space of an arena other than the main one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) base: u64,
    /// Bytes that can be used.
    pub(super) size: u64,
}

/// An arena.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    pub(super) bins: Bins,
    /// Chunks of the fastbins, the newest last.
    pub(super) fast: [Vec<Id>; FAST_BINS],
    pub(super) top: Id,
    /// Where the last remainder of a split for a small request began.
    pub(super) remainder: u64,
    /// Bytes obtained from the system.
    pub(super) system: u64,
    /// Heaps, the newest last; none in the main arena.
    pub(super) pieces: Vec<Piece>,
    /// Threads that allocate from it.
    pub(super) threads: u32,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self {
            bins: Bins::new(),
            fast: Default::default(),
            top: NONE,
            remainder: 0,
            system: 0,
            pieces: Vec::new(),
            threads: 0,
        }
    }
}

/// The cache of a thread.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    /// The chunk that it lies in.
    pub(super) chunk: Id,
    /// Its chunks by size, the newest last.
    pub(super) bins: Box<[Vec<Id>; CACHE_BINS]>,
}

/// A thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Thread {
    pub(super) arena: Option<u16>,
    pub(super) cache: Option<Cache>,
    pub(super) ended: bool,
    /// The last mapping that the thread made, as long as no block is known to lie in it.
    pub(super) mapped: Option<(u64, u64)>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) placements: u64,
    pub(super) exact: u64,
    pub(super) failed: u64,
    pub(super) in_place: u64,
    pub(super) growths: u64,
    pub(super) avoidable: u64,
    pub(super) impossible: u64,
    /// Blocks whose free was not in the stream, but whose memory was given out again.
    pub(super) inferred_frees: u64,
    pub(super) first_miss: Option<u64>,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Space {
    pub(super) rules: Rules,
    pub(super) tunables: Tunables,
    pub(super) cache_count: usize,
    /// Bytes of the largest chunk that is cached.
    pub(super) cache_largest: u64,
    pub(super) chunks: Chunks,
    /// The chunk of each block, by its number.
    pub(super) blocks: Vec<Id>,
    pub(super) arenas: Vec<Arena>,
    /// Arenas of heaps by their address.
    pub(super) by_piece: HashMap<u64, u16, BuildWordHasher>,
    pub(super) threads: Vec<Thread>,
    pub(super) by_tid: HashMap<u32, u32, BuildWordHasher>,
    pub(super) last_thread: Option<(u32, u32)>,
    /// Arenas that no thread uses any more, the newest last.
    pub(super) idle: Vec<u16>,
    pub(super) next_arena: u16,
    pub(super) mapped_bytes: u64,
    pub(super) mapped_count: u64,
    /// The end of the heap segment, as the stream tells it.
    pub(super) break_at: Option<u64>,
    /// Where addresses of the system are invented, and not observed: the next mapping, downwards.
    pub(super) invented: Option<u64>,
    /// The address that the request under way has got in truth; 0 when nothing is known.
    pub(super) observed: u64,
    pub(super) time: u64,
    pub(super) footprint: Footprint,
    pub(super) tally: Tally,
}

impl Space {
    pub(super) fn new(rules: Rules, tunables: Tunables, invents: bool) -> Self {
        Self {
            rules,
            tunables,
            cache_count: tunables.cache_count.unwrap_or(rules.cache_count),
            cache_largest: tunables.cached_chunk().unwrap_or(rules.cache_largest),
            chunks: Chunks::default(),
            blocks: Vec::new(),
            arenas: vec![Arena::new()],
            by_piece: HashMap::default(),
            threads: Vec::new(),
            by_tid: HashMap::default(),
            last_thread: None,
            idle: Vec::new(),
            next_arena: 0,
            mapped_bytes: 0,
            mapped_count: 0,
            break_at: None,
            invented: invents.then_some(0x7f00_0000_0000),
            observed: 0,
            time: 0,
            footprint: Footprint::default(),
            tally: Tally::default(),
        }
    }

    /// The number of a thread.
    pub(super) fn thread(&mut self, tid: u32) -> usize {
        if let Some((last, at)) = self.last_thread
            && last == tid
        {
            return at as usize;
        }
        let at = self.by_tid.get(&tid).copied().unwrap_or_else(|| {
            // The process's first thread has the main arena.
            let main = self.threads.is_empty() && self.arenas.len() == 1 && self.arenas[0].top == NONE;
            self.threads.push(Thread { arena: main.then_some(0), ..Thread::default() });
            self.arenas[0].threads += u32::from(main);
            let at = (self.threads.len() - 1) as u32;
            self.by_tid.insert(tid, at);
            at
        });
        self.last_thread = Some((tid, at));
        at as usize
    }

    /// Adds to the bytes obtained from the system.
    pub(super) fn obtained(&mut self) {
        let arenas: u64 = self.arenas.iter().map(|arena| arena.system).sum();
        self.footprint.set(self.time, arenas + self.mapped_bytes);
    }

    /// The memory that was obtained, upwards: with the head of each heap, and what of a mapping lies before its chunk.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Range<u64>> {
        self.chunks.pieces().map(|piece| {
            let base = piece.start & !(HEAP_MAX - 1);
            let is_first = self.by_piece.contains_key(&base)
                && piece.start - base <= self.rules.heap_header + self.rules.arena_bytes + HEADER;
            let lead = self.chunks.find(piece.start).filter(|&id| self.chunks[id].state == State::Mapped);
            let lead = lead.map_or(0, |id| self.lead(id));
            if is_first { base..piece.end } else { piece.start.saturating_sub(lead)..piece.end }
        })
    }

    /// A chunk in use at a real address that no block is known to lie in.
    pub(super) fn unowned(&self, addr: u64) -> Option<Id> {
        let id = self.chunks.find(addr.checked_sub(HEADER)?)?;
        let chunk = self.chunks[id];
        let is_owned = self.blocks.get(chunk.newer as usize) == Some(&id);
        (chunk.addr + HEADER == addr && matches!(chunk.state, State::Used | State::Mapped) && !is_owned).then_some(id)
    }
}
