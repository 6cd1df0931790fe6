//! Which chunks lie where in time, and which events in which chunk, found without going over all of them.
//!
//! Chunks follow each other in the order in which they were written. The times in them nearly rise, and nothing here
//! relies on it.

use super::chunk::{ChunkHeader, kind};
use super::reader::Reader;

/// Chunks whose earliest time is kept as one.
const GROUP: usize = 256;

/// What is known of the times of all chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// The latest time up to the end of each chunk.
    latest: Vec<u64>,
    /// The earliest time in each group of chunks.
    earliest: Vec<u64>,
}

/// The earliest time in a chunk, if anything in it has a time.
fn earliest(header: &ChunkHeader) -> u64 {
    if matches!(header.kind, kind::EVENTS | kind::NOTES) { header.first_time } else { u64::MAX }
}

impl Times {
    pub(super) fn add(&mut self, header: &ChunkHeader) {
        if self.latest.len().is_multiple_of(GROUP) {
            self.earliest.push(u64::MAX);
        }
        let latest = self.latest.last().copied().unwrap_or(0);
        self.latest.push(latest.max(header.last_time));
        if let Some(group) = self.earliest.last_mut() {
            *group = earliest(header).min(*group);
        }
    }
}

impl Reader {
    /// How many chunks it takes to see everything up to a time: behind those all is later.
    pub fn end_of(&self, time: u64) -> usize {
        let Some(group) = self.times.earliest.iter().rposition(|&earliest| earliest <= time) else { return 0 };
        let start = group * GROUP;
        let chunks = &self.entries()[start..self.chunk_count().min(start + GROUP)];
        chunks.iter().rposition(|entry| earliest(&entry.header) <= time).map_or(start, |last| start + last + 1)
    }

    /// How many chunks lie before the first one in which something is later than a time.
    pub fn start_of(&self, time: u64) -> usize {
        self.times.latest.partition_point(|&latest| latest <= time)
    }

    /// How many events were given to the recording before those that are later than a time, about.
    pub fn event_at(&self, time: u64) -> u64 {
        let until = &self.entries()[..self.end_of(time)];
        let last = until.iter().rev().map(|entry| &entry.header).find(|header| header.kind == kind::EVENTS);
        last.map_or(0, |header| header.first_event + u64::from(header.items))
    }

    /// How many events were given to the recording before the end of its last chunk of them, those missing included.
    pub fn last_event(&self) -> u64 {
        self.event_at(u64::MAX)
    }

    /// The number of the chunk in which an event of a number is, or would be, counted from 0.
    pub fn chunk_of(&self, event: u64) -> usize {
        self.entries().partition_point(|entry| entry.header.first_event <= event).saturating_sub(1)
    }

    /// About how many events a second were recorded in the second before a time, as the headers of the chunks tell.
    /// `chunk` is the one behind those that are looked at.
    pub fn rate_at(&self, chunk: usize, time: u64) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        /// More chunks than are written in a second.
        const LOOKED_AT: usize = 1024;
        let from = time.saturating_sub(SECOND);
        let before = &self.entries()[..chunk.min(self.chunk_count())];
        let headers = before.iter().rev().take(LOOKED_AT).map(|entry| &entry.header);
        let events = headers.filter(|header| header.kind == kind::EVENTS && header.last_time > from);
        let shares = events.map(|header| {
            let length = |first: u64, last: u64| u128::from(last.saturating_sub(first)) + 1;
            let within = length(header.first_time.max(from), header.last_time.min(time));
            let all = length(header.first_time, header.last_time);
            if header.first_time > time { 0 } else { u128::from(header.items) * within.min(all) / all }
        });
        u64::try_from(shares.sum::<u128>()).unwrap_or(u64::MAX)
    }
}
