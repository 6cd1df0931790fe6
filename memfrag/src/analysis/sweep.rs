//! One pass over a heap, upwards: which resident pages would be returned as it is, and which if all blocks of one
//! owner were gone; for all owners at once.
//!
//! What is not held is free. A page is returned when nothing held reaches into it, counting the rule's margin of bytes
//! behind each held range as held (see [`Rule::whole_pages`]). Without the blocks of an owner, the free ranges
//! between and around them grow together. That happens only between two held ranges of others, so each owner's gain
//! is a sum over its *stretches*: consecutive held ranges of one owner, with the free ranges around them. The pass
//! has one stretch open at a time, and takes time linear in the ranges for any number of owners.
//!
//! The free bytes on the pages that stay are shared out: each page's in equal parts among the held ranges that reach
//! into it. These shares add up to all free bytes that are resident and not returned.

use super::resident::ResidentPages;
use crate::glibc::trim::KEPT;
use crate::target::residency::PAGE;
use std::ops::Range;

/// Bits of a byte's fraction in which shares are kept.
const FRACTION: u32 = 16;

/// Most owners of a page that are told apart.
pub const MOST_OWNERS: usize = 16;

/// When a page goes back to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Bytes that must be free before a page.
    margin: u64,
}

impl Rule {
    /// `malloc_trim`: as chunks are multiples of 16 bytes, what it keeps of a free chunk and of the main arena's top
    /// comes to the same.
    pub const GLIBC: Self = Self { margin: KEPT };

    /// Pages on which nothing lies: the most that an allocator which keeps its notes elsewhere could return.
    pub const EMPTY_PAGES: Self = Self { margin: 0 };

    /// The pages that a free range gives back, resident or not.
    pub fn whole_pages(self, free: Range<u64>) -> Range<u64> {
        let start = free.start.saturating_add(self.margin + PAGE - 1) & !(PAGE - 1);
        start..(free.end & !(PAGE - 1)).max(start)
    }
}

/// What becomes of the free range at the end of a strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing special: it is returned like any other.
    Returned,
    /// It belongs to the top of an arena that trimming leaves as it is.
    Kept,
}

/// What one owner accounts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Resident bytes that would be returned without the owner's blocks, less those returned with them. Negative where
    /// a free range that is returned now would join a kept top.
    pub release: i64,
    /// Resident bytes of whole pages that would join a kept top: returned only when freeing shrinks that.
    pub joins_top: u64,
    /// Its share of the free bytes on pages that stay, in 2⁻¹⁶ bytes.
    stranded: u64,
}

/// What a pass found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By owner.
    pub tallies: Vec<Tally>,
    /// Resident bytes that would be returned as the heap is.
    pub returned: u64,
    /// Resident free bytes of kept tails on pages into which nothing held reaches.
    pub kept_tops: u64,
    /// Resident pages that stay, by how many owners reach into them: none stands at 0, and [`MOST_OWNERS`] or more
    /// at the end.
    pub pages_by_owners: [u64; MOST_OWNERS + 1],
}

impl Outcome {
    /// The shares of the stranded bytes in whole bytes. What rounding leaves goes to the next owner, so that the
    /// bytes add up to the rounded-down sum.
    pub fn stranded(&self) -> Vec<u64> {
        let mut left = 0;
        let whole = |tally: &Tally| {
            left += tally.stranded & ((1 << FRACTION) - 1);
            let carried = left >> FRACTION;
            left &= (1 << FRACTION) - 1;
            (tally.stranded >> FRACTION) + carried
        };
        self.tallies.iter().map(whole).collect()
    }

    /// Free bytes that are resident and stay so: the sum of all shares, and the kept tops.
    pub fn stuck(&self) -> u64 {
        let shares: u128 = self.tallies.iter().map(|tally| u128::from(tally.stranded)).sum();
        (shares >> FRACTION) as u64 + self.kept_tops
    }
}

/// A page that is being looked at.
#[derive(Clone, Debug, Default)]
struct Open {
    page: u64,
    free: u64,
    owners: Vec<u32>,
}

/// The pass. Strips of address space are begun, filled upwards with held ranges, and ended, in any order of strips.
#[derive(Debug)]
pub struct Sweep<'a> {
    pages: &'a ResidentPages,
    rule: Rule,
    outcome: Outcome,
    /// End of the last held range, or the strip's start.
    free_from: u64,
    /// The owner of the open stretch.
    owner: Option<u32>,
    /// Where the open stretch's first free range begins.
    stretch: u64,
    /// What the stretch's free ranges return as they are.
    already: u64,
    /// Where the strip's kept tail begins, once that is met.
    kept_from: u64,
    /// Pages that later ranges can still reach into: never more than two neighbours.
    open: [Open; 2],
}

impl<'a> Sweep<'a> {
    /// A pass over a heap with `owners` owners, numbered from 0. Owner 0 is charged what is nobody's: free bytes on a
    /// page into which nothing held reaches, but which the strip's edge cuts.
    pub fn new(pages: &'a ResidentPages, rule: Rule, owners: usize) -> Self {
        Self {
            pages,
            rule,
            outcome: Outcome { tallies: vec![Tally::default(); owners.max(1)], ..Outcome::default() },
            free_from: 0,
            owner: None,
            stretch: 0,
            already: 0,
            kept_from: u64::MAX,
            open: [Open::default(), Open::default()],
        }
    }

    /// A strip begins.
    pub fn begin(&mut self, start: u64) {
        self.free_from = start;
        self.owner = None;
        self.stretch = start;
        self.already = 0;
    }

    /// The next held range of the strip. What lies before the end of the last one is cut off.
    #[inline]
    pub fn held(&mut self, range: Range<u64>, owner: u32) {
        let start = range.start.max(self.free_from);
        let end = range.end.max(start);
        let returned = if start > self.free_from { self.free(start, Tail::Returned) } else { 0 };
        if self.owner == Some(owner) {
            self.already += returned;
        } else {
            self.close(start, returned);
            self.stretch = self.free_from;
            self.owner = Some(owner);
            self.already = returned;
        }
        if end > start {
            self.reach(start, end, owner);
        }
        self.free_from = end;
    }

    /// The strip ends.
    pub fn end(&mut self, end: u64, tail: Tail) {
        let end = end.max(self.free_from);
        if tail == Tail::Kept {
            self.kept_from = self.free_from;
        }
        let returned = if end > self.free_from { self.free(end, tail) } else { 0 };
        if tail == Tail::Returned {
            self.close(end, returned);
        } else if let Some(owner) = self.owner {
            let joins = self.resident(self.stretch..end);
            let now = self.resident(self.free_from..end);
            let tally = &mut self.outcome.tallies[owner as usize];
            tally.release -= self.already.cast_signed();
            tally.joins_top += joins - now;
        }
        for slot in 0..2 {
            // The last held range may seem to reach behind the end, where others' memory is.
            if self.open[slot].page >= end {
                self.open[slot].owners.clear();
            }
            self.settle(slot);
        }
        self.owner = None;
        self.kept_from = u64::MAX;
    }

    /// What the pass found.
    pub fn finish(self) -> Outcome {
        self.outcome
    }

    /// Resident bytes of the whole pages of a free range.
    fn resident(&self, free: Range<u64>) -> u64 {
        let whole = self.rule.whole_pages(free);
        if whole.start < whole.end { self.pages.bytes_in(whole) } else { 0 }
    }

    /// The open stretch ends where another owner's range begins; `returned` of the free range before that is
    /// returned already.
    fn close(&mut self, end: u64, returned: u64) {
        if let Some(owner) = self.owner {
            let gain = self.resident(self.stretch..end) - self.already - returned;
            self.outcome.tallies[owner as usize].release += gain.cast_signed();
        }
    }

    /// Takes the free range up to `end`, and tells how much of it is returned.
    fn free(&mut self, end: u64, tail: Tail) -> u64 {
        let start = self.free_from;
        let whole = self.rule.whole_pages(start..end);
        let is_whole = whole.start < whole.end;
        let resident = if is_whole { self.pages.bytes_in(whole.clone()) } else { 0 };
        // Its edges lie on pages that stay: at most two at the start and one at the end.
        let mut page = start & !(PAGE - 1);
        while page < end {
            if is_whole && page == whole.start {
                page = whole.end;
                continue;
            }
            let open = self.open(page);
            open.free += end.min(page + PAGE) - start.max(page);
            page += PAGE;
        }
        match tail {
            Tail::Returned => {
                self.outcome.returned += resident;
                resident
            }
            Tail::Kept => {
                self.outcome.kept_tops += resident;
                self.outcome.pages_by_owners[0] += resident / PAGE;
                0
            }
        }
    }

    /// Notes the pages that a held range reaches into.
    fn reach(&mut self, start: u64, end: u64, owner: u32) {
        let page = |address: u64| address & !(PAGE - 1);
        let (first, edge, last) = (page(start), page(end - 1), page((end + self.rule.margin).saturating_sub(1)));
        self.open(first).owners.push(owner);
        if edge > first {
            // Nothing else reaches into the pages between, and nothing is free on them; but into the first of them the
            // range before may have reached.
            let mut between = first + PAGE..edge;
            let slot = ((between.start / PAGE) & 1) as usize;
            if between.start < between.end && self.open[slot].page == between.start {
                self.open[slot].owners.push(owner);
                between.start += PAGE;
            }
            if between.start < between.end {
                self.outcome.pages_by_owners[1] += self.pages.bytes_in(between) / PAGE;
            }
            self.open(edge).owners.push(owner);
        }
        if last > edge {
            self.open(last).owners.push(owner);
        }
    }

    fn open(&mut self, page: u64) -> &mut Open {
        let slot = ((page / PAGE) & 1) as usize;
        if self.open[slot].page != page {
            self.settle(slot);
            self.open[slot].page = page;
        }
        &mut self.open[slot]
    }

    /// Shares out a page's free bytes.
    fn settle(&mut self, slot: usize) {
        let Self { pages, outcome, open, kept_from, .. } = self;
        let Open { page, free, owners } = &mut open[slot];
        if (*free > 0 || !owners.is_empty()) && pages.holds(*page) {
            let distinct = if owners.iter().all(|owner| *owner == owners[0]) {
                usize::from(!owners.is_empty())
            } else {
                owners.sort_unstable();
                owners.chunk_by(|one, other| one == other).count()
            };
            outcome.pages_by_owners[distinct.min(MOST_OWNERS)] += 1;
            if owners.is_empty() && *page + PAGE > *kept_from {
                outcome.kept_tops += *free;
            } else {
                share(&mut outcome.tallies, owners, *free);
            }
        }
        *free = 0;
        owners.clear();
    }
}

/// Adds equal shares of `bytes` to the tallies of the owners; what cannot be divided goes round.
fn share(tallies: &mut [Tally], owners: &[u32], bytes: u64) {
    if bytes == 0 {
        return;
    }
    let units = bytes << FRACTION;
    if owners.is_empty() {
        tallies[0].stranded += units;
        return;
    }
    let number = owners.len() as u64;
    let mut given = 0;
    let mut reached = 0;
    for same in owners.chunk_by(|one, other| one == other) {
        reached += same.len() as u64;
        let until = units * reached / number;
        tallies[same[0] as usize].stranded += until - given;
        given = until;
    }
}
