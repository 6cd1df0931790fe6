//! glibc's layout from the live blocks and the process's memory map, where no walk of the heap is at hand.
//!
//! A chunk lies [`HEADER`] bytes before its block, and its least size follows from the request. So the chunks in use
//! are known, and what lies between them is free. What this cannot see:
//!
//! - chunks in threads' caches and fastbins: they count as free,
//! - blocks that are older than the trace, and libc's own: they count as free too,
//! - which heaps belong to one arena: each is taken for an arena of its own,
//! - whether the last chunk of an arena's heap is its top: it is taken for that unless the heap is full.

use crate::glibc::layout::{
    ALIGNMENT, Arena, Chunk, ChunkKind, HEADER, HEAP_MAX, Layout, MIN_CHUNK, MappedChunk, Segment, chunk_bytes,
};
use crate::heap::Block;
use crate::target::residency::{PAGE, RegionKind, Residency};
use std::ops::Range;

/// Chunks from this size on are mapped by themselves, unless the program or a freed one raised the threshold.
const MMAP_THRESHOLD: u64 = 128 << 10;
/// Header of an arena's further heaps (`heap_info`).
const HEAP_HEADER: u64 = 0x30;
/// Headers of an arena's first heap (`heap_info` and `malloc_state`).
const FIRST_HEAP_HEADER: u64 = 0x8d0;
/// A thread's table of cached chunks, before glibc 2.42 and since.
const TCACHE_TABLES: [u64; 2] = [0x290, 0x300];
/// What closes a heap that its arena has left.
const FENCEPOST: u64 = 2 * ALIGNMENT;

/// The layout of a glibc process with these live blocks, in order of their addresses.
pub fn layout(blocks: &[Block], residency: &Residency) -> Layout {
    let mut layout = Layout::default();
    for region in residency.regions.iter().filter(|region| region.range.start < region.range.end) {
        let inside = within(blocks, &region.range);
        match region.kind {
            RegionKind::Heap if !inside.is_empty() => {
                let segment = segment(region.range.clone(), region.range.start, inside, Last::Top);
                // The brk heap belongs to one arena, even where something foreign has split it.
                match layout.arenas.iter_mut().find(|arena| arena.is_main) {
                    Some(main) => {
                        main.system_bytes += region.range.end - region.range.start;
                        main.segments.push(segment);
                    }
                    None => layout.arenas.insert(0, arena(0, true, segment)),
                }
            }
            RegionKind::Anonymous => anonymous(&mut layout, &region.range, inside),
            _ => {}
        }
    }
    for arena in &mut layout.arenas {
        arena.max_system_bytes = arena.system_bytes;
    }
    layout
}

/// The blocks that begin in a range.
fn within<'a>(blocks: &'a [Block], range: &Range<u64>) -> &'a [Block] {
    let start = blocks.partition_point(|block| block.addr < range.start);
    let end = blocks.partition_point(|block| block.addr < range.end);
    &blocks[start..end.max(start)]
}

fn arena(address: u64, is_main: bool, segment: Segment) -> Arena {
    let system_bytes = segment.range.end - segment.range.start;
    Arena { address, is_main, system_bytes, max_system_bytes: system_bytes, segments: vec![segment] }
}

/// Heaps of arenas, and chunks mapped by themselves. Neighbouring mappings are one to the kernel, so a region can
/// hold several of either.
fn anonymous(layout: &mut Layout, region: &Range<u64>, mut blocks: &[Block]) {
    while let Some(first) = blocks.first() {
        let base = first.addr & !(HEAP_MAX - 1);
        let piece = base..region.end.min(base.saturating_add(HEAP_MAX));
        if base >= region.start {
            let inside = within(blocks, &piece);
            if is_heap(region, &piece, inside) {
                let lowest = inside[0].addr - HEADER - base;
                let header = if lowest >= FIRST_HEAP_HEADER { FIRST_HEAP_HEADER } else { HEAP_HEADER };
                let is_full = piece.end - base == HEAP_MAX;
                let last = if is_full { Last::Fencepost } else { Last::Top };
                let segment = segment(piece.clone(), base + header, inside, last);
                layout.arenas.push(arena(base + HEAP_HEADER, false, segment));
                blocks = &blocks[inside.len()..];
                continue;
            }
        }
        if is_mapped(region, first) {
            let address = first.addr - HEADER;
            let next = blocks.get(1).map_or(region.end, |next| next.addr & !(PAGE - 1)).min(region.end);
            let wanted = chunk_bytes(first.size).saturating_add(8 + PAGE - 1) & !(PAGE - 1);
            let bytes = wanted.min(next.saturating_sub(address));
            if bytes > HEADER {
                layout.mapped.push(MappedChunk { address, bytes });
            }
        }
        blocks = &blocks[1..];
    }
}

/// Whether a block looks as if it was mapped by itself: at the beginning of a page, behind its header.
fn is_mapped(region: &Range<u64>, block: &Block) -> bool {
    block.addr % PAGE == HEADER && (chunk_bytes(block.size) >= MMAP_THRESHOLD || block.addr - HEADER == region.start)
}

/// Whether an aligned piece of a region is an arena's heap.
fn is_heap(region: &Range<u64>, piece: &Range<u64>, blocks: &[Block]) -> bool {
    let Some(first) = blocks.first() else { return false };
    first.addr >= piece.start + HEAP_HEADER + HEADER
        && (piece.start == region.start || blocks.iter().any(|block| !is_mapped(region, block)))
}

/// What stands at a segment's end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Top,
    Fencepost,
}

/// A segment with chunks for the blocks, and free ones between. Blocks that cannot be glibc's, because they are not
/// aligned or lie in one before, get no chunk.
fn segment(range: Range<u64>, first: u64, blocks: &[Block], last: Last) -> Segment {
    let first = (first.saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1)).min(range.end);
    let end = match last {
        Last::Top => range.end & !(ALIGNMENT - 1),
        Last::Fencepost => (range.end & !(ALIGNMENT - 1)).saturating_sub(FENCEPOST),
    }
    .max(first);
    let mut chunks = Tiles { chunks: Vec::with_capacity(blocks.len() * 2), at: first };
    let mut starts = blocks
        .iter()
        .filter(|block| block.addr.is_multiple_of(ALIGNMENT) && block.addr >= first + HEADER)
        .map(|block| (block.addr - HEADER, chunk_bytes(block.size)))
        .peekable();
    // The first thread to allocate gets its table first.
    let gap = starts.peek().map_or(0, |next| next.0 - first);
    if first == range.start || first - range.start == FIRST_HEAP_HEADER {
        let table = TCACHE_TABLES.into_iter().rev().find(|&table| gap == table).unwrap_or(TCACHE_TABLES[0]);
        if gap == table || gap >= table + MIN_CHUNK {
            chunks.push(table, ChunkKind::TcacheTable);
        }
    }
    while let Some((start, bytes)) = starts.next() {
        if start < chunks.at || start + MIN_CHUNK > end {
            continue;
        }
        let before = start - chunks.at;
        if before > 0 {
            chunks.push(before, ChunkKind::Free);
        }
        // The next block's chunk bounds this one; what begins within the smallest chunk is no block of glibc's.
        while starts.peek().is_some_and(|next| next.0 < start + MIN_CHUNK) {
            starts.next();
        }
        let limit = starts.peek().map_or(end, |next| next.0.min(end)) - start;
        // What is too small for a chunk of its own stayed with the one before it.
        let bytes = if bytes == 0 || limit < bytes.saturating_add(MIN_CHUNK) { limit } else { bytes };
        chunks.push(bytes, ChunkKind::Used);
    }
    if chunks.at < end {
        let kind = if last == Last::Top { ChunkKind::Top } else { ChunkKind::Free };
        chunks.push(end - chunks.at, kind);
    }
    if last == Last::Fencepost && range.end > chunks.at {
        chunks.push(range.end - chunks.at, ChunkKind::Fencepost);
    }
    chunks.chunks.shrink_to_fit();
    Segment { range, first, chunks: chunks.chunks }
}

/// Chunks one behind the other.
struct Tiles {
    chunks: Vec<Chunk>,
    at: u64,
}

impl Tiles {
    fn push(&mut self, bytes: u64, kind: ChunkKind) {
        self.chunks.push(Chunk::new(bytes, kind));
        self.at += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::OriginId;
    use crate::target::residency::Region;
    use ChunkKind::{Fencepost, Free, TcacheTable, Top, Used};
    use proptest::prelude::*;

    fn block(addr: u64, size: u64) -> Block {
        Block { addr, size, time: 0, thread: 1, origin: OriginId::new(0) }
    }

    fn region(range: Range<u64>, kind: RegionKind) -> Region {
        Region { range, kind, resident_bytes: 0, swapped_bytes: 0, resident: Vec::new() }
    }

    fn residency(regions: Vec<Region>) -> Residency {
        Residency { time: 0, pid: 1, regions }
    }

    fn kinds(segment: &Segment) -> Vec<(u64, ChunkKind)> {
        segment.chunks.iter().map(|chunk| (chunk.bytes(), chunk.kind())).collect()
    }

    const HEAP: Range<u64> = 0x5555_0000_0000..0x5555_0002_1000;

    #[test]
    fn what_lies_between_blocks_is_free() {
        let base = HEAP.start;
        let blocks = [
            block(base + 0x2a0, 24),
            // 16 bytes behind the chunk that it needs: too small for a chunk.
            block(base + 0x2a0 + 0x20, 24),
            block(base + 0x2a0 + 0x50, 100),
            block(base + 0x1010, 24),
        ];
        let layout = layout(&blocks, &residency(vec![region(HEAP, RegionKind::Heap)]));
        let main = &layout.arenas[0];
        assert!(main.is_main && main.system_bytes == 0x21000);
        let expected = [
            (0x290, TcacheTable),
            (0x20, Used),
            (0x30, Used),
            (0x70, Used),
            (0x1000 - 0x350, Free),
            (0x20, Used),
            (0x21000 - 0x1020, Top),
        ];
        assert_eq!(kinds(&main.segments[0]), expected);
    }

    #[test]
    fn heaps_and_mapped_chunks_are_told_apart() {
        let heap = 0x7f00_0000_0000_u64;
        let mapped = heap - 0x5_0000;
        let regions = vec![
            region(HEAP, RegionKind::Heap),
            region(mapped..mapped + 0x4_3000, RegionKind::Anonymous),
            region(heap..heap + HEAP_MAX + 0x3_0000, RegionKind::Anonymous),
        ];
        let full = heap + HEAP_MAX;
        let blocks = [
            // Two neighbours that the kernel shows as one mapping.
            block(mapped + 0x10, 0x2_0000 - 0x18),
            block(mapped + 0x2_0010, 0x2_2000),
            block(heap + FIRST_HEAP_HEADER + 0x290 + 0x10, 24),
            // Looks mapped, but lies in a heap.
            block(heap + 0x10_0010, 0x3_0000),
            block(full + HEAP_HEADER + 0x10, 40),
        ];
        let layout = layout(&blocks, &residency(regions));
        let expected = [
            MappedChunk { address: mapped, bytes: 0x2_0000 },
            MappedChunk { address: mapped + 0x2_0000, bytes: 0x2_3000 },
        ];
        assert_eq!(layout.mapped, expected);
        let [first, second] = &layout.arenas[..] else { panic!("two heaps: {:?}", layout.arenas) };
        let big = chunk_bytes(0x3_0000);
        let expected = [
            (0x290, TcacheTable),
            (0x20, Used),
            (0x10_0000 - 0xb80, Free),
            (big, Used),
            (HEAP_MAX - 0x10_0000 - big - 32, Free),
            (32, Fencepost),
        ];
        assert_eq!(kinds(&first.segments[0]), expected);
        assert_eq!(kinds(&second.segments[0]), [(0x30, Used), (0x3_0000 - 0x60, Top)]);
        assert_eq!(second.address, full + HEAP_HEADER);
    }

    proptest! {
        /// Whatever the blocks, chunks tile their segments, and none is smaller than the smallest.
        #[test]
        fn chunks_tile_their_segments(
            blocks in prop::collection::btree_map(0..0x22000_u64, 0..5000_u64, 0..60),
            odd in any::<bool>(),
            full in any::<bool>(),
        ) {
            let heap = 0x7f00_0000_0000_u64;
            let end = if full { heap + HEAP_MAX } else { heap + 0x21000 };
            let regions = vec![region(HEAP, RegionKind::Heap), region(heap..end, RegionKind::Anonymous)];
            let at = |base: u64| {
                let unit = if odd { 1 } else { 16 };
                blocks.iter().map(move |(offset, size)| block(base + offset / unit * unit, *size))
            };
            let mut all: Vec<Block> = at(HEAP.start).chain(at(heap)).collect();
            all.dedup_by_key(|block| block.addr);
            let layout = layout(&all, &residency(regions));
            for segment in layout.arenas.iter().flat_map(|arena| &arena.segments) {
                let end = segment.iter().last().map_or(segment.first, |(address, chunk)| address + chunk.bytes());
                prop_assert_eq!(end, segment.range.end);
                for (address, chunk) in segment.iter() {
                    prop_assert!(chunk.bytes() >= 16 && (chunk.bytes() >= MIN_CHUNK || chunk.kind() != Used));
                    if chunk.kind() == Used {
                        prop_assert!(all.iter().any(|block| block.addr == address + HEADER));
                    }
                }
            }
        }
    }
}
