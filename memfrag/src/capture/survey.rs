//! A walk of a traced process's heap, put into the stream of events at the very moment at which it is true.

use super::{Capture, Sink};
use crate::glibc::{Confidence, Stopped, Walk, WalkError, Walker};
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

/// Stops the process, hands on every event up to then, reads its heap and which of its pages are resident, and lets it
/// go on. What was read follows in the sink, before any later event; a walk that does not add up is not handed on.
///
/// # Errors
/// When the process has another allocator than a glibc that is known, cannot be stopped, or is gone; or when the
/// capture cannot go on.
pub fn survey(capture: &mut dyn Capture, pid: u32, sink: &mut dyn Sink) -> anyhow::Result<Survey> {
    let walker = Walker::new(pid)?;
    let mut stood_still = Duration::ZERO;
    let mut attempt = 1;
    let (time, snapshot, residency) = loop {
        let stopped = Stopped::new(pid).map_err(WalkError::from)?;
        capture.settle(sink)?;
        let time = capture.now();
        let snapshot = walker.snapshot();
        let residency = Residency::read(pid, time);
        stood_still += stopped.elapsed();
        drop(stopped);
        match snapshot {
            Ok(snapshot) => break (time, snapshot, residency),
            Err(WalkError::Damaged { .. } | WalkError::Unreadable { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let walk = snapshot.analyse();
    if walk.confidence != Confidence::Doubtful {
        sink.layout(time, pid, &walk.layout);
    }
    if let Ok(residency) = residency {
        sink.residency(&residency);
    }
    Ok(Survey { walk, stopped: stood_still })
}
