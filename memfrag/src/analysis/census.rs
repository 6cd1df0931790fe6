//! A layout's chunks and the live blocks in them.

use super::sweep::{Rule, Sweep, Tail};
use crate::glibc::layout::{Arena, Chunk, ChunkKind, HEADER, Layout, MappedChunk, Segment};
use crate::glibc::trim::TrimYield;
use crate::heap::{Amount, Block};
use crate::target::residency::{PAGE, Region, Residency};
use std::ops::Range;

/// Where a layout comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Read in the process's memory: every chunk is known.
    Walk,
    /// From the live blocks: what lies between them counts as free, cached chunks and blocks older than the trace too.
    Blocks,
    /// No chunks: an allocator whose layout is not known, of which only the blocks are.
    Unknown,
}

/// A heap's chunks, and which live block is in which.
#[derive(Debug)]
pub struct Census<'a> {
    layout: &'a Layout,
    blocks: &'a [Block],
    source: Source,
    trim: TrimYield,
    owned: Vec<Range<u64>>,
}

/// The layout of an allocator that is not known.
static NOTHING: Layout = Layout { arenas: Vec::new(), mapped: Vec::new() };

/// What became of the blocks that lie in no chunk in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// Blocks in a chunk that the walk found free or cached, or between chunks: the stream and the walk disagree.
    pub contradicted: Amount,
    /// Indices of the blocks outside of all segments and mapped chunks.
    pub elsewhere: Vec<u32>,
}

/// Owners that are no owners of blocks. Those of blocks are numbered from [`FIRST_OWNER`].
pub const ALLOCATOR: u32 = 0;
/// Chunks in threads' caches.
pub const CACHED: u32 = 1;
/// Chunks in use that the stream does not know.
pub const UNTRACKED: u32 = 2;
/// The first owner of blocks.
pub const FIRST_OWNER: u32 = 3;

impl<'a> Census<'a> {
    /// Matches blocks, in order of their addresses, with a layout's chunks.
    /// The resident pages tell what trimming would return.
    pub fn new(layout: &'a Layout, blocks: &'a [Block], residency: &Residency, source: Source) -> Self {
        let segments = layout.arenas.iter().flat_map(|arena| &arena.segments).map(|segment| segment.range.clone());
        let mapped = layout.mapped.iter().map(|mapped| mapped.address..mapped.address.saturating_add(mapped.bytes));
        let mut owned: Vec<Range<u64>> = segments.chain(mapped).collect();
        owned.sort_unstable_by_key(|range| range.start);
        Self { layout, blocks, source, trim: TrimYield::of(layout, residency, PAGE), owned }
    }

    /// The blocks of an allocator whose layout is not known, in order of their addresses: it owns the regions
    /// into which they reach.
    pub fn bare(blocks: &'a [Block], residency: &Residency) -> Self {
        let mut rest = blocks.iter().peekable();
        let mut reached = 0;
        let mut holds = |region: &&Region| {
            while let Some(block) = rest.next_if(|block| block.addr < region.range.end) {
                reached = block.addr.saturating_add(block.size.max(1)).max(reached);
            }
            region.kind.may_hold_blocks() && reached > region.range.start
        };
        let owned =
            residency.regions.iter().filter(|region| holds(region)).map(|region| region.range.clone()).collect();
        Self { layout: &NOTHING, blocks, source: Source::Unknown, trim: TrimYield::default(), owned }
    }

    /// When a free page goes back to the system.
    pub const fn rule(&self) -> Rule {
        if matches!(self.source, Source::Unknown) { Rule::EMPTY_PAGES } else { Rule::GLIBC }
    }

    /// What trimming returns now; nothing where the layout is not known.
    pub const fn trim(&self) -> &TrimYield {
        &self.trim
    }

    /// The address ranges that the allocator owns, upwards.
    pub fn owned(&self) -> &[Range<u64>] {
        &self.owned
    }

    /// The layout.
    pub const fn layout(&self) -> &'a Layout {
        self.layout
    }

    /// The live blocks, by address.
    pub const fn blocks(&self) -> &'a [Block] {
        self.blocks
    }

    /// Where the layout comes from.
    pub const fn source(&self) -> Source {
        self.source
    }

    /// The same, none reaching into the next.
    pub fn owned_runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.owned.iter().scan(0, |last, range| {
            let start = range.start.max(*last);
            *last = range.end.max(start);
            Some(start..*last)
        })
    }

    /// All segments with their arenas.
    pub fn segments(&self) -> impl Iterator<Item = (&'a Arena, &'a Segment)> + use<'a> {
        self.layout.arenas.iter().flat_map(|arena| arena.segments.iter().map(move |segment| (arena, segment)))
    }

    /// A segment's chunks with their addresses, and the index of the block in each that is in use by a known one.
    pub fn chunks(&self, segment: &'a Segment) -> impl Iterator<Item = (u64, Chunk, Option<u32>)> + use<'a> {
        let blocks = self.blocks;
        let mut at = blocks.partition_point(|block| block.addr < segment.first.saturating_add(HEADER));
        segment.iter().map(move |(address, chunk)| {
            let block = address.wrapping_add(HEADER);
            while blocks.get(at).is_some_and(|next| next.addr < block) {
                at += 1;
            }
            let known = chunk.kind() == ChunkKind::Used && blocks.get(at).is_some_and(|next| next.addr == block);
            (address, chunk, known.then_some(at as u32))
        })
    }

    /// The block in a mapped chunk.
    pub fn mapped_block(&self, mapped: &MappedChunk) -> Option<u32> {
        let address = mapped.address.checked_add(HEADER)?;
        self.blocks.binary_search_by_key(&address, |block| block.addr).ok().map(|at| at as u32)
    }

    /// The blocks that lie in no chunk in use; none where chunks are not known.
    pub fn strays(&self) -> Strays {
        let mut strays = Strays::default();
        if self.source == Source::Unknown {
            return strays;
        }
        let mut known = vec![0_u64; self.blocks.len().div_ceil(64)];
        let mut note = |at: u32| known[at as usize / 64] |= 1 << (at % 64);
        for (_, segment) in self.segments() {
            self.chunks(segment).filter_map(|chunk| chunk.2).for_each(&mut note);
        }
        self.layout.mapped.iter().filter_map(|mapped| self.mapped_block(mapped)).for_each(&mut note);
        if self.blocks.iter().enumerate().all(|(at, _)| known[at / 64] >> (at % 64) & 1 == 1) {
            return strays;
        }
        for (at, block) in self.blocks.iter().enumerate().filter(|(at, _)| known[at / 64] >> (at % 64) & 1 == 0) {
            let before = self.owned.partition_point(|range| range.start <= block.addr);
            if before > 0 && self.owned[before - 1].contains(&block.addr) {
                strays.contradicted.add(block.size);
            } else {
                strays.elsewhere.push(at as u32);
            }
        }
        strays
    }

    /// Drives a pass over all that can be trimmed: the segments, or the regions where chunks are not known. `owner_of` gives a block's owner, from [`FIRST_OWNER`] on, or `None` when the
    /// block is to count as freed.
    pub fn sweep(&self, sweep: &mut Sweep<'_>, owner_of: impl Fn(u32) -> Option<u32>) {
        if self.source == Source::Unknown {
            return self.sweep_bare(sweep, owner_of);
        }
        let cut_off = self.trim.arenas.iter().any(|arena| arena.top_is_cut_off);
        for (arena, segment) in self.segments() {
            sweep.begin(segment.range.start);
            if segment.first > segment.range.start {
                sweep.held(segment.range.start..segment.first, ALLOCATOR);
            }
            let mut ends_in_top = false;
            let mut end = segment.first;
            for (address, chunk, block) in self.chunks(segment) {
                end = address.saturating_add(chunk.bytes());
                let owner = match (chunk.kind(), block) {
                    (ChunkKind::Used, Some(block)) => owner_of(block),
                    (ChunkKind::Used, None) => Some(UNTRACKED),
                    (ChunkKind::Tcache, _) => Some(CACHED),
                    (ChunkKind::TcacheTable | ChunkKind::Fencepost, _) => Some(ALLOCATOR),
                    (ChunkKind::Free | ChunkKind::Fastbin | ChunkKind::Top, _) => None,
                };
                ends_in_top = chunk.kind() == ChunkKind::Top;
                if let Some(owner) = owner {
                    sweep.held(address..end, owner);
                }
            }
            let keeps = ends_in_top && (cut_off || !arena.is_main);
            sweep.end(end, if keeps { Tail::Kept } else { Tail::Returned });
        }
    }

    fn sweep_bare(&self, sweep: &mut Sweep<'_>, owner_of: impl Fn(u32) -> Option<u32>) {
        for range in &self.owned {
            sweep.begin(range.start);
            let first = self.blocks.partition_point(|block| block.addr < range.start);
            // The block before may reach into this region.
            let first = first.saturating_sub(1);
            for (at, block) in self.blocks[first..].iter().enumerate().take_while(|block| block.1.addr < range.end) {
                if let Some(owner) = owner_of((first + at) as u32) {
                    let end = block.addr.saturating_add(block.size.max(1)).min(range.end);
                    if end > range.start {
                        sweep.held(block.addr..end, owner);
                    }
                }
            }
            sweep.end(range.end, Tail::Returned);
        }
    }
}
