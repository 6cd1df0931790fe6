//! States of the heaps that were kept on the way, so that going back takes no replay from the beginning.

use super::place::Place;
use crate::recording::Mark;
use crate::report::ReportBuilder;
use std::collections::{BTreeMap, VecDeque};

/// Events between two kept states at first. To replay so many takes a fraction of a second.
const SPACING: u64 = 4 << 20;
/// Bytes that all kept states may take.
const MOST_BYTES: u64 = 1 << 30;
/// States kept beside those because somebody looked near them.
const NEAR: usize = 8;

/// States at places of a recording, by the number of the event that comes next.
#[derive(Debug)]
pub(super) struct States {
    kept: BTreeMap<u64, Kept>,
    /// Those that somebody looked near, the last one at the end.
    near: VecDeque<u64>,
    /// Events between two of the others: more than at first when there was too much to keep.
    spacing: u64,
    bytes: u64,
    most_bytes: u64,
}

impl Default for States {
    fn default() -> Self {
        let (kept, near) = (BTreeMap::new(), VecDeque::new());
        Self { kept, near, spacing: SPACING, bytes: 0, most_bytes: MOST_BYTES }
    }
}

#[derive(Debug)]
struct Kept {
    mark: Mark,
    builder: ReportBuilder,
    bytes: u64,
    is_near: bool,
}

impl States {
    /// Whether the state at an event would be worth keeping. What it shares with the heaps must be copied when they go
    /// on: of large heaps that is much, so there are as many events between two states as blocks.
    pub(super) fn wants(&self, event: u64, builder: &ReportBuilder) -> bool {
        let spaced = self.kept.range(..=event).rev().find(|(_, kept)| !kept.is_near);
        let since = event - spaced.map_or(0, |(&at, _)| at);
        since >= self.spacing && since >= builder.heaps().live_blocks()
    }

    /// Keeps a copy of a state; `is_near` when somebody looks at what comes soon after it.
    pub(super) fn keep(&mut self, mark: Mark, builder: &mut ReportBuilder, is_near: bool) {
        let event = mark.event();
        if self.kept.get(&event).is_some_and(|kept| is_near || !kept.is_near) {
            return;
        }
        // What is shared already counts for the state with which it is.
        let bytes = builder.heaps().own_bytes();
        let builder = builder.share();
        self.drop_at(event);
        self.kept.insert(event, Kept { mark, builder, bytes, is_near });
        self.bytes += bytes;
        if is_near {
            self.near.push_back(event);
            if self.near.len() > NEAR
                && let Some(oldest) = self.near.front().copied()
            {
                self.drop_at(oldest);
            }
        }
        while self.bytes > self.most_bytes && self.kept.len() > 1 {
            self.thin_out();
        }
    }

    /// The last state before which nothing is later than `time`, and which is not behind the event `event`.
    pub(super) fn last_before(&mut self, time: u64, event: u64) -> Option<Place> {
        let (_, kept) = self.kept.range_mut(..=event).rev().find(|(_, kept)| kept.mark.latest() <= time)?;
        Some(Place::at(&kept.mark, kept.builder.share()))
    }

    /// The number of the event at which [`Self::last_before`] would begin.
    pub(super) fn event_before(&self, time: u64, event: u64) -> Option<u64> {
        self.kept.range(..=event).rev().find(|(_, kept)| kept.mark.latest() <= time).map(|(&at, _)| at)
    }

    fn drop_at(&mut self, event: u64) {
        let Some(kept) = self.kept.remove(&event) else { return };
        self.near.retain(|&at| at != event);
        self.bytes -= kept.bytes;
        if let Some((_, next)) = self.kept.range_mut(event..).next() {
            // What the two have in common stays, and that is at least by how much the first had more.
            let more = kept.bytes.saturating_sub(next.bytes);
            next.bytes += more;
            self.bytes += more;
        }
    }

    /// Drops a state: the oldest that somebody looked near, else the one that is missed least.
    fn thin_out(&mut self) {
        if let Some(oldest) = self.near.front().copied() {
            return self.drop_at(oldest);
        }
        let before = std::iter::once(0).chain(self.kept.keys().copied());
        let gaps = before.zip(self.kept.keys().copied()).zip(self.kept.keys().copied().skip(1));
        // The gap that there will be without it; the last one stays, for it is where the recording goes on.
        if let Some((gap, event)) = gaps.map(|((before, at), after)| (after - before, at)).min() {
            self.spacing = self.spacing.max(gap);
            self.drop_at(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Sink;
    use memfrag_common::{Event, Function, Op};

    /// A builder that has gone on since it was shared last.
    fn go_on(builder: &mut ReportBuilder, time: u64) {
        let op = |addr| Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size: 8, site: 1, stack: 0 };
        let events = (0..100).map(|at| Event { time, pid: 1, tid: 1, op: op((at << 16) + 16 * (time % 8 + 1)) });
        builder.events(&events.collect::<Vec<_>>());
    }

    #[test]
    fn what_is_kept_is_spread_evenly_and_bounded() {
        let mut states = States { spacing: 10_000, most_bytes: 2_000_000, ..States::default() };
        let mut builder = ReportBuilder::new(None);
        let mut kept = 0;
        for turn in 1..=2000 {
            go_on(&mut builder, turn);
            // Other events than those of blocks come as well.
            let event = turn * 1000;
            if states.wants(event, &builder) {
                states.keep(Mark::new(event, event * 10), &mut builder, false);
                kept += 1;
            }
            assert!(states.bytes <= states.most_bytes || states.kept.len() == 1, "{} bytes", states.bytes);
            assert_eq!(states.bytes, states.kept.values().map(|kept| kept.bytes).sum::<u64>());
        }
        assert!(states.kept.len() > 3 && kept > states.kept.len(), "{kept} kept, {} left", states.kept.len());
        let events: Vec<u64> = [0].into_iter().chain(states.kept.keys().copied()).chain([2_000_000]).collect();
        let gaps: Vec<u64> = events.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|&gap| gap <= 2 * states.spacing), "{gaps:?} for {}", states.spacing);
        for time in (0..20_000_000).step_by(777_000) {
            let expected = states.kept.keys().copied().rfind(|event| event * 10 <= time);
            assert_eq!(states.event_before(time, u64::MAX), expected);
            let place = states.last_before(time, u64::MAX);
            assert_eq!(place.as_ref().map(|place| place.cursor.event()), expected);
            let told = place.map(|place| place.builder.event_count());
            assert_eq!(told, expected.map(|event| event / 10), "the state of that moment");
        }
    }

    #[test]
    fn of_large_heaps_fewer_are_kept() {
        let mut builder = ReportBuilder::new(None);
        go_on(&mut builder, 1);
        let states = States { spacing: 10, ..States::default() };
        assert!(!states.wants(99, &builder) && states.wants(100, &builder));
    }

    #[test]
    fn near_ones_come_and_go() {
        let mut states = States::default();
        let mut builder = ReportBuilder::new(None);
        go_on(&mut builder, 1);
        states.keep(Mark::new(SPACING, 5), &mut builder, false);
        for event in 1..100 {
            states.keep(Mark::new(event, 5), &mut builder, true);
        }
        states.keep(Mark::new(SPACING, 5), &mut builder, true);
        assert_eq!(states.kept.len(), NEAR + 1);
        assert_eq!(states.event_before(5, 98), Some(98));
        assert_eq!(states.event_before(5, 91), None, "looked at too long ago");
        assert_eq!(states.event_before(4, u64::MAX), None, "all are later");
        assert!(!states.wants(SPACING + 100, &builder) && states.wants(2 * SPACING, &builder));
        // Near ones do not stand in for those that are kept anyway.
        states.keep(Mark::new(50 + SPACING, 5), &mut builder, true);
        assert!(states.wants(2 * SPACING, &builder));
    }
}
