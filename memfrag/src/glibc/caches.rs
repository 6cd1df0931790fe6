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

/// Pages kept by [`Links`].
const PAGES: usize = 1 << 13;

/// Reads the links of lists, whose blocks often lie close together, with the pages that they are on.
#[derive(Debug)]
pub(super) struct Links<'a, M> {
    memory: &'a M,
    offsets: &'static Offsets,
    /// Pages by the lowest bits of their number, each with its address.
    pages: Vec<Option<(u64, Box<[u8; PAGE as usize]>)>>,
}

impl<'a, M: Memory> Links<'a, M> {
    pub(super) fn new(memory: &'a M, offsets: &'static Offsets) -> Self {
        Self { memory, offsets, pages: Vec::new() }
    }

    /// The word at an address that is a multiple of eight.
    fn word(&mut self, at: u64) -> Option<u64> {
        if self.pages.is_empty() {
            self.pages.resize_with(PAGES, || None);
        }
        let page = at & !(PAGE - 1);
        let slot = self.pages.get_mut((page / PAGE) as usize % PAGES)?;
        if slot.as_ref().is_none_or(|(held, _)| *held != page) {
            let (_, mut bytes) = slot.take().unwrap_or_else(|| (page, Box::new([0; PAGE as usize])));
            self.memory.read(page, &mut bytes[..]).ok()?;
            *slot = Some((page, bytes));
        }
        let (_, bytes) = slot.as_ref()?;
        bytes.get((at - page) as usize..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    }

    /// The size of the chunk that a block in a list begins, and the next block; `None` when there is no such block.
    fn entry(&mut self, block: u64) -> Option<(u64, u64)> {
        if block < PAGE || !block.is_multiple_of(ALIGNMENT) {
            return None;
        }
        let bytes = self.word(block - 8)? & !7;
        let word = self.word(block)?;
        let link = if self.offsets.links_mangled { word ^ (block >> 12) } else { word };
        Some((bytes, link))
    }
}

/// Follows the lists of a block that may be a thread's cache. `None` when they lead nowhere, or are not as long as
/// the counts say, but for one link in a single list.
pub(super) fn follow(
    links: &mut Links<'_, impl Memory>,
    candidate: &Candidate,
    parameters: &Parameters,
) -> Option<(ThreadCache, Vec<Cached>)> {
    let offsets = links.offsets;
    let mut found = Vec::new();
    let mut torn = 0;
    for (list, (count, head)) in lists(&candidate.bytes, offsets, parameters).enumerate() {
        let count = count?;
        let small = (list < SMALL_CACHE_BINS).then(|| MIN_CHUNK + list as u64 * ALIGNMENT);
        let mut block = head;
        let mut length = 0;
        while block != 0 {
            let (bytes, next) = links.entry(block)?;
            if length > count || bytes < MIN_CHUNK || small.is_some_and(|size| size != bytes) {
                return None;
            }
            found.push(Cached { chunk: block - HEADER, bytes, kind: ChunkKind::Tcache });
            length += 1;
            block = next;
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
pub(super) fn fastbins(links: &mut Links<'_, impl Memory>, state: &ArenaState, chunks: usize) -> (Vec<Cached>, u32) {
    let mut found = Vec::new();
    let mut broken = 0;
    for (list, &head) in state.fastbins.iter().enumerate() {
        let size = MIN_CHUNK + list as u64 * ALIGNMENT;
        let mut chunk = head;
        while chunk != 0 {
            let Some((bytes, next)) = chunk.checked_add(HEADER).and_then(|block| links.entry(block)) else {
                broken += 1;
                break;
            };
            if bytes != size || found.len() >= chunks {
                broken += 1;
                break;
            }
            found.push(Cached { chunk, bytes, kind: ChunkKind::Fastbin });
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
