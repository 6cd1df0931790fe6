//! Walks of the traced processes' heaps: as the trace begins, so that the blocks which are older are known; after
//! losses, to mend what was lost; and as it ends, so that the report rests on what is there.

use super::args::TraceArgs;
use super::tally::Tally;
use memfrag::capture::Capture;
use memfrag::capture::survey::{self, Survey};
use memfrag::glibc::{ChunkKind, Version, WalkError};
use memfrag::report::units::{bytes, count};
use std::time::{Duration, Instant};

/// Time between two walks that losses ask for: a process that loses events has no time to stand still often.
const EVERY: Duration = Duration::from_secs(5);

/// Which processes are walked, and when.
#[derive(Debug)]
pub(super) struct Walks {
    pids: Vec<u32>,
    off: bool,
    /// Events that were lost before the last walk.
    lost: u64,
    last: Option<Instant>,
}

impl Walks {
    /// For the processes of `--pid`. A whole machine is not made to stand still.
    pub(super) fn new(args: &TraceArgs) -> Self {
        let pids = if args.no_walk { Vec::new() } else { args.pid.clone() };
        Self { pids, off: args.no_walk, lost: 0, last: None }
    }

    /// A launched command, which began without any blocks.
    pub(super) fn launched(&mut self, pid: u32) {
        if !self.off {
            self.pids.push(pid);
        }
    }

    /// Begins the trace of running processes.
    pub(super) fn begin(
        &mut self,
        capture: &mut dyn Capture,
        tally: &mut Tally,
        say: &dyn Fn(&str),
    ) -> anyhow::Result<()> {
        for (pid, result) in survey::begin(capture, &self.pids, tally)? {
            match result {
                Ok(survey) => say(&found(pid, &survey)),
                Err(error) if is_expected(&error) => {}
                Err(error) => {
                    let why = match error.downcast_ref::<WalkError>() {
                        Some(WalkError::UnknownVersion { version, .. }) => format!(
                            "process {pid} uses glibc {version}, and memfrag knows the heaps of {} to {}",
                            Version::OLDEST,
                            Version::NEWEST
                        ),
                        _ => format!("{error:#}"),
                    };
                    say(&format!("the heap cannot be walked, so blocks older than the trace stay unknown: {why}"));
                }
            }
        }
        Ok(())
    }

    /// Walks again if events were lost meanwhile.
    pub(super) fn after_losses(&mut self, capture: &mut dyn Capture, tally: &mut Tally, say: &dyn Fn(&str)) {
        let lost = tally.lost();
        if lost > self.lost && self.last.is_none_or(|last| last.elapsed() >= EVERY) {
            self.lost = lost;
            for (pid, result) in self.walk(capture, tally) {
                if result.is_ok() {
                    say(&format!("events were lost; the heap of process {pid} was walked to mend the state"));
                }
            }
        }
    }

    /// As the trace ends: processes that still run are walked once more.
    pub(super) fn end(&mut self, capture: &mut dyn Capture, tally: &mut Tally) {
        // What failed when the trace began was said then; without this walk the report knows the last one.
        self.walk(capture, tally);
    }

    fn walk(&mut self, capture: &mut dyn Capture, tally: &mut Tally) -> Vec<(u32, anyhow::Result<Survey>)> {
        let walks = self.pids.iter().map(|&pid| (pid, survey::survey(capture, pid, tally))).collect();
        self.last = Some(Instant::now());
        walks
    }
}

/// Whether a walk fails for a reason that the user knows or need not know: which allocator a process has was said.
fn is_expected(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<WalkError>(), Some(WalkError::OtherAllocator { .. } | WalkError::NoAllocator { .. }))
}

fn found(pid: u32, survey: &Survey) -> String {
    let layout = &survey.walk.layout;
    let blocks: usize = layout.arenas.iter().map(|arena| arena.count_of(ChunkKind::Used)).sum();
    let used: u64 = layout.arenas.iter().map(|arena| arena.bytes_of(ChunkKind::Used)).sum();
    let mapped: u64 = layout.mapped.iter().map(|chunk| chunk.bytes).sum();
    format!(
        "process {pid} had {} blocks in {} of chunks when the trace began; it stood still for {:.1} ms to be read",
        count((blocks + layout.mapped.len()) as u64),
        bytes(used + mapped),
        survey.stopped.as_secs_f64() * 1000.0,
    )
}
