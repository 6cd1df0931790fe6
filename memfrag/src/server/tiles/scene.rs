//! What a frame is drawn from: a heap and the resident pages, made ready for questions about parts of them.

use super::mode::Mode;
use crate::analysis::ResidentPages;
use crate::analysis::regions::united;
use crate::heap::{Activity, Block, Heap, PageActivity, Record, TABLE_PAGES, Tick, cooled};
use crate::target::residency::PAGE;
use std::ops::Range;

/// How long a page counts as just freed, in milliseconds.
const JUST_MS: u32 = 1000;

/// The pages of a table as bits.
pub(super) type Bits = [u64; TABLE_PAGES / 64];

/// Neighbouring pages that the same blocks of many pages fill, or filled lately.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) pages: Range<u64>,
    /// Whether a block fills them now.
    pub(super) live: bool,
    /// The heat that they have on account of such blocks.
    pub(super) heat: f32,
    pub(super) allocated: Tick,
    pub(super) freed: Tick,
}

/// Pages of 2 MiB.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) number: u64,
    pub(super) records: Option<&'a [Record]>,
    pub(super) activity: Option<&'a [PageActivity]>,
}

/// A heap at a moment.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) heap: &'a Heap,
    pub(super) activity: Option<&'a Activity>,
    pub(super) resident: Option<&'a ResidentPages>,
    /// When the resident pages were looked at.
    looked: Tick,
    /// In nanoseconds.
    pub(super) time: u64,
    pub(super) now: Tick,
    /// Tables on whose pages something is, or happened; by number.
    tables: Vec<u64>,
    /// Pages that blocks fill together with many others, upwards, none touching the next.
    filled: Vec<Range<u64>>,
    segments: Vec<Segment>,
    /// These blocks, with the memory that they take and the end of all up to each, where the mode asks for blocks.
    large: Vec<(Range<u64>, Block)>,
    large_ends: Vec<u64>,
}

impl<'a> Scene<'a> {
    /// The part of a heap that lies on `pages`.
    pub(super) fn new(
        heap: &'a Heap,
        resident: Option<(&'a ResidentPages, u64)>,
        time: u64,
        pages: &Range<u64>,
        with_blocks: bool,
    ) -> Self {
        let touches = |of: &Range<u64>| of.start < pages.end && pages.start < of.end;
        let activity = heap.activity();
        let mut tables: Vec<u64> = heap.pages().tables().collect();
        tables.extend(activity.into_iter().flat_map(Activity::tables));
        tables.retain(|table| touches(&table_pages(*table)));
        tables.sort_unstable();
        tables.dedup();
        let now = Tick::at(time);
        let large_blocks = heap.pages().filled().filter(|(_, filled)| {
            // The first and the last page lie beside the filled ones.
            touches(&(filled.start - 1..filled.end + 1))
        });
        let mut filled = Vec::new();
        let mut large = Vec::new();
        for (addr, pages) in large_blocks {
            let block = with_blocks.then(|| heap.blocks().get(addr).or_else(|| heap.older().get(addr))).flatten();
            large.extend(block.map(|block| (heap.pages().footprint().of(addr, block.size), block)));
            filled.push(pages);
        }
        large.sort_unstable_by_key(|(taken, block)| (taken.start, block.addr));
        let large_ends = large.iter().scan(0, |end: &mut u64, (taken, _)| {
            *end = taken.end.max(*end);
            Some(*end)
        });
        let spans = activity.into_iter().flat_map(Activity::spans).filter(|(span, ..)| touches(span));
        let segments = segments(spans.map(|(span, live, activity)| Segment {
            pages: span,
            live,
            heat: activity.heat(now),
            allocated: activity.allocated,
            freed: activity.freed,
        }));
        Self {
            heap,
            activity,
            resident: resident.map(|(pages, _)| pages),
            looked: resident.map_or(Tick::NEVER, |(_, time)| Tick::at(time)),
            time,
            now,
            tables,
            filled: united(filled),
            segments,
            large_ends: large_ends.collect(),
            large,
        }
    }

    /// The tables of which a part lies on `pages`.
    pub(super) fn tables(&self, pages: &Range<u64>) -> &[u64] {
        let first = self.tables.partition_point(|&table| table_pages(table).end <= pages.start);
        let end = self.tables.partition_point(|&table| table_pages(table).start < pages.end);
        &self.tables[first..end.max(first)]
    }

    /// A table by its number.
    pub(super) fn table(&self, number: u64) -> Table<'a> {
        let activity = self.activity.and_then(|activity| activity.table(number));
        Table { number, records: self.heap.pages().table(number), activity }
    }

    /// The filled pages within `pages`.
    pub(super) fn filled(&self, pages: &Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let (start, end) = (pages.start, pages.end);
        let first = self.filled.partition_point(|filled| filled.end <= start);
        let touching = self.filled[first..].iter().take_while(move |filled| filled.start < end);
        touching.map(move |filled| filled.start.max(start)..filled.end.min(end))
    }

    /// The segments of which a part lies within `pages`, with that part.
    pub(super) fn segments(&self, pages: &Range<u64>) -> impl Iterator<Item = (Range<u64>, &Segment)> {
        let (start, end) = (pages.start, pages.end);
        let first = self.segments.partition_point(|segment| segment.pages.end <= start);
        let touching = self.segments[first..].iter().take_while(move |segment| segment.pages.start < end);
        touching.map(move |segment| (segment.pages.start.max(start)..segment.pages.end.min(end), segment))
    }

    /// The resident addresses within some.
    pub(super) fn resident(&self, bytes: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        self.resident.into_iter().flat_map(move |resident| resident.runs_in(bytes.clone()))
    }

    /// The blocks of many pages of which a part lies within `range`.
    pub(super) fn large(&self, range: &Range<u64>) -> impl Iterator<Item = &(Range<u64>, Block)> {
        let (start, end) = (range.start, range.end);
        let first = self.large_ends.partition_point(|&end| end <= start);
        let begun = self.large[first..].iter().take_while(move |(taken, _)| taken.start < end);
        begun.filter(move |(taken, _)| taken.end > start)
    }

    /// Which pages of a table blocks fill together with many others.
    pub(super) fn filled_bits(&self, table: u64) -> Bits {
        let pages = table_pages(table);
        let mut bits = Bits::default();
        self.filled(&pages).for_each(|run| set(&mut bits, run.start - pages.start..run.end - pages.start));
        bits
    }

    /// Which pages of a table are resident.
    pub(super) fn resident_bits(&self, table: u64) -> Bits {
        let pages = table_pages(table);
        let mut bits = Bits::default();
        for run in self.resident(pages.start * PAGE..pages.end * PAGE) {
            set(&mut bits, run.start / PAGE - pages.start..run.end.div_ceil(PAGE) - pages.start);
        }
        bits
    }

    /// Whether a page that holds nothing was freed within the last second, so that it shows as that.
    pub(super) fn is_just_freed(&self, freed: Tick) -> bool {
        freed != Tick::NEVER && freed.until(self.now) <= JUST_MS
    }

    /// When a page that was freed then shows as just freed no more.
    pub(super) fn settles(freed: Tick) -> Tick {
        freed.plus(JUST_MS + 1)
    }

    /// Whether nobody has looked since then which pages are resident. What was in use then is taken as resident.
    pub(super) fn is_unseen(&self, freed: Tick) -> bool {
        self.resident.is_none() || freed > self.looked
    }

    /// Whether this mode's cells are drawn from the blocks themselves.
    pub(super) fn takes_blocks(mode: Mode, has_pages: bool) -> bool {
        mode.has_palette() || (!has_pages && !matches!(mode, Mode::Heat | Mode::Resident))
    }
}

/// The pages of a table.
pub(super) const fn table_pages(number: u64) -> Range<u64> {
    number * TABLE_PAGES as u64..(number + 1) * TABLE_PAGES as u64
}

/// Whether a bit is set.
#[inline]
pub(super) const fn is_set(bits: &Bits, at: usize) -> bool {
    bits[at / 64] >> (at % 64) & 1 == 1
}

fn set(bits: &mut Bits, range: Range<u64>) {
    for (word, bits) in (0..).zip(bits.iter_mut()) {
        let start = range.start.clamp(word * 64, word * 64 + 64) - word * 64;
        let end = range.end.clamp(word * 64, word * 64 + 64) - word * 64;
        if start < end {
            *bits |= (u64::MAX >> (64 - (end - start))) << start;
        }
    }
}

/// Cuts spans that may overlap into segments that do not.
fn segments(spans: impl Iterator<Item = Segment>) -> Vec<Segment> {
    let spans: Vec<Segment> = spans.collect();
    let mut cuts: Vec<u64> = spans.iter().flat_map(|span| [span.pages.start, span.pages.end]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut segments: Vec<Segment> = Vec::with_capacity(cuts.len());
    let mut over: Vec<&Segment> = Vec::new();
    let mut next = spans.iter().peekable();
    for cut in cuts.windows(2) {
        let &[start, end] = cut else { continue };
        over.retain(|span| span.pages.end > start);
        while let Some(span) = next.next_if(|span| span.pages.start <= start) {
            over.push(span);
        }
        if over.is_empty() {
            continue;
        }
        segments.push(Segment {
            pages: start..end,
            live: over.iter().any(|span| span.live),
            heat: over.iter().map(|span| span.heat).sum(),
            allocated: over.iter().map(|span| span.allocated).max().unwrap_or_default(),
            freed: over.iter().map(|span| span.freed).max().unwrap_or_default(),
        });
    }
    segments
}

/// The heat of a moment at a later one.
pub(super) fn heat_then(heat: f32, at: Tick, then: Tick) -> f32 {
    cooled(heat, at.until(then))
}
