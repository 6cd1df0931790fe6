//! What happened lately on the pages of a heap that somebody watches.
//!
//! Each page has a heat, the time of its last allocation, and when it was last freed to empty. Each table of 2 MiB has
//! the number of the change that touched it last; so whoever remembers the number up to which he has looked can ask
//! what changed since, and any number of watchers need neither queues nor marks of their own. A block that fills many
//! pages is noted once, for the span of them.
//!
//! Heaps are not watched unless asked for, since that costs memory (8.5 KiB a table) and time with each event.

use super::blocks::Block;
use super::classes::Classes;
use super::directory::Directory;
use super::footprint::Footprint;
use super::pages::{MOST_FILLED, PAGE_BITS, Pages, TABLE_BITS, TABLE_PAGES};
use super::totals::Amount;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Milliseconds in which the heat of a page halves.
pub const HALF_LIFE_MS: u32 = 4000;

/// Base-2 logarithm of the bytes of a slot, for which live blocks are summed up by the address at which they begin.
pub const SLOT_BITS: u32 = 16;
/// Slots of a table.
const TABLE_SLOTS: usize = 1 << (TABLE_BITS + PAGE_BITS - SLOT_BITS);

/// Spans without a live block that are remembered.
const DEAD_SPANS: usize = 512;
/// Tables without blocks that are remembered.
const EMPTY_TABLES: usize = 1024;

/// A moment to the millisecond: enough for 49 days, after which all moments are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u32);

impl Tick {
    /// Before everything.
    pub const NEVER: Self = Self(0);

    /// The tick of a time in nanoseconds since the trace began.
    #[inline]
    pub const fn at(time: u64) -> Self {
        let ms = time / 1_000_000;
        if ms < u32::MAX as u64 { Self(ms as u32 + 1) } else { Self(u32::MAX) }
    }

    /// Milliseconds from this tick to a later one; none where that is not later. From [`Self::NEVER`] they count since
    /// the trace began.
    #[inline]
    pub const fn until(self, later: Self) -> u32 {
        later.0.saturating_sub(if self.0 == 0 { 1 } else { self.0 })
    }

    /// This tick and some milliseconds.
    #[must_use]
    pub const fn plus(self, ms: u32) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The time in nanoseconds at which it begins.
    pub const fn time(self) -> u64 {
        self.0.saturating_sub(1) as u64 * 1_000_000
    }
}

/// What happened lately on a page.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PageActivity {
    heat: f32,
    /// When the heat was that.
    at: Tick,
    /// When a block of which a part lies there was last allocated.
    pub allocated: Tick,
    /// When the last block on it was freed and left none; [`Tick::NEVER`] also where that was before the watch.
    pub freed: Tick,
}

impl PageActivity {
    /// Nothing.
    pub const NONE: Self = Self { heat: 0.0, at: Tick::NEVER, allocated: Tick::NEVER, freed: Tick::NEVER };

    /// Allocations and frees on the page, each counted half as much for every [`HALF_LIFE_MS`] that it is past.
    #[inline]
    pub fn heat(&self, now: Tick) -> f32 {
        if self.heat == 0.0 { 0.0 } else { cooled(self.heat, self.at.until(now)) }
    }

    /// Whether an allocation or a free was noted at all.
    #[inline]
    pub fn is_noted(&self) -> bool {
        self.heat > 0.0
    }

    #[inline]
    fn note<const ADD: bool>(&mut self, now: Tick, emptied: bool) {
        if self.at < now {
            self.heat = cooled(self.heat, self.at.until(now));
            self.at = now;
        }
        self.heat += 1.0;
        if ADD {
            self.allocated = self.allocated.max(now);
        } else if emptied {
            self.freed = now;
        }
    }
}

/// What is left of a heat after a while.
#[inline]
pub fn cooled(heat: f32, ms: u32) -> f32 {
    if ms == 0 || heat == 0.0 {
        return heat;
    }
    // Above zero, however long it is past: that a page was used is not forgotten.
    (heat * (-(ms as f32) / HALF_LIFE_MS as f32).exp2()).max(f32::MIN_POSITIVE)
}

#[derive(Clone, Debug)]
struct Body {
    pages: [PageActivity; TABLE_PAGES],
    slots: [Amount; TABLE_SLOTS],
}

#[derive(Debug)]
struct Table {
    number: u64,
    /// The last change of its pages.
    changed: u64,
    held: Held,
}

/// What a table holds, and whether a copy of the heap still reads the same.
#[derive(Debug)]
enum Held {
    Owned(Box<Body>),
    Shared(Arc<Body>),
}

impl Table {
    fn new(number: u64) -> Self {
        let body = Body {
            pages: [PageActivity::default(); TABLE_PAGES],
            slots: [Amount { blocks: 0, bytes: 0 }; TABLE_SLOTS],
        };
        Self { number, changed: 0, held: Held::Owned(Box::new(body)) }
    }

    #[inline]
    fn body(&self) -> &Body {
        match &self.held {
            Held::Owned(body) => body,
            Held::Shared(body) => body,
        }
    }

    /// The body to write to; one that is shared is copied now.
    #[inline]
    fn body_mut(&mut self) -> &mut Body {
        if let Held::Shared(shared) = &self.held {
            self.held = Held::Owned(Box::new(Body::clone(shared)));
        }
        match &mut self.held {
            Held::Owned(body) => body,
            Held::Shared(_) => unreachable!("made its own above"),
        }
    }

    fn share(&mut self) -> Self {
        if let Held::Owned(body) = &self.held {
            self.held = Held::Shared(Arc::new(Body::clone(body)));
        }
        let held = match &self.held {
            Held::Shared(shared) => Held::Shared(Arc::clone(shared)),
            Held::Owned(_) => unreachable!("shared above"),
        };
        Self { number: self.number, changed: self.changed, held }
    }
}

/// Pages that a block fills, or filled lately, from end to end.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    changed: u64,
    /// Live blocks that fill it. More than one only where a free was missed.
    live: u32,
    activity: PageActivity,
}

/// What happened lately on the pages of a heap; see [`Heap::activity`](super::Heap::activity).
#[derive(Debug)]
pub struct Activity {
    identity: Arc<()>,
    /// How many changes there were.
    changes: u64,
    /// The last change that may have touched any page.
    everywhere: u64,
    tables: Directory<Table>,
    /// Tables beyond which those without blocks are looked for.
    most_tables: usize,
    /// By their first page and the page behind the last one.
    spans: BTreeMap<(u64, u64), Span>,
    /// Those of them that have no live block.
    dead: usize,
    classes: Classes,
}

impl Activity {
    /// The activity of a heap that has these blocks. Nothing is hot; the last allocations are those of the blocks.
    pub(super) fn new(footprint: Footprint, blocks: impl Iterator<Item = Block>) -> Self {
        let mut activity = Self {
            identity: Arc::new(()),
            changes: 0,
            everywhere: 0,
            tables: Directory::default(),
            most_tables: EMPTY_TABLES,
            spans: BTreeMap::new(),
            dead: 0,
            classes: Classes::default(),
        };
        activity.enter_anew(footprint, blocks);
        activity
    }

    /// The same activity for a copy of the heap, which goes its own way; tables are shared until either side changes
    /// them.
    pub(super) fn share(&mut self) -> Self {
        Self {
            identity: Arc::new(()),
            tables: self.tables.iter_mut().map(|(number, table)| (number, table.share())).collect(),
            spans: self.spans.clone(),
            classes: self.classes.clone(),
            ..*self
        }
    }

    /// The same as long as the numbers of changes go on: another one once a heap was built anew.
    pub fn identity(&self) -> &Arc<()> {
        &self.identity
    }

    /// The number of the last change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The pages that changed after change number `since`, each with a change that is not before the last of it, upwards
    /// and none twice; `None` when it may be any page.
    pub fn changed_since(&self, since: u64) -> Option<Vec<(Range<u64>, u64)>> {
        if self.everywhere > since {
            return None;
        }
        let tables = self.tables.iter().filter(|(_, table)| table.changed > since);
        let tables = tables.map(|(number, table)| (number << TABLE_BITS..(number + 1) << TABLE_BITS, table.changed));
        let spans = self.spans.iter().filter(|(_, span)| span.changed > since);
        let spans = spans.map(|(&(first, end), span)| (first..end, span.changed));
        let mut found: Vec<(Range<u64>, u64)> = tables.chain(spans).collect();
        found.sort_unstable_by_key(|(pages, _)| pages.start);
        found.dedup_by(|next, last| {
            let overlap = next.0.start < last.0.end;
            if overlap {
                last.0.end = last.0.end.max(next.0.end);
                last.1 = last.1.max(next.1);
            }
            overlap
        });
        Some(found)
    }

    /// What happened on the pages of a table, those aside that one block fills together with many others.
    pub fn table(&self, number: u64) -> Option<&[PageActivity]> {
        self.tables.get(number).map(|table| &table.body().pages[..])
    }

    /// The numbers of the tables on which anything happened, in no order.
    pub fn tables(&self) -> impl Iterator<Item = u64> + '_ {
        self.tables.iter().map(|(number, _)| number)
    }

    /// Pages that a block fills together with many others, or filled lately: whether one does now, and what happened
    /// there on that account; upwards by their first pages. They may overlap.
    pub fn spans(&self) -> impl Iterator<Item = (Range<u64>, bool, &PageActivity)> {
        self.spans.iter().map(|(&(first, end), span)| (first..end, span.live > 0, &span.activity))
    }

    /// The live blocks, those that no event told of included, by the slot of [`SLOT_BITS`] in which they begin: all
    /// slots in which one begins, or did so lately, in no order.
    pub fn slots(&self) -> impl Iterator<Item = (u64, Amount)> + '_ {
        self.tables.iter().flat_map(|(number, table)| {
            let first = number << (TABLE_BITS + PAGE_BITS - SLOT_BITS);
            (first..).zip(table.body().slots.iter().copied())
        })
    }

    /// How much is live by origin, thread and size.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Bytes of memory that this takes.
    pub fn memory_bytes(&self) -> u64 {
        let tables = self.tables.len() * size_of::<Body>() + self.tables.memory_bytes();
        (tables + self.spans.len() * 2 * size_of::<((u64, u64), Span)>()) as u64 + self.classes.memory_bytes()
    }

    /// Sends for what will be noted about a block.
    #[inline]
    pub(super) fn send_for(&self, address: u64) {
        let page = address >> PAGE_BITS;
        if let Some(table) = self.tables.get(page >> TABLE_BITS) {
            memfrag_common::prefetch::prefetch(&table.body().pages[page as usize % TABLE_PAGES]);
        }
    }

    /// A block became live, or is live no more, at `time`; `pages` have it entered, or taken out, already.
    #[inline]
    pub(super) fn note<const ADD: bool>(&mut self, time: u64, block: &Block, pages: &Pages) {
        self.changes += 1;
        self.count::<ADD>(block);
        let now = Tick::at(time);
        let (ends, filled) = touched(pages.footprint(), block);
        for page in ends {
            let emptied = !ADD && pages.entered(page) == 0;
            self.page(page).note::<ADD>(now, emptied);
        }
        if !filled.is_empty() {
            self.note_span::<ADD>(now, filled);
        }
        if self.tables.len() > self.most_tables {
            self.forget_tables(pages);
        }
    }

    /// The blocks are entered in the pages by another rule, or others are known of now.
    pub(super) fn enter_anew(&mut self, footprint: Footprint, blocks: impl Iterator<Item = Block>) {
        self.changes += 1;
        self.everywhere = self.changes;
        self.classes = Classes::default();
        self.tables.iter_mut().for_each(|(_, table)| table.body_mut().slots = [Amount::default(); TABLE_SLOTS]);
        self.spans.values_mut().for_each(|span| span.live = 0);
        for block in blocks {
            self.count::<true>(&block);
            let allocated = Tick::at(block.time);
            let (ends, filled) = touched(footprint, &block);
            for page in ends {
                let page = self.page(page);
                page.allocated = page.allocated.max(allocated);
            }
            if !filled.is_empty() {
                let span = self.spans.entry((filled.start, filled.end)).or_default();
                span.live += 1;
                span.changed = self.changes;
                span.activity.allocated = span.activity.allocated.max(allocated);
            }
        }
        self.dead = self.spans.values().filter(|span| span.live == 0).count();
        self.most_tables = 2 * self.tables.len() + EMPTY_TABLES;
    }

    #[inline]
    fn count<const ADD: bool>(&mut self, block: &Block) {
        self.classes.count::<ADD>(block);
        let slot = block.addr >> SLOT_BITS;
        let number = slot >> (TABLE_BITS + PAGE_BITS - SLOT_BITS);
        let table = self.tables.get_or_insert_with(number, || Table::new(number));
        table.changed = self.changes;
        let amount = &mut table.body_mut().slots[slot as usize % TABLE_SLOTS];
        if ADD {
            amount.add(block.size);
        } else {
            amount.sub(block.size);
        }
    }

    #[inline]
    fn page(&mut self, page: u64) -> &mut PageActivity {
        let number = page >> TABLE_BITS;
        let table = self.tables.get_or_insert_with(number, || Table::new(number));
        table.changed = self.changes;
        &mut table.body_mut().pages[page as usize % TABLE_PAGES]
    }

    #[cold]
    fn note_span<const ADD: bool>(&mut self, now: Tick, pages: Range<u64>) {
        let is_new = !self.spans.contains_key(&(pages.start, pages.end));
        let span = self.spans.entry((pages.start, pages.end)).or_default();
        span.changed = self.changes;
        if ADD {
            self.dead -= usize::from(span.live == 0 && !is_new);
            span.live += 1;
        } else {
            span.live = span.live.saturating_sub(1);
            self.dead += usize::from(span.live == 0);
        }
        span.activity.note::<ADD>(now, span.live == 0);
        if self.dead > 2 * DEAD_SPANS {
            self.forget_spans();
        }
    }

    /// Lets the spans go that ended first.
    fn forget_spans(&mut self) {
        let mut ended: Vec<u64> = self.spans.values().filter(|span| span.live == 0).map(|span| span.changed).collect();
        let place = ended.len().saturating_sub(DEAD_SPANS);
        let (_, &mut oldest, _) = ended.select_nth_unstable(place);
        self.spans.retain(|_, span| span.live > 0 || span.changed >= oldest);
        self.dead = self.spans.values().filter(|span| span.live == 0).count();
        self.everywhere = self.changes;
    }

    /// Lets the tables go that have no blocks and were changed first.
    #[cold]
    fn forget_tables(&mut self, pages: &Pages) {
        let is_used = |table: &Table| {
            pages.table(table.number).is_some() || table.body().slots.iter().any(|slot| slot.blocks > 0)
        };
        let mut empty: Vec<u64> = Vec::new();
        let mut used = 0;
        for (_, table) in self.tables.iter() {
            if is_used(table) {
                used += 1;
            } else {
                empty.push(table.changed);
            }
        }
        if empty.len() > EMPTY_TABLES / 2 {
            let place = empty.len() - EMPTY_TABLES / 2;
            let (_, &mut oldest, _) = empty.select_nth_unstable(place);
            self.tables.retain(|table| is_used(table) || table.changed >= oldest);
            self.everywhere = self.changes;
        }
        self.most_tables = 2 * used + EMPTY_TABLES;
    }
}

/// The pages on which a block is noted one by one, and those noted as a span.
#[inline]
fn touched(footprint: Footprint, block: &Block) -> (impl Iterator<Item = u64> + use<>, Range<u64>) {
    let taken = footprint.of(block.addr, block.size);
    if taken.is_empty() {
        return ((0..0).chain(0..0), 0..0);
    }
    let (first, last) = (taken.start >> PAGE_BITS, (taken.end - 1) >> PAGE_BITS);
    let behind = last + 1;
    if last - first <= MOST_FILLED + 1 {
        ((first..behind).chain(0..0), 0..0)
    } else {
        let second = first + 1;
        ((first..second).chain(last..behind), second..last)
    }
}

#[cfg(test)]
mod tests;
