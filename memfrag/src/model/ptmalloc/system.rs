//! What an arena obtains from the system and gives back: the heap segment, heaps, chunks mapped by themselves.

use super::chunks::{Id, NONE, State};
use super::state::{Arena, NO_ARENA, Piece, Space};
use crate::glibc::layout::{HEADER, HEAP_MAX, MIN_CHUNK};
use crate::target::residency::PAGE;
use std::ops::Range;

/// The largest mapped chunk whose free raises the thresholds.
const DYNAMIC_MAX: u64 = 32 << 20;
/// A heap begins with this much, at least.
const PIECE_MIN: u64 = 32 * PAGE;
/// Below this nothing is mapped, where addresses are invented.
const LOWEST: u64 = 0x7000_0000_0000;
/// The most that the heap segment is believed to have.
const SEGMENT_MAX: u64 = 1 << 44;
/// Arenas there may be.
const MAX_ARENAS: usize = 4096;
/// Where the heap segment begins, where that is invented.
const INVENTED_BREAK: u64 = 0x5555_5555_9000;

/// Beyond all addresses of programs.
pub(super) const USER_END: u64 = 1 << 47;

const fn pages_up(bytes: u64) -> u64 {
    bytes.saturating_add(PAGE - 1) & !(PAGE - 1)
}

impl Space {
    /// Serves a request that nothing in the arena could: mapped by itself, or from a grown top.
    pub(super) fn grow(&mut self, at: u16, thread: usize, size: u64) -> Option<Id> {
        if size >= self.tunables.mmap_threshold && self.mapped_count < self.tunables.mmap_max {
            return self.map_chunk(thread, size);
        }
        let arena = &self.arenas[usize::from(at)];
        let top_size = if arena.top == NONE { 0 } else { self.chunks[arena.top].size };
        self.tally.growths += 1;
        self.tally.avoidable += u64::from(arena.bins.bytes() >= size);
        let grown =
            if at == 0 { self.grow_segment(size, top_size) } else { self.grow_piece(at, thread, size, top_size) };
        self.obtained();
        if grown { self.cut_top(at, size) } else { self.map_chunk(thread, size) }
    }

    /// Moves the end of the heap segment up.
    fn grow_segment(&mut self, size: u64, top_size: u64) -> bool {
        let more = pages_up(size.saturating_add(self.tunables.top_pad + MIN_CHUNK) - top_size);
        if self.arenas[0].system.saturating_add(more) > SEGMENT_MAX {
            return false;
        }
        let top = self.arenas[0].top;
        if top == NONE {
            let told = self.break_at.filter(|_| self.invented.is_none()).map(|end| end.saturating_sub(more));
            // Without the system call, the first block tells: it lies behind the first thread's cache or at the start.
            let start = told.unwrap_or(if self.invented.is_some() || self.observed < PAGE {
                INVENTED_BREAK
            } else {
                self.observed & !(PAGE - 1)
            });
            let start = start.next_multiple_of(16);
            if !self.makes_room(start..start + more) {
                return false;
            }
            self.arenas[0].top = self.chunks.begin(start, more, 0, State::Top);
            self.arenas[0].system = more;
            return true;
        }
        let end = self.chunks[top].end();
        if self.invented.is_none()
            && let Some(told) = self.break_at
            && told > end + more
        {
            // Somebody else has moved the end as well: what lies between is theirs.
            let start = (told - more).next_multiple_of(16);
            if !self.makes_room(start..told) {
                return false;
            }
            self.arenas[0].top = NONE;
            self.retire(0, top);
            self.arenas[0].top = self.chunks.begin(start, told - start, 0, State::Top);
            self.arenas[0].system += told - end;
            return true;
        }
        self.lengthen(0, top, more)
    }

    /// Adds bytes to the last chunk of an arena's newest memory. False when something else lies there.
    pub(super) fn lengthen(&mut self, at: u16, last: Id, more: u64) -> bool {
        let (end, size) = (self.chunks[last].end(), self.chunks[last].size);
        if !self.makes_room(end..end.saturating_add(more)) {
            return false;
        }
        self.chunks.resize(last, size + more);
        let arena = &mut self.arenas[usize::from(at)];
        arena.system += more;
        if let Some(piece) = arena.pieces.last_mut() {
            piece.size += more;
        }
        self.obtained();
        true
    }

    /// Sees to it that nothing lies in a range. What was mapped by itself there is gone, though the stream does not tell
    /// it; false when something of an arena is there, or addresses end before.
    pub(super) fn makes_room(&mut self, range: Range<u64>) -> bool {
        while let Some(first) = self.chunks.overlapping(range.clone()) {
            if self.chunks[first].state != State::Mapped {
                self.tally.impossible += 1;
                return false;
            }
            self.tally.inferred_frees += 1;
            self.disown(first);
            self.end_mapped(first);
        }
        range.end <= USER_END
    }

    /// Unmaps a chunk that was mapped by itself.
    pub(super) fn end_mapped(&mut self, id: Id) {
        // An aligned block's mapping begins before its chunk.
        self.mapped_bytes = self.mapped_bytes.saturating_sub(self.chunks[id].size + self.lead(id));
        self.mapped_count = self.mapped_count.saturating_sub(1);
        self.chunks.end(id);
        self.obtained();
    }

    /// Makes what was an arena's top a free chunk with a fencepost behind it.
    fn retire(&mut self, thread: usize, top: Id) {
        let keep = self.chunks[top].size.saturating_sub(MIN_CHUNK) & !15;
        self.chunks[top].state = State::Used;
        if keep >= MIN_CHUNK {
            let fence = self.chunks.split(top, keep);
            self.chunks[fence].state = State::Fence;
            self.free_chunk(thread, top);
        } else {
            self.chunks[top].state = State::Fence;
        }
    }

    /// Grows the newest heap of an arena, or begins another one.
    fn grow_piece(&mut self, at: u16, thread: usize, size: u64, top_size: u64) -> bool {
        let arena = usize::from(at);
        let Some(&piece) = self.arenas[arena].pieces.last() else { return false };
        let more = pages_up((MIN_CHUNK + size).saturating_sub(top_size));
        if piece.size + more <= HEAP_MAX {
            let top = self.arenas[arena].top;
            return self.lengthen(at, top, more);
        }
        let header = self.rules.heap_header;
        let Some(size) = self.piece_size(size + MIN_CHUNK + header) else { return false };
        let Some(base) = self.piece_base() else { return false };
        if !self.makes_room(base..base + size) {
            return false;
        }
        self.arenas[arena].pieces.push(Piece { base, size });
        self.arenas[arena].system += size;
        self.by_piece.insert(base, at);
        let before = self.arenas[arena].top;
        self.arenas[arena].top = self.chunks.begin(base + header, size - header, at, State::Top);
        // The old top is freed with the new one in place.
        self.retire(thread, before);
        true
    }

    /// Bytes with which a heap for `size` bytes begins.
    fn piece_size(&self, size: u64) -> Option<u64> {
        let padded = size.saturating_add(self.tunables.top_pad);
        let size = match padded {
            0..PIECE_MIN => PIECE_MIN,
            PIECE_MIN..=HEAP_MAX => padded,
            _ if size > HEAP_MAX => return None,
            _ => HEAP_MAX,
        };
        Some(pages_up(size))
    }

    /// Where the system puts a new heap; `None` when the stream tells that there is none.
    fn piece_base(&mut self) -> Option<u64> {
        if let Some(next) = &mut self.invented {
            *next = next.checked_sub(HEAP_MAX).filter(|&next| next > LOWEST)? & !(HEAP_MAX - 1);
            return Some(*next);
        }
        let base = self.observed & !(HEAP_MAX - 1);
        (base > 0 && !self.by_piece.contains_key(&base)).then_some(base)
    }

    /// A new arena, with room for a request; `None` when the stream tells that there is none.
    pub(super) fn new_arena(&mut self, size: u64) -> Option<u16> {
        let header = self.rules.heap_header + self.rules.arena_bytes + 16;
        let bytes = self.piece_size(size + header).or_else(|| self.piece_size(header))?;
        let base = self.piece_base().filter(|_| self.arenas.len() < MAX_ARENAS)?;
        if !self.makes_room(base..base + bytes) {
            return None;
        }
        let at = self.arenas.len() as u16;
        let first = (base + self.rules.heap_header + self.rules.arena_bytes).next_multiple_of(16);
        let top = self.chunks.begin(first, base + bytes - first, at, State::Top);
        let mut arena = Arena::new();
        arena.top = top;
        arena.system = bytes;
        arena.pieces.push(Piece { base, size: bytes });
        self.arenas.push(arena);
        self.by_piece.insert(base, at);
        self.obtained();
        Some(at)
    }

    /// Maps a chunk by itself; `None` when there is no room.
    pub(super) fn map_chunk(&mut self, thread: usize, size: u64) -> Option<Id> {
        let bytes = pages_up(size + 8);
        let addr = match &mut self.invented {
            Some(next) => {
                *next = next.checked_sub(bytes).filter(|&next| next > LOWEST)?;
                *next
            }
            None => match self.threads[thread].mapped.take() {
                Some((addr, mapped)) if mapped == bytes => addr,
                // The system call was not seen. A block at a page's beginning is an aligned one.
                _ => self.observed.saturating_sub(HEADER) & !(PAGE - 1),
            },
        };
        self.begin_mapped(addr, bytes)
    }

    /// Maps a chunk by itself at an address; `None` when that cannot be.
    pub(super) fn begin_mapped(&mut self, addr: u64, bytes: u64) -> Option<Id> {
        if !self.makes_room(addr..addr.checked_add(bytes)?) {
            return None;
        }
        self.mapped_bytes += bytes;
        self.mapped_count += 1;
        self.obtained();
        Some(self.chunks.begin(addr, bytes, NO_ARENA, State::Mapped))
    }

    /// Frees a chunk that was mapped by itself.
    pub(super) fn unmap_chunk(&mut self, id: Id) {
        let size = self.chunks[id].size;
        if self.tunables.dynamic && size > self.tunables.mmap_threshold && size <= DYNAMIC_MAX {
            self.tunables.mmap_threshold = size;
            self.tunables.trim_threshold = 2 * size;
        }
        self.end_mapped(id);
    }

    /// Bytes of a mapping before its chunk.
    pub(super) fn lead(&self, id: Id) -> u64 {
        let older = self.chunks[id].older;
        if older == NONE { 0 } else { u64::from(older) * 16 }
    }

    /// Gives memory back after a large free.
    pub(super) fn trim(&mut self, at: u16) {
        let arena = usize::from(at);
        if at != 0 {
            self.drop_pieces(at);
        }
        let top = self.arenas[arena].top;
        let size = if top == NONE { 0 } else { self.chunks[top].size };
        let spare = size.saturating_sub(MIN_CHUNK + 1);
        if size < self.tunables.trim_threshold || spare <= self.tunables.top_pad {
            return;
        }
        let extra = (spare - self.tunables.top_pad) & !(PAGE - 1);
        self.chunks.resize(top, size - extra);
        self.arenas[arena].system = self.arenas[arena].system.saturating_sub(extra);
        if let Some(piece) = self.arenas[arena].pieces.last_mut() {
            piece.size = piece.size.saturating_sub(extra);
        } else if let Some(end) = &mut self.break_at {
            *end = end.saturating_sub(extra);
        }
        self.obtained();
    }

    /// Unmaps heaps that hold nothing but the top.
    fn drop_pieces(&mut self, at: u16) {
        let number = usize::from(at);
        while let [.., previous, last] = self.arenas[number].pieces[..] {
            let top = self.arenas[number].top;
            let is_alone = |top: Id| self.chunks[top].addr == last.base + self.rules.heap_header;
            if top == NONE || !is_alone(top) || self.chunks[top].before != NONE {
                return;
            }
            // The fencepost at the end of the heap before, and what is free before it.
            let Some(fence) = self.chunks.find((previous.base + previous.size).saturating_sub(1)) else { return };
            if self.chunks[fence].state != State::Fence || self.chunks[fence].after != NONE {
                return;
            }
            let gap = self.chunks[fence].before;
            let joins = gap != NONE && self.chunks[gap].state == State::Free;
            let gained = self.chunks[fence].size + if joins { self.chunks[gap].size } else { 0 };
            if gained + HEAP_MAX.saturating_sub(previous.size) < self.tunables.top_pad + MIN_CHUNK + PAGE {
                return;
            }
            self.arenas[number].system = self.arenas[number].system.saturating_sub(last.size);
            self.arenas[number].pieces.pop();
            self.by_piece.remove(&last.base);
            self.chunks.end(top);
            let mut top = fence;
            if joins {
                self.arenas[number].bins.remove(&mut self.chunks, gap);
                self.chunks.absorb(gap);
                top = gap;
            }
            self.chunks[top].state = State::Top;
            self.arenas[number].top = top;
            self.obtained();
        }
    }

    /// Resizes a chunk that was mapped by itself, which may move it; `None` when it cannot be where it is said to be.
    pub(super) fn remap_chunk(&mut self, id: Id, size: u64) -> Option<Id> {
        let lead = self.lead(id);
        let bytes = pages_up(size + lead + 8);
        let before = self.chunks[id].size + lead;
        if bytes == before {
            return Some(id);
        }
        let addr = match &mut self.invented {
            // Moved, as the system does where there is no room behind.
            Some(next) if bytes > before => match next.checked_sub(bytes).filter(|&next| next > LOWEST) {
                Some(moved) => {
                    *next = moved;
                    moved + lead
                }
                None => self.chunks[id].addr,
            },
            Some(_) => self.chunks[id].addr,
            None => self.observed.saturating_sub(HEADER) & !15,
        };
        let older = self.chunks[id].older;
        self.end_mapped(id);
        let again = self.begin_mapped(addr, bytes - lead)?;
        self.chunks[again].older = older;
        self.mapped_bytes += lead;
        self.obtained();
        Some(again)
    }
}
