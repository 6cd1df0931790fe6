//! From released records to batches of events.

use super::clock::Ticker;
use crate::capture::Sink;
use memfrag_common::event::{Event, Op};
use memfrag_common::{Kind, Record};
use std::collections::{HashMap, HashSet};

/// Events of one batch: few enough to stay in the nearest cache until the sink has gone over them.
const BATCH: usize = 256;

/// Collects events, and what must be known of those before to tell each thing once.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) ticker: Ticker,
    batch: Vec<Event>,
    /// Time of the last event; none goes before it.
    last: u64,
    /// Events handed to the sink.
    pub(crate) events: u64,
    /// Events that came after a later one had been released.
    pub(crate) late: u64,
    /// Records of an unknown kind.
    pub(crate) unknown: u64,
    /// Children whose fork the parent's ring told before they appeared, and who that is.
    pub(crate) told: HashMap<u32, u32>,
    /// Children that appeared before the parent's ring told of them.
    pub(crate) appeared: HashSet<u32>,
}

impl Output {
    pub(crate) fn new(ticker: Ticker) -> Self {
        Self {
            ticker,
            batch: Vec::with_capacity(BATCH),
            last: 0,
            events: 0,
            late: 0,
            unknown: 0,
            told: HashMap::new(),
            appeared: HashSet::new(),
        }
    }

    /// Time of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// A record that was released, in order.
    #[inline]
    pub(crate) fn record(&mut self, record: &Record, stamp: u64, sink: &mut dyn Sink) {
        let mut time = self.ticker.nanoseconds(stamp);
        if time < self.last {
            self.late += 1;
            time = self.last;
        }
        self.last = time;
        if record.kind == Kind::Fork as u8 && !self.first_word_of(record.addr as u32, record.pid) {
            return;
        }
        match Event::decode(record, time) {
            Some(event) => self.push(event, sink),
            None => self.unknown += 1,
        }
    }

    /// Whether a fork in the parent's ring is news.
    fn first_word_of(&mut self, child: u32, parent: u32) -> bool {
        let news = !self.appeared.remove(&child);
        if news {
            self.told.insert(child, parent);
        }
        news
    }

    /// Something that no ring told, at `stamp` or, if that has passed, now.
    pub(crate) fn remark(&mut self, stamp: u64, pid: u32, tid: u32, op: Op, sink: &mut dyn Sink) {
        self.last = self.last.max(self.ticker.nanoseconds(stamp));
        self.push(Event { time: self.last, pid, tid, op }, sink);
    }

    #[inline]
    fn push(&mut self, event: Event, sink: &mut dyn Sink) {
        self.batch.push(event);
        if self.batch.len() == BATCH {
            self.flush(sink);
        }
    }

    /// Hands on what has been collected.
    pub(crate) fn flush(&mut self, sink: &mut dyn Sink) {
        if !self.batch.is_empty() {
            self.events += self.batch.len() as u64;
            sink.events(&self.batch);
            self.batch.clear();
        }
    }
}
