//! Going over a recording.

use super::cursor::{Cursor, Limit, Mark, Next};
use super::notes::End;
use super::reader::{Damage, Reader};
use crate::capture::Counters;
use crate::glibc::Layout;
use crate::target::{Mapping, MemorySample, ProcessInfo, Residency};
use memfrag_common::Event;
use std::ops::Range;

/// A part of a recording.
#[derive(Debug)]
pub enum Item<'a> {
    /// The next events, in the order in which they were recorded.
    Events(&'a [Event]),
    /// A process appeared, or became another program.
    Process(ProcessInfo),
    /// The mappings of a process.
    Mappings {
        /// Nanoseconds since the trace began.
        time: u64,
        /// Process id.
        pid: u32,
        /// All of them.
        mappings: Vec<Mapping>,
    },
    /// A reading of a process's memory.
    Memory(MemorySample),
    /// Which pages of a process were resident.
    Residency(Residency),
    /// A process's glibc heap as it lay in memory.
    Layout {
        /// Nanoseconds since the trace began.
        time: u64,
        /// Process id.
        pid: u32,
        /// The heap.
        layout: Layout,
    },
    /// What the backend had counted since the trace began.
    Counters {
        /// Nanoseconds since the trace began.
        time: u64,
        /// The process; `None` for the whole backend.
        pid: Option<u32>,
        /// The counters.
        counters: Counters,
    },
    /// Events that were recorded here, and that damage to the file took.
    Missing {
        /// How many.
        events: u64,
    },
    /// How the recording ended.
    End(End),
}

/// The parts of a recording one after another; see [`Reader::items`].
#[derive(Debug)]
pub struct Items<'a> {
    reader: &'a Reader,
    cursor: Cursor,
    limit: Limit,
}

impl<'a> Items<'a> {
    pub(super) fn new(reader: &'a Reader, times: Option<Range<u64>>) -> Self {
        let mut cursor = Cursor::new(reader);
        let mut limit = Limit::default();
        if let Some(times) = times {
            match times.end.checked_sub(1) {
                Some(last) => cursor.keep_to(times.start..=last),
                // Nothing comes before the beginning.
                None => limit.chunk = 0,
            }
        }
        Self { reader, cursor, limit }
    }

    pub(super) fn from(reader: &'a Reader, mark: &Mark, until: Option<u64>) -> Self {
        let (mut cursor, mut limit) = (Cursor::at(mark), Limit::default());
        if let Some(time) = until {
            cursor.keep_to(0..=time);
            limit.chunk = reader.end_of(time);
        }
        Self { reader, cursor, limit }
    }

    pub(super) fn until(reader: &'a Reader, time: u64) -> Self {
        let mut cursor = Cursor::new(reader);
        cursor.keep_to(0..=time);
        Self { reader, cursor, limit: Limit { chunk: reader.end_of(time), ..Limit::default() } }
    }

    /// The damage found so far, that found on opening included.
    pub const fn damage(&self) -> Damage {
        self.cursor.damage()
    }

    /// Chunks read so far.
    pub(super) const fn chunks_read(&self) -> u64 {
        self.cursor.chunks_read()
    }

    /// The next part; `None` at the end. The events borrow from `self`: their room is used again.
    pub fn next_item(&mut self) -> Option<Item<'_>> {
        match self.cursor.next(self.reader, &self.limit) {
            Next::Item(item) => Some(item),
            Next::Beyond | Next::End => None,
        }
    }
}
