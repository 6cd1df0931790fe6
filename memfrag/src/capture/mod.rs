//! How events get here: a backend hands on what the target did, in causal order, with what was lost.

pub mod preload;

use crate::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::Event;
use memfrag_common::loss::COUNTERS;

/// Where a backend puts what it learns. Events arrive in causal order within a process: a block's free before the
/// allocation that uses its address again.
pub trait Sink {
    /// The next events.
    fn events(&mut self, events: &[Event]);
    /// A process appeared, or has become another program.
    fn process(&mut self, process: &ProcessInfo);
    /// The mappings of a process, complete as of `time` (nanoseconds since the trace began).
    fn mappings(&mut self, time: u64, pid: u32, mappings: &[Mapping]);
    /// A reading of a process's memory.
    fn memory(&mut self, sample: &MemorySample);
}

/// The counters of one process, or of the whole backend, indexed by [`memfrag_common::loss::Counter`].
pub type Counters = [u64; COUNTERS];
