//! Resident pages and heaps as they lay in memory go in and come out.

use super::super::{Item, Reader, Writer};
use super::samples::{header, program};
use crate::capture::Sink;
use crate::glibc::{Arena, Chunk, ChunkKind, Layout, MappedChunk, Segment};
use crate::target::Residency;
use crate::target::residency::{PAGE, Region, RegionKind};
use proptest::prelude::*;

/// Runs of pages, upwards from `start`, none touching the next.
fn runs(start: u64, steps: &[(u64, u64)]) -> Vec<std::ops::Range<u64>> {
    let mut at = start;
    steps
        .iter()
        .map(|&(gap, pages)| {
            let from = at + gap * PAGE;
            at = from + pages * PAGE;
            from..at
        })
        .collect()
}

fn residency() -> impl Strategy<Value = Residency> {
    let steps = || prop::collection::vec((1..1000_u64, 1..5000_u64), 0..20);
    let region = (0..1_u64 << 20, 1..6_u8, steps(), 0..5_u64);
    (any::<u64>(), any::<u32>(), prop::collection::vec(region, 0..10)).prop_map(|(time, pid, regions)| {
        let mut at = 0;
        let regions = regions
            .into_iter()
            .map(|(gap, kind, steps, swapped)| {
                let start = at + gap * PAGE;
                let resident = runs(start, &steps);
                let end = resident.last().map_or(start + PAGE, |run| run.end);
                at = end;
                let resident_bytes = resident.iter().map(|run| run.end - run.start).sum();
                let kind = RegionKind::from_u8(kind).unwrap();
                Region { range: start..end, kind, resident_bytes, swapped_bytes: swapped * PAGE, resident }
            })
            .collect();
        Residency { time, pid, regions }
    })
}

fn chunk() -> impl Strategy<Value = Chunk> {
    (2..10_000_u64, 0..7_u8).prop_map(|(units, kind)| Chunk::new(units * 16, ChunkKind::from_u8(kind).unwrap()))
}

fn segment() -> impl Strategy<Value = Segment> {
    (any::<u32>(), prop::collection::vec(chunk(), 0..40), prop::sample::select(&[0, 0x30, 0x8d0][..])).prop_map(
        |(page, chunks, headers)| {
            let start = u64::from(page) * PAGE;
            let end = start + headers + chunks.iter().map(|chunk| chunk.bytes()).sum::<u64>();
            Segment { range: start..end, first: start + headers, chunks }
        },
    )
}

fn layout() -> impl Strategy<Value = Layout> {
    let arena = (any::<u64>(), any::<bool>(), any::<u64>(), any::<u64>(), prop::collection::vec(segment(), 0..4));
    let mapped = (any::<u32>(), 1..1000_u64);
    (prop::collection::vec(arena, 0..4), prop::collection::vec(mapped, 0..5)).prop_map(|(arenas, mapped)| Layout {
        arenas: arenas
            .into_iter()
            .map(|(address, is_main, system_bytes, max_system_bytes, segments)| Arena {
                address,
                is_main,
                system_bytes,
                max_system_bytes,
                segments,
            })
            .collect(),
        mapped: mapped
            .into_iter()
            .map(|(page, pages)| MappedChunk { address: u64::from(page) * PAGE, bytes: pages * PAGE })
            .collect(),
    })
}

/// Things from a file, with the number of events before each.
type Placed<T> = Vec<(u64, T)>;

/// Records both between events and gives back what the file holds.
fn through_a_file(residencies: &[Residency], layouts: &[Layout]) -> (Placed<Residency>, Placed<Layout>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory.mfrag");
    let mut writer = Writer::create(&path, &header()).unwrap();
    let events = program(200, 1);
    writer.events(&events[..100]);
    for residency in residencies {
        writer.residency(residency);
    }
    for layout in layouts {
        writer.layout(7, 100, layout);
    }
    writer.events(&events[100..]);
    writer.finish(9, None).unwrap();
    let reader = Reader::open(&path).unwrap();
    let (mut given, mut pages, mut heaps) = (0, Vec::new(), Vec::new());
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        match item {
            Item::Events(events) => given += events.len() as u64,
            Item::Residency(residency) => pages.push((given, residency)),
            Item::Layout { time, pid, layout } => {
                assert_eq!((time, pid), (7, 100));
                heaps.push((given, layout));
            }
            _ => {}
        }
    }
    assert_eq!(given, 200);
    (pages, heaps)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn memory_comes_back(
        residencies in prop::collection::vec(residency(), 0..3),
        layouts in prop::collection::vec(layout(), 0..3),
    ) {
        let (pages, heaps) = through_a_file(&residencies, &layouts);
        prop_assert_eq!(pages, residencies.into_iter().map(|pages| (100, pages)).collect::<Vec<_>>());
        prop_assert_eq!(heaps, layouts.into_iter().map(|heap| (100, heap)).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_notes_or_damage(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 1..10_u8) {
        let mut note = vec![tag];
        super::super::varint::put_bytes(&mut note, &bytes);
        // Whatever they mean, reading them ends and takes no more room than they have.
        let _ = super::super::notes::decode(&note);
    }
}

/// More chunks than one note holds.
#[test]
fn a_large_heap_takes_several_notes() {
    let chunks: Vec<Chunk> = (0..200_000).map(|at| Chunk::new(32 + at % 7 * 16, ChunkKind::Used)).collect();
    let end = 0x1000 + chunks.iter().map(|chunk| chunk.bytes()).sum::<u64>();
    let segments = vec![Segment { range: 0x1000..end, first: 0x1000, chunks }];
    let arena = Arena { address: 1, is_main: true, system_bytes: end - 0x1000, max_system_bytes: end, segments };
    let layout = Layout { arenas: vec![arena], mapped: Vec::new() };
    let (_, heaps) = through_a_file(&[], std::slice::from_ref(&layout));
    assert_eq!(heaps, [(100, layout)]);
}
