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
    /// The chunk's size.
    pub(super) size: u64,
    /// What the cache holds.
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
    found.push(Cached { chunk: candidate.chunk, bytes: candidate.size, kind: ChunkKind::TcacheTable });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glibc::layout::Segment;
    use crate::glibc::memory::fake::Fake;
    use crate::glibc::version::Version;
    use proptest::prelude::*;

    const HEAP: u64 = 0x5000_0000_0000;
    const SIZE: u64 = 0x21000;

    fn offsets(minor: u16) -> &'static Offsets {
        Version { major: 2, minor }.offsets().expect("known")
    }

    fn parameters(count: u64) -> Parameters {
        Parameters { cache_count: count, ..Parameters::default() }
    }

    /// Memory with a list of chunks of one size; gives the first block.
    fn list(memory: &mut Fake, offsets: &Offsets, chunks: &[u64], bytes: u64, last: u64) -> u64 {
        for (at, &chunk) in chunks.iter().enumerate() {
            let block = chunk + HEADER;
            let next = chunks.get(at + 1).map_or(last, |next| next + HEADER);
            memory.set(chunk + 8, bytes | 1);
            memory.set(block, if offsets.links_mangled { next ^ (block >> 12) } else { next });
        }
        chunks.first().map_or(0, |chunk| chunk + HEADER)
    }

    /// A table with so many chunks in one list.
    fn table(offsets: &Offsets, most: u64, list: usize, count: u64, head: u64) -> Vec<u8> {
        let mut bytes = vec![0; offsets.cache_bytes() as usize];
        for bin in 0..offsets.cache_bins {
            let there = if bin == list { count } else { 0 };
            let word = if offsets.cache_counts_room { most - there } else { there };
            bytes[bin * 2..bin * 2 + 2].copy_from_slice(&(word as u16).to_le_bytes());
        }
        let at = offsets.cache_bins * 2 + list * 8;
        bytes[at..at + 8].copy_from_slice(&head.to_le_bytes());
        bytes
    }

    const CHUNKS: [u64; 3] = [HEAP + 0x1000, HEAP + 0x40, HEAP + 0x2000];

    #[test]
    fn caches_are_followed() {
        for minor in [31, 36, 42, 43] {
            let (offsets, parameters) = (offsets(minor), parameters(7));
            let mut memory = Fake::default();
            memory.map(HEAP, SIZE as usize);
            let head = list(&mut memory, offsets, &CHUNKS, 0x40, 0);
            let bytes = table(offsets, 7, 2, 3, head);
            assert!(is_cache(&bytes, offsets, &parameters));
            let candidate = Candidate { chunk: HEAP, size: offsets.cache_chunk() + 16, bytes };
            let (cache, cached) = follow(&mut Links::new(&memory, offsets), &candidate, &parameters).expect("sound");
            assert_eq!(cache, ThreadCache { table: HEAP + HEADER, chunks: 3, bytes: 0xc0 });
            let found: Vec<u64> = cached.iter().map(|cached| cached.chunk).collect();
            assert_eq!(found, [CHUNKS[0], CHUNKS[1], CHUNKS[2], HEAP]);
            assert_eq!((cached[3].kind, cached[3].bytes), (ChunkKind::TcacheTable, offsets.cache_chunk() + 16));
        }
    }

    #[test]
    fn what_is_no_cache_is_told() {
        let (offsets, parameters) = (offsets(36), parameters(7));
        let mut memory = Fake::default();
        memory.map(HEAP, SIZE as usize);
        let head = list(&mut memory, offsets, &CHUNKS, 0x40, 0);
        // More than fit, and a first block that cannot be one.
        assert!(!is_cache(&table(offsets, 7, 2, 8, head), offsets, &parameters));
        assert!(!is_cache(&table(offsets, 7, 2, 3, head + 8), offsets, &parameters));
        // An empty one of a version that counts chunks looks like any zeros; else it does not.
        assert!(!is_cache(&table(offsets, 7, 2, 0, 0), offsets, &parameters));
        assert!(is_cache(&table(self::offsets(43), 7, 2, 0, 0), self::offsets(43), &parameters));
        let follows = |list, count, head| {
            let candidate =
                Candidate { chunk: HEAP, size: offsets.cache_chunk(), bytes: table(offsets, 7, list, count, head) };
            follow(&mut Links::new(&memory, offsets), &candidate, &parameters).is_some()
        };
        // A thread may have been stopped between the count and the list, but not twice.
        assert!(follows(2, 3, head) && follows(2, 2, head) && follows(2, 4, head));
        assert!(!follows(2, 1, head) && !follows(2, 5, head));
        // A list of another size, and one that leads out of memory.
        assert!(!follows(3, 3, head));
        assert!(!follows(2, 1, HEAP + SIZE + 16));
    }

    #[test]
    fn a_list_that_turns_in_a_circle_ends() {
        let offsets = offsets(36);
        let mut memory = Fake::default();
        memory.map(HEAP, SIZE as usize);
        let head = list(&mut memory, offsets, &CHUNKS, 0x40, CHUNKS[0] + HEADER);
        let candidate = Candidate { chunk: HEAP, size: offsets.cache_chunk(), bytes: table(offsets, 7, 2, 7, head) };
        assert!(follow(&mut Links::new(&memory, offsets), &candidate, &parameters(7)).is_none());
    }

    fn state(fastbins: Vec<u64>) -> ArenaState {
        ArenaState {
            address: HEAP,
            is_contiguous: true,
            fastbins,
            top: 0,
            next: HEAP,
            threads: 1,
            system: SIZE,
            max_system: SIZE,
        }
    }

    #[test]
    fn fastbins_are_followed_as_far_as_they_go() {
        for minor in [31, 36] {
            let offsets = offsets(minor);
            let mut memory = Fake::default();
            memory.map(HEAP, SIZE as usize);
            // Their links lead to chunks, not to blocks.
            for (at, &chunk) in CHUNKS.iter().enumerate() {
                let next = CHUNKS.get(at + 1).copied().unwrap_or(0);
                memory.set(chunk + 8, 0x31);
                memory.set(chunk + 16, if minor == 31 { next } else { next ^ ((chunk + 16) >> 12) });
            }
            let mut heads = vec![0; 10];
            heads[1] = CHUNKS[0];
            let follow = |heads: &[u64], chunks| {
                let (found, broken) = fastbins(&mut Links::new(&memory, offsets), &state(heads.to_vec()), chunks);
                (found.iter().map(|cached| (cached.chunk, cached.bytes)).collect::<Vec<_>>(), broken)
            };
            let all: Vec<(u64, u64)> = CHUNKS.iter().map(|&chunk| (chunk, 0x30)).collect();
            assert_eq!(follow(&heads, 100), (all.clone(), 0));
            assert_eq!(follow(&heads, 2), (all[..2].to_vec(), 1), "more entries than chunks");
            heads.swap(1, 2);
            assert_eq!(follow(&heads, 100), (Vec::new(), 1), "chunks of another size");
            assert_eq!(follow(&[u64::MAX - 7], 100), (Vec::new(), 1));
        }
    }

    #[test]
    fn listed_chunks_are_marked_and_others_returned() {
        let used = |bytes| Chunk::new(bytes, ChunkKind::Used);
        let chunks = vec![used(0x290), used(32), Chunk::new(64, ChunkKind::Free), used(32), used(48)];
        let segment = Segment { range: HEAP..HEAP + SIZE, first: HEAP, chunks };
        let arena = Arena { address: 0, is_main: true, system_bytes: 0, max_system_bytes: 0, segments: vec![segment] };
        let entry = |chunk, bytes, kind| Cached { chunk: HEAP + chunk, bytes, kind };
        let listed = vec![
            entry(0x290, 32, ChunkKind::Tcache),
            entry(0, 0x290, ChunkKind::TcacheTable),
            // A free chunk, the middle of one, another size, one twice, one outside.
            entry(0x2b0, 64, ChunkKind::Tcache),
            entry(0x2c0, 32, ChunkKind::Tcache),
            entry(0x2f0, 48, ChunkKind::Fastbin),
            entry(0x310, 48, ChunkKind::Fastbin),
            entry(0x310, 48, ChunkKind::Tcache),
            entry(SIZE, 32, ChunkKind::Tcache),
        ];
        let mut arenas = [arena];
        let strays: Vec<u64> = mark(&mut arenas, listed).iter().map(|stray| stray.chunk - HEAP).collect();
        assert_eq!(strays, [0x2b0, 0x2c0, 0x2f0, 0x310, SIZE]);
        let kinds: Vec<ChunkKind> = arenas[0].segments[0].chunks.iter().map(|chunk| chunk.kind()).collect();
        let expected =
            [ChunkKind::TcacheTable, ChunkKind::Tcache, ChunkKind::Free, ChunkKind::Used, ChunkKind::Fastbin];
        assert_eq!(kinds, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_lists_are_followed_to_an_end(
            words in proptest::collection::vec((0u64..0x400, 0u64..0x400), 0..100),
            bytes in proptest::collection::vec(0u8..8, 760), minor in 31u16..44,
        ) {
            let (offsets, parameters) = (offsets(minor), parameters(7));
            let mut memory = Fake::default();
            memory.map(HEAP, SIZE as usize);
            for (at, word) in words {
                memory.set(HEAP + at * 8, if word & 1 == 0 { word } else { (HEAP + (word >> 1) * 16) ^ (HEAP >> 12) });
            }
            let candidate = Candidate { chunk: HEAP, size: offsets.cache_chunk(), bytes };
            let mut links = Links::new(&memory, offsets);
            is_cache(&candidate.bytes, offsets, &parameters);
            follow(&mut links, &candidate, &parameters);
            let heads = (0..10).map(|list| HEAP + list * 16).collect();
            let (found, _) = fastbins(&mut links, &state(heads), 1000);
            prop_assert!(found.len() <= 1000);
        }
    }
}
