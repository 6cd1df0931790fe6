//! How an arena serves a request: fastbins, bins, unsorted chunks, best fit, top, the system.

use super::bins::LARGE;
use super::chunks::{Id, NONE, State};
use super::state::{CACHE_BINS, FAST_LARGEST, Space};
use crate::glibc::layout::MIN_CHUNK;

/// Unsorted chunks looked at in one go, at most.
const MAX_SWEPT: u32 = 10_000;
/// A free chunk of this size lets fastbins be emptied and memory be given back.
pub(super) const CONSOLIDATE: u64 = 64 << 10;

/// The list of a thread's cache for chunks of a size.
#[inline]
pub(super) const fn cache_bin(size: u64) -> usize {
    (size >> 4) as usize - 2
}

impl Space {
    /// Whether chunks of a size are cached.
    #[inline]
    pub(super) fn is_cached(&self, size: u64) -> bool {
        size <= self.cache_largest && cache_bin(size) < CACHE_BINS && self.cache_count > 0
    }

    /// Room in the thread's list for chunks of a size.
    #[inline]
    pub(super) fn has_room(&self, thread: usize, size: u64) -> bool {
        self.is_cached(size)
            && self.threads[thread]
                .cache
                .as_ref()
                .is_some_and(|cache| cache.bins[cache_bin(size)].len() < self.cache_count)
    }

    #[inline]
    pub(super) fn put(&mut self, thread: usize, id: Id) {
        let size = self.chunks[id].size;
        self.chunks[id].state = State::Cached;
        self.chunks[id].newer = thread as Id;
        if let Some(cache) = &mut self.threads[thread].cache {
            cache.bins[cache_bin(size)].push(id);
        }
    }

    /// Takes from the thread's cache.
    #[inline]
    pub(super) fn get(&mut self, thread: usize, size: u64) -> Option<Id> {
        if !self.is_cached(size) {
            return None;
        }
        let id = self.threads[thread].cache.as_mut()?.bins[cache_bin(size)].pop()?;
        self.chunks[id].state = State::Used;
        Some(id)
    }

    /// A chunk of at least `size` bytes from an arena. `None` when the system gives no more.
    pub(super) fn serve(&mut self, at: u16, thread: usize, size: u64) -> Option<Id> {
        let arena = usize::from(at);
        if self.rules.fastbins && size <= FAST_LARGEST {
            let list = cache_bin(size);
            if let Some(id) = self.arenas[arena].fast[list].pop() {
                self.chunks[id].state = State::Used;
                while self.has_room(thread, size)
                    && let Some(more) = self.arenas[arena].fast[list].pop()
                {
                    self.put(thread, more);
                }
                return Some(id);
            }
        }
        if size < LARGE {
            if let Some(id) = self.arenas[arena].bins.small(size) {
                self.arenas[arena].bins.remove(&mut self.chunks, id);
                while self.has_room(thread, size)
                    && let Some(more) = self.arenas[arena].bins.small(size)
                {
                    self.arenas[arena].bins.remove(&mut self.chunks, more);
                    self.put(thread, more);
                }
                return Some(id);
            }
        } else {
            self.consolidate(at);
        }
        loop {
            if let Some(id) = self.sweep(at, thread, size) {
                return Some(id);
            }
            if let Some(id) = self.arenas[arena].bins.best_fit(&self.chunks, size) {
                self.arenas[arena].bins.remove(&mut self.chunks, id);
                if self.chunks[id].size - size >= MIN_CHUNK {
                    let by_bin = size < LARGE;
                    let rest = self.chunks.split(id, size);
                    self.arenas[arena].bins.add_unsorted(&mut self.chunks, rest);
                    if by_bin {
                        self.arenas[arena].remainder = self.chunks[rest].addr;
                    }
                }
                return Some(id);
            }
            if let Some(id) = self.cut_top(at, size) {
                return Some(id);
            }
            if !self.consolidate(at) {
                return self.grow(at, thread, size);
            }
        }
    }

    /// Sorts the unsorted chunks, oldest first, and takes one that fits exactly.
    fn sweep(&mut self, at: u16, thread: usize, size: u64) -> Option<Id> {
        let arena = usize::from(at);
        let may_cache = self.is_cached(size) && self.threads[thread].cache.is_some();
        let mut cached = false;
        for _ in 0..MAX_SWEPT {
            let Some((id, alone)) = self.arenas[arena].bins.oldest_unsorted() else { break };
            let found = self.chunks[id].size;
            let is_remainder = self.chunks[id].addr == self.arenas[arena].remainder;
            self.arenas[arena].bins.remove(&mut self.chunks, id);
            if size < LARGE && alone && is_remainder && found > size + MIN_CHUNK {
                let rest = self.chunks.split(id, size);
                self.arenas[arena].bins.add_unsorted(&mut self.chunks, rest);
                self.arenas[arena].remainder = self.chunks[rest].addr;
                return Some(id);
            }
            if found == size {
                if may_cache && self.has_room(thread, size) {
                    self.put(thread, id);
                    cached = true;
                    continue;
                }
                return Some(id);
            }
            self.arenas[arena].bins.add(&mut self.chunks, id);
        }
        if cached { self.get(thread, size) } else { None }
    }

    /// Cuts a chunk off the top.
    pub(super) fn cut_top(&mut self, at: u16, size: u64) -> Option<Id> {
        let top = self.arenas[usize::from(at)].top;
        if top == NONE || self.chunks[top].size < size + MIN_CHUNK {
            return None;
        }
        let rest = self.chunks.split(top, size);
        self.chunks[top].state = State::Used;
        self.chunks[rest].state = State::Top;
        self.arenas[usize::from(at)].top = rest;
        Some(top)
    }

    /// Empties the fastbins, smallest chunks first, the newest of each first. False when there was nothing.
    pub(super) fn consolidate(&mut self, at: u16) -> bool {
        let mut any = false;
        for list in 0..self.arenas[usize::from(at)].fast.len() {
            while let Some(id) = self.arenas[usize::from(at)].fast[list].pop() {
                any = true;
                self.merge(at, id, true);
            }
        }
        any
    }

    /// Joins a chunk that is freed with its free neighbours, and puts it where it belongs. Gives its size then.
    pub(super) fn merge(&mut self, at: u16, mut id: Id, unsorted: bool) -> u64 {
        let arena = usize::from(at);
        self.chunks[id].state = State::Used;
        let before = self.chunks[id].before;
        if before != NONE && self.chunks[before].state == State::Free {
            self.arenas[arena].bins.remove(&mut self.chunks, before);
            self.chunks.absorb(before);
            id = before;
        }
        let after = self.chunks[id].after;
        if after != NONE && self.chunks[after].state == State::Free {
            self.arenas[arena].bins.remove(&mut self.chunks, after);
            self.chunks.absorb(id);
        } else if after != NONE && after == self.arenas[arena].top {
            self.chunks.absorb(id);
            self.chunks[id].state = State::Top;
            self.arenas[arena].top = id;
            return self.chunks[id].size;
        }
        let size = self.chunks[id].size;
        if !unsorted && self.rules.small_to_bins && size < LARGE {
            self.arenas[arena].bins.add(&mut self.chunks, id);
        } else {
            self.arenas[arena].bins.add_unsorted(&mut self.chunks, id);
        }
        size
    }

    /// Frees a chunk: to the cache, a fastbin, or the bins.
    pub(super) fn free_chunk(&mut self, thread: usize, id: Id) {
        if self.has_room(thread, self.chunks[id].size) {
            self.put(thread, id);
        } else {
            self.free_to_arena(id);
        }
    }

    /// Frees a chunk past the cache.
    pub(super) fn free_to_arena(&mut self, id: Id) {
        let size = self.chunks[id].size;
        let at = self.chunks[id].arena;
        if self.rules.fastbins && size <= FAST_LARGEST {
            self.chunks[id].state = State::Fast;
            self.arenas[usize::from(at)].fast[cache_bin(size)].push(id);
        } else {
            self.free_merged(id);
        }
    }

    /// Frees a chunk past cache and fastbins, and gives memory back where that is due.
    pub(super) fn free_merged(&mut self, id: Id) {
        let at = self.chunks[id].arena;
        if self.merge(at, id, false) >= CONSOLIDATE {
            self.consolidate(at);
            self.trim(at);
        }
    }
}
