//! Beginning with a heap that was read from memory, as a trace of a running process does.

use super::chunks::{NONE, State};
use super::state::{Arena, Piece, Space};
use crate::glibc::layout::HEAP_MAX;
use crate::glibc::{ChunkKind, Layout};

impl Space {
    /// Takes over what a walk found, if nothing is known yet.
    ///
    /// The walk does not tell in which order lists hold their chunks, nor whose a cache is: free chunks go to the bins of
    /// their sizes by address, cached ones count as in use until they are given out.
    pub(super) fn seed(&mut self, layout: &Layout) {
        if self.arenas.len() > 1 || self.arenas[0].top != NONE || self.tally.placements > 0 {
            return;
        }
        for arena in layout
            .arenas
            .iter()
            .filter(|arena| arena.is_main)
            .chain(layout.arenas.iter().filter(|arena| !arena.is_main))
        {
            let at = if arena.is_main { 0 } else { self.arenas.len() as u16 };
            if !arena.is_main {
                self.arenas.push(Arena::new());
            }
            let index = usize::from(at);
            self.arenas[index].system = arena.system_bytes;
            for segment in &arena.segments {
                if !arena.is_main {
                    let base = segment.range.start & !(HEAP_MAX - 1);
                    self.by_piece.insert(base, at);
                    self.arenas[index].pieces.push(Piece { base, size: segment.range.end.saturating_sub(base) });
                }
                let Some((first, _)) = segment.iter().next() else { continue };
                let Some(bytes) = segment.iter().map(|(_, chunk)| chunk.bytes()).try_fold(0, u64::checked_add) else {
                    continue;
                };
                if !self.makes_room(first..first.saturating_add(bytes)) {
                    continue;
                }
                let mut rest = self.chunks.begin(first, bytes, at, State::Used);
                for (_, chunk) in segment.iter() {
                    let id = rest;
                    if chunk.bytes() < self.chunks[id].size {
                        rest = self.chunks.split(id, chunk.bytes());
                    }
                    match chunk.kind() {
                        ChunkKind::Used | ChunkKind::TcacheTable | ChunkKind::Tcache => {}
                        ChunkKind::Fastbin => {
                            if let Some(list) =
                                self.arenas[index].fast.get_mut(((chunk.bytes() >> 4) as usize).wrapping_sub(2))
                            {
                                list.push(id);
                                self.chunks[id].state = State::Fast;
                            }
                        }
                        ChunkKind::Free => self.arenas[index].bins.add(&mut self.chunks, id),
                        ChunkKind::Top => {
                            self.chunks[id].state = State::Top;
                            self.arenas[index].top = id;
                        }
                        ChunkKind::Fencepost => self.chunks[id].state = State::Fence,
                    }
                }
            }
            // The newest heap is the one with the top.
            let top = self.arenas[index].top;
            if top != NONE {
                let base = self.chunks[top].addr & !(HEAP_MAX - 1);
                self.arenas[index].pieces.sort_by_key(|piece| piece.base == base);
            }
        }
        for chunk in &layout.mapped {
            self.begin_mapped(chunk.address, chunk.bytes);
        }
        self.obtained();
    }
}
