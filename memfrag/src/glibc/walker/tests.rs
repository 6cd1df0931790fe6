//! Heaps made of bytes: each kind of chunk, damage, and anything at all.

use super::*;
use crate::glibc::layout::{Chunk, HEADER, HEAP_MAX, Segment};
use crate::glibc::memory::fake::Fake;
use crate::glibc::version::BINS;
use crate::target::maps;
use proptest::prelude::*;
use std::fmt::Write as _;

const DATA: u64 = 0x7000_0000_0000;
const MAIN_ARENA: u64 = DATA + 0xc60;
const PARAMETERS: u64 = DATA + 0x340;
const BRK: u64 = 0x5000_0000_0000;

/// A heap in the making.
struct Heap {
    memory: Fake,
    offsets: &'static Offsets,
    map: String,
}

impl Heap {
    /// A libc's data with a main arena without chunks.
    fn new(minor: u16) -> Self {
        let offsets = Version { major: 2, minor }.offsets().expect("known");
        let mut heap = Self { memory: Fake::default(), offsets, map: String::new() };
        heap.memory.map(DATA, 0x2000);
        heap.line(DATA, 0x2000, "fe:00 77 /lib/libc.so.6");
        heap.arena(MAIN_ARENA, MAIN_ARENA);
        let at = offsets.parameters;
        let (max, count) = if minor == 43 { (1041, 16) } else { (1032, 7) };
        for (field, value) in [
            (0, 0x20000),
            (16, 0x20000),
            (at.mapped_count + 4, 65536),
            (at.mapped_bytes + 16, BRK),
            (at.mapped_bytes + 24, 64),
            (at.mapped_bytes + 32, max),
            (at.mapped_bytes + 40, count),
        ] {
            heap.memory.set(PARAMETERS + field, value);
        }
        heap
    }

    fn line(&mut self, start: u64, bytes: u64, rest: &str) {
        writeln!(self.map, "{start:x}-{:x} rw-p 00000000 {rest}", start + bytes).expect("a string takes all");
    }

    /// Maps anonymous memory.
    fn map(&mut self, start: u64, bytes: u64, name: &str) {
        self.memory.map(start, bytes as usize);
        self.line(start, bytes, &format!("00:00 0 {name}"));
    }

    /// Writes an arena whose bins are all empty.
    fn arena(&mut self, address: u64, next: u64) {
        let at = self.offsets.arena;
        for bin in 0..BINS {
            let place = address + at.bins + bin * 16;
            self.memory.set(place, place - 16);
            self.memory.set(place + 8, place - 16);
        }
        self.memory.set(address + at.top, address + at.bins - 16);
        self.memory.set(address + at.next, next);
    }

    /// Writes chunks from an address on, the last one top, and the arena's records of them. Gives the end.
    fn chunks(&mut self, arena: u64, first: u64, chunks: &[Chunk], system: u64) -> u64 {
        let other = if arena == MAIN_ARENA { 0 } else { 4 };
        let mut at = first;
        let mut previous = None;
        for chunk in chunks {
            let is_free = previous.is_some_and(|last: Chunk| last.kind() == ChunkKind::Free);
            let mark = if chunk.kind() == ChunkKind::Used { other } else { 0 };
            if is_free {
                self.memory.set(at, previous.map_or(0, Chunk::bytes));
            }
            self.memory.set(at + 8, chunk.bytes() | mark | u64::from(!is_free));
            if chunk.kind() == ChunkKind::Top {
                self.memory.set(arena + self.offsets.arena.top, at);
            }
            previous = Some(*chunk);
            at += chunk.bytes();
        }
        self.memory.set(arena + self.offsets.arena.system, system);
        self.memory.set(arena + self.offsets.arena.max_system, system);
        at
    }

    fn walker(&self) -> Walker {
        let map = maps::parse(self.map.as_bytes()).0;
        let allocator = Allocator {
            kind: AllocatorKind::Glibc,
            version: None,
            path: PathBuf::from("/lib/libc.so.6"),
            open: PathBuf::new(),
            build_id: Vec::new(),
            inode: 77,
            device: (0xfe, 0),
        };
        let data = data(&map, &allocator);
        let anchors = find::find(&self.memory, &data, self.offsets).expect("mapped").expect("found");
        assert_eq!(anchors, Anchors { main_arena: MAIN_ARENA, parameters: PARAMETERS });
        Walker { pid: 1, version: Version::NEWEST, offsets: self.offsets, allocator, interposed: Vec::new(), anchors }
    }

    fn walk(&self) -> Result<Walk, WalkError> {
        let map = maps::parse(self.map.as_bytes()).0;
        Ok(self.walker().snapshot_of(&self.memory, || Ok(map.clone()), 1)?.analyse())
    }
}

fn used(bytes: u64) -> Chunk {
    Chunk::new(bytes, ChunkKind::Used)
}

fn free(bytes: u64) -> Chunk {
    Chunk::new(bytes, ChunkKind::Free)
}

fn top(bytes: u64) -> Chunk {
    Chunk::new(bytes, ChunkKind::Top)
}

/// A heap with a brk heap of these chunks and top up to `bytes`.
fn brk_heap(minor: u16, chunks: &[Chunk], bytes: u64) -> (Heap, Vec<Chunk>) {
    let mut heap = Heap::new(minor);
    heap.map(BRK, bytes, "[heap]");
    let taken: u64 = chunks.iter().map(|chunk| chunk.bytes()).sum();
    let chunks = [chunks, &[top(bytes - taken)]].concat();
    heap.chunks(MAIN_ARENA, BRK, &chunks, bytes);
    (heap, chunks)
}

#[test]
fn the_main_arena_is_walked() {
    for minor in [31, 36, 42, 43] {
        let (heap, chunks) = brk_heap(minor, &[used(32), free(64), used(1040), free(160), used(48)], 0x21000);
        let walk = heap.walk().expect("sound");
        assert_eq!((walk.confidence, &walk.discrepancies[..]), (Confidence::Exact, &[][..]));
        let segment = Segment { range: BRK..BRK + 0x21000, first: BRK, chunks };
        assert_eq!(walk.layout.arenas.len(), 1);
        assert_eq!(walk.layout.arenas[0].segments, [segment]);
        assert_eq!(walk.layout.arenas[0].system_bytes, 0x21000);
    }
}

fn damage_of(heap: &Heap) -> Damage {
    match heap.walk() {
        Err(WalkError::Damaged { damage, .. }) => damage,
        other => panic!("no damage was found: {other:?}"),
    }
}

#[test]
fn damage_is_told_with_its_place() {
    let chunks = [used(32), free(64), used(1040), used(48)];
    let third = BRK + 32 + 64;
    let fourth = third + 1040;
    for (at, word, chunk, said) in [
        (third, 48, third, "says that the free chunk before it has 48 bytes"),
        (third + 8, 8, third, "cannot have 8 bytes"),
        (third + 8, 0x410 | 2, third, "mapped by itself"),
        (third + 8, 1 << 40, third, "run beyond"),
        (fourth + 8, 0x30 | 1 | 4, fourth, "another arena"),
        (third + 8, 1057, fourth + 16, "before it has 0 bytes, which says 1056"),
    ] {
        let (mut heap, _) = brk_heap(36, &chunks, 0x21000);
        heap.memory.set(at, word);
        let damage = damage_of(&heap);
        assert_eq!((damage.arena, damage.chunk), (MAIN_ARENA, chunk), "{damage}");
        assert!(damage.why.contains(said), "{damage}");
    }
}

const ARENA_HEAP: u64 = 0x7100_0000_0000;

/// A heap with another arena of two heaps: the first one is left, top is in the second.
fn two_heaps(minor: u16) -> (Heap, u64) {
    let (mut heap, _) = brk_heap(minor, &[used(64)], 0x21000);
    let header = heap.offsets.heap_header;
    let arena = ARENA_HEAP + header;
    let second = ARENA_HEAP + HEAP_MAX;
    for (at, bytes) in [(ARENA_HEAP, 0x3000), (second, 0x2000)] {
        heap.map(at, bytes, "");
        heap.memory.set(at, arena);
        heap.memory.set(at + 16, bytes);
    }
    heap.memory.set(second + 8, ARENA_HEAP);
    heap.memory.set(MAIN_ARENA + heap.offsets.arena.next, arena);
    heap.arena(arena, MAIN_ARENA);
    let first = (arena + heap.offsets.arena.size).next_multiple_of(16);
    let rest = ARENA_HEAP + 0x3000 - 32 - first;
    let fence = Chunk::new(16, ChunkKind::Fencepost);
    let fence_end = heap.chunks(arena, first, &[used(0x500), free(rest - 0x500), fence], 0);
    heap.memory.set(fence_end + 8, 1);
    let top = top(0x2000 - header - 0x100);
    let end = heap.chunks(arena, second + header, &[used(0x100), top], 0x5000);
    assert_eq!(end, second + 0x2000);
    (heap, arena)
}

#[test]
fn heaps_of_other_arenas_are_walked() {
    for minor in [31, 36, 43] {
        let (heap, arena) = two_heaps(minor);
        let walk = heap.walk().expect("sound");
        assert_eq!(walk.discrepancies, [], "2.{minor}");
        let found = &walk.layout.arenas[1];
        assert_eq!((found.address, found.is_main, found.segments.len()), (arena, false, 2));
        // What is no chunk: headers and the first one's alignment, and the word that ends the first heap.
        let header = heap.offsets.heap_header;
        let chunks: u64 = found.segments.iter().flat_map(|segment| &segment.chunks).map(|chunk| chunk.bytes()).sum();
        let heads = (header + heap.offsets.arena.size).next_multiple_of(16) + header;
        assert_eq!(chunks + heads, found.system_bytes);
        let kinds: Vec<ChunkKind> = found.segments[0].chunks.iter().map(|chunk| chunk.kind()).collect();
        assert_eq!(kinds, [ChunkKind::Used, ChunkKind::Free, ChunkKind::Fencepost, ChunkKind::Fencepost]);
    }
}

/// Since 2.42 the guard page of a thread's stack shows as memory like any other, and cannot be read.
#[test]
fn memory_behind_the_heap_need_not_be_readable() {
    let mut heap = Heap::new(43);
    heap.memory.map(BRK, 0x21000);
    heap.line(BRK, 0x40000, "00:00 0");
    let chunks = [used(64), used(0x300), used(0x20000), top(0x1000 - 0x340)];
    heap.chunks(MAIN_ARENA, BRK, &chunks, 0x21000);
    assert_eq!(heap.walk().expect("sound").layout.arenas[0].segments[0].chunks, chunks);
}

/// The arena goes on behind a gap; two fenceposts end its first piece, or three where little was left on top.
#[test]
fn the_main_arena_goes_on_behind_a_gap() {
    for posts in [2, 3] {
        let mut heap = Heap::new(36);
        heap.map(BRK, 0x9000, "[heap]");
        let fences = vec![Chunk::new(16, ChunkKind::Fencepost); posts];
        let first = [vec![used(0x5000 - 16 * posts as u64)], fences].concat();
        assert_eq!(heap.chunks(MAIN_ARENA, BRK, &first, 0), BRK + 0x5000);
        let second = [used(64), top(0x4000 - 0x110 - 64)];
        heap.chunks(MAIN_ARENA, BRK + 0x5110, &second, 0x9000);
        let walk = heap.walk().expect("sound");
        assert_eq!((walk.foreign_bytes, &walk.discrepancies[..]), (0x110, &[][..]));
        let segments = &walk.layout.arenas[0].segments;
        assert_eq!([&segments[0].chunks[..], &segments[1].chunks[..]], [&first[..], &second[..]]);
    }
}

#[test]
fn a_chain_of_heaps_that_leads_elsewhere_is_damage() {
    let second = ARENA_HEAP + HEAP_MAX;
    for (at, word) in [(second + 8, second), (second + 8, 8), (second, 0x5000), (second + 16, 0x2010), (second + 8, 0)]
    {
        let (mut heap, arena) = two_heaps(36);
        heap.memory.set(at, word);
        assert_eq!(damage_of(&heap).arena, arena, "{word:#x} at {at:#x}");
    }
}

#[test]
fn a_ring_of_arenas_that_does_not_close_is_told() {
    let (mut heap, arena) = two_heaps(36);
    let walker = heap.walker();
    let map = maps::parse(heap.map.as_bytes()).0;
    for next in [arena, 0, 0x7200_0000_0030, u64::MAX] {
        heap.memory.set(arena + heap.offsets.arena.next, next);
        let result = walker.snapshot_of(&heap.memory, || Ok(map.clone()), 1);
        assert!(matches!(result, Err(WalkError::Damaged { .. })), "{next:#x}");
    }
}

#[test]
fn what_does_not_add_up_is_shown() {
    let (mut heap, _) = brk_heap(36, &[used(64)], 0x21000);
    heap.memory.set(MAIN_ARENA + heap.offsets.arena.system, 0x20000);
    let at = heap.offsets.parameters;
    for (field, word) in [(at.mapped_count, 65536 << 32 | 1), (at.mapped_count + 8, 1)] {
        heap.memory.set(PARAMETERS + field, word);
    }
    for field in [at.mapped_bytes, at.mapped_bytes + 8] {
        heap.memory.set(PARAMETERS + field, 0x5000);
    }
    heap.memory.set(MAIN_ARENA + 0x10, BRK + 0x100);
    let walk = heap.walk().expect("it can be walked");
    assert_eq!(walk.confidence, Confidence::Doubtful);
    let system = Discrepancy::System { arena: MAIN_ARENA, system: 0x20000, walked: 0x21000 };
    let fastbins = Discrepancy::Fastbins { arena: MAIN_ARENA, lists: 1 };
    let mapped = Discrepancy::Mapped { chunks: 1, bytes: 0x5000, found: 0, found_bytes: 0 };
    assert_eq!(walk.discrepancies, [system, fastbins, mapped]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn other_arenas_are_walked_without_panic(
        words in proptest::collection::vec((0u64..0x600, any::<u64>()), 0..40), minor in 31u16..44,
    ) {
        let (mut heap, arena) = two_heaps(minor);
        let walker = heap.walker();
        for (at, word) in words {
            let place = [ARENA_HEAP, ARENA_HEAP + HEAP_MAX, arena][(at % 3) as usize] + at / 3 * 8;
            let word = match word % 4 {
                0 => word,
                1 => word >> 52,
                2 => ARENA_HEAP + (word >> 40 & 0x3ff0),
                _ => ARENA_HEAP + HEAP_MAX,
            };
            heap.memory.set(place, word);
        }
        let map = maps::parse(heap.map.as_bytes()).0;
        if let Ok(snapshot) = walker.snapshot_of(&heap.memory, || Ok(map.clone()), 2) {
            snapshot.analyse();
        }
    }

    #[test]
    fn chunks_come_back_as_they_were_made(
        sizes in proptest::collection::vec((2u64..200, any::<bool>()), 0..300), minor in 31u16..44,
    ) {
        // A free chunk never follows a free one, nor precedes top.
        let mut chunks: Vec<Chunk> = Vec::new();
        for (units, is_free) in sizes {
            let after_free = chunks.last().is_some_and(|last| last.kind() == ChunkKind::Free);
            chunks.push(if is_free && !after_free { free(units * 16) } else { used(units * 16) });
        }
        if chunks.last().is_some_and(|last| last.kind() == ChunkKind::Free) {
            chunks.pop();
        }
        let (heap, chunks) = brk_heap(minor, &chunks, 0x200_000);
        let walk = heap.walk().expect("sound");
        prop_assert_eq!(&walk.layout.arenas[0].segments[0].chunks, &chunks);
        prop_assert!(walk.discrepancies.is_empty());
    }

    #[test]
    fn anything_is_walked_without_panic(
        words in proptest::collection::vec((0u64..0x300, any::<u64>()), 0..60),
        sizes in proptest::collection::vec(2u64..90, 1..60),
        minor in 31u16..44,
    ) {
        let chunks: Vec<Chunk> = sizes.iter().map(|units| used(units * 16)).collect();
        let (mut heap, _) = brk_heap(minor, &chunks, 0x21000);
        let walker = heap.walker();
        for (at, word) in words {
            // Small words look like sizes.
            let word = if word & 1 == 0 { word } else { word >> 52 };
            heap.memory.set(if at & 1 == 0 { BRK } else { DATA } + (at >> 1) * 16, word);
        }
        let map = maps::parse(heap.map.as_bytes()).0;
        if let Ok(snapshot) = walker.snapshot_of(&heap.memory, || Ok(map.clone()), 1) {
            let walk = snapshot.analyse();
            let held: usize = walk.layout.arenas.iter().flat_map(|arena| &arena.segments).map(|s| s.chunks.len()).sum();
            prop_assert!(held as u64 <= 0x21000 / HEADER);
        }
        let _ = find::find(&heap.memory, &data(&map, &walker.allocator), heap.offsets);
    }
}

#[test]
fn ranges_are_cut_out() {
    let left = without(vec![0..10, 20..30, 40..50], [5..7, 8..25, 41..42, 49..60].into_iter());
    assert_eq!(left, [0..5, 7..8, 25..30, 40..41, 42..49]);
    assert_eq!(HEAP_MAX, 64 << 20);
}
