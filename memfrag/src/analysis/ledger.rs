//! Where a process's resident bytes go: each in exactly one line, and what does not add up in a line of its own.
//!
//! The lines, in order of precedence: pages that trimming would return, whatever kinds of chunks they hold; then what
//! the other resident bytes of each chunk are; then the memory that the allocator does not own. Chunks are taken as
//! glibc counts them: from their address for their size, though the last 8 bytes of a block in use lie in the next
//! chunk's header. Then the sums by kind equal glibc's own where all of a heap is resident.

use super::census::{Census, FIRST_OWNER, Source};
use super::resident::ResidentPages;
use super::sweep::Sweep;
use crate::glibc::layout::{ChunkKind, HEADER};
use crate::heap::{Amount, OriginId};
use crate::target::residency::{RegionKind, Residency};
use std::ops::{AddAssign, Range};

/// Bytes of a chunk in use before the program's own.
const USED_HEADER: u64 = 8;

/// Resident bytes of memory that the allocator owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Whole pages that trimming would return now.
    pub free_pages: u64,
    /// What live blocks asked for.
    pub requested: u64,
    /// The headers of their chunks.
    pub header: u64,
    /// What rounding added to them.
    pub padding: u64,
    /// Freed blocks in threads' caches.
    pub tcache: u64,
    /// Freed blocks in fastbins.
    pub fastbin: u64,
    /// Free chunks in bins, on pages that trimming leaves.
    pub binned: u64,
    /// Top chunks, on pages that trimming leaves.
    pub top: u64,
    /// The allocator's own: headers of arenas and heaps, fenceposts, threads' tables.
    pub metadata: u64,
    /// Chunks in use that no event told of: older than the trace, or libc's own.
    pub untracked: u64,
}

impl Parts {
    /// Header and padding together.
    pub const fn rounding(&self) -> u64 {
        self.header + self.padding
    }

    /// Caches and fastbins together.
    pub const fn cached(&self) -> u64 {
        self.tcache + self.fastbin
    }

    /// What is free on pages that trimming leaves.
    pub const fn free_in_pages(&self) -> u64 {
        self.binned + self.top
    }

    /// All of it.
    pub const fn sum(&self) -> u64 {
        self.free_pages
            + self.requested
            + self.rounding()
            + self.cached()
            + self.free_in_pages()
            + self.metadata
            + self.untracked
    }
}

impl AddAssign for Parts {
    fn add_assign(&mut self, other: Self) {
        self.free_pages += other.free_pages;
        self.requested += other.requested;
        self.header += other.header;
        self.padding += other.padding;
        self.tcache += other.tcache;
        self.fastbin += other.fastbin;
        self.binned += other.binned;
        self.top += other.top;
        self.metadata += other.metadata;
        self.untracked += other.untracked;
    }
}

/// Resident bytes of memory that the allocator does not own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotMalloc {
    /// Code and other files, private pages of them included.
    pub files: u64,
    /// The main thread's stack; those of other threads are anonymous.
    pub stacks: u64,
    /// Anonymous memory without a block: threads' stacks, buffers, what other allocators mapped.
    pub anonymous: u64,
    /// Shared memory and everything else.
    pub other: u64,
    /// What memfrag itself has in the process: the preload library and its memory.
    pub memfrag: u64,
}

impl NotMalloc {
    /// All of it.
    pub const fn sum(&self) -> u64 {
        self.files + self.stacks + self.anonymous + self.other + self.memfrag
    }
}

/// Where the resident bytes of a process go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Where the layout came from.
    pub source: Source,
    /// Resident bytes, by the kernel's own count.
    pub rss: u64,
    /// The main arena.
    pub main_arena: Parts,
    /// All other arenas.
    pub other_arenas: Parts,
    /// Chunks mapped by themselves.
    pub mapped: Parts,
    /// Blocks outside of all of these: another allocator's, or of a kind whose place is not known.
    pub elsewhere: Parts,
    /// Memory that the allocator does not own.
    pub not_malloc: NotMalloc,
    /// What live blocks asked for and that is not resident: never written, or swapped out.
    pub untouched: u64,
    /// Live blocks whose chunk the walk found free, so that events and memory disagree.
    pub contradicted: Amount,
}

impl Ledger {
    /// Adds up a process's resident bytes. `rss` is what the kernel counts, or `None` to take the sum of the regions
    /// for it.
    pub fn new(census: &Census<'_>, residency: &Residency, rss: Option<u64>) -> Self {
        let pages = ResidentPages::new(residency);
        let returned = ResidentPages::from_runs(census.trim().pages().into_iter());
        let mut ledger = Self {
            source: census.source(),
            rss: rss.unwrap_or_else(|| residency.resident_bytes()),
            main_arena: Parts::default(),
            other_arenas: Parts::default(),
            mapped: Parts::default(),
            elsewhere: Parts::default(),
            not_malloc: NotMalloc::default(),
            untouched: 0,
            contradicted: Amount::default(),
        };
        let mut count = Count { census, pages: &pages, returned: &returned, untouched: 0 };
        for (arena, segment) in census.segments() {
            let parts = count.segment(segment);
            *(if arena.is_main { &mut ledger.main_arena } else { &mut ledger.other_arenas }) += parts;
        }
        ledger.mapped = count.mapped();
        if census.source() == Source::Unknown {
            ledger.elsewhere = count.bare();
        } else {
            let strays = census.strays();
            ledger.contradicted = strays.contradicted;
            ledger.elsewhere = count.elsewhere(&strays.elsewhere);
        }
        ledger.untouched = count.untouched;
        ledger.not_malloc = not_malloc(residency);
        // Counted apart from the chunks, so that what is wrong with them shows.
        let owned = census.owned_runs().map(|range| pages.bytes_in(range)).sum::<u64>();
        let beside = if census.source() == Source::Unknown { 0 } else { ledger.elsewhere.sum() };
        ledger.not_malloc.anonymous = pages.bytes().saturating_sub(owned + beside);
        ledger
    }

    /// Everything that the allocator owns.
    pub fn malloc(&self) -> Parts {
        let mut all = self.main_arena;
        all += self.other_arenas;
        all += self.mapped;
        all += self.elsewhere;
        all
    }

    /// What the kernel counts beyond the sum of all lines: zero for a process that was stopped while it was looked at.
    pub fn unexplained(&self) -> i64 {
        self.rss.cast_signed().wrapping_sub((self.malloc().sum() + self.not_malloc.sum()).cast_signed())
    }
}

/// The regions that cannot hold blocks.
fn not_malloc(residency: &Residency) -> NotMalloc {
    let mut sums = NotMalloc::default();
    for region in &residency.regions {
        let sum = match region.kind {
            RegionKind::Heap | RegionKind::Anonymous => continue,
            RegionKind::File => &mut sums.files,
            RegionKind::Stack => &mut sums.stacks,
            RegionKind::Other => &mut sums.other,
            RegionKind::Memfrag => &mut sums.memfrag,
        };
        *sum += region.resident_bytes;
    }
    sums
}

struct Count<'a> {
    census: &'a Census<'a>,
    pages: &'a ResidentPages,
    returned: &'a ResidentPages,
    untouched: u64,
}

impl Count<'_> {
    fn segment(&mut self, segment: &crate::glibc::Segment) -> Parts {
        let mut parts = Parts {
            metadata: self.pages.bytes_in(segment.range.start..segment.first.max(segment.range.start)),
            ..Parts::default()
        };
        for (address, chunk, block) in self.census.chunks(segment) {
            let range = address..address.saturating_add(chunk.bytes());
            let kind = match chunk.kind() {
                ChunkKind::Used => {
                    self.used(&mut parts, range, USED_HEADER, block);
                    continue;
                }
                ChunkKind::Tcache => &mut parts.tcache,
                ChunkKind::Fastbin => &mut parts.fastbin,
                ChunkKind::Free => &mut parts.binned,
                ChunkKind::Top => &mut parts.top,
                ChunkKind::TcacheTable | ChunkKind::Fencepost => &mut parts.metadata,
            };
            let resident = self.pages.bytes_in(range.clone());
            let returned = self.returned.bytes_in(range).min(resident);
            *kind += resident - returned;
            parts.free_pages += returned;
        }
        parts
    }

    /// A chunk in use: `header` bytes, then what was asked for, then padding.
    fn used(&mut self, parts: &mut Parts, chunk: Range<u64>, header: u64, block: Option<u32>) {
        let resident = self.pages.bytes_in(chunk.clone());
        let Some(block) = block.map(|at| &self.census.blocks()[at as usize]) else {
            parts.untracked += resident;
            return;
        };
        if block.origin == OriginId::UNSEEN {
            parts.untracked += resident;
            return;
        }
        let start = chunk.start.saturating_add(header).min(chunk.end);
        let end = start.saturating_add(block.size).min(chunk.end);
        let (own, requested) = if resident == chunk.end - chunk.start {
            (start - chunk.start, end - start)
        } else {
            (self.pages.bytes_in(chunk.start..start), self.pages.bytes_in(start..end))
        };
        parts.header += own;
        parts.requested += requested;
        parts.padding += resident - own - requested;
        self.untouched += block.size.saturating_sub(requested);
    }

    fn mapped(&mut self) -> Parts {
        let mut parts = Parts::default();
        let mut last = 0;
        for mapped in &self.census.layout().mapped {
            let start = mapped.address.max(last);
            last = mapped.address.saturating_add(mapped.bytes).max(start);
            self.used(&mut parts, start..last, HEADER, self.census.mapped_block(mapped));
        }
        parts
    }

    /// Blocks of which only the addresses are known; what they share with others is counted once.
    fn elsewhere(&mut self, blocks: &[u32]) -> Parts {
        let mut parts = Parts::default();
        let mut last = 0;
        // Without chunks the owned regions are where the blocks lie, not what has been counted.
        let counted = if self.census.source() == Source::Unknown { &[][..] } else { self.census.owned() };
        for &at in blocks {
            let block = &self.census.blocks()[at as usize];
            let start = block.addr.max(last);
            let end = block.addr.saturating_add(block.size).max(start);
            // What runs on into a segment is counted there.
            let next = counted.partition_point(|range| range.start < start);
            let end = counted.get(next).map_or(end, |range| end.min(range.start.max(start)));
            last = end;
            let resident = self.pages.bytes_in(start..end);
            if block.origin == OriginId::UNSEEN {
                parts.untracked += resident;
            } else {
                parts.requested += resident;
                self.untouched += block.size.saturating_sub(resident);
            }
        }
        parts
    }

    /// Without a layout: the regions that hold blocks are the allocator's. Pages without a block are free; what else
    /// is free, rounding, or the allocator's own cannot be told apart.
    fn bare(&mut self) -> Parts {
        let all: Vec<u32> = (0..self.census.blocks().len() as u32).collect();
        let mut parts = self.elsewhere(&all);
        let mut sweep = Sweep::new(self.pages, self.census.rule(), FIRST_OWNER as usize + 1);
        self.census.sweep(&mut sweep, |_| Some(FIRST_OWNER));
        parts.free_pages = sweep.finish().returned;
        let owned: u64 = self.census.owned_runs().map(|range| self.pages.bytes_in(range)).sum();
        parts.binned = owned.saturating_sub(parts.requested + parts.untracked + parts.free_pages);
        parts
    }
}
