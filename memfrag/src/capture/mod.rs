//! How events get here: a backend hands on what the target did, in causal order, with what was lost.

pub mod ebpf;
pub mod idle;
pub mod launch;
pub mod preload;
pub mod sampler;
pub mod survey;

use crate::glibc::Layout;
use crate::target::{Mapping, MemorySample, ProcessInfo, Residency};
use anyhow::Result;
use memfrag_common::Event;
use memfrag_common::loss::COUNTERS;
use memfrag_common::stacks::Frame;
use std::time::Duration;

/// Where a backend puts what it learns. Events arrive in causal order within a process: a block's free before the
/// allocation that uses its address again.
pub trait Sink {
    /// The next events.
    fn events(&mut self, events: &[Event]);
    /// Whether so much waits to be handed on that programs may soon have to wait: from here on speed matters most. Said
    /// when it changes.
    fn behind(&mut self, _behind: bool) {}
    /// A process appeared, or has become another program.
    fn process(&mut self, process: &ProcessInfo);
    /// The mappings of a process, complete as of `time` (nanoseconds since the trace began).
    fn mappings(&mut self, time: u64, pid: u32, mappings: &[Mapping]);
    /// Stacks that the next events name, as far as they were not told before: frames, each after the one that called it.
    fn stacks(&mut self, _frames: &[Frame]) {}
    /// A reading of a process's memory.
    fn memory(&mut self, sample: &MemorySample);
    /// Which pages of a process were in memory.
    fn residency(&mut self, _residency: &Residency) {}
    /// A process's glibc heap as it lay in memory at `time`: every event up to then has been handed on, none later.
    fn layout(&mut self, _time: u64, _pid: u32, _layout: &Layout) {}
}

/// The counters of one process, or of the whole backend, indexed by [`memfrag_common::loss::Counter`].
pub type Counters = [u64; COUNTERS];

/// A running capture by one of the backends.
pub trait Capture {
    /// Says that the trace begins now; times are counted from here.
    ///
    /// # Errors
    /// When the backend cannot begin.
    fn begin(&mut self) -> Result<()>;

    /// Waits for events, but no longer than `timeout`, hands on what there is, and returns the number of events.
    ///
    /// # Errors
    /// When the capture cannot go on. What was captured so far has been handed on.
    fn poll(&mut self, sink: &mut dyn Sink, timeout: Duration) -> Result<u64>;

    /// Hands on every event that the targets have made so far; to be called while they stand still.
    ///
    /// # Errors
    /// As [`Capture::poll`].
    fn settle(&mut self, sink: &mut dyn Sink) -> Result<()> {
        while self.poll(sink, Duration::ZERO)? > 0 {}
        Ok(())
    }

    /// Leaves the targets as they were and hands on everything that was captured until then.
    ///
    /// # Errors
    /// When the targets could not be left as they were.
    fn stop(&mut self, sink: &mut dyn Sink) -> Result<()>;

    /// What was counted so far: of each process where the backend knows it (`Some`), and in all (`None`).
    fn counters(&self) -> Vec<(Option<u32>, Counters)>;

    /// Nanoseconds since the trace began, by the clock of the events.
    fn now(&self) -> u64;

    /// Tells the wait status of a process that was launched, which only its parent learns.
    fn exited(&mut self, pid: u32, status: i32);
}

/// `CLOCK_MONOTONIC` in nanoseconds: what the BPF programs stamp with, and what ticks are turned into.
pub(crate) fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the structure.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
