use super::*;
use crate::heap::{Block, Heaps};
use crate::target::ProcessInfo;
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;

fn heap(blocks: &[(u64, u64)], footprint: Footprint, watched: bool) -> Heaps {
    let mut heaps = Heaps::default();
    heaps.learn(&ProcessInfo { pid: 1, ..ProcessInfo::default() });
    heaps.set_footprint(0, footprint);
    if watched {
        heaps.watch(0);
    }
    for (time, &(addr, size)) in (1..).zip(blocks) {
        let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 1, stack: 0 };
        heaps.apply(&Event { time, pid: 1, tid: 1, op });
    }
    heaps
}

fn mapping(range: Range<u64>, kind: MappingKind) -> Mapping {
    let resident_bytes = range.end - range.start;
    let resident = if kind.may_hold_blocks() { vec![range.clone()] } else { Vec::new() };
    Mapping { range, kind, resident_bytes, swapped_bytes: 0, resident }
}

#[test]
fn segment_arenas_and_mapped_memory_are_told_apart() {
    let (segment, arena, mapped) = (0x5555_0000_0000, 0x7f00_0000_0000, 0x7f00_1000_0000);
    let blocks = [(segment + 0x10, 100), (arena + 0xb60, 24), (mapped + 0x10, 0x40_0000), (0x40_0010, 8)];
    let heaps = heap(&blocks, Footprint::Glibc, true);
    let heap = heaps.heap(&heaps.processes()[0]);
    let look = Residency {
        time: 9,
        pid: 1,
        regions: vec![
            mapping(0x40_0000..0x40_2000, MappingKind::File),
            mapping(segment..segment + 0x2_1000, MappingKind::Heap),
            mapping(arena..arena + 0x2_1000, MappingKind::Anonymous),
            mapping(arena + 0x800_0000..arena + 0x800_1000, MappingKind::Anonymous),
            mapping(mapped..mapped + 0x40_1000, MappingKind::Anonymous),
        ],
    };
    let told = |look| {
        let regions = regions(heap, look).into_iter();
        regions.map(|region| (region.range, region.kind, region.live.bytes, region.resident_bytes)).collect::<Vec<_>>()
    };
    let expected = [
        (0x40_0000..0x40_1000, Kind::Other, 8, 0),
        (segment..segment + 0x2_1000, Kind::Brk, 100, 0x2_1000),
        (arena..arena + 0x2_1000, Kind::Arena, 24, 0x2_1000),
        (mapped..mapped + 0x40_1000, Kind::Mapped, 0x40_0000, 0x40_1000),
    ];
    assert_eq!(told(Some(&look)), expected);
    // Without a look, the pages tell.
    let expected = [
        (0x40_0000..0x40_1000, Kind::Mapped, 8, 0),
        (segment..segment + 0x1000, Kind::Mapped, 100, 0),
        (arena..arena + 0x1000, Kind::Arena, 24, 0),
        (mapped..mapped + 0x40_1000, Kind::Mapped, 0x40_0000, 0),
    ];
    assert_eq!(told(None), expected);
}

#[test]
fn what_was_emptied_stays_as_long_as_it_is_mapped() {
    let base = 0x7f12_3456_7000;
    let mut heaps = heap(&[(base + 0x10, 64)], Footprint::Glibc, true);
    let free = Op::Free { function: Function::Free, addr: base + 0x10, size: 0, site: 0 };
    heaps.apply(&Event { time: 5, pid: 1, tid: 1, op: free });
    let heap = heaps.heap(&heaps.processes()[0]);
    let look = |kind| Residency { time: 9, pid: 1, regions: vec![mapping(base..base + 0x1000, kind)] };
    let mut tracked = Regions::default();
    assert!(tracked.update(heap, Some(&look(MappingKind::Anonymous))));
    assert_eq!((tracked.epoch(), tracked.list().len()), (1, 1));
    assert!(!tracked.update(heap, Some(&look(MappingKind::Anonymous))));
    assert!(tracked.update(heap, None));
    assert_eq!((tracked.epoch(), tracked.list()), (2, &[][..]));
}

#[test]
fn there_are_no_more_than_the_protocol_allows() {
    let blocks: Vec<(u64, u64)> = (0..10_000).map(|at| (0x1000_0000 + at * 0x10_0000 + at % 7 * 0x1000, 64)).collect();
    let heaps = heap(&blocks, Footprint::Requested, true);
    let regions = regions(heaps.heap(&heaps.processes()[0]), None);
    assert_eq!(regions.len(), MAX_REGIONS);
    assert_eq!(regions.iter().map(|region| region.live.blocks).sum::<u64>(), 10_000);
    assert!(regions.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
}

proptest! {
    /// Whatever the mappings: the regions lie apart, each live block is counted once and where it begins, and the sums are
    /// those of the heap.
    #[test]
    fn the_sums_are_those_of_the_heap(
        blocks in prop::collection::btree_map(
            (0..40_u64, 0..40_u64).prop_map(|(far, near)| 0x3fff_0000 + far * 0x1_3000 + near * 0x40),
            prop_oneof![0..200_u64, 0..0x3_0000_u64],
            0..60,
        ),
        mappings in prop::collection::vec((0..400_u64, 1..60_u64, 1..6_u8), 0..12),
        glibc in any::<bool>(),
        watched in any::<bool>(),
        looked in any::<bool>(),
    ) {
        let footprint = if glibc { Footprint::Glibc } else { Footprint::Requested };
        let blocks: Vec<(u64, u64)> = blocks.into_iter().collect();
        let heaps = heap(&blocks, footprint, watched);
        let heap = heaps.heap(&heaps.processes()[0]);
        let mut end = 0;
        let mut known = Vec::new();
        let mut sorted = mappings;
        sorted.sort_unstable();
        for (at, pages, kind) in sorted {
            let start = (0x3ff0_0000 + at * PAGE).max(end);
            end = start + pages * PAGE;
            known.push(mapping(start..end, MappingKind::from_u8(kind).expect("a kind")));
        }
        let look = Residency { time: 1, pid: 1, regions: known };
        let look = looked.then_some(&look);
        let regions = regions(heap, look);
        prop_assert!(regions.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
        prop_assert!(regions.iter().all(|region| !region.range.is_empty()));
        let live = regions.iter().fold(Amount::default(), |sum, region| Amount {
            blocks: sum.blocks + region.live.blocks,
            bytes: sum.bytes + region.live.bytes,
        });
        prop_assert_eq!(live, heap.live());
        for region in &regions {
            let within = |block: &&(u64, u64)| region.range.contains(&block.0);
            let takes_memory = |block: &&(u64, u64)| !footprint.of(block.0, block.1).is_empty();
            let counted = blocks.iter().filter(within).count() as u64;
            prop_assert!(region.live.blocks >= counted);
            if blocks.iter().all(|block| takes_memory(&block)) {
                prop_assert_eq!(region.live.blocks, counted);
            }
            let resident = look.map_or(0, |look| ResidentPages::new(look).bytes_in(region.range.clone()));
            prop_assert_eq!(region.resident_bytes, resident);
        }
        let of = |block: &Block| footprint.of(block.addr, block.size);
        for block in heap.blocks().iter().filter(|block| !of(block).is_empty()) {
            let covered: u64 = regions
                .iter()
                .map(|region| region.range.end.min(of(&block).end).saturating_sub(region.range.start.max(of(&block).start)))
                .sum();
            prop_assert_eq!(covered, of(&block).end - of(&block).start, "{:?} of {:?}", block, regions);
        }
    }
}
