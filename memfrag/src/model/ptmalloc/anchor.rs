//! Where the model leaves the observed addresses it goes back to them.
//!
//! Which blocks are live, and where, is always as observed; only lists can be in another order than in truth. So the
//! block that was foretold is given back, and the observed one is cut out of whatever it lies in: a free chunk, a
//! cached one, the top, or a block whose free the stream does not tell or tells later.

use super::chunks::{Id, NONE, State};
use super::serve::cache_bin;
use super::state::{NO_ARENA, Space};
use super::system::USER_END;
use crate::glibc::layout::{HEADER, HEAP_MAX, MIN_CHUNK};
use crate::target::residency::PAGE;

/// As far behind the top of the main arena an address is believed to be the arena's.
const REACH: u64 = 1 << 30;

impl Space {
    /// Puts a block of a chunk of `size` bytes to the observed address instead of to the chunk foretold. `None` when it
    /// cannot lie there.
    pub(super) fn anchor(&mut self, thread: usize, foretold: Option<Id>, size: u64) -> Option<Id> {
        let want = self.observed.saturating_sub(HEADER);
        if !want.is_multiple_of(16) || want == 0 || want >= USER_END || size == 0 || size >= USER_END {
            self.tally.impossible += 1;
            if let Some(foretold) = foretold {
                self.give_back(thread, foretold);
            }
            return None;
        }
        let found = self.chunks.find(want);
        if let (Some(foretold), Some(found)) = (foretold, found)
            && self.swap(thread, foretold, found, want, size)
        {
            return Some(found);
        }
        if let Some(foretold) = foretold {
            self.give_back(thread, foretold);
        }
        let id = self.carve(want, size)?;
        let arena = self.chunks[id].arena;
        if arena != NO_ARENA && self.threads[thread].arena.is_none() {
            self.threads[thread].arena = Some(arena);
            self.arenas[usize::from(arena)].threads += 1;
        }
        Some(id)
    }

    /// When both chunks are of one size and the observed one lies in the thread's cache, they change places.
    fn swap(&mut self, thread: usize, foretold: Id, found: Id, want: u64, size: u64) -> bool {
        let chunk = self.chunks[found];
        if chunk.addr != want || chunk.size != size || self.chunks[foretold].size != size || !self.is_cached(size) {
            return false;
        }
        if chunk.state != State::Cached || chunk.newer as usize != thread || self.chunks[foretold].state != State::Used
        {
            return false;
        }
        let Some(cache) = &mut self.threads[thread].cache else { return false };
        let list = &mut cache.bins[cache_bin(size)];
        let Some(at) = list.iter().position(|&id| id == found) else { return false };
        list[at] = foretold;
        (self.chunks[foretold].state, self.chunks[foretold].newer) = (State::Cached, thread as Id);
        (self.chunks[found].state, self.chunks[found].newer) = (State::Used, NONE);
        true
    }

    /// Takes back a chunk that is in use, whatever it is.
    pub(super) fn give_back(&mut self, thread: usize, id: Id) {
        match self.chunks[id].state {
            State::Mapped => self.end_mapped(id),
            _ => self.free_chunk(thread, id),
        }
    }

    /// Makes a chunk of at least `size` bytes at an address out of what lies there.
    fn carve(&mut self, want: u64, size: u64) -> Option<Id> {
        let Some(found) = self.chunks.find(want) else { return self.extend(want, size) };
        let arena = self.chunks[found].arena;
        let lead = want - self.chunks[found].addr;
        if self.chunks[found].state == State::Mapped && self.makes_room(want..want + 1) {
            return self.extend(want, size);
        }
        if (lead > 0 && lead < MIN_CHUNK) || self.chunks[found].state == State::Fence {
            self.tally.impossible += 1;
            return None;
        }
        let mut was_top = self.take_out(found);
        let mut id = found;
        if lead > 0 {
            id = self.chunks.split(found, lead);
            if was_top {
                // What a top leaves before the block is free; the top itself goes on behind.
                self.arenas[usize::from(arena)].bins.add_unsorted(&mut self.chunks, found);
            } else {
                self.merge(arena, found, true);
            }
        }
        while self.chunks[id].size < size && !was_top {
            let after = self.chunks[id].after;
            if after == NONE || self.chunks[after].state == State::Fence {
                self.tally.impossible += 1;
                self.free_merged(id);
                return None;
            }
            was_top = self.take_out(after);
            self.chunks.absorb(id);
        }
        if was_top {
            let lacking = (size + MIN_CHUNK).saturating_sub(self.chunks[id].size);
            if lacking > 0 && !self.lengthen(arena, id, lacking.next_multiple_of(PAGE)) {
                self.put_top(arena, id);
                return None;
            }
            let top = self.chunks.split(id, size);
            self.chunks[top].state = State::Top;
            self.arenas[usize::from(arena)].top = top;
        } else if self.chunks[id].size - size >= MIN_CHUNK {
            let rest = self.chunks.split(id, size);
            self.merge(arena, rest, true);
        }
        (self.chunks[id].state, self.chunks[id].newer) = (State::Used, NONE);
        Some(id)
    }

    /// Makes the last chunk of an arena its top again.
    fn put_top(&mut self, arena: u16, last: Id) {
        let before = self.chunks[last].before;
        let mut top = last;
        if before != NONE && self.chunks[before].state == State::Free {
            self.arenas[usize::from(arena)].bins.remove(&mut self.chunks, before);
            self.chunks.absorb(before);
            top = before;
        }
        self.chunks[top].state = State::Top;
        self.arenas[usize::from(arena)].top = top;
    }

    /// Takes a chunk out of the list that it is in, or away from who has it. True when it was the top.
    fn take_out(&mut self, id: Id) -> bool {
        let chunk = self.chunks[id];
        match chunk.state {
            State::Free => self.arenas[usize::from(chunk.arena)].bins.remove(&mut self.chunks, id),
            State::Cached => {
                if let Some(cache) = self.threads.get_mut(chunk.newer as usize).and_then(|thread| thread.cache.as_mut())
                {
                    cache.bins[cache_bin(chunk.size)].retain(|&other| other != id);
                }
            }
            State::Fast => {
                self.arenas[usize::from(chunk.arena)].fast[cache_bin(chunk.size)].retain(|&other| other != id);
            }
            State::Used => {
                self.tally.inferred_frees += 1;
                self.disown(id);
            }
            State::Top => self.arenas[usize::from(chunk.arena)].top = NONE,
            State::Fence | State::Mapped | State::Gone => {}
        }
        (self.chunks[id].state, self.chunks[id].newer) = (State::Used, NONE);
        chunk.state == State::Top
    }

    /// A block whose memory was given out anew is nobody's any more.
    pub(super) fn disown(&mut self, id: Id) {
        for thread in &mut self.threads {
            thread.cache.take_if(|cache| cache.chunk == id);
        }
        let owner = self.chunks[id].newer as usize;
        if self.blocks.get(owner) == Some(&id) {
            self.blocks[owner] = NONE;
        }
    }

    /// An address that lies in nothing that is known.
    fn extend(&mut self, want: u64, size: u64) -> Option<Id> {
        let top = self.arenas[0].top;
        let end = if top == NONE { 0 } else { self.chunks[top].end() };
        if top != NONE && want >= end && want - end < REACH && self.break_at.is_none_or(|told| want < told) {
            return self.carve_behind(0, want, size);
        }
        let base = want & !(HEAP_MAX - 1);
        if let Some(&arena) = self.by_piece.get(&base) {
            // Behind the top of a heap, unless the heap was retired.
            let top = self.arenas[usize::from(arena)].top;
            let is_newest = self.arenas[usize::from(arena)].pieces.last().is_some_and(|piece| piece.base == base);
            if is_newest && top != NONE && want >= self.chunks[top].end() {
                return self.carve_behind(arena, want, size);
            }
            self.tally.impossible += 1;
            return None;
        }
        if want.is_multiple_of(PAGE) && size >= self.tunables.mmap_threshold.min(PAGE) {
            return self.begin_mapped(want, (size + 8).next_multiple_of(PAGE));
        }
        // A heap of an arena that is new.
        let arena = self.new_arena(size)?;
        let top = self.chunks[self.arenas[usize::from(arena)].top];
        if want < top.addr {
            self.tally.impossible += 1;
            return None;
        }
        if want < top.end() { self.carve(want, size) } else { self.carve_behind(arena, want, size) }
    }

    /// Makes a chunk at an address behind the top of an arena, which was longer in truth.
    fn carve_behind(&mut self, arena: u16, want: u64, size: u64) -> Option<Id> {
        let top = self.arenas[usize::from(arena)].top;
        let more = (want + size + MIN_CHUNK - self.chunks[top].end()).next_multiple_of(PAGE);
        if self.lengthen(arena, top, more) { self.carve(want, size) } else { None }
    }
}
