//! Looks at which pages of the traced processes are resident, beside the capture and never in its way.
//!
//! A look at a large heap takes milliseconds, in which a busy program would fill its ring. So a thread of its own
//! takes it, one process at a time, and rests many times as long as it took.

use super::{Sink, monotonic};
use crate::target::Residency;
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// Between two looks passes a twentieth of the trace so far, so that short programs are seen too, within these bounds.
const EVERY_NS: std::ops::RangeInclusive<u64> = 20_000_000..=1_000_000_000;

/// The looks take no more than this part of a processor.
const REST: u32 = 30;

/// Runs of resident pages that a recording gets in a second, on average: 100 kB before packing.
const RUNS_A_SECOND: u64 = 25_000;

/// A look that is wanted.
struct Request {
    pid: u32,
    /// The trace's time minus the monotonic clock's.
    offset: u64,
}

/// A look that was taken.
struct Look {
    pid: u32,
    /// `None` when there was nothing to see: the process has ended, or may not be looked at.
    residency: Option<Residency>,
    took: Duration,
}

/// Looks at one process after the other.
#[derive(Debug)]
pub struct Sampler {
    requests: SyncSender<Request>,
    looks: Receiver<Look>,
    /// The process looked at last.
    last: Option<u32>,
    under_way: bool,
    /// When the next look is due, by the trace's clock.
    next: u64,
}

impl Sampler {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let (requests, to_do) = sync_channel::<Request>(1);
        let (done, looks) = sync_channel(1);
        std::thread::Builder::new().name("memfrag-pages".into()).spawn(move || {
            while let Ok(Request { pid, offset }) = to_do.recv() {
                let begun = Instant::now();
                let residency = Residency::read(pid, monotonic().wrapping_add(offset)).ok();
                if done.send(Look { pid, residency, took: begun.elapsed() }).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { requests, looks, last: None, under_way: false, next: 0 })
    }

    /// Hands on a look that was taken meanwhile, and asks for the next one if it is due at `now` (nanoseconds since the
    /// trace began). The `running` processes have their turns.
    pub fn tick(&mut self, now: u64, running: &BTreeSet<u32>, sink: &mut dyn Sink) {
        match self.looks.try_recv() {
            Ok(look) => {
                self.under_way = false;
                self.next = now + rest(now, &look, running.len());
                if let Some(residency) = look.residency.filter(|_| running.contains(&look.pid)) {
                    sink.residency(&residency);
                }
            }
            Err(TryRecvError::Empty) => {}
            // Without its thread there are no more looks, and the trace goes on.
            Err(TryRecvError::Disconnected) => self.next = u64::MAX,
        }
        if self.under_way || now < self.next {
            return;
        }
        let behind = self.last.and_then(|last| running.range(last.saturating_add(1)..).next());
        let Some(&pid) = behind.or_else(|| running.first()) else { return };
        self.last = Some(pid);
        self.under_way = self.requests.try_send(Request { pid, offset: now.wrapping_sub(monotonic()) }).is_ok();
    }
}

/// Nanoseconds from a look to the next one.
fn rest(now: u64, look: &Look, processes: usize) -> u64 {
    let turn = (now / 20).clamp(*EVERY_NS.start(), *EVERY_NS.end()) / (processes.max(1) as u64);
    let runs = look.residency.iter().flat_map(|residency| &residency.regions).map(|region| region.resident.len());
    let written = runs.sum::<usize>() as u64 * 1_000_000_000 / RUNS_A_SECOND;
    let took = u64::try_from((look.took * REST).as_nanos()).unwrap_or(u64::MAX);
    turn.max(took).max(written)
}
