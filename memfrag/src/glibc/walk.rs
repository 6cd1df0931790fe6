//! From an arena's state to its chunks.

use super::caches::{self, Candidate};
use super::layout::{ALIGNMENT, Arena, Chunk, ChunkKind, HEADER, HEAP_MAX, MIN_CHUNK, Segment};
use super::memory::{Memory, Unreadable};
use super::state::{ArenaState, Parameters};
use super::version::Offsets;
use crate::target::residency::PAGE;
use std::ops::Range;

/// Bytes read at once, at most.
const WINDOW: u64 = 1 << 20;
/// Chunks by which the number of all is estimated.
const SAMPLE: usize = 4096;
/// Chunks that room is made for at once, at most.
const MAX_RESERVED: u64 = 1 << 26;
/// A previous chunk is in use.
const PREVIOUS_USED: u64 = 1;
/// A chunk was mapped by itself.
pub(super) const MAPPED: u64 = 2;
/// A chunk belongs to another arena than the main one.
const OTHER_ARENA: u64 = 4;
/// The bits of a size word that are no size.
const FLAGS: u64 = 7;
/// How far behind the end of a piece of the heap its continuation is looked for, when it may be elsewhere.
const FOREIGN: u64 = 1 << 20;
/// More heaps than an arena can have in 47 bits of address space.
const MAX_HEAPS: usize = 1 << 21;

/// Why the chunks of an arena cannot be walked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the heap is damaged, or was changing, at the chunk {chunk:#x} of the arena {arena:#x}: {why}")]
pub struct Damage {
    /// The arena.
    pub arena: u64,
    /// The chunk that cannot be what it says.
    pub chunk: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Memory read one window after the other.
#[derive(Debug)]
pub(super) struct Stream<'a, M> {
    memory: &'a M,
    window: Vec<u8>,
    start: u64,
    /// Bytes to read next.
    reach: u64,
}

impl<'a, M: Memory> Stream<'a, M> {
    pub(super) fn new(memory: &'a M) -> Self {
        Self { memory, window: Vec::new(), start: 0, reach: PAGE }
    }

    /// `size` bytes at `at`, which lie before `limit`; what follows them up to there may be read along.
    fn bytes(&mut self, at: u64, size: usize, limit: u64) -> Result<&[u8], Unreadable> {
        let held = |this: &Self| {
            let from = usize::try_from(at.checked_sub(this.start)?).ok()?;
            Some(from..from.checked_add(size)?).filter(|range| range.end <= this.window.len())
        };
        let range = if let Some(range) = held(self) {
            range
        } else {
            // Where a chunk led beyond the window, little of what follows may be needed.
            let follows = at <= self.start.saturating_add(self.window.len() as u64);
            self.reach = if follows { (self.reach * 2).min(WINDOW) } else { PAGE };
            let length = limit.saturating_sub(at).min(self.reach).max(size as u64);
            self.window.resize(length as usize, 0);
            self.start = at;
            if self.memory.read(at, &mut self.window).is_err() {
                // What was to be read along may be a guard page, which no map shows.
                self.reach = PAGE;
                self.window.truncate(size);
                if let Err(error) = self.memory.read(at, &mut self.window) {
                    self.window.clear();
                    return Err(error);
                }
            }
            0..size
        };
        Ok(&self.window[range])
    }

    /// The two words that a chunk begins with.
    fn header(&mut self, at: u64, limit: u64) -> Result<(u64, u64), Unreadable> {
        let bytes: [u8; HEADER as usize] =
            self.bytes(at, HEADER as usize, limit)?.try_into().unwrap_or([0; HEADER as usize]);
        let bytes = u128::from_le_bytes(bytes);
        Ok((bytes as u64, (bytes >> 64) as u64))
    }
}

/// An arena as it was read.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) arena: Arena,
    pub(super) candidates: Vec<Candidate>,
    /// Bytes that the arena counts as its own, and that something else obtained by moving the break.
    pub(super) foreign: u64,
}

impl Walked {
    /// Whether its segments are as large as the arena counts.
    pub(super) fn adds_up(&self) -> bool {
        self.arena.obtained() + self.foreign == self.arena.system_bytes
    }
}

/// What one walk through the arenas needs.
#[derive(Debug)]
pub(super) struct Walking<'a, M> {
    pub(super) stream: Stream<'a, M>,
    pub(super) offsets: &'static Offsets,
    pub(super) parameters: Parameters,
    /// Writable memory without a file, adjacent pieces joined, by address.
    pub(super) extents: &'a [Range<u64>],
    pub(super) candidates: Vec<Candidate>,
    /// Chunks that may yet be looked at, so that the search for pieces of the heap ends soon in any memory.
    pub(super) steps: u64,
}

/// How a segment ended.
enum End {
    /// With the top chunk.
    Top,
    /// With fenceposts, since the arena went on elsewhere.
    Fence,
}

/// Chunks one behind the other, how they ended, and where.
type Piece = (Vec<Chunk>, End, u64);

/// Where chunks are looked for.
struct Stretch {
    arena: u64,
    is_main: bool,
    top: u64,
    first: u64,
    /// The first chunk may reach up to here.
    limit: u64,
}

impl Stretch {
    fn damage(&self, chunk: u64, why: impl Into<String>) -> Damage {
        Damage { arena: self.arena, chunk, why: why.into() }
    }

    /// Checks a chunk's size and flags.
    fn check(&self, at: u64, word: u64) -> Result<(), Damage> {
        let size = word & !FLAGS;
        if size < MIN_CHUNK || !size.is_multiple_of(ALIGNMENT) {
            return Err(self.damage(at, format!("a chunk cannot have {size} bytes")));
        }
        if word & MAPPED != 0 {
            return Err(self.damage(at, "it says that it was mapped by itself"));
        }
        if at.checked_add(size).is_none_or(|end| end >= self.limit) {
            return Err(self.damage(at, format!("its {size} bytes run beyond the arena's memory")));
        }
        Ok(())
    }

    /// Checks the top chunk and gives its end.
    fn check_top(&self, word: u64) -> Result<u64, Damage> {
        let size = word & !FLAGS;
        let end = self.top.saturating_add(size);
        if word & PREVIOUS_USED == 0 || word & MAPPED != 0 || size < HEADER {
            return Err(self.damage(self.top, format!("the top chunk's size word cannot be {word:#x}")));
        }
        if end > self.limit || !end.is_multiple_of(PAGE) {
            return Err(self.damage(self.top, format!("the top chunk cannot end at {end:#x}")));
        }
        Ok(end)
    }
}

impl<M: Memory> Walking<'_, M> {
    /// Reads all chunks of an arena.
    pub(super) fn arena(&mut self, state: &ArenaState, is_main: bool) -> Result<Walked, Damage> {
        let (segments, foreign) = if state.system == 0 {
            (Vec::new(), 0)
        } else if is_main {
            self.main(state)?
        } else {
            (self.heaps(state)?, 0)
        };
        let arena = Arena {
            address: state.address,
            is_main,
            system_bytes: state.system,
            max_system_bytes: state.max_system,
            segments,
        };
        Ok(Walked { arena, candidates: std::mem::take(&mut self.candidates), foreign })
    }

    /// The extent that holds an address.
    fn extent(&self, address: u64) -> Option<Range<u64>> {
        let at = self.extents.partition_point(|extent| extent.end <= address);
        self.extents.get(at).filter(|extent| extent.contains(&address)).cloned()
    }

    /// The main arena's segments by address, and the bytes between them that it counts though others obtained them.
    fn main(&mut self, state: &ArenaState) -> Result<(Vec<Segment>, u64), Damage> {
        let base = self.parameters.sbrk_base;
        let unmapped = |chunk| Damage { arena: state.address, chunk, why: "no writable memory is mapped there".into() };
        let extent = self.extent(base).ok_or_else(|| unmapped(base))?;
        let stretch = |first, limit| Stretch { arena: state.address, is_main: true, top: state.top, first, limit };
        let first = base.next_multiple_of(ALIGNMENT);
        let (chunks, mut end, mut stop) = self.chunks(&stretch(first, extent.end))?;
        let mut segments = vec![Segment { range: base..stop, first, chunks }];
        let mut foreign = 0;
        // Something else has moved the break: the arena goes on behind that.
        while let End::Fence = end {
            let reach = if state.is_contiguous { extent.end } else { extent.end.min(stop.saturating_add(FOREIGN)) };
            let starts = (stop.next_multiple_of(ALIGNMENT)..reach).step_by(ALIGNMENT as usize);
            let Some((first, found)) = self.first_of(starts, |first| stretch(first, extent.end)) else { break };
            foreign += first - stop;
            segments.push(Segment { range: first..found.2, first, chunks: found.0 });
            (end, stop) = (found.1, found.2);
        }
        // Once the break could not be moved, the arena goes on in mappings of its own, anywhere.
        if let End::Fence = end {
            let taken = base..stop;
            let elsewhere = if state.is_contiguous { Vec::new() } else { self.elsewhere(&taken, &stretch) };
            if !elsewhere.iter().any(|segment| segment.range.contains(&state.top)) {
                return Err(Damage {
                    arena: state.address,
                    chunk: stop,
                    why: "nothing that follows leads to the top chunk".into(),
                });
            }
            segments.extend(elsewhere);
            segments.sort_by_key(|segment| segment.range.start);
        }
        Ok((segments, foreign))
    }

    /// The first of these places from which chunks lead to the top chunk or to fenceposts, and those chunks.
    fn first_of(
        &mut self,
        starts: impl IntoIterator<Item = u64>,
        stretch: impl Fn(u64) -> Stretch,
    ) -> Option<(u64, Piece)> {
        let candidates = self.candidates.len();
        for first in starts {
            let found = self.chunks(&stretch(first));
            match found {
                Ok(found) => return Some((first, found)),
                Err(_) if self.steps == 0 => return None,
                Err(_) => self.candidates.truncate(candidates),
            }
        }
        None
    }

    /// Pieces of the main arena outside the brk heap: they begin on a page, and are full of chunks to their end.
    fn elsewhere(&mut self, taken: &Range<u64>, stretch: &impl Fn(u64, u64) -> Stretch) -> Vec<Segment> {
        let mut segments = Vec::new();
        for extent in self.extents {
            let mut at = extent.start;
            while at < extent.end && self.steps > 0 {
                if taken.contains(&at) {
                    at = taken.end.next_multiple_of(PAGE);
                    continue;
                }
                match self.first_of([at], |first| stretch(first, extent.end)) {
                    Some((first, (chunks, _, stop))) if stop.is_multiple_of(PAGE) => {
                        segments.push(Segment { range: first..stop, first, chunks });
                        at = stop;
                    }
                    _ => at += PAGE,
                }
            }
        }
        segments
    }

    /// The heaps of another arena than the main one, by address.
    fn heaps(&mut self, state: &ArenaState) -> Result<Vec<Segment>, Damage> {
        let header = self.offsets.heap_header;
        let heap_max = self.heap_max();
        let first_heap = state.address - header;
        let mut heap = state.top & !(heap_max - 1);
        let mut segments = Vec::new();
        loop {
            let damage = |why: &str| Damage { arena: state.address, chunk: heap, why: why.to_owned() };
            let mut words = [0; 24];
            self.stream.memory.read(heap, &mut words).map_err(|error| damage(&error.to_string()))?;
            let [arena, previous, size] =
                [0, 8, 16].map(|at| u64::from_le_bytes(words[at..at + 8].try_into().unwrap_or_default()));
            if arena != state.address {
                return Err(damage("it begins no heap of this arena"));
            }
            if size == 0 || size > heap_max || !size.is_multiple_of(PAGE) {
                return Err(damage(&format!("a heap cannot have {size} bytes")));
            }
            let first = if heap == first_heap {
                (state.address + self.offsets.arena.size).next_multiple_of(ALIGNMENT)
            } else {
                heap + header
            };
            let stretch = Stretch { arena: state.address, is_main: false, top: state.top, first, limit: heap + size };
            let (chunks, end, stop) = self.chunks(&stretch)?;
            if stop != stretch.limit {
                return Err(stretch.damage(stop, format!("its heap ends at {:#x}", stretch.limit)));
            }
            // Top is in the heap that the walk begins with, and in no other.
            if matches!(end, End::Top) != segments.is_empty() {
                return Err(stretch.damage(stop, "the top chunk is not where it should be"));
            }
            segments.push(Segment { range: heap..stop, first, chunks });
            if heap == first_heap {
                segments.sort_by_key(|segment| segment.range.start);
                return Ok(segments);
            }
            if segments.len() >= MAX_HEAPS || !previous.is_multiple_of(heap_max) || previous == heap {
                return Err(damage("the chain of heaps does not lead to the arena"));
            }
            heap = previous;
        }
    }

    /// Bytes of address space of a heap.
    fn heap_max(&self) -> u64 {
        match self.parameters.huge_page_bytes.saturating_mul(self.offsets.huge_pages_a_heap) {
            0 => HEAP_MAX,
            bytes => bytes,
        }
    }

    /// Reads chunks from a first one to the top chunk or to fenceposts.
    fn chunks(&mut self, stretch: &Stretch) -> Result<Piece, Damage> {
        let cache_chunk = self.offsets.cache_chunk();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut at = stretch.first;
        // The word of the chunk before.
        let mut before = PREVIOUS_USED;
        loop {
            self.steps = match self.steps.checked_sub(1) {
                Some(steps) => steps,
                None => return Err(stretch.damage(at, "no way through the chunks was found")),
            };
            if at.checked_add(HEADER).is_none_or(|end| end > stretch.limit) {
                return Err(stretch.damage(at, "the chunks before it run beyond the arena's memory"));
            }
            let (foot, word) =
                self.stream.header(at, stretch.limit).map_err(|error| stretch.damage(at, error.to_string()))?;
            let size = word & !FLAGS;
            if word & PREVIOUS_USED == 0 {
                let Some(last) = chunks.last_mut() else {
                    return Err(stretch.damage(at, "the first chunk cannot follow a free one"));
                };
                if foot != last.bytes() {
                    let is = last.bytes();
                    return Err(stretch.damage(
                        at,
                        format!("it says that the free chunk before it has {foot} bytes, which says {is}"),
                    ));
                }
                if before & PREVIOUS_USED == 0 {
                    return Err(stretch.damage(at - foot, "two free chunks in a row are never left apart"));
                }
                *last = Chunk::new(foot, ChunkKind::Free);
            } else if chunks.last().is_some_and(|last| last.bytes() >= MIN_CHUNK)
                && (before & OTHER_ARENA == 0) != stretch.is_main
                && size != 0
            {
                let last = chunks.last().map_or(0, |last| last.bytes());
                return Err(stretch.damage(at - last, "it says that it belongs to another arena"));
            }
            if at == stretch.top {
                let end = stretch.check_top(word)?;
                chunks.push(Chunk::new(size, ChunkKind::Top));
                return Ok((chunks, End::Top, end));
            }
            let last = if size == 0 && !stretch.is_main {
                // The chunk before it, of 16 bytes or 32, belongs to the fence.
                if let Some(last) = chunks.last_mut().filter(|last| last.bytes() <= MIN_CHUNK) {
                    *last = Chunk::new(last.bytes(), ChunkKind::Fencepost);
                }
                true
            } else if size == HEADER {
                // Two of them, or three where hardly anything was left on top; the last one ends on a page.
                let follows = chunks.last().is_some_and(|last| last.kind() == ChunkKind::Fencepost);
                stretch.is_main && follows && (at + HEADER).is_multiple_of(PAGE)
            } else {
                if chunks.last().is_some_and(|last| last.kind() == ChunkKind::Fencepost) {
                    return Err(stretch.damage(at, "it follows a fencepost, which ends a piece of the heap"));
                }
                stretch.check(at, word)?;
                false
            };
            if size <= HEADER {
                chunks.push(Chunk::new(HEADER, ChunkKind::Fencepost));
                if last {
                    return Ok((chunks, End::Fence, at + HEADER));
                }
            } else {
                chunks.push(Chunk::new(size, ChunkKind::Used));
                // Of a free chunk that is larger by less than the smallest chunk nothing is cut off.
                if size == cache_chunk || size == cache_chunk + ALIGNMENT {
                    self.consider(at, size, stretch.limit);
                }
            }
            before = word;
            at += size.max(HEADER);
            if chunks.len() == SAMPLE {
                // So many more, should the rest be like the beginning.
                let average = (at - stretch.first) / SAMPLE as u64;
                let rest = (stretch.limit.saturating_sub(at) / average.max(MIN_CHUNK)).min(MAX_RESERVED);
                chunks.reserve(rest as usize + rest as usize / 8);
            }
        }
    }

    /// Keeps the bytes of a chunk that may be a thread's cache.
    fn consider(&mut self, chunk: u64, size: u64, limit: u64) {
        let held = self.offsets.cache_bytes() as usize;
        if let Ok(bytes) = self.stream.bytes(chunk + HEADER, held, limit)
            && caches::is_cache(bytes, self.offsets, &self.parameters)
        {
            let bytes = bytes.to_vec();
            self.candidates.push(Candidate { chunk, size, bytes });
        }
    }
}
