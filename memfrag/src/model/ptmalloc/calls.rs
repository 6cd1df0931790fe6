//! The functions of the allocator: which way a call takes.

use super::chunks::{Id, NONE, State};
use super::serve::cache_bin;
use super::state::{CACHE_BINS, Cache, NO_ARENA, Space};
use crate::glibc::layout::{HEADER, HEAP_MAX, MIN_CHUNK, chunk_bytes};
use crate::target::residency::PAGE;

/// Arenas there may be where the number of processors is not known.
const ARENAS: usize = 8 * 8;

impl Space {
    /// The arena that a thread allocates from; it gets one with its first request.
    pub(super) fn arena_of(&mut self, thread: usize, size: u64) -> u16 {
        if let Some(arena) = self.threads[thread].arena {
            return arena;
        }
        let arena = if self.invented.is_some() { self.choose_arena(size) } else { self.observed_arena(size) };
        self.threads[thread].arena = Some(arena);
        self.arenas[usize::from(arena)].threads += 1;
        self.idle.retain(|&idle| idle != arena);
        arena
    }

    /// The arena that an observed address tells of.
    fn observed_arena(&mut self, size: u64) -> u16 {
        let base = self.observed & !(HEAP_MAX - 1);
        if let Some(&arena) = self.by_piece.get(&base) {
            return arena;
        }
        let top = self.arenas[0].top;
        let in_main = top != NONE && self.observed < self.chunks[top].end().next_multiple_of(HEAP_MAX);
        if in_main { 0 } else { self.new_arena(size).unwrap_or(0) }
    }

    /// The arena that a new thread gets while no arena is contended for.
    fn choose_arena(&mut self, size: u64) -> u16 {
        if let Some(idle) = self.idle.pop() {
            return idle;
        }
        if self.arenas.len() < self.tunables.arena_max.unwrap_or(ARENAS)
            && let Some(arena) = self.new_arena(size)
        {
            return arena;
        }
        // The ring goes from the main arena to the newest one, and down from there.
        let chosen = self.next_arena;
        self.next_arena = if chosen == 0 { (self.arenas.len() - 1) as u16 } else { chosen - 1 };
        chosen
    }

    /// Sees to it that the thread has a cache.
    pub(super) fn begin_cache(&mut self, thread: usize) {
        if self.threads[thread].cache.is_some()
            || self.threads[thread].ended
            || self.cache_count == 0 && self.rules.cache_count == 0
        {
            return;
        }
        let bytes = self.rules.cache_bytes;
        let arena = self.arena_of(thread, bytes);
        if let Some(chunk) = self.serve(arena, thread, chunk_bytes(bytes)) {
            let bins = Box::new([const { Vec::new() }; CACHE_BINS]);
            self.chunks[chunk].newer = NONE;
            self.threads[thread].cache = Some(Cache { chunk, bins });
        }
    }

    /// `malloc` and, where `zeroed`, `calloc`.
    pub(super) fn malloc(&mut self, thread: usize, request: u64, zeroed: bool) -> Option<Id> {
        let size = match chunk_bytes(request) {
            0 => return None,
            size => size,
        };
        self.begin_cache(thread);
        if (!zeroed || self.rules.calloc_cached)
            && let Some(id) = self.get(thread, size)
        {
            return Some(id);
        }
        let arena = self.arena_of(thread, request);
        self.serve(arena, thread, size)
    }

    /// `free`.
    pub(super) fn free(&mut self, thread: usize, id: Id) {
        match self.chunks[id].state {
            State::Mapped => self.unmap_chunk(id),
            State::Used => {
                if self.rules.cache_begun_by_free {
                    self.begin_cache(thread);
                }
                self.free_chunk(thread, id);
            }
            _ => self.tally.impossible += 1,
        }
    }

    /// `memalign` and its kind; `align` is above 16.
    pub(super) fn memalign(&mut self, thread: usize, request: u64, align: u64) -> Option<Id> {
        let size = match chunk_bytes(request) {
            0 => return None,
            size => size,
        };
        if self.rules.memalign_cached
            && let Some(id) = self.aligned_from_cache(thread, size, align)
        {
            return Some(id);
        }
        let arena = self.arena_of(thread, request.saturating_add(align + MIN_CHUNK));
        let worst = chunk_bytes(size.checked_add(align)?.checked_add(MIN_CHUNK)?);
        if worst == 0 {
            return None;
        }
        let mut id = self.serve(arena, thread, worst)?;
        let block = self.chunks[id].addr + HEADER;
        if !block.is_multiple_of(align) {
            let mut begin = block.next_multiple_of(align) - HEADER;
            if begin - self.chunks[id].addr < MIN_CHUNK {
                begin += align;
            }
            let lead = begin - self.chunks[id].addr;
            if self.chunks[id].state == State::Mapped {
                let rest = self.chunks[id].size - lead;
                self.chunks.end(id);
                let id = self.chunks.begin(begin, rest, NO_ARENA, State::Mapped);
                self.chunks[id].older = (lead / 16) as Id;
                return Some(id);
            }
            let aligned = self.chunks.split(id, lead);
            self.free_rest(thread, id, self.rules.memalign_rest_cached);
            id = aligned;
        }
        if self.chunks[id].state != State::Mapped {
            let spare = self.chunks[id].size - size;
            let after = self.chunks[id].after;
            let after_free = !self.rules.memalign_rest_cached
                && after != NONE
                && (after == self.arenas[usize::from(arena)].top || self.chunks[after].state == State::Free);
            if spare > MIN_CHUNK || (after_free && spare >= MIN_CHUNK) {
                let rest = self.chunks.split(id, size);
                self.free_rest(thread, rest, self.rules.memalign_rest_cached);
            }
        }
        Some(id)
    }

    fn aligned_from_cache(&mut self, thread: usize, size: u64, align: u64) -> Option<Id> {
        if !self.is_cached(size) {
            return None;
        }
        let list = &mut self.threads[thread].cache.as_mut()?.bins[cache_bin(size)];
        let at = list.iter().rposition(|&id| (self.chunks[id].addr + HEADER).is_multiple_of(align))?;
        let id = list.remove(at);
        self.chunks[id].state = State::Used;
        Some(id)
    }

    /// Frees what a call cut off.
    pub(super) fn free_rest(&mut self, thread: usize, id: Id, cached: bool) {
        if cached { self.free_chunk(thread, id) } else { self.free_merged(id) }
    }

    /// `realloc` of a block that there is; `None` when there is no memory.
    pub(super) fn realloc(&mut self, thread: usize, id: Id, request: u64) -> Option<Id> {
        let size = match chunk_bytes(request) {
            0 => return None,
            size => size,
        };
        let mapped = self.chunks[id].state == State::Mapped;
        if self.rules.realloc_keeps {
            let usable = self.chunks[id].size - if mapped { 16 } else { 8 };
            if request <= usable && (usable - request < 16 || (mapped && usable - request <= PAGE)) {
                return Some(id);
            }
        }
        if mapped {
            return self.remap_chunk(id, size);
        }
        if self.rules.cache_begun_by_free {
            self.begin_cache(thread);
        }
        let at = self.chunks[id].arena;
        let arena = usize::from(at);
        let old = self.chunks[id].size;
        if old < size {
            let after = self.chunks[id].after;
            let behind = if after == NONE { 0 } else { self.chunks[after].size };
            if after != NONE && after == self.arenas[arena].top && old + behind >= size + MIN_CHUNK {
                self.chunks.absorb(id);
                let top = self.chunks.split(id, size);
                self.chunks[top].state = State::Top;
                self.arenas[arena].top = top;
                return Some(id);
            }
            if after != NONE && self.chunks[after].state == State::Free && old + behind >= size {
                self.arenas[arena].bins.remove(&mut self.chunks, after);
                self.chunks.absorb(id);
            } else {
                let new = self.serve(at, thread, size)?;
                if self.chunks[id].after != new {
                    self.free_rest_of_realloc(thread, id);
                    return Some(new);
                }
                self.chunks.absorb(id);
            }
        }
        if self.chunks[id].size - size >= MIN_CHUNK {
            let rest = self.chunks.split(id, size);
            self.free_rest_of_realloc(thread, rest);
        }
        Some(id)
    }

    fn free_rest_of_realloc(&mut self, thread: usize, id: Id) {
        if self.rules.realloc_rest_cached {
            self.free_chunk(thread, id);
        } else {
            self.free_to_arena(id);
        }
    }

    /// A thread ends: its cache is emptied into the arenas.
    pub(super) fn end_thread(&mut self, tid: u32, thread: usize) {
        self.by_tid.remove(&tid);
        self.last_thread = None;
        if let Some(cache) = self.threads[thread].cache.take() {
            self.threads[thread].ended = true;
            for list in cache.bins.into_iter() {
                for id in list.into_iter().rev() {
                    self.chunks[id].state = State::Used;
                    self.free_to_arena(id);
                }
            }
            self.give_back(thread, cache.chunk);
        }
        if let Some(at) = self.threads[thread].arena.take() {
            let arena = &mut self.arenas[usize::from(at)];
            arena.threads = arena.threads.saturating_sub(1);
            if arena.threads == 0 {
                self.idle.push(at);
            }
        }
    }

    /// A process was made, and a thread of it goes on as a thread of its parent did.
    pub(super) fn forked(&mut self, parent_tid: u32, tid: u32, shared: bool) {
        let thread = self.thread(parent_tid);
        if !shared {
            self.by_tid.clear();
            // Arenas of threads that are not there any more wait for new ones.
            let own = self.threads[thread].arena;
            self.idle = (0..self.arenas.len() as u16).filter(|&at| Some(at) != own).collect();
            for (at, arena) in (0..).zip(&mut self.arenas) {
                arena.threads = u32::from(own == Some(at));
            }
        }
        self.by_tid.insert(tid, thread as u32);
        self.last_thread = None;
    }
}
