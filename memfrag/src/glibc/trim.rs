//! Trim yield: what `malloc_trim(0)` would return to the system, told without calling it.
//!
//! `malloc_trim` first merges the chunks in fastbins with their free neighbours; chunks in the threads' caches stay in
//! use. Of every free chunk it gives up the whole pages behind the first 48 bytes, which its links need. Of the main
//! arena's top chunk it gives up the whole pages that leave 33 bytes, by lowering the break; the top of the other
//! arenas it never touches. It does not look at chunks that were mapped by themselves.
//!
//! Put otherwise, the page at `s` is given up when no byte of `[s - 48, s + 4096)` is in use or cached, and the page
//! does not belong to a run of free chunks that ends in the top of an arena other than the main one.

use super::layout::{Arena, ChunkKind, Layout};
use super::walker::Walk;
use crate::target::residency::{PAGE, RegionKind, Residency};
use std::ops::Range;

/// Bytes at the beginning of a free chunk that `malloc_trim` keeps: its sizes and links (`struct malloc_chunk`).
pub const KEPT: u64 = 48;
/// Bytes of the main arena's top chunk that it keeps at least: the smallest chunk and one more.
const TOP_KEPT: u64 = 33;

/// What `malloc_trim(0)` would return of one arena.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArenaYield {
    /// Address of the arena's `malloc_state`.
    pub address: u64,
    /// Whether it is the main arena.
    pub is_main: bool,
    /// The resident pages that would be returned, as runs of addresses, upwards.
    pub pages: Vec<Range<u64>>,
    /// Resident bytes of those pages (M6).
    pub bytes: u64,
    /// Resident bytes of everything in its segments, blocks included.
    pub resident_bytes: u64,
    /// Resident bytes of free chunks, fastbins and top that would stay: free, and of use to nobody else (M7).
    pub stuck_bytes: u64,
    /// Runs of free chunks between blocks in use, top included: each may keep up to two pages that are partly free.
    pub free_runs: u64,
    /// Whether its top chunk ends elsewhere than the process's break, since something else moved that: then the top
    /// stays, too. Only in the main arena.
    pub top_is_cut_off: bool,
}

/// What `malloc_trim(0)` would return now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrimYield {
    /// Arena by arena, in the layout's order.
    pub arenas: Vec<ArenaYield>,
}

impl TrimYield {
    /// Foretells what `malloc_trim(0)` would return of a heap.
    ///
    /// Layout and residency must be of the same moment. The main arena's top counts only where the mapping that holds
    /// the break ends with it. `unit` is what the break is lowered by multiples of: [`PAGE`], or the bytes of a huge
    /// page where the tunable `glibc.malloc.hugetlb` asks for those.
    pub fn of(layout: &Layout, residency: &Residency, unit: u64) -> Self {
        let resident: Vec<Range<u64>> = residency.runs().collect();
        let unit = unit.max(PAGE);
        let arenas = layout.arenas.iter().map(|arena| Arithmetic { residency, resident: &resident, unit }.of(arena));
        Self { arenas: arenas.collect() }
    }

    /// As [`TrimYield::of`], for a walked heap and the pages of the same moment.
    pub fn of_walk(walk: &Walk, residency: &Residency) -> Self {
        Self::of(&walk.layout, residency, walk.parameters.thp_page_bytes)
    }

    /// Bytes of all arenas (M6).
    pub fn bytes(&self) -> u64 {
        self.arenas.iter().map(|arena| arena.bytes).sum()
    }

    /// Stuck bytes of all arenas (M7).
    pub fn stuck_bytes(&self) -> u64 {
        self.arenas.iter().map(|arena| arena.stuck_bytes).sum()
    }

    /// Resident bytes of all arenas.
    pub fn resident_bytes(&self) -> u64 {
        self.arenas.iter().map(|arena| arena.resident_bytes).sum()
    }

    /// Runs of free chunks of all arenas.
    pub fn free_runs(&self) -> u64 {
        self.arenas.iter().map(|arena| arena.free_runs).sum()
    }

    /// The pages of all arenas as runs of addresses, upwards.
    pub fn pages(&self) -> Vec<Range<u64>> {
        let mut pages: Vec<Range<u64>> = self.arenas.iter().flat_map(|arena| arena.pages.iter().cloned()).collect();
        pages.sort_unstable_by_key(|run| run.start);
        pages
    }
}

struct Arithmetic<'a> {
    residency: &'a Residency,
    resident: &'a [Range<u64>],
    unit: u64,
}

impl Arithmetic<'_> {
    fn of(&self, arena: &Arena) -> ArenaYield {
        let mut found = ArenaYield { address: arena.address, is_main: arena.is_main, ..ArenaYield::default() };
        let mut free_bytes = 0;
        for segment in &arena.segments {
            Resident::from(self.resident, segment.range.start)
                .parts(segment.range.clone(), |part| found.resident_bytes += part.end - part.start);
            let mut free = Resident::from(self.resident, segment.first);
            let mut whole = Resident::from(self.resident, segment.first);
            let mut give = |range: Range<u64>, found: &mut ArenaYield| {
                whole.parts(range, |part| {
                    found.bytes += part.end - part.start;
                    found.pages.push(part);
                });
            };
            // Where the current run of free chunks begins, and where the chunks read so far end.
            let mut run: Option<u64> = None;
            let mut last = segment.first;
            for (at, chunk) in segment.iter() {
                let Some(end) = at.checked_add(chunk.bytes()) else { break };
                last = end;
                match chunk.kind() {
                    ChunkKind::Free | ChunkKind::Fastbin => {
                        run.get_or_insert(at);
                        free.parts(at..end, |part| free_bytes += part.end - part.start);
                    }
                    ChunkKind::Top => {
                        let start = run.take().unwrap_or(at);
                        found.free_runs += 1;
                        free.parts(at..end, |part| free_bytes += part.end - part.start);
                        if arena.is_main {
                            found.top_is_cut_off = !self.ends_with_break(end);
                            if !found.top_is_cut_off {
                                give(self.top(start..end), &mut found);
                            }
                        }
                    }
                    ChunkKind::Used | ChunkKind::Tcache | ChunkKind::TcacheTable | ChunkKind::Fencepost => {
                        if let Some(start) = run.take() {
                            found.free_runs += 1;
                            give(inner(start..at), &mut found);
                        }
                    }
                }
            }
            if let Some(start) = run {
                found.free_runs += 1;
                give(inner(start..last), &mut found);
            }
        }
        found.stuck_bytes = free_bytes.saturating_sub(found.bytes);
        found
    }

    /// Whether the process's break is here.
    fn ends_with_break(&self, end: u64) -> bool {
        let region = end.checked_sub(1).and_then(|last| self.residency.region(last));
        region.is_some_and(|region| region.kind == RegionKind::Heap && region.range.end == end)
    }

    /// What of the main arena's top chunk lowering the break gives up.
    fn top(&self, chunk: Range<u64>) -> Range<u64> {
        let area = (chunk.end - chunk.start).saturating_sub(TOP_KEPT);
        chunk.end - area / self.unit * self.unit..chunk.end
    }
}

/// The whole pages of a free chunk behind what it must keep.
fn inner(chunk: Range<u64>) -> Range<u64> {
    let start = chunk.start.saturating_add(KEPT).checked_next_multiple_of(PAGE).unwrap_or(chunk.end);
    let pages = chunk.end.saturating_sub(start) / PAGE;
    start..start + pages * PAGE
}

/// The resident parts of ranges that come upwards.
struct Resident<'a> {
    runs: &'a [Range<u64>],
}

impl<'a> Resident<'a> {
    fn from(runs: &'a [Range<u64>], address: u64) -> Self {
        Self { runs: &runs[runs.partition_point(|run| run.end <= address)..] }
    }

    fn parts(&mut self, range: Range<u64>, mut take: impl FnMut(Range<u64>)) {
        while let [first, rest @ ..] = self.runs {
            if first.start >= range.end {
                return;
            }
            let part = first.start.max(range.start)..first.end.min(range.end);
            if part.start < part.end {
                take(part);
            }
            if first.end > range.end {
                return;
            }
            self.runs = rest;
        }
    }
}

#[cfg(test)]
mod tests;
