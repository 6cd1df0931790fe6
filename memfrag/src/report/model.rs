//! The report. Field names are those of the JSON document; they are added to, never renamed within a version.
//!
//! Sizes are bytes, times nanoseconds since the trace began.

pub use super::blame::Blame;
pub use super::ledger::Ledger;
pub use super::metrics::Metrics;
pub use super::policies::Comparison;
use super::sites::CallSite;
use crate::heap;
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything that a report tells.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always `memfrag-report`.
    pub format: &'static str,
    /// Version of the field names.
    pub version: u32,
    /// What was read.
    pub recording: Recording,
    /// How many events there were, and how many are missing.
    pub events: Events,
    /// What the backend counted, by counter; those that are zero are left out.
    pub counters: BTreeMap<&'static str, u64>,
    /// The processes, the largest peak first.
    pub processes: Vec<Process>,
}

/// What was read.
#[derive(Clone, Debug, Serialize)]
pub struct Recording {
    /// The file; empty for a trace that was not recorded.
    pub file: String,
    /// Length of the trace.
    pub duration_ns: u64,
    /// How the events were captured.
    pub backend: String,
    /// Whether the recording was brought to its end.
    pub complete: bool,
    /// The moment that the report describes, if not the end.
    pub at_ns: Option<u64>,
}

/// How many events there were.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Events {
    /// Records of any kind.
    pub total: u64,
    /// Allocations that returned, failed ones included.
    pub alloc: u64,
    /// Frees.
    pub free: u64,
    /// Reallocations that ended, failed ones included.
    pub realloc: u64,
    /// Events that are missing.
    pub lost: u64,
    /// Frees of blocks that were not known.
    pub unmatched_free: u64,
    /// Size of the recording.
    pub bytes_on_disk: u64,
}

/// A process.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Parent's process id, 0 when unknown.
    pub ppid: u32,
    /// Short name; empty when unknown.
    pub comm: String,
    /// The program's file; empty when unknown.
    pub exe: String,
    /// The command line's words.
    pub cmdline: Vec<String>,
    /// What its environment tells allocators, in words `NAME=VALUE`.
    pub settings: Vec<String>,
    /// When it was forked or first seen.
    pub started_ns: u64,
    /// How it ended; null while it runs.
    pub exit: Option<Exit>,
    /// How often it started another program.
    pub execs: u64,
    /// Threads seen, the main thread included.
    pub threads: u64,
    /// Its events of all kinds.
    pub events: u64,
    /// The process on whose heap it acted (after `vfork`); then all sums are there.
    pub shares_heap_of: Option<u32>,
    /// The sums of its heap's life.
    pub totals: Totals,
    /// What the parent's heap handed down at the fork.
    pub inherited: Amount,
    /// Blocks in use at the end that no event told of, with the bytes that their chunks can hold: older than the trace.
    /// Known since a walk of the heap.
    pub older: Amount,
    /// When the heap was last walked, and the state mended by it.
    pub walked_at_ns: Option<u64>,
    /// Whether it may hold blocks that are older than the trace and of which nothing is known: it ran already, and no
    /// walk of its heap told of them. What they hold seems to be free.
    pub older_unknown: bool,
    /// What was live when the process started another program.
    pub discarded_by_exec: Amount,
    /// When most was live.
    pub peak: Peak,
    /// The state at the end.
    pub end: End,
    /// The allocator, where it is known.
    pub allocator: Option<Allocator>,
    /// What each function of the allocator did.
    pub functions: Vec<Function>,
    /// What a complete stream of events would not have shown, by kind; kinds that did not occur are left out.
    pub anomalies: BTreeMap<&'static str, u64>,
    /// From when on events are missing.
    pub damaged_at_ns: Option<u64>,
    /// What the backend counted for this process, by counter; zeroes are left out.
    pub counters: BTreeMap<&'static str, u64>,
    /// The call sites that hold most at the end.
    pub top_sites: Vec<Site>,
    /// The call sites whose blocks keep most free memory, at the last look at the process's pages.
    pub blame: Option<Blame>,
    /// Its heap beside what some policies would have made of the same requests; absent for small heaps, and where there
    /// are more than [`MOST_FORETOLD`] events.
    ///
    /// [`MOST_FORETOLD`]: super::policies::MOST_FORETOLD
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// What its mapping calls add up to.
    pub mapped: Mapped,
    /// The course over time.
    pub timeline: Timeline,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Exit {
    /// When.
    pub at_ns: u64,
    /// Exit code, when it exited by itself and that could be learned.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Takes a wait status apart.
    pub fn new(at_ns: u64, status: Option<i32>) -> Self {
        let signal = status.map(|status| status & 0x7f).filter(|&signal| signal != 0);
        let code = status.filter(|_| signal.is_none()).map(|status| status >> 8 & 0xff);
        Self { at_ns, code, signal }
    }
}

/// The sums of a heap's life; the rules are those of [`crate::heap::Totals`].
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// Blocks allocated.
    pub allocations: u64,
    /// Calls that freed.
    pub frees: u64,
    /// Blocks resized or moved.
    pub reallocations: u64,
    /// Bytes requested.
    pub requested_bytes: u64,
    /// Requested bytes of the blocks that are gone.
    pub freed_bytes: u64,
}

/// Blocks and their requested bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Amount {
    /// How many blocks.
    pub blocks: u64,
    /// Bytes requested for them.
    pub bytes: u64,
}

impl From<heap::Amount> for Amount {
    fn from(amount: heap::Amount) -> Self {
        let heap::Amount { blocks, bytes } = amount;
        Self { blocks, bytes }
    }
}

/// The moment at which most bytes were live.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Peak {
    /// When.
    pub at_ns: u64,
    /// Blocks live then.
    pub live_blocks: u64,
    /// Bytes requested for them.
    pub requested_bytes: u64,
}

/// The state at the end of the trace, of the process, or at the moment asked for.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct End {
    /// Blocks live.
    pub live_blocks: u64,
    /// Bytes requested for them.
    pub requested_bytes: u64,
    /// Resident bytes at the last reading.
    pub rss_bytes: Option<u64>,
    /// Resident anonymous bytes at the last reading.
    pub rss_anon_bytes: Option<u64>,
    /// When the last reading was taken.
    pub rss_at_ns: Option<u64>,
    /// Where the resident bytes go, at the last look at the process's pages; null when there was none.
    pub ledger: Option<Ledger>,
    /// Measures of fragmentation.
    pub metrics: Metrics,
}

/// An allocator.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Allocator {
    /// Its name: `glibc`, `jemalloc`, `tcmalloc`, `mimalloc`, `musl`.
    pub name: String,
    /// Its version, where it could be learned.
    pub version: Option<String>,
    /// Its file.
    pub path: String,
    /// Share of the blocks whose address glibc's model foretold: how far what is modelled can be trusted. Absent for
    /// other allocators, versions that are not known, and recordings of more than [`MOST_FORETOLD`] events.
    ///
    /// [`MOST_FORETOLD`]: super::policies::MOST_FORETOLD
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_agreement: Option<f64>,
}

/// What one function of the allocator did.
#[derive(Clone, Debug, Serialize)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Calls, failed ones included.
    pub calls: u64,
    /// Calls that should have given a block and did not.
    pub failed: u64,
    /// Bytes requested in calls that succeeded, or freed where the block was known.
    pub bytes: u64,
}

/// A call site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Site {
    /// Its name: `function+offset (file)`, `file+offset` where no function is known, or its address.
    pub site: String,
    /// The function that calls, where it is known.
    pub function: Option<String>,
    /// Its source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// Return address of the call.
    pub address: u64,
    /// The file that holds it; null when it lies in no known mapping.
    pub module: Option<String>,
    /// Its offset in that file.
    pub offset: Option<u64>,
    /// Bytes that it holds at the end.
    pub live_bytes: u64,
    /// Blocks that it holds at the end.
    pub live_blocks: u64,
    /// Blocks that it allocated, reallocations included.
    pub allocations: u64,
    /// The stacks with which it was called that hold most; absent where only callers were recorded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<Stack>,
}

/// A stack with which a call site was called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stack {
    /// Bytes that it holds at the end.
    pub live_bytes: u64,
    /// Blocks that it holds at the end.
    pub live_blocks: u64,
    /// Blocks that it allocated, reallocations included.
    pub allocations: u64,
    /// Whether the last frame is the outermost one.
    pub complete: bool,
    /// Its frames, the call site first.
    pub frames: Vec<Frame>,
}

/// A frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// Its name, as that of a [`Site`].
    pub site: String,
    /// The function, where it is known.
    pub function: Option<String>,
    /// The function's source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// Return address of the call that it is in.
    pub address: u64,
    /// The file that holds it; null when it lies in no known mapping.
    pub module: Option<String>,
    /// Its offset in that file.
    pub offset: Option<u64>,
}

impl From<CallSite> for Frame {
    fn from(found: CallSite) -> Self {
        let CallSite { site, address, module, offset, function, file, line } = found;
        Self { site, function, file, line, address, module, offset }
    }
}

/// What mapping calls add up to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Mapped {
    /// Bytes mapped.
    pub mapped_bytes: u64,
    /// Bytes unmapped.
    pub unmapped_bytes: u64,
    /// By how much the heap segment grew.
    pub brk_growth_bytes: i64,
}

/// The course of a heap, in columns of equal length.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timeline {
    /// When it begins.
    pub start_ns: u64,
    /// How far apart the points are.
    pub step_ns: u64,
    /// Bytes live at each step's end.
    pub live_bytes: Vec<u64>,
    /// The most bytes live during each step.
    pub max_live_bytes: Vec<u64>,
    /// Blocks live at each step's end.
    pub live_blocks: Vec<u64>,
    /// Allocations and reallocations during each step.
    pub allocations: Vec<u64>,
    /// Frees during each step.
    pub frees: Vec<u64>,
    /// Resident bytes by the last reading in each step; null where there was none.
    pub rss_bytes: Vec<Option<u64>>,
}
