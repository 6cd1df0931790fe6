use super::*;
use crate::glibc::{Arena, Chunk, Segment};
use crate::heap::Heaps;
use crate::target::{MemorySample, ProcessInfo};
use memfrag_common::{Event, Function, Op};

const BASE: u64 = 0x10_0000;

/// A heap of glibc's with blocks of these sizes at these addresses.
fn heaps(blocks: &[(u64, u64)]) -> Heaps {
    let mut heaps = Heaps::default();
    heaps.learn(&ProcessInfo { pid: 1, ..ProcessInfo::default() });
    heaps.set_footprint(0, Footprint::Glibc);
    for &(addr, size) in blocks {
        let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 1, stack: 0 };
        heaps.apply(&Event { time: 1, pid: 1, tid: 1, op });
    }
    heaps
}

fn layout(chunks: &[(u64, ChunkKind)]) -> Layout {
    let chunks: Vec<Chunk> = chunks.iter().map(|&(bytes, kind)| Chunk::new(bytes, kind)).collect();
    let bytes = chunks.iter().map(|chunk| chunk.bytes()).sum();
    let segments = vec![Segment { range: BASE..BASE + bytes, first: BASE, chunks }];
    let arena = Arena { address: 1, is_main: true, system_bytes: bytes, max_system_bytes: bytes, segments };
    Layout { arenas: vec![arena], mapped: Vec::new() }
}

#[test]
fn a_heap_measured_by_hand() {
    // A block of 100 bytes, a cached chunk, one of 200 bytes, a free chunk of two pages, a block of 24 bytes, the top.
    let mut heaps = heaps(&[(BASE + 16, 100), (BASE + 16 + 112 + 48, 200), (BASE + 16 + 368 + 8192, 24)]);
    heaps.sample(&MemorySample { time: 2, pid: 1, rss_anon: 3240, ..MemorySample::default() });
    let layout = layout(&[
        (112, ChunkKind::Used),
        (48, ChunkKind::Tcache),
        (208, ChunkKind::Used),
        (8192, ChunkKind::Free),
        (32, ChunkKind::Used),
        (3696, ChunkKind::Top),
    ]);
    let system = 12288.0;
    let resident = ResidentPages::from_runs(std::iter::once(BASE..BASE + 2 * 4096));
    let heap = heaps.heap(&heaps.processes()[0]);
    let blocks = heap.blocks().sorted();
    let look = Look { blocks: &blocks, layout: Some(&layout), resident: &resident };
    let metrics = Metrics::of(heap, Some(look));
    assert_eq!(metrics.internal_fragmentation, Some(1.0 - 324.0 / 352.0));
    assert_eq!((metrics.header_bytes, metrics.padding_bytes), (Some(24), Some(4)));
    assert_eq!(metrics.cached_ratio, Some(48.0 / system));
    assert_eq!(metrics.external_ratio, Some(8192.0 / system));
    assert_eq!(metrics.top_ratio, Some(3696.0 / system));
    assert_eq!(metrics.page_occupancy, Occupancy { empty: None, pinned: 2, partial: 0, full: 0 });
    assert_eq!(metrics.huge_page_occupancy, Occupancy { empty: None, pinned: 1, partial: 0, full: 0 });
    let resident = Occupancy { empty: Some(1), pinned: 1, partial: 0, full: 0 };
    assert_eq!(metrics.resident_page_occupancy, Some(resident));
    let resident = Occupancy { empty: Some(0), pinned: 1, partial: 0, full: 0 };
    assert_eq!(metrics.resident_huge_page_occupancy, Some(resident));
    assert_eq!(
        metrics.unusable_free_index,
        Some([(100, 0.0), (200, 0.0), (200, 0.0), (200, 0.0)].map(|(n, i)| {
            // Sizes are told by the most that their chunk can hold.
            (if n == 100 { 104 } else { n }, i)
        }))
    );
    assert_eq!((metrics.free_fragmentation_index, metrics.free_dispersion), (Some(0.0), Some(0.0)));
    assert_eq!(metrics.realized_fragmentation, Some(900.0));
    assert_eq!(metrics.end_fragmentation, Some(900.0));
    assert_eq!((metrics.compact_bound_bytes, metrics.compact_bound_peak_bytes), (352, 352));
    // The two pages' blocks do not collide: the first's end at 368, the other's begins there.
    assert_eq!(metrics.meshable_pages, 1);
}

#[test]
fn what_is_not_known_is_not_told() {
    let heaps = heaps(&[(BASE + 16, 100)]);
    let metrics = Metrics::of(heaps.heap(&heaps.processes()[0]), None);
    assert!(metrics.internal_fragmentation.is_some());
    assert_eq!((metrics.cached_ratio, metrics.external_ratio, metrics.top_ratio), (None, None, None));
    assert_eq!((metrics.page_occupancy.empty, metrics.page_occupancy.pinned), (None, 1));
    assert_eq!(metrics.resident_page_occupancy, None);
    assert_eq!((metrics.unusable_free_index, metrics.free_dispersion), (None, None));
    assert_eq!((metrics.johnstone_wilson, metrics.realized_fragmentation), (None, None));
}

#[test]
fn another_allocator_has_no_headers_that_are_known() {
    let mut heaps = heaps(&[(BASE, 100)]);
    heaps.set_footprint(0, Footprint::Requested);
    let metrics = Metrics::of(heaps.heap(&heaps.processes()[0]), None);
    assert_eq!((metrics.internal_fragmentation, metrics.header_bytes, metrics.padding_efficiency), (None, None, None));
    assert_eq!(metrics.compact_bound_bytes, 100);
    assert_eq!(metrics.cache_line_utilization, Some(100.0 / 128.0));
}
