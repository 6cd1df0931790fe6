//! The heap at the moments when the process's memory was read.

use crate::recording::{Input, Saved, saved};
use crate::target::MemorySample;

/// A heap at a moment when the process's memory was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// When, in nanoseconds since the trace began.
    pub time: u64,
    /// Resident anonymous bytes: the heap, and what the process has of stacks and data beside it.
    pub resident: u64,
    /// Bytes requested for the blocks that were live.
    pub requested: u64,
    /// Bytes that those blocks took by the heap's [`Footprint`](super::Footprint).
    pub taken: u64,
}

/// What the readings of a heap add up to. Those at which nothing was live are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readings {
    last: Option<Reading>,
    largest: Option<Reading>,
    fullest: Option<Reading>,
    /// Resident bytes over requested ones and over taken ones, times the nanoseconds until the next reading.
    sums: [f64; 2],
    duration: f64,
}

impl Readings {
    /// The last reading.
    pub fn last(&self) -> Option<Reading> {
        self.last
    }

    /// The first one with most resident bytes.
    pub fn largest(&self) -> Option<Reading> {
        self.largest
    }

    /// The first one with most requested bytes.
    pub fn fullest(&self) -> Option<Reading> {
        self.fullest
    }

    /// The mean over time of resident bytes over requested ones, and over taken ones. Each reading holds until the
    /// next; the last one, if it is the only one.
    pub fn means(&self) -> Option<[f64; 2]> {
        let last = self.last?;
        Some(if self.duration > 0.0 { self.sums.map(|sum| sum / self.duration) } else { ratios(&last) })
    }

    pub(super) fn add(&mut self, sample: &MemorySample, requested: u64, taken: u64) {
        if requested == 0 || taken == 0 || sample.rss_anon == 0 {
            return;
        }
        let reading = Reading { time: sample.time, resident: sample.rss_anon, requested, taken };
        if let Some(last) = self.last.replace(reading) {
            let waited = reading.time.saturating_sub(last.time) as f64;
            self.sums.iter_mut().zip(ratios(&last)).for_each(|(sum, ratio)| *sum += ratio * waited);
            self.duration += waited;
        }
        if self.largest.is_none_or(|largest| reading.resident > largest.resident) {
            self.largest = Some(reading);
        }
        if self.fullest.is_none_or(|fullest| reading.requested > fullest.requested) {
            self.fullest = Some(reading);
        }
    }
}

fn ratios(reading: &Reading) -> [f64; 2] {
    [reading.requested, reading.taken].map(|live| reading.resident as f64 / live as f64)
}

saved!(Readings {
    last: Option::<Reading>,
    largest: Option::<Reading>,
    fullest: Option::<Reading>,
    sums: Ratios,
    duration: f64,
});

/// The two sums.
struct Ratios;

impl Ratios {
    fn save(sums: &[f64; 2], out: &mut Vec<u8>) {
        for sum in sums {
            sum.save(out);
        }
    }

    fn load(input: &mut Input<'_>) -> Option<[f64; 2]> {
        Some([f64::load(input)?, f64::load(input)?])
    }
}

impl Saved for Reading {
    fn save(&self, out: &mut Vec<u8>) {
        for value in [self.time, self.resident, self.requested, self.taken] {
            value.save(out);
        }
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        let [time, resident] = [u64::load(input)?, u64::load(input)?];
        let [requested, taken] = [u64::load(input)?, u64::load(input)?];
        let is_one = resident > 0 && requested > 0 && taken > 0;
        is_one.then_some(Self { time, resident, requested, taken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(time: u64, rss_anon: u64) -> MemorySample {
        MemorySample { time, rss_anon, ..MemorySample::default() }
    }

    #[test]
    fn the_mean_is_one_over_time() {
        let mut readings = Readings::default();
        assert_eq!(readings.means(), None);
        readings.add(&sample(0, 999), 0, 0);
        assert_eq!(readings.last(), None, "nothing was live");
        readings.add(&sample(100, 300), 100, 150);
        assert_eq!(readings.means(), Some([3.0, 2.0]));
        readings.add(&sample(200, 600), 300, 400);
        readings.add(&sample(500, 500), 100, 100);
        // 3 for 100 ns, then 2 for 300 ns; 2 for 100 ns, then 1.5 for 300 ns.
        assert_eq!(readings.means(), Some([2.25, 1.625]));
        assert_eq!(readings.largest().map(|reading| reading.time), Some(200));
        assert_eq!(readings.fullest().map(|reading| reading.time), Some(200));
        assert_eq!(readings.last().map(|reading| reading.time), Some(500));
    }
}
