//! Chunks that look used and are not: those in the threads' caches and in the fastbins.

use super::layout::{ALIGNMENT, Arena, Chunk, ChunkKind, HEADER, MIN_CHUNK};
use super::memory::Memory;
use super::state::{ArenaState, Parameters};
use super::version::{Offsets, SMALL_CACHE_BINS};
use crate::target::residency::PAGE;

/// A thread's cache of free chunks (tcache).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadCache {
    /// Address of its table, which is a block of the heap itself.
    pub table: u64,
    /// Chunks in it.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A chunk that has the size of a thread's cache, with its bytes.
#[derive(Debug)]
pub(super) struct Candidate {
    /// The chunk's address.
    pub(super) chunk: u64,
    /// What it holds.
    pub(super) bytes: Vec<u8>,
}

/// A chunk found in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cached {
    /// The chunk's address.
    pub(super) chunk: u64,
    /// Its size as the list says; 0 where the list holds several sizes.
    pub(super) bytes: u64,
    /// [`ChunkKind::Tcache`], [`ChunkKind::Fastbin`] or [`ChunkKind::TcacheTable`].
    pub(super) kind: ChunkKind,
}

/// The number of chunks and the first block of each list of a cache.
fn lists<'a>(
    bytes: &'a [u8],
    offsets: &Offsets,
    parameters: &Parameters,
) -> impl Iterator<Item = (Option<u64>, u64)> + use<'a> {
    let (counts, heads) = bytes.split_at_checked(offsets.cache_bins * 2).unwrap_or((&[], &[]));
    let (counts_room, most) = (offsets.cache_counts_room, parameters.cache_count);
    counts.chunks_exact(2).zip(heads.chunks_exact(8)).map(move |(count, head)| {
        let count = u64::from(u16::from_le_bytes(count.try_into().unwrap_or_default()));
        let count = if counts_room { most.checked_sub(count) } else { Some(count).filter(|&count| count <= most) };
        (count, u64::from_le_bytes(head.try_into().unwrap_or_default()))
    })
}

/// Whether a block's bytes may be a thread's cache: counts within the limit, and a first block exactly where a count
/// says that there is one. A thread that was stopped while it took a chunk or put one back may have one list where
/// the two differ. A cache with nothing in it looks like a block of zeros in versions that count chunks; it does not
/// matter, and is not taken for one.
pub(super) fn is_cache(bytes: &[u8], offsets: &Offsets, parameters: &Parameters) -> bool {
    let mut filled = 0;
    let mut torn = 0;
    for (count, head) in lists(bytes, offsets, parameters) {
        let Some(count) = count else { return false };
        if head != 0 && (head < PAGE || !head.is_multiple_of(ALIGNMENT)) {
            return false;
        }
        torn += u32::from((count == 0) != (head == 0));
        filled += u32::from(count != 0);
        if torn > 1 {
            return false;
        }
    }
    filled > 0 || (offsets.cache_counts_room && bytes.iter().any(|&byte| byte != 0))
}

/// The block behind one in a list, whose link lies at `at`.
fn next(memory: &impl Memory, at: u64, offsets: &Offsets) -> Option<u64> {
    let word = memory.word(at).ok()?;
    let link = if offsets.links_mangled { word ^ (at >> 12) } else { word };
    (link == 0 || (link >= PAGE && link.is_multiple_of(ALIGNMENT))).then_some(link)
}

/// Follows the lists of a block that may be a thread's cache. `None` when they lead nowhere, or are not as long as
/// the counts say, but for one link in a single list.
pub(super) fn follow(
    memory: &impl Memory,
    candidate: &Candidate,
    offsets: &Offsets,
    parameters: &Parameters,
) -> Option<(ThreadCache, Vec<Cached>)> {
    let mut found = Vec::new();
    let mut torn = 0;
    for (list, (count, head)) in lists(&candidate.bytes, offsets, parameters).enumerate() {
        let count = count?;
        let small = (list < SMALL_CACHE_BINS).then(|| MIN_CHUNK + list as u64 * ALIGNMENT);
        let mut block = head;
        let mut length = 0;
        while block != 0 {
            if length > count {
                return None;
            }
            let chunk = block - HEADER;
            let bytes = memory.word(block - 8).ok()? & !7;
            if small.is_some_and(|size| size != bytes) || bytes < MIN_CHUNK {
                return None;
            }
            found.push(Cached { chunk, bytes, kind: ChunkKind::Tcache });
            length += 1;
            block = next(memory, block, offsets)?;
        }
        torn += count.abs_diff(length);
        if torn > 1 {
            return None;
        }
    }
    let table = ThreadCache {
        table: candidate.chunk + HEADER,
        chunks: found.len() as u64,
        bytes: found.iter().map(|cached| cached.bytes).sum(),
    };
    found.push(Cached { chunk: candidate.chunk, bytes: offsets.cache_chunk(), kind: ChunkKind::TcacheTable });
    Some((table, found))
}

/// Follows the fastbins of an arena that has so many chunks. Lists that lead nowhere or turn in a circle are left at
/// that place; their number comes second.
pub(super) fn fastbins(
    memory: &impl Memory,
    state: &ArenaState,
    chunks: usize,
    offsets: &Offsets,
) -> (Vec<Cached>, u32) {
    let mut found = Vec::new();
    let mut broken = 0;
    for (list, &head) in state.fastbins.iter().enumerate() {
        let bytes = MIN_CHUNK + list as u64 * ALIGNMENT;
        let mut chunk = head;
        while chunk != 0 {
            let is_chunk = chunk >= PAGE
                && chunk.is_multiple_of(ALIGNMENT)
                && found.len() < chunks
                && memory.word(chunk + 8).is_ok_and(|word| word & !7 == bytes);
            if !is_chunk {
                broken += 1;
                break;
            }
            found.push(Cached { chunk, bytes, kind: ChunkKind::Fastbin });
            let Some(next) = next(memory, chunk + HEADER, offsets) else {
                broken += 1;
                break;
            };
            chunk = next;
        }
    }
    (found, broken)
}

/// Marks the chunks of arenas that are in lists. Gives those that no chunk in use is for, or that are in two lists.
pub(super) fn mark(arenas: &mut [Arena], mut cached: Vec<Cached>) -> Vec<Cached> {
    cached.sort_unstable_by_key(|cached| cached.chunk);
    let mut strays = Vec::new();
    let mut done = vec![false; cached.len()];
    for segment in arenas.iter_mut().flat_map(|arena| &mut arena.segments) {
        let mut at = cached.partition_point(|cached| cached.chunk < segment.first);
        let mut address = segment.first;
        for chunk in &mut segment.chunks {
            let Some(mut next) = cached.get(at) else { break };
            while next.chunk < address {
                at += 1;
                match cached.get(at) {
                    Some(later) => next = later,
                    None => break,
                }
            }
            if next.chunk == address && chunk.kind() == ChunkKind::Used && chunk.bytes() == next.bytes {
                *chunk = Chunk::new(chunk.bytes(), next.kind);
                done[at] = true;
            }
            address += chunk.bytes();
        }
    }
    strays.extend(cached.iter().zip(done).filter(|(_, done)| !done).map(|(&cached, _)| cached));
    strays
}
