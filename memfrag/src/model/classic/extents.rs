//! Runs of pages by first fit. What is given back stays resident for a while, by the time of the events, and can be used
//! again meanwhile.

use super::driven::joined;
use crate::arena::FreeList;
use crate::heap::MAX_SIZE;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const PAGE: u64 = 4096;
/// Where addresses begin and end.
const START: u64 = 1 << 30;
const END: u64 = 1 << 62;

#[derive(Clone, Debug)]
pub(super) struct Extents {
    /// Addresses that nobody has.
    list: FreeList,
    /// Of them those that are still resident: end, and when they were given back, by start.
    dirty: BTreeMap<u64, (u64, u64)>,
    /// When which of them was given back.
    order: BTreeSet<(u64, u64)>,
    /// Nanoseconds that they stay.
    decay: u64,
    active: u64,
    dirty_bytes: u64,
}

impl Extents {
    /// None yet. With a decay of 0 nothing stays.
    pub(super) fn new(decay: u64) -> Self {
        Self {
            list: FreeList::new(START..END),
            dirty: BTreeMap::new(),
            order: BTreeSet::new(),
            decay,
            active: 0,
            dirty_bytes: 0,
        }
    }

    /// Takes a run of whole pages.
    pub(super) fn take(&mut self, time: u64, bytes: u64, align: u64) -> Option<u64> {
        self.purge(time);
        let bytes = Self::rounded(bytes)?;
        let start = self.list.allocate(bytes, align.max(PAGE))?;
        self.active += bytes;
        self.clean(start, start + bytes);
        Some(start)
    }

    /// Whole pages for so many bytes.
    pub(super) fn rounded(bytes: u64) -> Option<u64> {
        (bytes <= MAX_SIZE).then(|| bytes.max(1).next_multiple_of(PAGE))
    }

    /// Gives a run back.
    pub(super) fn release(&mut self, time: u64, start: u64, bytes: u64) {
        let released = self.list.release(start, bytes);
        debug_assert!(released.is_ok(), "{released:?}");
        self.active -= bytes;
        if self.decay > 0 {
            self.dirty.insert(start, (start + bytes, time));
            self.order.insert((time, start));
            self.dirty_bytes += bytes;
        }
        self.purge(time);
    }

    /// Bytes that are in use or still resident.
    pub(super) fn held(&self) -> u64 {
        self.active + self.dirty_bytes
    }

    /// The addresses of both, upwards.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = self.dirty.iter().map(|(&start, &(end, _))| start..end).collect();
        let mut at = START;
        for hole in self.list.holes() {
            ranges.push(at..hole.start);
            at = hole.end();
        }
        ranges.push(at..END);
        joined(ranges)
    }

    /// Bytes that nobody uses and that are still resident, the runs that they are in, and the largest of these.
    pub(super) fn dirty(&self) -> (u64, u64, u64) {
        let largest = self.dirty.iter().map(|(start, (end, _))| end - start).max();
        (self.dirty_bytes, self.dirty.len() as u64, largest.unwrap_or(0))
    }

    /// A range is in use and no longer dirty.
    fn clean(&mut self, start: u64, end: u64) {
        while let Some((&low, &(high, time))) =
            self.dirty.range(..end).next_back().filter(|(_, (high, _))| *high > start)
        {
            self.dirty.remove(&low);
            self.order.remove(&(time, low));
            self.dirty_bytes -= high - low;
            for rest in [low..start, end..high] {
                if rest.start < rest.end {
                    self.dirty.insert(rest.start, (rest.end, time));
                    self.dirty_bytes += rest.end - rest.start;
                    self.order.insert((time, rest.start));
                }
            }
        }
    }

    /// What has stayed for long enough goes.
    fn purge(&mut self, now: u64) {
        while let Some(&(time, start)) = self.order.first().filter(|(time, _)| now.saturating_sub(*time) >= self.decay)
        {
            self.order.remove(&(time, start));
            if let Some((end, _)) = self.dirty.remove(&start) {
                self.dirty_bytes -= end - start;
            }
        }
    }
}
