//! One heap: what is live in an address space, and how it came to be.

use super::activity::Activity;
use super::blocks::{Block, Blocks, MAX_SIZE};
use super::footprint::Footprint;
use super::growth::{Growths, Segment};
use super::lifetimes::Lifetimes;
use super::maps::MapTotals;
use super::origin::{Origin, OriginId, OriginTotals, Origins};
use super::pages::Pages;
use super::past::Pasts;
use super::readings::Readings;
use super::reconcile::Older;
use super::requests::Requests;
use super::thread::PendingRealloc;
use super::timeline::{Point, Timeline};
use super::totals::{Amount, Anomalies, Functions, Peak, Totals};
use crate::glibc::layout::HEADER;
use memfrag_common::Function;
use std::ops::Range;

mod saved;

/// The heap of one address space.
#[derive(Debug)]
pub struct Heap {
    pub(super) blocks: Blocks,
    pub(super) pages: Pages,
    origins: Origins,
    pub(super) live: Amount,
    pub(super) older: Older,
    /// Bytes that those take by the heap's rule.
    older_taken: u64,
    pub(super) totals: Totals,
    functions: Functions,
    peak: Peak,
    inherited: Amount,
    discarded: Amount,
    pub(super) anomalies: Anomalies,
    pub(super) damaged_at: Option<u64>,
    pub(super) maps: MapTotals,
    timeline: Timeline,
    readings: Readings,
    requests: Requests,
    /// Counted only where it is asked for.
    lifetimes: Option<Box<Lifetimes>>,
    pub(super) segment: Segment,
    /// Kept while somebody watches.
    activity: Option<Box<Activity>>,
    pub(super) pasts: Pasts,
    /// The time of the last event.
    now: u64,
    /// Processes that act on it and have not ended.
    pub(super) users: u32,
}

/// An allocator call that gives a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) time: u64,
    pub(super) tid: u32,
    pub(super) addr: u64,
    pub(super) size: u64,
    pub(super) origin: Origin,
}

impl Heap {
    pub(super) fn new(time: u64) -> Self {
        Self {
            blocks: Blocks::default(),
            pages: Pages::default(),
            origins: Origins::default(),
            live: Amount::default(),
            older: Older::default(),
            older_taken: 0,
            totals: Totals::default(),
            functions: Functions::default(),
            peak: Peak { time, live: Amount::default() },
            inherited: Amount::default(),
            discarded: Amount::default(),
            anomalies: Anomalies::default(),
            damaged_at: None,
            maps: MapTotals::default(),
            timeline: Timeline::new(time, Amount::default()),
            readings: Readings::default(),
            requests: Requests::default(),
            lifetimes: None,
            segment: Segment::default(),
            activity: None,
            pasts: Pasts::default(),
            now: time,
            users: 1,
        }
    }

    /// The copy that a forked process starts with. Its sums begin at zero; its blocks are inherited. Nobody watches it
    /// yet.
    pub(super) fn fork(&mut self, time: u64) -> Self {
        Self {
            blocks: self.blocks.fork(),
            pages: self.pages.fork(),
            segment: self.segment.fork(),
            origins: self.origins.fork(),
            live: self.live,
            older: self.older.fork(),
            older_taken: self.older_taken,
            peak: Peak { time, live: self.live },
            inherited: self.live,
            // What the parent's stream lacks, the child's copy lacks as well.
            damaged_at: self.damaged_at.map(|_| time),
            timeline: Timeline::new(time, self.live),
            lifetimes: self.lifetimes.as_ref().map(|_| Box::default()),
            ..Self::new(time)
        }
    }

    /// A second handle on the same state: see [`Heaps::share`](super::Heaps::share).
    pub(super) fn share(&mut self) -> Self {
        Self {
            blocks: self.blocks.fork(),
            pages: self.pages.share(),
            origins: self.origins.clone(),
            older: self.older.fork(),
            functions: self.functions.clone(),
            timeline: self.timeline.clone(),
            requests: self.requests.clone(),
            activity: self.activity.as_mut().map(|activity| Box::new(activity.share())),
            pasts: self.pasts.clone(),
            lifetimes: self.lifetimes.clone(),
            ..*self
        }
    }

    /// Nobody acts on it any more: gives up what only makes changes quick. What it tells stays the same.
    pub(super) fn rest(&mut self) {
        self.blocks.rest();
        self.pages.rest();
        self.older.rest();
        self.origins.rest();
        self.timeline.rest();
    }

    /// The live blocks.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// How full the pages are with live blocks, [those that no event told of](Self::older) included.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// What happened lately on its pages; `None` unless it is [watched](super::Heaps::watch).
    pub fn activity(&self) -> Option<&Activity> {
        self.activity.as_deref()
    }

    pub(super) fn watch(&mut self) {
        if self.activity.is_none() {
            let blocks = self.blocks.iter().chain(self.older.iter());
            self.activity = Some(Box::new(Activity::new(self.pages.footprint(), blocks)));
        }
    }

    pub(super) fn unwatch(&mut self) {
        self.activity = None;
    }

    /// The live blocks of which a part lies within `range`, and [those that no event told of](Self::older), in order
    /// of their addresses.
    pub fn overlapping(&self, range: Range<u64>) -> Vec<Block> {
        let footprint = self.pages.footprint();
        let touches = |block: &Block| {
            let taken = footprint.of(block.addr, block.size);
            !taken.is_empty() && taken.start < range.end && range.start < taken.end
        };
        let nearby = range.start.saturating_sub(Pages::REACH)..range.end.saturating_add(HEADER);
        let far = self.pages.large_within(&range).filter(|addr| !nearby.contains(addr));
        let far = far.filter_map(|addr| self.blocks.get(addr).or_else(|| self.older().get(addr)));
        let near = [&self.blocks, self.older()].into_iter().flat_map(|all| all.range(nearby.start, nearby.end));
        let mut found: Vec<Block> = far.chain(near).filter(touches).collect();
        found.sort_unstable_by_key(|block| block.addr);
        found
    }

    /// As [`Self::overlapping`], those blocks aside that [fill many pages](Pages::is_large).
    pub fn small_overlapping(&self, range: Range<u64>) -> impl Iterator<Item = Block> + '_ {
        let nearby = range.start.saturating_sub(Pages::REACH)..range.end.saturating_add(HEADER);
        let touches = move |block: &Block| {
            let taken = self.pages.footprint().of(block.addr, block.size);
            let touches = !taken.is_empty() && taken.start < range.end && range.start < taken.end;
            touches && !self.pages.is_large(block.addr, block.size)
        };
        let all = [&self.blocks, self.older()].into_iter();
        all.flat_map(move |all| all.range(nearby.start, nearby.end)).filter(touches)
    }

    /// How much is live. Old blocks of reallocations under way are not.
    pub fn live(&self) -> Amount {
        self.live
    }

    /// The sums of its life.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What each function of the allocator did.
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// When most was live.
    pub fn peak(&self) -> Peak {
        self.peak
    }

    /// What a fork handed down.
    pub fn inherited(&self) -> Amount {
        self.inherited
    }

    /// What was live when the process started another program: gone with the old one, and no leak.
    pub fn discarded(&self) -> Amount {
        self.discarded
    }

    /// What a complete stream of events would not have shown.
    pub fn anomalies(&self) -> Anomalies {
        self.anomalies
    }

    /// Since when events are missing, so that everything from then on may be off; `None` when none are.
    pub fn damaged_at(&self) -> Option<u64> {
        self.damaged_at
    }

    /// What the mapping calls add up to.
    pub fn maps(&self) -> MapTotals {
        self.maps
    }

    /// Where a block came from.
    pub fn origin(&self, id: OriginId) -> Option<&Origin> {
        self.origins.get(id).map(|(origin, _)| origin)
    }

    /// All origins with what the process allocated through them.
    pub fn origins(&self) -> impl Iterator<Item = (OriginId, &Origin, &OriginTotals)> {
        self.origins.iter()
    }

    /// When the timeline begins, how wide a point is (both in nanoseconds), and the points, the last still under way.
    pub fn timeline(&self) -> (u64, u64, Vec<Point>) {
        self.timeline.described(self.live, self.taken_bytes(), &self.totals)
    }

    /// As [`Self::timeline`], with the time that has passed since without an event.
    pub fn timeline_at(&self, now: u64) -> (u64, u64, Vec<Point>) {
        let mut timeline = self.timeline.clone();
        timeline.advance(now, self.live, self.taken_bytes(), &self.totals);
        timeline.described(self.live, self.taken_bytes(), &self.totals)
    }

    /// Bytes that the live blocks take by the heap's rule, those that no event told of aside.
    pub fn taken_bytes(&self) -> u64 {
        self.pages.bytes().wrapping_sub(self.older_taken)
    }

    /// What the readings of the process's memory add up to.
    pub fn readings(&self) -> &Readings {
        &self.readings
    }

    /// The growths of the heap segment.
    pub fn growths(&self) -> Growths {
        self.segment.growths
    }

    /// How large the requests were that the process itself made.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// How long freed blocks have lived; `None` where that is [not counted](super::Heaps::count_lifetimes).
    pub fn lifetimes(&self) -> Option<&Lifetimes> {
        self.lifetimes.as_deref()
    }

    pub(super) fn count_lifetimes(&mut self) {
        self.lifetimes.get_or_insert_default();
    }

    #[inline]
    fn lived(&mut self, block: &Block, time: u64) {
        if let Some(lifetimes) = &mut self.lifetimes {
            lifetimes.count(block.thread, time.saturating_sub(block.time));
        }
    }

    /// Bytes that a [second handle](Self::share) keeps once this one has gone on: what nobody shares yet, and what every
    /// handle has for itself.
    pub(super) fn own_bytes(&self) -> u64 {
        let tables = self.blocks.own_bytes() + self.older.own_bytes() + self.pages.own_bytes();
        let activity = self.activity.as_ref().map_or(0, |activity| activity.memory_bytes());
        tables + activity + self.origins.memory_bytes() + self.timeline.memory_bytes() + size_of::<Self>() as u64
    }

    /// Bytes of memory that this state takes, tables included.
    pub fn memory_bytes(&self) -> u64 {
        let blocks = self.blocks.memory_bytes() + self.older.memory_bytes();
        let activity = self.activity.as_ref().map_or(0, |activity| activity.memory_bytes());
        let course = self.timeline.memory_bytes() + self.requests.memory_bytes() + self.pasts.memory_bytes();
        blocks + self.pages.memory_bytes() + self.origins.memory_bytes() + course + activity + size_of::<Self>() as u64
    }

    /// Takes the rule by which blocks take memory.
    pub(super) fn set_footprint(&mut self, footprint: Footprint) {
        if footprint != self.pages.footprint() {
            self.enter_blocks(footprint);
        }
    }

    /// Enters all blocks in the pages anew.
    pub(super) fn enter_blocks(&mut self, footprint: Footprint) {
        self.pages.set_footprint(footprint, self.blocks.iter().chain(self.older.iter()));
        self.segment.count_anew(footprint, self.blocks.iter());
        if let Some(activity) = &mut self.activity {
            activity.enter_anew(footprint, self.blocks.iter().chain(self.older.iter()));
        }
        self.older_taken = self.older.iter().map(|block| footprint.bytes(block.addr, block.size)).sum();
    }

    /// Sends for a block and its page, or for the places where they would go.
    #[inline]
    pub(super) fn send_for(&self, addr: u64) {
        self.blocks.send_for(addr);
        self.pages.send_for(addr);
        if let Some(activity) = &self.activity {
            activity.send_for(addr);
        }
    }

    #[inline]
    pub(super) fn advance(&mut self, time: u64) {
        self.now = time;
        self.timeline.advance(time, self.live, self.pages.bytes().wrapping_sub(self.older_taken), &self.totals);
    }

    pub(super) fn sample(&mut self, sample: &crate::target::MemorySample) {
        self.advance(sample.time);
        self.timeline.sample(sample);
        self.readings.add(sample, self.live.bytes, self.taken_bytes());
    }

    /// An allocation has returned.
    pub(super) fn alloc(&mut self, call: &Call) {
        let failed = call.addr == 0;
        let size = call.size.min(MAX_SIZE);
        self.functions.called(call.origin.function, failed, if failed { 0 } else { size });
        if failed {
            return;
        }
        self.totals.allocations += 1;
        if self.place(call, size) {
            self.anomalies.missed_frees += 1;
        }
    }

    /// A block is freed.
    pub(super) fn free(&mut self, time: u64, function: Function, addr: u64) {
        self.totals.frees += 1;
        let freed = if let Some(block) = self.take(addr) {
            self.totals.freed_bytes = self.totals.freed_bytes.wrapping_add(block.size);
            self.lived(&block, time);
            block.size
        } else {
            self.anomalies.unmatched_frees += u64::from(self.take_older(addr).is_none());
            0
        };
        self.functions.called(function, false, freed);
    }

    /// A reallocation begins: the old block leaves the live ones and is handed out for keeping.
    pub(super) fn realloc_begin(&mut self, addr: u64) -> Option<Block> {
        let old = self.take(addr);
        if addr != 0 && old.is_none() {
            self.anomalies.unmatched_reallocs += u64::from(self.take_older(addr).is_none());
        }
        old
    }

    /// A reallocation has ended; `begun` is its beginning, if that was seen.
    pub(super) fn realloc_end(&mut self, begun: Option<PendingRealloc>, call: &Call) {
        let size = call.size.min(MAX_SIZE);
        let had_old = begun.is_none_or(|begun| begun.addr != 0);
        let freed = call.addr == 0 && size == 0 && had_old;
        let failed = call.addr == 0 && !freed;
        self.functions.called(call.origin.function, failed, if failed { 0 } else { size });
        self.anomalies.realloc_without_begin += u64::from(begun.is_none());
        if failed {
            if let Some(begun) = begun {
                self.restore(&begun, call.time);
            }
            return;
        }
        match (freed, had_old) {
            (true, _) => self.totals.frees += 1,
            (false, true) => self.totals.reallocations += 1,
            (false, false) => self.totals.allocations += 1,
        }
        if let Some(old) = begun.and_then(|begun| begun.old) {
            self.totals.freed_bytes = self.totals.freed_bytes.wrapping_add(old.size);
            self.lived(&old, call.time);
        }
        // Without its beginning, a block found at the new address is most likely the old one, resized in place.
        if !freed && self.place(call, size) && begun.is_some() {
            self.anomalies.missed_frees += 1;
        }
    }

    /// A reallocation will not end: its old block counts as freed.
    pub(super) fn give_up(&mut self, begun: &PendingRealloc) {
        self.anomalies.realloc_without_end += 1;
        if let Some(old) = begun.old {
            self.totals.freed_bytes = self.totals.freed_bytes.wrapping_add(old.size);
        }
    }

    /// A reallocation came to nothing: its old block lives on, unless its address was handed out again.
    pub(super) fn restore(&mut self, begun: &PendingRealloc, time: u64) {
        let Some(old) = begun.old else { return };
        if self.blocks.get(old.addr).is_some() {
            self.anomalies.restore_conflicts += 1;
            self.totals.freed_bytes = self.totals.freed_bytes.wrapping_add(old.size);
            return;
        }
        self.blocks.insert(&old);
        self.note_past(&old, true, true);
        self.enter(&old);
        self.live.add(old.size);
        self.rose(time);
    }

    /// The process starts another program. `under_way` are the reallocations that other threads had begun.
    pub(super) fn discard(&mut self, under_way: &[PendingRealloc]) {
        self.discarded.blocks += self.live.blocks;
        self.discarded.bytes = self.discarded.bytes.wrapping_add(self.live.bytes);
        under_way.iter().filter_map(|begun| begun.old).for_each(|old| self.discarded.add(old.size));
        self.keep_past();
        self.blocks.clear();
        self.pages.clear();
        if self.activity.take().is_some() {
            // Another program begins, and what was where in the one before is of no use.
            let footprint = self.pages.footprint();
            self.activity = Some(Box::new(Activity::new(footprint, std::iter::empty())));
        }
        self.segment.begin_anew();
        self.maps.begin_anew();
        self.live = Amount::default();
        self.older = Older::default();
        self.older_taken = 0;
    }

    /// Events were lost.
    pub(super) fn gap(&mut self, time: u64, lost: u64) {
        self.anomalies.gaps += 1;
        self.anomalies.lost_events = self.anomalies.lost_events.saturating_add(lost);
        self.damaged_at.get_or_insert(time);
    }

    pub(super) fn take(&mut self, addr: u64) -> Option<Block> {
        let block = self.blocks.remove(addr)?;
        self.note_past(&block, false, true);
        self.leave(&block);
        self.live.sub(block.size);
        Some(block)
    }

    /// A block was put into the tables, or taken out of them.
    #[inline]
    fn note_past(&mut self, block: &Block, came: bool, told: bool) {
        if !self.pasts.note(block, came, told) {
            self.keep_past();
        }
    }

    /// A block has become live.
    #[inline]
    fn enter(&mut self, block: &Block) {
        self.pages.add(block.addr, block.size);
        self.segment.add(block.thread, block.addr, block.size, self.pages.footprint());
        if let Some(activity) = &mut self.activity {
            activity.note::<true>(self.now, block, &self.pages);
        }
    }

    /// A block is live no more.
    #[inline]
    fn leave(&mut self, block: &Block) {
        self.pages.remove(block.addr, block.size);
        self.segment.remove(block.addr, block.size, self.pages.footprint());
        if let Some(activity) = &mut self.activity {
            activity.note::<false>(self.now, block, &self.pages);
        }
    }

    /// The end of the heap segment was set by a thread.
    pub(super) fn brk(&mut self, tid: u32, end: u64) {
        self.maps.brk(end);
        self.segment.set_end(tid, end, &self.pages);
    }

    /// Takes out a block that no event had told of.
    fn take_older(&mut self, addr: u64) -> Option<Block> {
        let block = self.older.take(addr)?;
        self.note_past(&block, false, false);
        self.pages.remove(addr, block.size);
        if let Some(activity) = &mut self.activity {
            activity.note::<false>(self.now, &block, &self.pages);
        }
        self.older_taken = self.older_taken.wrapping_sub(self.pages.footprint().bytes(addr, block.size));
        Some(block)
    }

    /// Makes a block live; true when it closed another one at its address.
    fn place(&mut self, call: &Call, size: u64) -> bool {
        let origin = self.origins.count(call.origin, size);
        self.requests.add(size);
        self.totals.requested_bytes = self.totals.requested_bytes.wrapping_add(size);
        let block = Block { addr: call.addr, size, time: call.time, thread: call.tid, origin };
        let closed = self.blocks.insert(&block);
        if let Some(closed) = closed {
            self.totals.freed_bytes = self.totals.freed_bytes.wrapping_add(closed.size);
            self.live.sub(closed.size);
            self.note_past(&closed, false, true);
            self.leave(&closed);
        }
        self.note_past(&block, true, true);
        match self.take_older(call.addr) {
            // The walk had seen the chunk before the event came.
            Some(block) if self.older.is_stray(&block) => {
                self.anomalies.missed_allocations = self.anomalies.missed_allocations.saturating_sub(1);
            }
            // Its free was under way when the trace began, or is among the lost events.
            Some(_) | None => {}
        }
        self.live.add(size);
        self.enter(&block);
        self.rose(call.time);
        closed.is_some()
    }

    #[inline]
    fn rose(&mut self, time: u64) {
        if self.live.bytes > self.peak.live.bytes {
            self.peak = Peak { time, live: self.live };
        }
        self.timeline.rose(self.live.bytes);
    }
}
