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
#[derive(Debug, Default)]
pub(super) struct States {
    kept: BTreeMap<u64, Kept>,
    /// Those that somebody looked near, the last one at the end.
    near: VecDeque<u64>,
    /// The spacing, when there was too much to keep.
    spacing: Option<u64>,
    bytes: u64,
}

#[derive(Debug)]
struct Kept {
    mark: Mark,
    builder: ReportBuilder,
    bytes: u64,
    is_near: bool,
}

impl States {
    /// Whether a state at an event would be worth keeping.
    pub(super) fn wants(&self, event: u64) -> bool {
        let spaced = self.kept.range(..=event).rev().find(|(_, kept)| !kept.is_near);
        event - spaced.map_or(0, |(&at, _)| at) >= self.spacing.unwrap_or(SPACING)
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
        while self.bytes > MOST_BYTES && self.kept.len() > 1 {
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
            self.spacing = Some(self.spacing.unwrap_or(SPACING).max(gap));
            self.drop_at(event);
        }
    }
}
