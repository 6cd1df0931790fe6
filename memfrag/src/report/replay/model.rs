//! What replays came to. The field names are the JSON's.

use crate::replay::{self, Candidate, Ended, Manner, Outcome, Planned, Run};
use serde::Serialize;

/// All runs of a recording's calls.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayReport {
    /// Always `memfrag-replay`.
    pub format: &'static str,
    /// Version of the fields.
    pub version: u32,
    /// The recording.
    pub file: String,
    /// The process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Calls of the allocator that are made again.
    pub calls: u64,
    /// Threads.
    pub threads: u32,
    /// Blocks from before the trace, which are put there first.
    pub older_blocks: u64,
    /// Frees and reallocations left out, because nothing is known of their blocks.
    pub unknown_calls: u64,
    /// Events that the recording lost.
    pub lost_events: u64,
    /// Places where one thread waits for another.
    pub waits: u64,
    /// Whether blocks are written to: `sampled`, `all` or `none`.
    pub touch: &'static str,
    /// Blocks that were seen to be resident only in part, and are written to no further if `touch` is `sampled`.
    pub sparse_blocks: u64,
    /// How many times as fast as recorded; null for as fast as possible.
    pub pace: Option<f64>,
    /// Live blocks that a compact replay leaves out for its bounds.
    pub left_out_blocks: u64,
    /// The recorded program.
    pub original: Original,
    /// The runs, in the order in which they were asked for.
    pub runs: Vec<RunReport>,
}

/// The recorded program's own memory.
#[derive(Clone, Debug, Serialize)]
pub struct Original {
    /// By how much anonymous resident memory had grown at most since the [base](replay::Planned::base).
    pub peak_rss_bytes: Option<u64>,
    /// By how much it had grown on average over the time between the readings.
    pub average_rss_bytes: Option<u64>,
    /// By how much it had grown at the last reading.
    pub final_rss_bytes: Option<u64>,
    /// Resident bytes by kind of mapping when its pages were looked at last; null where nobody did.
    pub mappings: Option<Mappings>,
    /// The readings.
    pub readings: Vec<Reading>,
}

/// Resident bytes by kind of mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mappings {
    /// The brk heap.
    pub heap: u64,
    /// Private anonymous memory that can be written: arenas, mapped blocks, stacks of threads.
    pub anonymous: u64,
    /// The main thread's stack.
    pub stack: u64,
    /// Files, their private pages included.
    pub file: u64,
    /// Shared memory and everything else.
    pub other: u64,
}

impl From<replay::Kinds> for Mappings {
    fn from(it: replay::Kinds) -> Self {
        Self { heap: it.heap, anonymous: it.anonymous, stack: it.stack, file: it.file, other: it.other }
    }
}

/// A reading of memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// Its number among the original's readings.
    pub number: u32,
    /// Nanoseconds since the trace, or the run, began.
    pub at_ns: u64,
    /// Growth of anonymous resident memory, in bytes.
    pub rss_bytes: u64,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The allocator's name, or its library's path.
    pub allocator: String,
    /// Further variables of its environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// `completed`, `out_of_memory`, `memory_limit`, `time_limit`, `crashed`, `failed` or `missing`.
    pub outcome: &'static str,
    /// What happened, where it did not complete.
    pub reason: Option<String>,
    /// By how much anonymous resident memory grew at most since the reading that it is counted from, as all that follow;
    /// the most resident bytes seen, where the run did not complete.
    pub peak_rss_bytes: Option<u64>,
    /// By how much it had grown on average over the time between the original's readings, as the original had it.
    pub average_rss_bytes: Option<u64>,
    /// By how much it had grown at the original's last reading; at the end, where there is none.
    pub final_rss_bytes: Option<u64>,
    /// By how much it had grown after the last call.
    pub end_rss_bytes: Option<u64>,
    /// By how much it had grown after `malloc_trim(0)`, where that was called.
    pub trimmed_rss_bytes: Option<u64>,
    /// Resident bytes by kind of mapping at the original's last reading, without the replay's own tables; at the end, where
    /// there is none.
    pub mappings: Option<Mappings>,
    /// The same after `malloc_trim(0)`, which follows the last call.
    pub trimmed_mappings: Option<Mappings>,
    /// How long all calls took.
    pub seconds: Option<f64>,
    /// Minor page faults.
    pub minor_faults: Option<u64>,
    /// The most resident bytes that the run might have; null where there was no run.
    pub memory_limit_bytes: Option<u64>,
    /// What held it to that: `cgroup_v2` or `cgroup_v1`, which are the kernel, or `readings`: memfrag looked a hundred times
    /// a second. Null where there was no run.
    pub memory_limited_by: Option<&'static str>,
    /// Memory at the original's readings.
    pub readings: Vec<Reading>,
}

/// Begins a report without runs.
pub fn build(file: String, chosen: &Candidate, planned: &Planned, manner: &Manner) -> ReplayReport {
    let base = planned.readings.get(planned.base).map_or(0, |base| base.rss_anon);
    let reading = |(number, it): (usize, &replay::Reading)| Reading {
        number: number as u32,
        at_ns: it.time,
        rss_bytes: it.rss_anon.saturating_sub(base),
    };
    let readings: Vec<Reading> = planned.readings.iter().enumerate().map(reading).collect();
    ReplayReport {
        format: "memfrag-replay",
        version: 1,
        file,
        pid: chosen.pid,
        comm: chosen.comm.clone(),
        calls: planned.calls,
        threads: planned.threads,
        older_blocks: planned.older,
        unknown_calls: planned.unknown,
        lost_events: planned.lost,
        waits: planned.waits,
        touch: manner.touch.name(),
        sparse_blocks: planned.sparse,
        pace: manner.pace,
        left_out_blocks: planned.left_out,
        original: Original {
            peak_rss_bytes: readings.iter().map(|it| it.rss_bytes).max(),
            average_rss_bytes: average(&readings, &readings),
            final_rss_bytes: readings.last().map(|it| it.rss_bytes),
            mappings: planned.kinds.map(Mappings::from),
            readings,
        },
        runs: Vec::new(),
    }
}

impl ReplayReport {
    /// Takes in what came of a run.
    pub fn add(&mut self, run: RunReport) {
        let average_rss_bytes = average(&run.readings, &self.original.readings);
        self.runs.push(RunReport { average_rss_bytes, ..run });
    }
}

/// The mean of readings over the time that passed between those of the same numbers in the recorded program: a reading
/// holds until the next one. `None` without any.
fn average(readings: &[Reading], original: &[Reading]) -> Option<u64> {
    let at = |reading: &Reading| original.get(reading.number as usize).map_or(0, |found| found.at_ns);
    let held = readings.windows(2).map(|two| (two[0].rss_bytes, at(&two[1]).saturating_sub(at(&two[0]))));
    let (sum, time) = held.fold((0u128, 0u128), |(sum, time), (bytes, held)| {
        (sum + u128::from(bytes) * u128::from(held), time + u128::from(held))
    });
    let last = readings.last()?.rss_bytes;
    Some(sum.checked_div(time).map_or(last, |mean| u64::try_from(mean).unwrap_or(u64::MAX)))
}

impl RunReport {
    /// What came of a run, with the limit that it had.
    pub fn ended(allocator: &str, env: Vec<String>, ended: &Ended) -> Self {
        Self {
            memory_limit_bytes: Some(ended.memory_limit),
            memory_limited_by: Some(ended.limited_by.name()),
            ..Self::new(allocator, env, &ended.outcome)
        }
    }

    /// What came of a run.
    pub fn new(allocator: &str, env: Vec<String>, outcome: &Outcome) -> Self {
        let empty = Self {
            allocator: allocator.to_owned(),
            env,
            outcome: "failed",
            reason: None,
            peak_rss_bytes: None,
            average_rss_bytes: None,
            final_rss_bytes: None,
            end_rss_bytes: None,
            trimmed_rss_bytes: None,
            mappings: None,
            trimmed_mappings: None,
            seconds: None,
            minor_faults: None,
            memory_limit_bytes: None,
            memory_limited_by: None,
            readings: Vec::new(),
        };
        let stopped = |outcome, reason: String, reached: u64| Self {
            outcome,
            reason: Some(reason),
            peak_rss_bytes: Some(reached),
            ..empty.clone()
        };
        match outcome {
            Outcome::Completed(run) => empty.clone().with(run, "completed"),
            Outcome::OutOfMemory(run) => Self {
                reason: Some(format!("{} of {} calls failed for want of memory", run.failed_calls, run.calls)),
                ..empty.clone().with(run, "out_of_memory")
            },
            &Outcome::MemoryLimit { reached } => {
                stopped("memory_limit", "stopped at the memory limit; --memory-limit raises it".to_owned(), reached)
            }
            &Outcome::TimeLimit { reached } => {
                stopped("time_limit", "stopped at the time limit; --time-limit raises it".to_owned(), reached)
            }
            &Outcome::Crashed { signal, reached } => stopped("crashed", format!("ended by signal {signal}"), reached),
            Outcome::Failed(reason) => Self { reason: Some(reason.clone()), ..empty.clone() },
        }
    }

    /// An allocator that is not there.
    pub fn missing(allocator: &str, reason: String) -> Self {
        let failed = Self::new(allocator, Vec::new(), &Outcome::Failed(reason));
        Self { outcome: "missing", ..failed }
    }

    fn with(self, run: &Run, outcome: &'static str) -> Self {
        // The recorded program had grown before its first reading, and so had the run.
        let base = run.points.first().map_or(0, |first| first.bytes);
        let since = |bytes: u64| bytes.saturating_sub(base);
        let readings = run.points.iter().map(|point| Reading {
            number: point.reading,
            at_ns: point.nanoseconds,
            rss_bytes: since(point.bytes),
        });
        Self {
            outcome,
            peak_rss_bytes: Some(since(run.peak_bytes)),
            final_rss_bytes: Some(since(run.points.last().map_or(run.final_bytes, |point| point.bytes))),
            end_rss_bytes: Some(since(run.final_bytes)),
            trimmed_rss_bytes: run.trimmed_bytes.map(since),
            mappings: Some(replay::Kinds::from(run.mappings).into()),
            trimmed_mappings: run.trimmed_mappings.map(|it| replay::Kinds::from(it).into()),
            seconds: Some(run.nanoseconds as f64 / 1e9),
            minor_faults: Some(run.minor_faults),
            readings: readings.collect(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_goes_by_the_time_of_the_recorded_program() {
        let reading = |(number, at_ns, rss_bytes)| Reading { number, at_ns, rss_bytes };
        let original = [(0, 100, 0), (1, 110, 40), (2, 140, 8), (3, 150, 9)].map(reading);
        assert_eq!(average(&original, &original), Some((40 * 30 + 8 * 10) / 50));
        // The run took other times, and has not come to the third reading.
        let run = [(0, 5, 0), (1, 6, 80), (2, 900, 16)].map(reading);
        assert_eq!(average(&run, &original), Some(80 * 30 / 40));
        assert_eq!(average(&run[1..2], &original), Some(80));
        assert_eq!(average(&[], &original), None);
    }
}
