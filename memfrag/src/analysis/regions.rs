//! The ranges of address space in which a heap lies.

use super::ResidentPages;
use crate::glibc::layout::HEADER;
use crate::heap::{Amount, Blocks, Footprint, Heap, SLOT_BITS, TABLE_PAGES};
use crate::target::residency::{PAGE, Region as Mapping, RegionKind as MappingKind, Residency};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Regions at most.
pub const MAX_REGIONS: usize = 4096;

/// Ranges of one kind that are nearer to each other are one region.
const APART: u64 = 64 << 10;
/// Bytes of a slot.
const SLOT: u64 = 1 << SLOT_BITS;
/// Where glibc's arenas begin, at each a heap of theirs.
const ARENA: u64 = 64 << 20;
/// A mapping with more arenas than this is none of glibc's.
const MOST_ARENAS: u64 = 1024;
/// How far below its end the heap segment begins at most.
const BRK_REACH: u64 = 1 << 40;

/// What a region of the heap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The heap segment.
    Brk,
    /// Memory that an allocator has mapped.
    Mapped,
    /// An arena of glibc's.
    Arena,
    /// Blocks in memory that no allocator should have.
    Other,
}

impl Kind {
    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brk => "brk",
            Self::Mapped => "mapped",
            Self::Arena => "arena",
            Self::Other => "other",
        }
    }
}

/// A region of the heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its addresses.
    pub range: Range<u64>,
    /// What it is.
    pub kind: Kind,
    /// The live blocks that begin there, those that no event told of included. Those of all regions are those of the
    /// heap.
    pub live: Amount,
    /// Bytes of it that were resident when that was looked at last.
    pub resident_bytes: u64,
}

impl Region {
    /// What to call it.
    pub fn label(&self) -> String {
        match self.kind {
            Kind::Brk => "heap segment".into(),
            Kind::Mapped => "mapped".into(),
            Kind::Arena => format!("arena {:#x}", self.range.start & !(ARENA - 1)),
            Kind::Other => "other".into(),
        }
    }
}

/// The regions of a heap, and how often their addresses have changed.
#[derive(Debug, Default)]
pub struct Regions {
    epoch: u64,
    regions: Vec<Region>,
}

impl Regions {
    /// One more each time that the addresses were others.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The regions, upwards.
    pub fn list(&self) -> &[Region] {
        &self.regions
    }

    /// Looks at the heap as it is now. Says whether the addresses have changed.
    pub fn update(&mut self, heap: &Heap, look: Option<&Residency>) -> bool {
        let before = std::mem::replace(&mut self.regions, regions(heap, look));
        let place = |region: &Region| (region.range.clone(), region.kind);
        let has_changed = !before.iter().map(place).eq(self.regions.iter().map(place));
        self.epoch += u64::from(has_changed);
        has_changed
    }
}

/// The regions of a heap, upwards: mappings in which blocks begin, or did so lately, and what of blocks lies outside of
/// the mappings that are known from the last look. Of a heap that is not [watched](crate::heap::Heaps::watch) all blocks
/// are looked at.
pub fn regions(heap: &Heap, look: Option<&Residency>) -> Vec<Region> {
    let slots = slots(heap);
    let mut regions = joined(pieces(heap, look, &slots, |mapping| was_used(heap, mapping)));
    count(heap, &slots, &mut regions);
    if let Some(look) = look {
        let resident = ResidentPages::new(look);
        for region in &mut regions {
            region.resident_bytes = resident.bytes_in(region.range.clone());
        }
    }
    regions
}

/// The addresses of the [`regions`] in which blocks lie now, and those of the heap segment: the same whether the heap is
/// watched or not, since what was used lately does not count.
pub fn held(heap: &Heap, look: Option<&Residency>) -> Vec<Range<u64>> {
    joined(pieces(heap, look, &slots(heap), |_| false)).into_iter().map(|region| region.range).collect()
}

/// Parts of mappings in which blocks begin, or of which `was_used` says that they did, and of what blocks lie in
/// elsewhere.
fn pieces(
    heap: &Heap,
    look: Option<&Residency>,
    slots: &[(u64, Amount)],
    was_used: impl Fn(&Range<u64>) -> bool,
) -> Vec<(Range<u64>, Kind)> {
    let used = Used::new(heap);
    let taken = used.taken(slots);
    let mut pieces = Vec::new();
    let mappings = look.map_or(&[][..], |look| &look.regions);
    let mut mapped: Vec<Range<u64>> = Vec::new();
    let may_hold_blocks = |mapping: &&Mapping| mapping.kind.may_hold_blocks() && !mapping.range.is_empty();
    for mapping in mappings.iter().filter(may_hold_blocks) {
        let is_brk = mapping.kind == MappingKind::Heap;
        if is_brk || used.holds_blocks(&taken, &mapping.range) || was_used(&mapping.range) {
            pieces.extend(used.parts_of(mapping));
            mapped.push(mapping.range.clone());
        }
    }
    for range in without(taken, &mapped) {
        if let Some(range) = used.trimmed(&range) {
            pieces.push((range.clone(), used.kind_of(mappings, &range)));
        }
    }
    pieces
}

/// The live blocks by the slot in which they begin, upwards.
fn slots(heap: &Heap) -> Vec<(u64, Amount)> {
    if let Some(activity) = heap.activity() {
        let mut slots: Vec<(u64, Amount)> = activity.slots().filter(|(_, amount)| amount.blocks > 0).collect();
        slots.sort_unstable_by_key(|(slot, _)| *slot);
        return slots;
    }
    let mut slots: HashMap<u64, Amount> = HashMap::new();
    for block in heap.blocks().iter().chain(heap.older().iter()) {
        slots.entry(block.addr >> SLOT_BITS).or_default().add(block.size);
    }
    let mut slots: Vec<(u64, Amount)> = slots.into_iter().collect();
    slots.sort_unstable_by_key(|(slot, _)| *slot);
    slots
}

/// Whether anything was allocated or freed in a mapping as far as that is remembered.
fn was_used(heap: &Heap, mapping: &Range<u64>) -> bool {
    const BYTES: u64 = TABLE_PAGES as u64 * PAGE;
    const MOST_TABLES: usize = 1 << 12;
    let Some(activity) = heap.activity() else { return false };
    let is_within = |page: u64| mapping.start <= page * PAGE && page * PAGE < mapping.end;
    let mut tables = (mapping.start / BYTES..=(mapping.end - 1) / BYTES).take(MOST_TABLES);
    tables.any(|table| {
        let pages = activity.table(table).unwrap_or_default();
        (table * TABLE_PAGES as u64..).zip(pages).any(|(page, of)| of.is_noted() && is_within(page))
    })
}

/// Which pages blocks take parts of.
struct Used<'a> {
    heap: &'a Heap,
    /// Pages that blocks fill together with many others, upwards, none touching the next.
    filled: Vec<Range<u64>>,
}

impl<'a> Used<'a> {
    fn new(heap: &'a Heap) -> Self {
        Self { heap, filled: united(heap.pages().filled().map(|(_, pages)| pages).collect()) }
    }

    /// Whether small blocks, or ends of large ones, take a part of a page.
    fn is_entered(&self, page: u64) -> bool {
        let records = self.heap.pages().table(page / TABLE_PAGES as u64);
        records.is_some_and(|records| records[page as usize % TABLE_PAGES].blocks > 0)
    }

    fn is_filled(&self, page: u64) -> bool {
        let at = self.filled.partition_point(|filled| filled.end <= page);
        self.filled.get(at).is_some_and(|filled| filled.start <= page)
    }

    /// Ranges outside of which no block takes memory, upwards, none touching the next. Coarse: most begin and end with
    /// slots.
    fn taken(&self, slots: &[(u64, Amount)]) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (at, &(slot, _)) in slots.iter().enumerate() {
            let (mut start, mut end) = (slot << SLOT_BITS, (slot << SLOT_BITS).saturating_add(SLOT));
            // A block's header lies before it, and it may end behind the slot.
            if start >= PAGE && self.is_entered(start / PAGE - 1) {
                start -= PAGE;
            }
            let next = slots.get(at + 1).map_or(u64::MAX, |(slot, _)| slot << SLOT_BITS);
            while end < next && end <= u64::MAX - PAGE && self.is_entered(end / PAGE) {
                end += PAGE;
            }
            match ranges.last_mut() {
                Some(last) if last.end >= start => last.end = last.end.max(end),
                _ => ranges.push(start..end),
            }
        }
        // The first and the last page lie beside those that a block fills.
        let around = |pages: &Range<u64>| (pages.start - 1) * PAGE..(pages.end + 1).saturating_mul(PAGE);
        ranges.extend(self.filled.iter().map(around));
        united(ranges)
    }

    /// Whether blocks take memory in a mapping.
    fn holds_blocks(&self, taken: &[Range<u64>], mapping: &Range<u64>) -> bool {
        let first = taken.partition_point(|range| range.end <= mapping.start);
        let within = taken[first..].iter().take_while(|range| range.start < mapping.end);
        let mut within = within.map(|range| range.start.max(mapping.start)..range.end.min(mapping.end));
        within.any(|range| self.trimmed(&range).is_some())
    }

    /// A range without the pages at its ends that no block takes a part of; `None` when nothing is left.
    fn trimmed(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let is_used = |&page: &u64| self.is_entered(page) || self.is_filled(page);
        let pages = range.start / PAGE..range.end.div_ceil(PAGE);
        let first = pages.clone().find(is_used)?;
        let last = pages.rev().find(is_used)?;
        Some((first * PAGE).max(range.start)..((last + 1).saturating_mul(PAGE)).min(range.end))
    }

    /// A mapping, its arenas apart.
    fn parts_of(&self, mapping: &Mapping) -> Vec<(Range<u64>, Kind)> {
        let Range { start, end } = mapping.range;
        if mapping.kind == MappingKind::Heap {
            return vec![(start..end, Kind::Brk)];
        }
        if self.heap.pages().footprint() != Footprint::Glibc || (end - start) / ARENA > MOST_ARENAS {
            return vec![(start..end, Kind::Mapped)];
        }
        let mut parts = Vec::new();
        let mut at = start;
        while at < end {
            let next = (at / ARENA + 1).saturating_mul(ARENA).min(end);
            let kind = if at % ARENA == 0 && self.is_arena(&(at..next)) { Kind::Arena } else { Kind::Mapped };
            parts.push((at..next, kind));
            at = next;
        }
        parts
    }

    /// Whether a heap of an arena begins with this range: blocks begin in it, but none where that of a chunk would that
    /// was mapped by itself, and no large block reaches into it from before.
    fn is_arena(&self, range: &Range<u64>) -> bool {
        let at = |address| self.heap.blocks().get(address).or_else(|| self.heap.older().get(address));
        let begins = |all: &Blocks| all.range(range.start, range.end).next().is_some();
        at(range.start + HEADER).is_none()
            && !self.is_filled(range.start / PAGE)
            && (begins(self.heap.blocks()) || begins(self.heap.older()))
    }

    /// What a range is that lies in no mapping of which it is known that it may hold blocks.
    fn kind_of(&self, mappings: &[Mapping], range: &Range<u64>) -> Kind {
        let at = mappings.partition_point(|mapping| mapping.range.end <= range.start);
        let is_known = |mapping: &Mapping| mapping.range.start <= range.start && !mapping.kind.may_hold_blocks();
        if mappings.get(at).is_some_and(is_known) {
            return Kind::Other;
        }
        let brk = self.heap.maps().brk_end;
        if brk.is_some_and(|end| range.start < end && end - range.start < BRK_REACH) {
            return Kind::Brk;
        }
        let base = range.start & !(ARENA - 1);
        let is_glibc = self.heap.pages().footprint() == Footprint::Glibc;
        let is_arena = is_glibc && range.start - base < SLOT && self.is_arena(&(base..range.end));
        if is_arena { Kind::Arena } else { Kind::Mapped }
    }
}

/// Ranges that overlap or touch as one, upwards.
pub(crate) fn united(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let joins = next.start <= last.end;
        if joins {
            last.end = last.end.max(next.end);
        }
        joins
    });
    ranges
}

/// What is left of ranges without others; both upwards.
fn without(ranges: Vec<Range<u64>>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    for range in ranges {
        let mut start = range.start;
        let first = others.partition_point(|other| other.end <= range.start);
        for other in others[first..].iter().take_while(|other| other.start < range.end) {
            if start < other.start {
                left.push(start..other.start);
            }
            start = other.end;
        }
        if start < range.end {
            left.push(start..range.end);
        }
    }
    left
}

/// Joins pieces that lie near to each other, and the nearest ones where there are too many.
fn joined(mut pieces: Vec<(Range<u64>, Kind)>) -> Vec<Region> {
    pieces.sort_unstable_by_key(|(range, _)| range.start);
    let mut behind = 0;
    for (range, _) in &mut pieces {
        range.start = range.start.max(behind);
        behind = range.end.max(behind);
    }
    pieces.retain(|(range, _)| range.start < range.end);
    pieces.dedup_by(|next, last| {
        let joins = next.1 == last.1 && next.0.start.saturating_sub(last.0.end) < APART;
        // Two arenas that touch are two nonetheless.
        let joins = joins && (next.1 != Kind::Arena || next.0.start % ARENA != 0);
        if joins {
            last.0.end = last.0.end.max(next.0.end);
        }
        joins
    });
    if pieces.len() > MAX_REGIONS {
        let gap = |at: usize| pieces[at].0.start.saturating_sub(pieces[at - 1].0.end);
        let mut nearest: Vec<usize> = (1..pieces.len()).collect();
        nearest.sort_by_key(|&at| gap(at));
        nearest.truncate(pieces.len() - MAX_REGIONS);
        let nearest: HashSet<usize> = nearest.into_iter().collect();
        let mut fewer: Vec<(Range<u64>, Kind)> = Vec::with_capacity(MAX_REGIONS);
        for (at, (range, kind)) in pieces.into_iter().enumerate() {
            match fewer.last_mut().filter(|_| nearest.contains(&at)) {
                Some(last) => {
                    last.0.end = last.0.end.max(range.end);
                    last.1 = if last.1 == kind { kind } else { Kind::Other };
                }
                None => fewer.push((range, kind)),
            }
        }
        pieces = fewer;
    }
    let region = |(range, kind)| Region { range, kind, live: Amount::default(), resident_bytes: 0 };
    pieces.into_iter().map(region).collect()
}

/// Gives each region the live blocks that begin in it. One that lies in none, because it takes no memory, goes to the
/// region before it.
fn count(heap: &Heap, slots: &[(u64, Amount)], regions: &mut Vec<Region>) {
    if let ([], [(first, _), ..], [.., (last, _)]) = (&regions[..], slots, slots) {
        let range = first << SLOT_BITS..(last << SLOT_BITS).saturating_add(SLOT);
        regions.push(Region { range, kind: Kind::Other, live: Amount::default(), resident_bytes: 0 });
    }
    let of = |regions: &[Region], address: u64| {
        regions.partition_point(|region| region.range.start <= address).saturating_sub(1)
    };
    for &(slot, amount) in slots {
        let start = slot << SLOT_BITS;
        let last = start | (SLOT - 1);
        let at = of(regions, start);
        if at == of(regions, last) {
            let live = &mut regions[at].live;
            live.blocks += amount.blocks;
            live.bytes = live.bytes.wrapping_add(amount.bytes);
            continue;
        }
        for block in heap.blocks().within(start..=last).chain(heap.older().within(start..=last)) {
            let at = of(regions, block.addr);
            regions[at].live.add(block.size);
        }
    }
}

#[cfg(test)]
mod tests;
