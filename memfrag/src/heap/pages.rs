//! How full each page is with live blocks, kept up to date event by event.
//!
//! Page records lie in tables of 2 MiB of address space, which are made at the first block and shared with forked
//! processes until one side changes them. A block of many pages is entered in the records of its first and its last
//! page alone. The pages between them, which it fills, are known from a map of such blocks: adding or removing a block
//! costs the same whether it takes a megabyte or a terabyte.

use super::blocks::Block;
use super::directory::Directory;
use super::footprint::Footprint;
use crate::target::residency::PAGE;
use memfrag_common::prefetch::prefetch;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Base-2 logarithm of a page's size.
pub(super) const PAGE_BITS: u32 = PAGE.trailing_zeros();
/// Base-2 logarithm of the pages of a table.
pub(super) const TABLE_BITS: u32 = 9;
/// Pages of a table.
pub const TABLE_PAGES: usize = 1 << TABLE_BITS;
/// Pages that a block may fill between its first and its last one and still be entered in each.
pub(super) const MOST_FILLED: u64 = 16;

/// What live blocks take of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Bytes of the page that live blocks take, each by its [`Footprint`]. More than a page only where blocks seem to
    /// overlap, because the free of one was missed.
    pub bytes: u64,
    /// Live blocks of which a part lies on the page.
    pub blocks: u64,
}

impl Occupancy {
    fn with_filled(self, times: u64) -> Self {
        Self { bytes: self.bytes + times * PAGE, blocks: self.blocks + times }
    }
}

/// Neighbouring pages that are equally full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Address of the first one.
    pub address: u64,
    /// How many there are.
    pub pages: u64,
    /// What live blocks take of each of them; at least one block.
    pub each: Occupancy,
}

/// A page as it lies in a table. Sums wrap around: any number of blocks that seem to overlap leave it as they found it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Bytes of it that live blocks take, those aside that fill it together with many other pages.
    pub bytes: u32,
    /// How many live blocks that are.
    pub blocks: u32,
}

/// The pages of 2 MiB.
#[derive(Clone, Debug)]
struct Records {
    pages: [Record; TABLE_PAGES],
    /// How many of them have blocks.
    used: u32,
}

impl Records {
    const EMPTY: Self = Self { pages: [Record { bytes: 0, blocks: 0 }; TABLE_PAGES], used: 0 };
}

/// A table, and whether another process still reads the same one.
#[derive(Debug)]
enum Table {
    Owned(Box<Records>),
    Shared(Arc<Records>),
}

impl Table {
    #[inline]
    fn get(&self) -> &Records {
        match self {
            Self::Owned(records) => records,
            Self::Shared(records) => records,
        }
    }

    #[inline]
    fn get_mut(&mut self) -> &mut Records {
        if let Self::Shared(shared) = self {
            *self = Self::Owned(Box::new(Records::clone(shared)));
        }
        match self {
            Self::Owned(records) => records,
            Self::Shared(_) => unreachable!("made its own above"),
        }
    }

    fn share(&mut self) -> Self {
        if let Self::Owned(records) = self {
            *self = Self::Shared(Arc::new(Records::clone(records)));
        }
        match self {
            Self::Shared(shared) => Self::Shared(Arc::clone(shared)),
            Self::Owned(_) => unreachable!("shared above"),
        }
    }
}

/// How full the pages of an address space are with live blocks.
#[derive(Debug, Default)]
pub struct Pages {
    footprint: Footprint,
    tables: Directory<Table>,
    /// By the addresses of the blocks that fill many pages: the pages between their first and their last one.
    filled: BTreeMap<u64, Range<u64>>,
    bytes: u64,
    peak_bytes: u64,
    in_use: u64,
    /// Tables without blocks, kept because the next one often comes where the last was.
    empty: usize,
}

impl Pages {
    /// The pages of these blocks, each at an address of its own.
    pub fn of(footprint: Footprint, blocks: impl Iterator<Item = Block>) -> Self {
        let mut pages = Self::default();
        pages.set_footprint(footprint, blocks);
        pages
    }

    /// Gives up what only makes changes quick: see [`Directory::rest`].
    pub(super) fn rest(&mut self) {
        self.tables.rest();
    }

    /// The rule by which blocks take memory.
    pub fn footprint(&self) -> Footprint {
        self.footprint
    }

    /// Bytes that the live blocks take, by that rule.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most bytes that they have taken at once. Where the rule was changed, only since then.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// Pages on which a part of a live block lies. A page that several blocks seem to fill from end to end, because the
    /// free of one was missed, counts for each of them.
    pub fn in_use(&self) -> u64 {
        self.in_use
    }

    /// What live blocks take of the page that holds an address.
    pub fn get(&self, address: u64) -> Occupancy {
        let page = address >> PAGE_BITS;
        let record = self
            .tables
            .get(page >> TABLE_BITS)
            .map_or(Record::default(), |table| table.get().pages[page as usize % TABLE_PAGES]);
        let filled = self.filled.values().filter(|pages| pages.contains(&page)).count() as u64;
        Occupancy { bytes: u64::from(record.bytes), blocks: u64::from(record.blocks) }.with_filled(filled)
    }

    /// The pages in use of which a part lies within `range`, upwards, in runs of equally full ones.
    ///
    /// Takes time in proportion to the tables, not to the address space.
    pub fn runs(&self, range: Range<u64>) -> Runs<'_> {
        let pages = range.start >> PAGE_BITS..range.end.div_ceil(PAGE);
        let tables = pages.start >> TABLE_BITS..=pages.end.saturating_sub(1) >> TABLE_BITS;
        let mut found: Vec<(u64, &Records)> = self
            .tables
            .iter()
            .filter(|(number, table)| tables.contains(number) && table.get().used > 0)
            .map(|(number, table)| (number, table.get()))
            .collect();
        found.sort_unstable_by_key(|(number, _)| *number);
        let mut turns: Vec<(u64, bool)> = Vec::new();
        for filled in self.filled.values() {
            let (start, end) = (filled.start.max(pages.start), filled.end.min(pages.end));
            if start < end {
                turns.extend([(start, true), (end, false)]);
            }
        }
        turns.sort_unstable();
        Runs { tables: found, turns, at: pages.start, end: pages.end, table: 0, turn: 0, filled: 0 }
    }

    /// The numbers of the tables in which a page is entered, in no order. A table has [`TABLE_PAGES`] pages and is
    /// numbered by its address divided by its bytes.
    pub fn tables(&self) -> impl Iterator<Item = u64> + '_ {
        self.tables.iter().filter(|(_, table)| table.get().used > 0).map(|(number, _)| number)
    }

    /// The pages of a table in which one is entered.
    pub fn table(&self, number: u64) -> Option<&[Record]> {
        self.tables.get(number).map(Table::get).filter(|records| records.used > 0).map(|records| &records.pages[..])
    }

    /// The pages, by number, that blocks fill together with many others, with the addresses of these blocks; upwards by
    /// those. They overlap only where a free was missed.
    pub fn filled(&self) -> impl Iterator<Item = (u64, Range<u64>)> + '_ {
        self.filled.iter().map(|(&addr, pages)| (addr, pages.clone()))
    }

    /// Whether a block fills so many pages that they are not entered one by one.
    pub fn is_large(&self, addr: u64, size: u64) -> bool {
        let taken = self.footprint.of(addr, size);
        !taken.is_empty() && ((taken.end - 1) >> PAGE_BITS) - (taken.start >> PAGE_BITS) > MOST_FILLED + 1
    }

    /// Blocks that are entered in the record of a page.
    #[inline]
    pub(super) fn entered(&self, page: u64) -> u32 {
        let table = self.tables.get(page >> TABLE_BITS);
        table.map_or(0, |table| table.get().pages[page as usize % TABLE_PAGES].blocks)
    }

    /// The address of the last page in use that begins within `range`. Takes time in proportion to the pages behind it.
    pub(super) fn last_in_use(&self, range: Range<u64>) -> Option<u64> {
        let pages = range.start.div_ceil(PAGE)..range.end.div_ceil(PAGE);
        let filled = self.filled.values().filter(|filled| filled.start < pages.end && pages.start < filled.end);
        let filled = filled.map(|filled| filled.end.min(pages.end) - 1).max();
        let entered = pages.rev().take_while(|&page| filled.is_none_or(|filled| page > filled)).find(|page| {
            let table = self.tables.get(page >> TABLE_BITS);
            table.is_some_and(|table| table.get().pages[*page as usize % TABLE_PAGES].blocks > 0)
        });
        entered.or(filled).map(|page| page << PAGE_BITS)
    }

    /// Blocks that fill more than a few pages and of which a part lies within `range`, by their addresses.
    pub(super) fn large_within(&self, range: &Range<u64>) -> impl Iterator<Item = u64> + '_ {
        // Their first and their last page lie beside the pages that they fill.
        let pages = (range.start >> PAGE_BITS).saturating_sub(1)..range.end.div_ceil(PAGE).saturating_add(1);
        let touches = move |filled: &Range<u64>| filled.start < pages.end && pages.start < filled.end;
        self.filled.iter().filter(move |(_, filled)| touches(filled)).map(|(&addr, _)| addr)
    }

    /// How far before a place a block can begin of which a part lies there, those of [`Self::large_within`] aside.
    pub(super) const REACH: u64 = (MOST_FILLED + 2) << PAGE_BITS;

    /// At some time before, the blocks have taken so many bytes at once.
    pub(super) fn had_peak(&mut self, bytes: u64) {
        self.peak_bytes = self.peak_bytes.max(bytes);
    }

    /// Takes another rule, by which the blocks are entered anew.
    pub(super) fn set_footprint(&mut self, footprint: Footprint, blocks: impl Iterator<Item = Block>) {
        let peak_bytes = if footprint == self.footprint { self.peak_bytes } else { 0 };
        *self = Self { footprint, peak_bytes, ..Self::default() };
        blocks.for_each(|block| self.add(block.addr, block.size));
    }

    /// A block has become live.
    #[inline]
    pub(super) fn add(&mut self, addr: u64, size: u64) {
        self.change::<true>(addr, size);
    }

    /// A block is live no more.
    #[inline]
    pub(super) fn remove(&mut self, addr: u64, size: u64) {
        self.change::<false>(addr, size);
    }

    /// Sends for the record of the page that holds an address.
    #[inline]
    pub(super) fn send_for(&self, address: u64) {
        let page = address >> PAGE_BITS;
        if let Some(table) = self.tables.get(page >> TABLE_BITS) {
            prefetch(&table.get().pages[page as usize % TABLE_PAGES]);
        }
    }

    /// Takes everything away; the rule stays.
    pub(super) fn clear(&mut self) {
        *self = Self { footprint: self.footprint, peak_bytes: self.peak_bytes, ..Self::default() };
    }

    /// The same pages for a forked process; the tables are shared until either side changes them.
    pub(super) fn fork(&mut self) -> Self {
        let tables = self
            .tables
            .iter_mut()
            .filter(|(_, table)| table.get().used > 0)
            .map(|(number, table)| (number, table.share()))
            .collect();
        Self { tables, filled: self.filled.clone(), empty: 0, peak_bytes: self.bytes, ..*self }
    }

    /// The same pages, peak and all; the tables are shared until either side changes them.
    pub(super) fn share(&mut self) -> Self {
        Self { peak_bytes: self.peak_bytes, ..self.fork() }
    }

    /// Bytes of the tables that nobody shares, and of what every handle has for itself.
    pub(super) fn own_bytes(&self) -> u64 {
        let owned = self.tables.iter().filter(|(_, table)| matches!(table, Table::Owned(_))).count();
        (owned * size_of::<Records>() + self.tables.memory_bytes()) as u64
    }

    /// Bytes of memory that the pages take here; shared tables count in full.
    pub fn memory_bytes(&self) -> u64 {
        // A node of the map holds up to eleven entries and is at least half full, the links in it aside.
        let filled = self.filled.len() * 2 * size_of::<(u64, Range<u64>)>();
        (self.tables.len() * size_of::<Records>() + self.tables.memory_bytes() + filled) as u64
    }

    #[inline]
    fn change<const ADD: bool>(&mut self, addr: u64, size: u64) {
        let Range { start, end } = self.footprint.of(addr, size);
        if start == end {
            return;
        }
        let bytes = end - start;
        if ADD {
            self.bytes = self.bytes.wrapping_add(bytes);
            self.peak_bytes = self.peak_bytes.max(self.bytes);
        } else {
            self.bytes = self.bytes.wrapping_sub(bytes);
        }
        let (first, last) = (start >> PAGE_BITS, (end - 1) >> PAGE_BITS);
        if first == last {
            return self.change_page::<ADD>(first, bytes as u32);
        }
        self.change_page::<ADD>(first, (PAGE - start % PAGE) as u32);
        self.change_page::<ADD>(last, ((end - 1) % PAGE + 1) as u32);
        if last - first > 1 {
            self.change_filled::<ADD>(addr, first + 1..last);
        }
    }

    fn change_filled<const ADD: bool>(&mut self, addr: u64, pages: Range<u64>) {
        if pages.end - pages.start <= MOST_FILLED {
            pages.for_each(|page| self.change_page::<ADD>(page, PAGE as u32));
        } else if ADD {
            self.in_use = self.in_use.wrapping_add(pages.end - pages.start);
            self.filled.insert(addr, pages);
        } else {
            self.in_use = self.in_use.wrapping_sub(pages.end - pages.start);
            self.filled.remove(&addr);
        }
    }

    #[inline]
    fn change_page<const ADD: bool>(&mut self, page: u64, bytes: u32) {
        let number = page >> TABLE_BITS;
        let table = if ADD {
            self.tables.get_or_insert_with(number, || {
                self.empty += 1;
                Table::Owned(Box::new(Records::EMPTY))
            })
        } else {
            let Some(table) = self.tables.get_mut(number) else { return };
            table
        };
        let records = table.get_mut();
        let record = &mut records.pages[page as usize % TABLE_PAGES];
        if ADD {
            record.bytes = record.bytes.wrapping_add(bytes);
            record.blocks = record.blocks.wrapping_add(1);
            if record.blocks == 1 {
                self.in_use += 1;
                self.empty -= usize::from(records.used == 0);
                records.used += 1;
            }
        } else {
            record.bytes = record.bytes.wrapping_sub(bytes);
            record.blocks = record.blocks.wrapping_sub(1);
            if record.blocks == 0 {
                self.in_use -= 1;
                records.used -= 1;
                if records.used == 0 {
                    self.emptied();
                }
            }
        }
    }

    /// A table has no blocks any more.
    #[cold]
    fn emptied(&mut self) {
        self.empty += 1;
        if self.empty > 16 + self.tables.len() / 4 {
            self.tables.retain(|table| table.get().used > 0);
            self.empty = 0;
        }
    }
}

/// The pages in use, upwards; see [`Pages::runs`].
#[derive(Debug)]
pub struct Runs<'a> {
    tables: Vec<(u64, &'a Records)>,
    /// Where blocks that fill many pages begin (true) and cease to do so.
    turns: Vec<(u64, bool)>,
    at: u64,
    end: u64,
    table: usize,
    turn: usize,
    /// Blocks that fill the page `at`.
    filled: u64,
}

impl Runs<'_> {
    /// The next page from `at` on that has a record in use, with that record.
    fn record(&mut self) -> Option<(u64, Record)> {
        while let Some(&(number, records)) = self.tables.get(self.table) {
            let first = number << TABLE_BITS;
            let from = self.at.saturating_sub(first);
            if from < TABLE_PAGES as u64 {
                let pages = &records.pages[from as usize..];
                if let Some(at) = pages.iter().position(|record| record.blocks > 0) {
                    return Some((first + from + at as u64, pages[at]));
                }
            }
            self.table += 1;
        }
        None
    }
}

impl Iterator for Runs<'_> {
    type Item = PageRun;

    fn next(&mut self) -> Option<PageRun> {
        loop {
            while let Some(&(_, begins)) = self.turns.get(self.turn).filter(|turn| turn.0 <= self.at) {
                self.filled = if begins { self.filled + 1 } else { self.filled - 1 };
                self.turn += 1;
            }
            let record = self.record().filter(|(page, _)| *page < self.end);
            let turn = self.turns.get(self.turn).map(|turn| turn.0);
            let (range, own) = match record {
                Some((page, record)) if page == self.at => {
                    let own = Occupancy { bytes: u64::from(record.bytes), blocks: u64::from(record.blocks) };
                    (page..page + 1, own)
                }
                _ => {
                    let next = [record.map(|(page, _)| page), turn].into_iter().flatten().min()?;
                    (self.at..next, Occupancy::default())
                }
            };
            self.at = range.end;
            let each = own.with_filled(self.filled);
            if each.blocks > 0 {
                return Some(PageRun { address: range.start << PAGE_BITS, pages: range.end - range.start, each });
            }
        }
    }
}

#[cfg(test)]
mod tests;
