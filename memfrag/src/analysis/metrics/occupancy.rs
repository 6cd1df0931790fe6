//! How full pages are.

use crate::analysis::ResidentPages;
use crate::heap::{PageRun, Pages};
use crate::target::residency::PAGE;
use std::ops::Range;

/// Bytes of a huge page.
pub const HUGE_PAGE: u64 = 2 << 20;

/// Pages by how full they are with live blocks. A page is pinned when less than a quarter of it is: it stays resident
/// for little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Pages of the heap without any live byte; `None` where it is not known which pages are the heap's.
    pub empty: Option<u64>,
    /// Pages with live bytes on less than a quarter of them.
    pub pinned: u64,
    /// Pages with live bytes on a quarter or more of them, and not on all.
    pub partial: u64,
    /// Pages with live bytes throughout.
    pub full: u64,
}

impl Occupancy {
    fn add(&mut self, pages: u64, live: u64, size: u64) {
        let class = match live {
            _ if live >= size => &mut self.full,
            _ if live >= size / 4 => &mut self.partial,
            _ => &mut self.pinned,
        };
        *class += pages;
    }

    /// Pages with live bytes.
    pub fn in_use(&self) -> u64 {
        self.pinned + self.partial + self.full
    }
}

/// Where to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// The memory that the allocator holds, upwards, where that is known.
    pub heap: Option<&'a [Range<u64>]>,
    /// The resident pages, where they are known: others do not count then.
    pub resident: Option<&'a ResidentPages>,
}

impl Scope<'_> {
    /// The resident part of the heap, as far as either is known.
    fn ranges(&self) -> Vec<Range<u64>> {
        let everywhere = 0..u64::MAX;
        let heap = self.heap.unwrap_or(std::slice::from_ref(&everywhere));
        match self.resident {
            Some(resident) => heap.iter().flat_map(|range| resident.runs_in(range.clone())).collect(),
            None => heap.to_vec(),
        }
    }
}

/// The heap's pages by how full they are.
pub fn of_pages(pages: &Pages, scope: Scope<'_>) -> Occupancy {
    let mut occupancy = Occupancy::default();
    let mut all = 0;
    let mut from = 0;
    for range in scope.ranges() {
        // Two segments can meet within a page.
        let range = (range.start & !(PAGE - 1)).max(from)..range.end;
        if range.is_empty() {
            continue;
        }
        from = range.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        all += (range.end - range.start).div_ceil(PAGE);
        for run in pages.runs(range) {
            occupancy.add(run.pages, run.each.bytes, PAGE);
        }
    }
    occupancy.empty = scope.heap.map(|_| all.saturating_sub(occupancy.in_use()));
    occupancy
}

/// The same in aligned pieces of [`HUGE_PAGE`]. A piece counts when a page of it does.
pub fn of_huge_pages(pages: &Pages, scope: Scope<'_>) -> Occupancy {
    let mut occupancy = Occupancy::default();
    let mut in_heap = Pieces::default();
    let mut live = Pieces::default();
    for range in scope.ranges() {
        in_heap.add(range.clone(), 0, &mut |_, _| {});
        for run in pages.runs(range) {
            let PageRun { address, pages, each } = run;
            let end = address.saturating_add(pages.saturating_mul(PAGE));
            live.add(address..end, each.bytes.min(PAGE), &mut |pieces, bytes| occupancy.add(pieces, bytes, HUGE_PAGE));
        }
    }
    live.close(&mut |pieces, bytes| occupancy.add(pieces, bytes, HUGE_PAGE));
    occupancy.empty = scope.heap.map(|_| in_heap.met.saturating_sub(live.met));
    occupancy
}

/// Gathers ranges, which come upwards, into aligned pieces.
#[derive(Default)]
struct Pieces {
    /// The piece under way and the live bytes in it.
    current: Option<(u64, u64)>,
    met: u64,
}

impl Pieces {
    /// Adds pages, each with `each` live bytes; `emit` is told of pieces that are complete, with the bytes in each.
    fn add(&mut self, range: Range<u64>, each: u64, emit: &mut impl FnMut(u64, u64)) {
        let mut at = range.start;
        while at < range.end {
            let piece = at / HUGE_PAGE;
            if self.current.is_none_or(|current| current.0 < piece) {
                self.close(emit);
                // A piece that is covered from end to end and those like it behind it are told at once.
                let whole = (range.end - at) / HUGE_PAGE;
                if at.is_multiple_of(HUGE_PAGE) && whole > 1 {
                    self.met += whole - 1;
                    emit(whole - 1, each * (HUGE_PAGE / PAGE));
                    at += (whole - 1) * HUGE_PAGE;
                }
                self.current = Some((at / HUGE_PAGE, 0));
                self.met += 1;
            }
            let end = (at / HUGE_PAGE + 1).saturating_mul(HUGE_PAGE).min(range.end);
            if let Some((_, bytes)) = &mut self.current {
                *bytes += (end - at).div_ceil(PAGE) * each;
            }
            at = end;
        }
    }

    fn close(&mut self, emit: &mut impl FnMut(u64, u64)) {
        if let Some((_, bytes)) = self.current.take() {
            emit(1, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Heaps;
    use memfrag_common::{Event, Function, Op};

    fn with_blocks(blocks: &[(u64, u64)], check: impl Fn(&Pages)) {
        let mut heaps = Heaps::default();
        for &(addr, size) in blocks {
            let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 1, stack: 0 };
            heaps.apply(&Event { time: 1, pid: 1, tid: 1, op });
        }
        check(heaps.heap(&heaps.processes()[0]).pages());
    }

    const BASE: u64 = 64 << 20;

    #[test]
    fn pages_are_told_apart_by_quarters() {
        let blocks = [(BASE, 1023), (BASE + PAGE, 1024), (BASE + 2 * PAGE, 4095), (BASE + 3 * PAGE, 4096)];
        with_blocks(&blocks, |pages| {
            let seen = of_pages(pages, Scope::default());
            assert_eq!(seen, Occupancy { empty: None, pinned: 1, partial: 2, full: 1 });
            let heap = std::slice::from_ref(&(BASE..BASE + 10 * PAGE));
            let seen = of_pages(pages, Scope { heap: Some(heap), resident: None });
            assert_eq!(seen, Occupancy { empty: Some(6), pinned: 1, partial: 2, full: 1 });
            let runs = [BASE + 2 * PAGE..BASE + 3 * PAGE, BASE + 8 * PAGE..BASE + 20 * PAGE];
            let resident = ResidentPages::from_runs(runs.into_iter());
            let seen = of_pages(pages, Scope { heap: Some(heap), resident: Some(&resident) });
            assert_eq!(seen, Occupancy { empty: Some(2), pinned: 0, partial: 1, full: 0 });
            let huge = of_huge_pages(pages, Scope { heap: Some(heap), resident: Some(&resident) });
            assert_eq!(huge, Occupancy { empty: Some(0), pinned: 1, partial: 0, full: 0 });
        });
    }

    #[test]
    fn a_page_where_two_segments_meet_counts_once() {
        with_blocks(&[(BASE, 100), (BASE + 3000, 100)], |pages| {
            let heap = [BASE..BASE + 2000, BASE + 2000..BASE + PAGE + 1];
            let seen = of_pages(pages, Scope { heap: Some(&heap), resident: None });
            assert_eq!(seen, Occupancy { empty: Some(1), pinned: 1, partial: 0, full: 0 });
        });
    }

    #[test]
    fn huge_pages_gather_what_lies_on_them() {
        // The last quarter of the first piece, four whole ones, and a page of the sixth.
        let blocks = [(BASE + HUGE_PAGE * 3 / 4, HUGE_PAGE / 4 + 4 * HUGE_PAGE), (BASE + 5 * HUGE_PAGE, PAGE)];
        with_blocks(&blocks, |pages| {
            let heap = std::slice::from_ref(&(BASE..BASE + 8 * HUGE_PAGE));
            let seen = of_huge_pages(pages, Scope { heap: Some(heap), resident: None });
            assert_eq!(seen, Occupancy { empty: Some(2), pinned: 1, partial: 1, full: 4 });
            let small = of_pages(pages, Scope { heap: Some(heap), resident: None });
            assert_eq!(small.full, (HUGE_PAGE / 4 + 4 * HUGE_PAGE) / PAGE + 1);
            assert_eq!(small.empty, Some(8 * HUGE_PAGE / PAGE - small.full));
        });
    }
}
