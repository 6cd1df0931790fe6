//! The course of a heap over time, in bounded memory.

use super::totals::{Amount, Totals};
use crate::recording::{Count, Input, Saved, saved};
use crate::target::MemorySample;

/// Most points that a timeline has: when they are used up, pairs become one and the width of a point doubles.
pub const MAX_POINTS: usize = 2048;

/// Base-2 logarithm of the first width in nanoseconds: about a millisecond.
const FIRST_WIDTH_LOG2: u32 = 20;

/// What happened in one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Live at its end.
    pub live: Amount,
    /// The most bytes that were live during it.
    pub max_bytes: u64,
    /// Bytes that live blocks took at its end, by the heap's [`Footprint`](super::Footprint).
    pub taken: u64,
    /// Allocations and reallocations during it.
    pub allocations: u64,
    /// Frees during it.
    pub frees: u64,
    /// Bytes requested during it.
    pub requested_bytes: u64,
    /// Resident bytes by the last reading during it.
    pub rss: Option<u64>,
    /// Resident anonymous bytes by the last reading during it.
    pub rss_anon: Option<u64>,
    /// Bytes of address space by the last reading during it.
    pub mapped: Option<u64>,
}

impl Point {
    fn followed_by(&self, next: &Self) -> Self {
        Self {
            live: next.live,
            taken: next.taken,
            max_bytes: self.max_bytes.max(next.max_bytes),
            allocations: self.allocations + next.allocations,
            frees: self.frees + next.frees,
            requested_bytes: self.requested_bytes.wrapping_add(next.requested_bytes),
            rss: next.rss.or(self.rss),
            rss_anon: next.rss_anon.or(self.rss_anon),
            mapped: next.mapped.or(self.mapped),
        }
    }
}

/// Evenly spaced points from the heap's first event on.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    start: u64,
    width_log2: u32,
    points: Vec<Point>,
    /// The stretch under way; its counts are filled in when it is closed.
    current: Point,
    /// Totals when it began.
    before: Totals,
    /// When it ends.
    until: u64,
}

impl Timeline {
    pub(super) fn new(start: u64, live: Amount) -> Self {
        let mut timeline = Self {
            start,
            width_log2: FIRST_WIDTH_LOG2,
            points: Vec::new(),
            current: Point { live, max_bytes: live.bytes, ..Point::default() },
            before: Totals::default(),
            until: 0,
        };
        timeline.until = timeline.end_of_current();
        timeline
    }

    /// Gives up the room for further points.
    pub(super) fn rest(&mut self) {
        self.points.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.points.capacity() * size_of::<Point>()) as u64
    }

    /// When it begins, how wide a point is, and the points.
    pub(super) fn described(&self, live: Amount, taken: u64, totals: &Totals) -> (u64, u64, Vec<Point>) {
        (self.start, self.width(), self.points(live, taken, totals))
    }

    /// Width of a point in nanoseconds.
    fn width(&self) -> u64 {
        1 << self.width_log2
    }

    /// The points up to now, the one under way included, given the heap's present state.
    fn points(&self, live: Amount, taken: u64, totals: &Totals) -> Vec<Point> {
        let mut points = self.points.clone();
        points.push(self.closed(live, taken, totals));
        points
    }

    /// Lets time pass up to `time`. The state is that before the event at `time`.
    #[inline]
    pub(super) fn advance(&mut self, time: u64, live: Amount, taken: u64, totals: &Totals) {
        if time >= self.until {
            self.roll(time, live, taken, totals);
        }
    }

    /// The number of live bytes has risen.
    #[inline]
    pub(super) fn rose(&mut self, bytes: u64) {
        self.current.max_bytes = self.current.max_bytes.max(bytes);
    }

    pub(super) fn sample(&mut self, sample: &MemorySample) {
        self.current.rss = Some(sample.rss);
        self.current.rss_anon = Some(sample.rss_anon);
        self.current.mapped = Some(sample.virtual_bytes);
    }

    /// Whether all points count no more than there can have been, so that they do not either when they become fewer.
    pub(super) fn agrees_with(&self, totals: &Totals) -> bool {
        let now = self.closed(Amount::default(), 0, totals);
        let sum = |of: fn(&Point) -> u64| self.points.iter().chain([&now]).map(of).fold(0, u64::saturating_add);
        sum(|point| point.allocations) <= Count::MOST && sum(|point| point.frees) <= Count::MOST
    }

    fn end_of_current(&self) -> u64 {
        self.start.saturating_add((self.points.len() as u64 + 1).saturating_mul(self.width()))
    }

    fn closed(&self, live: Amount, taken: u64, totals: &Totals) -> Point {
        let counted = |t: &Totals| t.allocations.wrapping_add(t.reallocations);
        Point {
            live,
            taken,
            allocations: counted(totals).wrapping_sub(counted(&self.before)),
            frees: totals.frees.wrapping_sub(self.before.frees),
            requested_bytes: totals.requested_bytes.wrapping_sub(self.before.requested_bytes),
            ..self.current
        }
    }

    #[cold]
    fn roll(&mut self, time: u64, live: Amount, taken: u64, totals: &Totals) {
        // The end of all time belongs to the last point there can be.
        let elapsed = time.saturating_sub(self.start).min(u64::MAX - 1);
        while (elapsed >> self.width_log2) as usize >= MAX_POINTS {
            self.halve();
        }
        let index = (elapsed >> self.width_log2) as usize;
        if index > self.points.len() {
            let closed = self.closed(live, taken, totals);
            self.points.push(closed);
            let quiet = Point { live, taken, max_bytes: live.bytes, ..Point::default() };
            self.points.resize(index, quiet);
            self.current = quiet;
            self.before = *totals;
        }
        self.until = self.end_of_current();
    }

    /// Doubles the width. An odd point at the end becomes the beginning of the current one.
    fn halve(&mut self) {
        let odd = (self.points.len() % 2 == 1).then(|| self.points.pop()).flatten();
        self.points = self.points.chunks_exact(2).map(|pair| pair[0].followed_by(&pair[1])).collect();
        self.width_log2 += 1;
        if let Some(odd) = odd {
            self.current.max_bytes = self.current.max_bytes.max(odd.max_bytes);
            self.current.rss = self.current.rss.or(odd.rss);
            self.current.rss_anon = self.current.rss_anon.or(odd.rss_anon);
            self.current.mapped = self.current.mapped.or(odd.mapped);
            self.before.allocations = self.before.allocations.wrapping_sub(odd.allocations);
            self.before.frees = self.before.frees.wrapping_sub(odd.frees);
            self.before.requested_bytes = self.before.requested_bytes.wrapping_sub(odd.requested_bytes);
        }
    }
}

saved!(Point {
    live: Amount,
    max_bytes: u64,
    taken: u64,
    allocations: Count,
    frees: Count,
    requested_bytes: u64,
    rss: Option::<u64>,
    rss_anon: Option::<u64>,
    mapped: Option::<u64>,
});

impl Saved for Timeline {
    fn save(&self, out: &mut Vec<u8>) {
        self.start.save(out);
        self.width_log2.save(out);
        self.points.save(out);
        self.current.save(out);
        // Taken back beyond zero where pairs of points became one, and forth again with the next event.
        let Totals { allocations, frees, reallocations, requested_bytes, freed_bytes } = self.before;
        for sum in [allocations, frees, reallocations, requested_bytes, freed_bytes] {
            sum.save(out);
        }
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        let start = u64::load(input)?;
        let width_log2 = u32::load(input).filter(|width| (FIRST_WIDTH_LOG2..u64::BITS).contains(width))?;
        let points = Vec::<Point>::load(input).filter(|points| points.len() < MAX_POINTS)?;
        let current = Point::load(input)?;
        let [allocations, frees, reallocations] = [u64::load(input)?, u64::load(input)?, u64::load(input)?];
        let [requested_bytes, freed_bytes] = [u64::load(input)?, u64::load(input)?];
        let before = Totals { allocations, frees, reallocations, requested_bytes, freed_bytes };
        let mut timeline = Self { start, width_log2, points, current, before, until: 0 };
        timeline.until = timeline.end_of_current();
        Some(timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn live(bytes: u64) -> Amount {
        Amount { blocks: 1, bytes }
    }

    #[test]
    fn quiet_stretches_carry_the_level() {
        let mut timeline = Timeline::new(0, live(0));
        timeline.advance(0, live(0), 0, &Totals::default());
        timeline.rose(10);
        timeline.advance(3 << 20, live(7), 8, &Totals { allocations: 2, requested_bytes: 10, ..Totals::default() });
        let points = timeline.points(live(7), 9, &Totals { allocations: 2, requested_bytes: 10, ..Totals::default() });
        let levels: Vec<(u64, u64, u64)> = points.iter().map(|p| (p.live.bytes, p.max_bytes, p.allocations)).collect();
        assert_eq!(levels, [(7, 10, 2), (7, 7, 0), (7, 7, 0), (7, 7, 0)]);
        let taken: Vec<u64> = points.iter().map(|point| point.taken).collect();
        assert_eq!(taken, [8, 8, 8, 9]);
    }

    #[test]
    fn the_end_of_time_is_a_point_like_any_other() {
        let mut timeline = Timeline::new(5, live(0));
        for time in [u64::MAX, 0, u64::MAX - 1, 5, u64::MAX] {
            timeline.advance(time, live(1), 1, &Totals::default());
            assert!(timeline.points(live(1), 1, &Totals::default()).len() <= MAX_POINTS);
        }
    }

    proptest! {
        /// However often the width doubles, nothing counted is lost, and every point tells what a list of all events
        /// tells about its stretch.
        #[test]
        fn equals_a_full_log(steps in prop::collection::vec((0..40_u32, 0..1000_u64), 1..200)) {
            let mut timeline = Timeline::new(1000, live(0));
            let (mut time, mut level, mut totals) = (1000, 0, Totals::default());
            let mut log = Vec::new();
            for (wait, bytes) in steps {
                time += 1_u64 << wait;
                timeline.advance(time, live(level), level + 1, &totals);
                level = bytes;
                totals.allocations += 1;
                totals.requested_bytes += bytes;
                timeline.rose(level);
                log.push((time, level));
            }
            let points = timeline.points(live(level), level + 1, &totals);
            prop_assert!(points.len() <= MAX_POINTS);
            prop_assert_eq!(points.len() as u64 - 1, (time - 1000) / timeline.width());
            let mut before = 0;
            for (index, point) in points.iter().enumerate() {
                let start = 1000 + index as u64 * timeline.width();
                let within: Vec<u64> =
                    log.iter().filter(|(t, _)| (start..start + timeline.width()).contains(t)).map(|(_, b)| *b).collect();
                let after = within.last().copied().unwrap_or(before);
                prop_assert_eq!(point.live.bytes, after);
                prop_assert_eq!(point.taken, after + 1);
                prop_assert_eq!(point.allocations, within.len() as u64);
                prop_assert_eq!(point.requested_bytes, within.iter().sum::<u64>());
                prop_assert_eq!(point.max_bytes, within.iter().copied().chain([before]).max().unwrap());
                before = after;
            }
        }
    }
}
