use super::*;
use crate::glibc::layout::{Chunk, Segment};
use crate::target::residency::Region;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A segment with chunks, filled up by its last one, and which of its pages are resident.
#[derive(Clone, Debug)]
struct Piece {
    chunks: Vec<(u64, ChunkKind)>,
    pages: Vec<bool>,
}

fn kind() -> impl Strategy<Value = ChunkKind> {
    prop_oneof![
        4 => Just(ChunkKind::Used),
        4 => Just(ChunkKind::Free),
        2 => Just(ChunkKind::Fastbin),
        1 => Just(ChunkKind::Tcache),
        1 => Just(ChunkKind::TcacheTable),
    ]
}

fn piece() -> impl Strategy<Value = Piece> {
    let size = prop_oneof![2u64..12, 2u64..80, 200u64..1200].prop_map(|granules| granules * 16);
    let chunks = prop::collection::vec((size, kind()), 0..30);
    (chunks, prop::collection::vec(prop::bool::weighted(0.8), 256)).prop_map(|(chunks, pages)| Piece { chunks, pages })
}

/// An arena's pieces: the last of them has the top chunk.
fn arena() -> impl Strategy<Value = (Vec<Piece>, bool, u64, bool)> {
    (prop::collection::vec(piece(), 1..4), any::<bool>(), 2u64..700, prop::bool::weighted(0.9))
}

/// Lays the pieces out. The main arena has one segment, which begins anywhere; others begin with a header.
fn build(arenas: &[(Vec<Piece>, bool, u64, bool)]) -> (Layout, Residency) {
    let mut layout = Layout::default();
    let mut residency = Residency::default();
    for (number, (pieces, is_main, top, contiguous)) in arenas.iter().enumerate() {
        let pieces = if *is_main { &pieces[..1] } else { &pieces[..] };
        let mut segments = Vec::new();
        for (heap, piece) in pieces.iter().enumerate() {
            let start = (1 + number as u64) << 32 | (heap as u64) << 26;
            let first = start + if *is_main { 16 * (top % 7) } else { 0x30 };
            let mut chunks: Vec<Chunk> = piece.chunks.iter().map(|&(size, kind)| Chunk::new(size, kind)).collect();
            let used: u64 = first + piece.chunks.iter().map(|(size, _)| size).sum::<u64>();
            let end = if heap + 1 == pieces.len() {
                let end = (used + top * 16).next_multiple_of(PAGE);
                chunks.push(Chunk::new(end - used, ChunkKind::Top));
                end
            } else {
                let end = (used + 32).next_multiple_of(PAGE);
                // What a left heap ends with: what was left of its top, free, and fenceposts.
                if end - used > 64 {
                    chunks.push(Chunk::new(end - used - 32, ChunkKind::Free));
                } else {
                    chunks.push(Chunk::new(end - used - 32, ChunkKind::Used));
                }
                chunks.extend([Chunk::new(16, ChunkKind::Fencepost); 2]);
                end
            };
            let mut region = Region {
                range: start..end + if *contiguous { 0 } else { PAGE },
                kind: if *is_main { RegionKind::Heap } else { RegionKind::Anonymous },
                resident_bytes: 0,
                swapped_bytes: 0,
                resident: Vec::new(),
            };
            for (page, present) in (start..end).step_by(PAGE as usize).zip(piece.pages.iter().cycle()) {
                match region.resident.last_mut() {
                    Some(last) if *present && last.end == page => last.end += PAGE,
                    _ if *present => region.resident.push(page..page + PAGE),
                    _ => {}
                }
            }
            residency.regions.push(region);
            segments.push(Segment { range: start..end, first, chunks });
        }
        let address = segments[0].range.start + 8;
        layout.arenas.push(Arena { address, is_main: *is_main, system_bytes: 0, max_system_bytes: 0, segments });
    }
    (layout, residency)
}

fn pages_of(runs: impl IntoIterator<Item = Range<u64>>) -> BTreeSet<u64> {
    runs.into_iter().flat_map(|run| (run.start..run.end).step_by(PAGE as usize)).collect()
}

/// Goes through the steps of `malloc_trim` on a list of chunks, and gives the resident pages that it takes away.
fn act(layout: &Layout, residency: &Residency) -> BTreeSet<u64> {
    let mut resident = pages_of(residency.runs());
    let before = resident.clone();
    for arena in &layout.arenas {
        for segment in &arena.segments {
            let mut chunks: Vec<(u64, u64, ChunkKind)> =
                segment.iter().map(|(at, chunk)| (at, chunk.bytes(), chunk.kind())).collect();
            for chunk in &mut chunks {
                if chunk.2 == ChunkKind::Fastbin {
                    chunk.2 = ChunkKind::Free;
                }
            }
            let merge = |pair: &[(u64, u64, ChunkKind)]| {
                pair[0].2 == ChunkKind::Free && matches!(pair[1].2, ChunkKind::Free | ChunkKind::Top)
            };
            while let Some(at) = chunks.windows(2).position(merge) {
                let next = chunks.remove(at + 1);
                chunks[at].1 += next.1;
                chunks[at].2 = next.2;
            }
            for (at, mut size, kind) in chunks {
                if kind == ChunkKind::Free && size > 4095 + 48 {
                    let aligned = (at + 48 + 4095) & !4095;
                    size -= aligned - at;
                    if size > 4095 {
                        for page in (aligned..aligned + (size & !4095)).step_by(4096) {
                            resident.remove(&page);
                        }
                    }
                }
                if kind == ChunkKind::Top && arena.is_main {
                    let end = at + size;
                    let break_is_here = residency.regions.iter().any(|region| region.range.end == end);
                    let top_area = size - 32 - 1;
                    let extra = top_area & !4095;
                    if break_is_here && extra > 0 {
                        resident.retain(|&page| page < end - extra || page >= end);
                    }
                }
            }
        }
    }
    before.difference(&resident).copied().collect()
}

/// The same page by page: nothing in use or cached from 48 bytes before it to its end, and no foreign top.
fn by_window(layout: &Layout, residency: &Residency) -> BTreeSet<u64> {
    let is_free = |kind| matches!(kind, ChunkKind::Free | ChunkKind::Fastbin | ChunkKind::Top);
    let mut given = BTreeSet::new();
    for page in pages_of(residency.runs()) {
        for arena in &layout.arenas {
            for segment in arena.segments.iter().filter(|segment| segment.range.contains(&page)) {
                let window = page - 48..page + PAGE;
                let all_free = window.start >= segment.first
                    && segment
                        .iter()
                        .filter(|(at, chunk)| *at < window.end && at + chunk.bytes() > window.start)
                        .all(|(_, chunk)| is_free(chunk.kind()));
                let after = segment.iter().skip_while(|(at, chunk)| at + chunk.bytes() <= page);
                let top = after.take_while(|(_, chunk)| is_free(chunk.kind())).any(|(_, c)| c.kind() == ChunkKind::Top);
                let end = segment.range.end;
                let top_is_given = arena.is_main && residency.regions.iter().any(|region| region.range.end == end);
                if all_free && (!top || top_is_given) {
                    given.insert(page);
                }
            }
        }
    }
    given
}

/// Resident bytes of free chunks, byte by byte in steps of the alignment.
fn free_bytes(layout: &Layout, residency: &Residency) -> u64 {
    let resident = pages_of(residency.runs());
    let mut bytes = 0;
    for (at, chunk) in layout.arenas.iter().flat_map(|arena| &arena.segments).flat_map(Segment::iter) {
        if matches!(chunk.kind(), ChunkKind::Free | ChunkKind::Fastbin | ChunkKind::Top) {
            let granules = (at..at + chunk.bytes()).step_by(16);
            bytes += 16 * granules.filter(|granule| resident.contains(&(granule & !4095))).count() as u64;
        }
    }
    bytes
}

/// One arena whose segment is all resident.
fn resident(chunks: &[(u64, ChunkKind)], is_main: bool) -> (Layout, Residency) {
    let chunks: Vec<Chunk> = chunks.iter().map(|&(size, kind)| Chunk::new(size, kind)).collect();
    let end = 0x10_0000 + chunks.iter().map(|chunk| chunk.bytes()).sum::<u64>();
    let range = 0x10_0000..end;
    let segments = vec![Segment { range: range.clone(), first: range.start, chunks }];
    let arena = Arena { address: 1, is_main, system_bytes: 0, max_system_bytes: 0, segments };
    let whole = range.start..range.end.next_multiple_of(PAGE);
    let kind = if is_main { RegionKind::Heap } else { RegionKind::Anonymous };
    let bytes = whole.end - whole.start;
    let region = Region { range: whole.clone(), kind, resident_bytes: bytes, swapped_bytes: 0, resident: vec![whole] };
    let residency = Residency { time: 0, pid: 1, regions: vec![region] };
    (Layout { arenas: vec![arena], mapped: Vec::new() }, residency)
}

#[test]
fn links_at_a_chunks_beginning_stay() {
    use ChunkKind::{Free, Top, Used};
    // The free chunk begins 48 bytes before a page, and ends with the page behind it.
    let (layout, residency) = resident(&[(4096 - 48, Used), (48 + 4096, Free), (4096 - 64, Used), (64, Top)], true);
    let found = TrimYield::of(&layout, &residency, PAGE);
    assert_eq!(pages_of(found.pages()), [0x10_1000].into());
    assert_eq!((found.bytes(), found.stuck_bytes(), found.free_runs()), (4096, 48 + 64, 2));
    // A block of the smallest size more, and its links reach into the page.
    let (layout, residency) = resident(&[(4096 - 32, Used), (32 + 4096, Free), (4096 - 64, Used), (64, Top)], true);
    assert_eq!(TrimYield::of(&layout, &residency, PAGE).bytes(), 0);
}

#[test]
fn top_is_given_in_the_main_arena_only() {
    use ChunkKind::{Fastbin, Top, Used};
    let chunks = [(4096 - 32, Used), (32, Fastbin), (3 * 4096, Top)];
    let (layout, residency) = resident(&chunks, true);
    // The first 48 bytes of what top becomes lie in the first page of the old top.
    let found = TrimYield::of(&layout, &residency, PAGE);
    assert_eq!(pages_of(found.pages()), [0x10_2000, 0x10_3000].into());
    let (layout, mut residency) = resident(&chunks, false);
    let found = TrimYield::of(&layout, &residency, PAGE);
    assert_eq!((found.bytes(), found.stuck_bytes()), (0, 32 + 3 * 4096));
    assert!(!found.arenas[0].top_is_cut_off);
    let (layout, _) = resident(&chunks, true);
    residency.regions[0].kind = RegionKind::Heap;
    residency.regions[0].range.end += PAGE;
    let found = TrimYield::of(&layout, &residency, PAGE);
    assert!(found.arenas[0].top_is_cut_off && found.bytes() == 0);
}

#[test]
fn huge_pages_lower_the_break_in_their_own_steps() {
    use ChunkKind::{Top, Used};
    let huge = 2 << 20;
    let (layout, residency) = resident(&[(4096, Used), (huge + 8192, Top)], true);
    assert_eq!(TrimYield::of(&layout, &residency, PAGE).bytes(), huge + 4096);
    assert_eq!(TrimYield::of(&layout, &residency, huge).bytes(), huge);
}

#[test]
fn an_empty_heap_gives_nothing() {
    assert_eq!(TrimYield::of(&Layout::default(), &Residency::default(), PAGE).bytes(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn three_ways_to_the_same_pages(arenas in prop::collection::vec(arena(), 1..4)) {
        let (layout, residency) = build(&arenas);
        let found = TrimYield::of(&layout, &residency, PAGE);
        let pages = pages_of(found.pages());
        prop_assert_eq!(&pages, &act(&layout, &residency));
        prop_assert_eq!(&pages, &by_window(&layout, &residency));
        prop_assert_eq!(found.bytes(), pages.len() as u64 * PAGE);
        prop_assert_eq!(found.stuck_bytes(), free_bytes(&layout, &residency) - found.bytes());
    }

    #[test]
    fn any_layout_is_taken(
        chunks in prop::collection::vec((any::<u64>(), 0u8..7), 0..12), first: u64, range: Range<u64>, main: bool,
        resident: Range<u64>, unit: u64,
    ) {
        let chunks = chunks.into_iter().filter_map(|(size, kind)| Some(Chunk::new(size, ChunkKind::from_u8(kind)?)));
        let segments = vec![Segment { range, first, chunks: chunks.collect() }];
        let arena = Arena { address: 0, is_main: main, system_bytes: 0, max_system_bytes: 0, segments };
        let mut residency = Residency::default();
        residency.regions.push(Region {
            range: resident.clone(),
            kind: RegionKind::Heap,
            resident_bytes: 0,
            swapped_bytes: 0,
            resident: vec![resident],
        });
        TrimYield::of(&Layout { arenas: vec![arena], mapped: Vec::new() }, &residency, unit);
    }
}
