//! What a trace has brought so far: counted for the progress line, and handed to the recording.

use super::checkpointer::Checkpointer;
use anyhow::Result;
use memfrag::capture::sampler::Sampler;
use memfrag::capture::{Counters, Sink};
use memfrag::glibc::Layout;
use memfrag::recording::{Status, Summary, Writer};
use memfrag::target::{Mapping, MemorySample, ProcessInfo, Residency};
use memfrag_common::stacks::Frame;
use memfrag_common::{Event, Op};
use std::collections::BTreeSet;

/// Time between two readings of a process's memory: a twentieth of what has passed, so that short programs are seen
/// too, between these bounds. With many processes each has its turn less often.
const SAMPLE_NS: std::ops::RangeInclusive<u64> = 5_000_000..=100_000_000;
/// Processes whose memory is read each time.
const SAMPLED_AT_ONCE: usize = 32;

/// Counts and forwards.
#[derive(Debug, Default)]
pub(super) struct Tally {
    writer: Option<Writer>,
    checkpointer: Checkpointer,
    failure: Option<String>,
    /// What came before there was a recording.
    early: Vec<Early>,
    events: u64,
    allocations: u64,
    releases: u64,
    lost: u64,
    processes: BTreeSet<u32>,
    running: BTreeSet<u32>,
    last_sampled: Option<u32>,
    next_sample: u64,
    now: u64,
    rss: u64,
    rss_round: u64,
    /// None without a recording: nobody else wants to know.
    sampler: Option<Sampler>,
}

#[derive(Debug)]
enum Early {
    Process(ProcessInfo),
    Mappings(u64, u32, Vec<Mapping>),
}

impl Sink for Tally {
    fn events(&mut self, events: &[Event]) {
        self.events += events.len() as u64;
        for event in events {
            match event.op {
                Op::Alloc { addr, .. } | Op::ReallocEnd { addr, .. } => self.allocations += u64::from(addr != 0),
                Op::Free { .. } => self.releases += 1,
                Op::ReallocBegin { old, .. } => self.releases += u64::from(old != 0),
                Op::Gap { lost } => self.lost += lost,
                Op::Fork { child, .. } => {
                    self.processes.insert(child);
                    self.running.insert(child);
                }
                Op::Exit { .. } => {
                    self.running.remove(&event.pid);
                }
                _ => {}
            }
        }
        if let Some(writer) = &mut self.writer {
            writer.events(events);
        }
    }

    fn behind(&mut self, behind: bool) {
        if let Some(writer) = &mut self.writer {
            writer.behind(behind);
        }
    }

    fn process(&mut self, process: &ProcessInfo) {
        self.processes.insert(process.pid);
        self.running.insert(process.pid);
        match &mut self.writer {
            Some(writer) => writer.process(process),
            None => self.early.push(Early::Process(process.clone())),
        }
    }

    fn mappings(&mut self, time: u64, pid: u32, mappings: &[Mapping]) {
        match &mut self.writer {
            Some(writer) => writer.mappings(time, pid, mappings),
            None => self.early.push(Early::Mappings(time, pid, mappings.to_vec())),
        }
    }

    fn stacks(&mut self, frames: &[Frame]) {
        if let Some(writer) = &mut self.writer {
            writer.stacks(frames);
        }
    }

    fn memory(&mut self, sample: &MemorySample) {
        if let Some(writer) = &mut self.writer {
            writer.memory(sample);
        }
    }

    fn residency(&mut self, residency: &Residency) {
        if let Some(writer) = &mut self.writer {
            writer.residency(residency);
        }
    }

    fn layout(&mut self, time: u64, pid: u32, layout: &Layout) {
        if let Some(writer) = &mut self.writer {
            writer.layout(time, pid, layout);
        }
    }
}

impl Tally {
    /// Everything goes into this recording, from the first thing on.
    pub(super) fn record(&mut self, mut writer: Writer, checkpointer: Checkpointer) {
        for early in self.early.drain(..) {
            match early {
                Early::Process(process) => writer.process(&process),
                Early::Mappings(time, pid, mappings) => writer.mappings(time, pid, &mappings),
            }
        }
        self.writer = Some(writer);
        self.checkpointer = checkpointer;
        // Without it a recording lacks the resident pages, and nothing else.
        self.sampler = Sampler::start().ok();
    }

    /// Tells the time: due readings of memory are taken, and what waits for the disk is written.
    pub(super) fn tick(&mut self, now: u64) {
        self.now = now;
        if now >= self.next_sample {
            self.next_sample = now + (now / 20).clamp(*SAMPLE_NS.start(), *SAMPLE_NS.end());
            self.sample(now);
        }
        if let Some(mut sampler) = self.sampler.take() {
            let running = std::mem::take(&mut self.running);
            sampler.tick(now, &running, self);
            self.running = running;
            self.sampler = Some(sampler);
        }
        if let Some(writer) = &mut self.writer {
            writer.tick(now);
        }
        self.checkpointer.tick(self.events);
    }

    fn sample(&mut self, now: u64) {
        let from = self.last_sampled.map_or(0, |pid| pid + 1);
        let due: Vec<u32> = self.running.range(from..).copied().take(SAMPLED_AT_ONCE).collect();
        if from == 0 {
            self.rss = std::mem::take(&mut self.rss_round);
        }
        self.last_sampled = if due.len() == SAMPLED_AT_ONCE { due.last().copied() } else { None };
        for pid in due {
            if let Ok(sample) = MemorySample::read(pid, now) {
                self.rss_round += sample.rss;
                self.memory(&sample);
            }
        }
        if self.last_sampled.is_none() {
            self.rss = std::mem::take(&mut self.rss_round);
        }
    }

    pub(super) fn counters(&mut self, counters: &[(Option<u32>, Counters)]) {
        if let Some(writer) = &mut self.writer {
            for (pid, values) in counters {
                writer.counters(*pid, values);
            }
        }
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn processes(&self) -> usize {
        self.processes.len()
    }

    /// Blocks that were allocated and not freed yet, as far as the trace saw them.
    pub(super) fn live(&self) -> u64 {
        self.allocations.saturating_sub(self.releases)
    }

    /// Resident bytes of the traced processes that run.
    pub(super) fn rss(&self) -> u64 {
        self.rss
    }

    /// Events that the stream itself says are missing.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Ends the recording.
    pub(super) fn finish(&mut self, end: u64, status: Option<i32>) -> Result<Option<Summary>> {
        let Some(mut writer) = self.writer.take() else { return Ok(None) };
        writer.flush();
        self.checkpointer.finish();
        let summary = writer.finish(end, status)?;
        if let Some(reason) = &summary.stopped {
            let status = Status::Stopped { reason: reason.clone(), not_recorded: summary.not_recorded };
            self.failure = super::trace::failure_of(&status);
        }
        Ok(Some(summary))
    }

    /// What is to be said of the checkpoints of the recording that this is the summary of.
    pub(super) fn checkpoints(&self, summary: &Summary) -> Vec<String> {
        self.checkpointer.told(summary)
    }

    /// Why the recording is not whole, if it is not.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.clone()
    }
}
