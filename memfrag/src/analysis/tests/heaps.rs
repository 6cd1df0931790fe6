//! Heaps of any shape.

use crate::analysis::partition::Facts;
use crate::glibc::layout::{
    Arena, Chunk,
    ChunkKind::{self, Fastbin, Fencepost, Free, Tcache, TcacheTable, Top, Used},
    HEADER, HEAP_MAX, Layout, MappedChunk, Segment,
};
use crate::heap::{Block, Origin, OriginId};
use crate::target::residency::{PAGE, Region, RegionKind, Residency};
use memfrag_common::Function;
use proptest::prelude::*;

/// Call sites in these heaps.
pub(super) const SITES: u32 = 5;

/// A chunk's size, its kind, and the site that holds it, if the stream knows it.
type Tile = (u64, ChunkKind, Option<u32>);

/// A heap with the blocks in it and the pages that are resident.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) layout: Layout,
    pub(super) blocks: Vec<Block>,
    pub(super) residency: Residency,
}

/// The site is the origin's number.
pub(super) struct Sites(pub(super) Vec<Origin>);

impl Sites {
    pub(super) fn new() -> Self {
        let origin = |site| Origin { site: u64::from(site), stack: 0, function: Function::Malloc, align_log2: 0 };
        Self((0..SITES).map(origin).collect())
    }
}

impl Facts for Sites {
    fn origin(&self, id: OriginId) -> Option<&Origin> {
        self.0.get(id.index())
    }

    fn module(&self, _: u64) -> Option<String> {
        None
    }
}

fn tile() -> impl Strategy<Value = Tile> {
    // Sizes around those at which pages begin to be returned.
    let bytes = prop_oneof![
        4 => (2..20_u64).prop_map(|units| units * 16),
        2 => (2..600_u64).prop_map(|units| units * 16),
        1 => (1..6_u64, 0..8_u64).prop_map(|(pages, units)| pages * PAGE - 64 + units * 16),
        1 => (600..3000_u64).prop_map(|units| units * 16),
    ];
    let kind = prop_oneof![
        4 => (0..SITES).prop_map(|site| (Used, Some(site))),
        1 => Just((Used, None)),
        5 => Just((Free, None)),
        1 => Just((Fastbin, None)),
        1 => Just((Tcache, None)),
        1 => Just((TcacheTable, None)),
    ];
    (bytes, kind).prop_map(|(bytes, (kind, site))| (bytes, kind, site))
}

/// Tiles of which few sites hold most, so that stretches are long.
fn tiles() -> impl Strategy<Value = Vec<Tile>> {
    (prop::collection::vec(tile(), 0..40), any::<bool>(), 0..SITES).prop_map(|(mut tiles, is_sole, site)| {
        if is_sole {
            tiles.iter_mut().filter_map(|tile| tile.2.as_mut()).for_each(|held| *held = site);
        }
        tiles
    })
}

/// A heap: the main arena, further ones of several heaps, mapped chunks.
pub(super) fn sample() -> impl Strategy<Value = Sample> {
    let arenas = prop::collection::vec(prop::collection::vec(tiles(), 1..3), 0..3);
    let mapped = prop::collection::vec((1..6_u64, prop::option::of(0..SITES)), 0..3);
    let present = prop::collection::vec(0..4_u8, 1..64);
    let foreign = prop_oneof![3 => Just(0), 1 => Just(2 * PAGE)];
    (tiles(), 0..3_u64, arenas, mapped, present, foreign).prop_map(|(main, lead, arenas, mapped, present, foreign)| {
        let mut made = Maker { foreign, layout: Layout::default(), blocks: Vec::new(), present, regions: Vec::new() };
        made.main(&main, lead * 16);
        for (number, heaps) in arenas.iter().enumerate() {
            made.arena(0x7f00_0000_0000 + number as u64 * 16 * HEAP_MAX, heaps);
        }
        let mut at = 0x7fff_0000_0000;
        for (pages, site) in mapped {
            made.mapped(at, pages * PAGE, site);
            at += pages * PAGE;
        }
        let Maker { layout, mut blocks, regions, .. } = made;
        blocks.sort_by_key(|block| block.addr);
        Sample { layout, blocks, residency: Residency { time: 0, pid: 1, regions } }
    })
}

struct Maker {
    /// How far beyond the main arena's top something else has moved the break.
    foreign: u64,
    layout: Layout,
    blocks: Vec<Block>,
    /// Whether a page is resident, again and again: three in four are.
    present: Vec<u8>,
    regions: Vec<Region>,
}

impl Maker {
    fn segment(&mut self, start: u64, first: u64, tiles: &[Tile], last: ChunkKind) -> Segment {
        let mut at = first;
        let mut chunks = Vec::new();
        for &(bytes, kind, site) in tiles {
            chunks.push(Chunk::new(bytes, kind));
            self.block(at, bytes - 8, site);
            at += bytes;
        }
        let end = (at + 32 + PAGE - 1) & !(PAGE - 1);
        // A top of several pages once in two times.
        let end = if last == Top && self.blocks.len().is_multiple_of(2) { end + 3 * PAGE } else { end };
        chunks.push(Chunk::new(end - at, last));
        let kind = if start < 0x7f00_0000_0000 { RegionKind::Heap } else { RegionKind::Anonymous };
        let foreign = if kind == RegionKind::Heap { self.foreign } else { 0 };
        self.region(start, end + foreign, kind);
        Segment { range: start..end, first, chunks }
    }

    fn block(&mut self, chunk: u64, size: u64, holder: Option<u32>) {
        if let Some(site) = holder {
            let origin = OriginId::new(site);
            self.blocks.push(Block { addr: chunk + HEADER, size, time: 0, thread: 1, origin });
        }
    }

    fn region(&mut self, start: u64, end: u64, kind: RegionKind) {
        let mut resident: Vec<std::ops::Range<u64>> = Vec::new();
        for page in (start..end).step_by(PAGE as usize) {
            if self.present[(page / PAGE) as usize % self.present.len()] == 0 {
                continue;
            }
            match resident.last_mut() {
                Some(last) if last.end == page => last.end += PAGE,
                _ => resident.push(page..page + PAGE),
            }
        }
        let resident_bytes = resident.iter().map(|run| run.end - run.start).sum();
        self.regions.push(Region { range: start..end, kind, resident_bytes, swapped_bytes: 0, resident });
    }

    fn main(&mut self, tiles: &[Tile], lead: u64) {
        let start = 0x5555_0000_0000;
        let segment = self.segment(start, start + lead, tiles, Top);
        self.push(start, true, vec![segment]);
    }

    fn arena(&mut self, base: u64, heaps: &[Vec<Tile>]) {
        let segments = heaps.iter().enumerate().map(|(number, tiles)| {
            let start = base + number as u64 * HEAP_MAX;
            let header = if number == 0 { 0x8d0 } else { 0x30 };
            let last = if number + 1 == heaps.len() { Top } else { Fencepost };
            self.segment(start, start + header, tiles, last)
        });
        let segments = segments.collect();
        self.push(base + 0x30, false, segments);
    }

    fn push(&mut self, address: u64, is_main: bool, segments: Vec<Segment>) {
        let system_bytes = segments.iter().map(|segment| segment.range.end - segment.range.start).sum();
        let arena = Arena { address, is_main, system_bytes, max_system_bytes: system_bytes, segments };
        self.layout.arenas.push(arena);
    }

    fn mapped(&mut self, address: u64, bytes: u64, site: Option<u32>) {
        self.layout.mapped.push(MappedChunk { address, bytes });
        self.block(address, bytes - 100, site);
        self.region(address, address + bytes, RegionKind::Anonymous);
    }
}
