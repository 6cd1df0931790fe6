//! A walk of a traced process's heap, put into the stream of events at the very moment at which it is true.

use super::{Capture, Sink};
use crate::glibc::walker;
use crate::glibc::{Confidence, Snapshot, Stopped, Walk, WalkError, Walker};
use crate::target::Residency;
use std::time::Duration;

/// How often a process is stopped anew that was caught in the middle of a change to its heap.
const ATTEMPTS: u32 = 12;

/// What a survey brought.
#[derive(Debug)]
pub struct Survey {
    /// The walk.
    pub walk: Walk,
    /// How long the process stood still, all attempts together.
    pub stopped: Duration,
}

/// Begins the trace of running processes while they stand still, so that the walk tells exactly what was there before:
/// one result for each process. Those that cannot be walked are traced all the same.
///
/// # Errors
/// When the capture cannot begin.
pub fn begin(
    capture: &mut dyn Capture,
    pids: &[u32],
    sink: &mut dyn Sink,
) -> anyhow::Result<Vec<(u32, anyhow::Result<Survey>)>> {
    let stop = |pid| -> Result<(Walker, Stopped), WalkError> { Ok((Walker::new(pid)?, Stopped::new(pid)?)) };
    let stopped: Vec<_> = pids.iter().map(|&pid| (pid, stop(pid))).collect();
    capture.begin()?;
    Ok(stopped
        .into_iter()
        .map(|(pid, stopped)| {
            let survey = stopped.map_err(anyhow::Error::from).and_then(|(walker, stopped)| {
                let first = Reading::take(capture, &walker, stopped, sink)?;
                first.or_again(capture, &walker, sink)
            });
            (pid, survey)
        })
        .collect())
}

/// Stops the process, hands on every event up to then, reads its heap and which of its pages are resident, and lets it
/// go on. What was read follows in the sink, before any later event; a walk that does not add up is not handed on.
///
/// # Errors
/// When the process has another allocator than a glibc that is known, cannot be stopped, or is gone; or when the
/// capture cannot go on.
pub fn survey(capture: &mut dyn Capture, pid: u32, sink: &mut dyn Sink) -> anyhow::Result<Survey> {
    let walker = Walker::new(pid)?;
    let stopped = Stopped::new(pid).map_err(WalkError::from)?;
    let first = Reading::take(capture, &walker, stopped, sink)?;
    first.or_again(capture, &walker, sink)
}

/// What was read while the process stood still.
struct Reading {
    time: u64,
    snapshot: Result<Snapshot, WalkError>,
    residency: Option<Residency>,
    stopped: Duration,
}

impl Reading {
    /// Hands on the events up to now, reads, and lets the process go on.
    fn take(capture: &mut dyn Capture, walker: &Walker, stopped: Stopped, sink: &mut dyn Sink) -> anyhow::Result<Self> {
        capture.settle(sink)?;
        let time = capture.now();
        let snapshot = walker.snapshot();
        let residency = Residency::read(walker.pid(), time).ok();
        let elapsed = stopped.elapsed();
        drop(stopped);
        Ok(Self { time, snapshot, residency, stopped: elapsed })
    }

    /// Hands on what was read, or what further attempts bring if a thread was caught in the middle of a change.
    fn or_again(mut self, capture: &mut dyn Capture, walker: &Walker, sink: &mut dyn Sink) -> anyhow::Result<Survey> {
        let mut attempt = 1;
        let snapshot = loop {
            match self.snapshot {
                Ok(snapshot) => break snapshot,
                Err(WalkError::Damaged { .. } | WalkError::Unreadable { .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
            std::thread::sleep(walker::pause(attempt));
            let stopped = Stopped::new(walker.pid()).map_err(WalkError::from)?;
            let before = self.stopped;
            self = Self::take(capture, walker, stopped, sink)?;
            self.stopped += before;
        };
        let walk = snapshot.analyse();
        if walk.confidence != Confidence::Doubtful {
            sink.layout(self.time, walk.pid, &walk.layout);
        }
        if let Some(residency) = &self.residency {
            sink.residency(residency);
        }
        Ok(Survey { walk, stopped: self.stopped })
    }
}
