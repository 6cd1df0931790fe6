//! The clock in which the preload library stamps its records, and what its ticks mean.

use crate::capture::monotonic;
use memfrag_common::session::Clock;
use std::fs;
use std::time::{Duration, Instant};

/// A clock and its calibration: one straight line from ticks to nanoseconds, so that order survives the conversion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticker {
    clock: Clock,
    origin: u64,
    /// Nanoseconds of a tick, as a fraction of 2³².
    slope: u64,
}

impl Ticker {
    /// Chooses the clock for this machine and calibrates it, which takes a few hundredths of a second. The trace
    /// begins now.
    pub(crate) fn start() -> Self {
        let clock = choose();
        let origin = read(clock);
        if clock == Clock::Monotonic {
            return Self { clock, origin, slope: 1 << 32 };
        }
        let begin = anchor();
        std::thread::sleep(Duration::from_millis(40));
        let end = anchor();
        let ticks = end.0.saturating_sub(begin.0).max(1);
        let nanoseconds = end.1.saturating_sub(begin.1).max(1);
        let slope = ((u128::from(nanoseconds) << 32) / u128::from(ticks)) as u64;
        Self { clock, origin, slope: slope.max(1) }
    }

    /// One whose ticks are nanoseconds since the trace began.
    #[cfg(test)]
    pub(crate) fn of_nanoseconds() -> Self {
        Self { clock: Clock::Monotonic, origin: 0, slope: 1 << 32 }
    }

    /// Which clock it is.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// The time now, in ticks.
    pub(crate) fn now(&self) -> u64 {
        read(self.clock)
    }

    /// Nanoseconds since the trace began.
    #[inline]
    pub(crate) fn nanoseconds(&self, ticks: u64) -> u64 {
        ((u128::from(ticks.saturating_sub(self.origin)) * u128::from(self.slope)) >> 32) as u64
    }

    /// How many ticks a duration takes.
    pub(crate) fn ticks(&self, duration: Duration) -> u64 {
        ((duration.as_nanos() << 32) / u128::from(self.slope)) as u64
    }
}

/// The time stamp counter where the kernel keeps its own time by it, or where the processor promises that it neither
/// changes its pace nor stops.
fn choose() -> Clock {
    if !cfg!(target_arch = "x86_64") {
        return Clock::Monotonic;
    }
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    if source.is_ok_and(|name| name.trim() == "tsc") {
        return Clock::Tsc;
    }
    let promised = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or("");
        let has = |flag| flags.split_whitespace().any(|word| word == flag);
        has("constant_tsc") && has("nonstop_tsc")
    });
    if promised { Clock::Tsc } else { Clock::Monotonic }
}

/// Ticks and nanoseconds of the same moment: the closest of a few tries.
fn anchor() -> (u64, u64) {
    let sample = || {
        let before = monotonic();
        let ticks = read(Clock::Tsc);
        let after = monotonic();
        (after - before, ticks, before + (after - before) / 2)
    };
    let (_, ticks, nanoseconds) = (0..16).map(|_| sample()).min().unwrap_or_else(sample);
    (ticks, nanoseconds)
}

fn read(clock: Clock) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if clock == Clock::Tsc {
        // SAFETY: the instruction exists on every x86-64 processor.
        unsafe { core::arch::x86_64::_mm_lfence() };
        // SAFETY: as above; Linux lets programs read the counter.
        return unsafe { core::arch::x86_64::_rdtsc() };
    }
    let _ = clock;
    monotonic()
}

/// How long something lasts, for waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Every {
    period: Duration,
    last: Option<Instant>,
}

impl Every {
    /// Due now, and then after each `period`.
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, last: None }
    }

    /// Whether it is due; if so, the period begins anew.
    pub(crate) fn due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.duration_since(last) >= self.period);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_begins_at_zero_and_keeps_its_pace() {
        let ticker = Ticker::start();
        assert_eq!(ticker.nanoseconds(ticker.origin), 0);
        assert_eq!(ticker.nanoseconds(0), 0);
        let second = ticker.ticks(Duration::from_secs(1));
        let nanoseconds = ticker.nanoseconds(ticker.origin + second);
        assert!(nanoseconds.abs_diff(1_000_000_000) < 10, "{nanoseconds}");
    }
}
