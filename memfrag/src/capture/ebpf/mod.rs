//! Capture by uprobes and a BPF ring buffer: any process, without restart.
//!
//! | file | job |
//! |---|---|
//! | `object` | the BPF object: loaded, and its programs on processes and mappings attached |
//! | `links` | the probes of one allocator library, attached and detached together |
//! | `multi` | many probes in one link, by plain system calls |
//! | `tracefs` | where the kernel describes its tracepoints |

mod links;
mod multi;
mod object;
mod tracefs;

pub use links::{Point, Role};

use super::{Counters, Sink};
use crate::target::{ProcessInfo, maps};
use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use links::{Links, Programs};
use memfrag_common::config::Scope;
use memfrag_common::loss::{COUNTERS, Counter};
use memfrag_common::{Event, Op, Record};
use object::Loaded;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// Default size of the ring: more than half a second of the highest rate that one core produces.
pub const RING_BYTES: u32 = 64 << 20;

/// Events handed on at a time.
const BATCH: usize = 4096;

/// `PROT_EXEC`: mappings with it change what call sites mean.
const PROT_EXEC: u32 = 4;

/// A running capture.
pub struct EbpfCapture {
    links: Vec<Links>,
    programs: Programs,
    ring: RingBuf<MapData>,
    counts: PerCpuArray<MapData, u64>,
    lost: HashMap<MapData, u32, u64>,
    traced: HashMap<MapData, u32, u32>,
    /// Declared last: the programs go after everything that uses their maps.
    loaded: Loaded,
    started: u64,
    undecodable: u64,
    batch: Vec<Event>,
    /// Processes whose code mappings have changed in this batch.
    remapped: BTreeSet<u32>,
}

impl std::fmt::Debug for EbpfCapture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EbpfCapture").field("links", &self.links.len()).field("started", &self.started).finish_non_exhaustive()
    }
}

/// Nanoseconds of the clock that the programs stamp with.
pub fn monotonic_now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

impl EbpfCapture {
    /// Loads the programs; nothing is probed yet.
    ///
    /// # Errors
    /// Missing rights, a kernel without what is needed, or no tracefs.
    pub fn new(scope: Scope, ring_bytes: u32) -> Result<Self> {
        let mut loaded = object::load(scope, ring_bytes)?;
        let programs = Programs::load(&mut loaded)?;
        loaded.attach_kernel_side()?;
        let ring = RingBuf::try_from(loaded.take_map("RECORDS")?)?;
        let counts = PerCpuArray::try_from(loaded.take_map("COUNTS")?)?;
        let lost = HashMap::try_from(loaded.take_map("LOST")?)?;
        let traced = HashMap::try_from(loaded.take_map("TRACED")?)?;
        Ok(Self {
            links: Vec::new(),
            programs,
            ring,
            counts,
            lost,
            traced,
            loaded,
            started: monotonic_now(),
            undecodable: 0,
            batch: Vec::with_capacity(BATCH),
            remapped: BTreeSet::new(),
        })
    }

    /// Why mapping events and exit statuses are missing on this kernel, where they are.
    pub fn without_memory_events(&self) -> Option<&str> {
        self.loaded.without_memory_events.as_deref()
    }

    /// Whether all probes of a file share one link (kernel 6.10 and later).
    pub fn has_multi_links(&self) -> bool {
        matches!(self.programs, Programs::Multi { .. })
    }

    /// Nanoseconds since the trace began.
    pub fn now(&self) -> u64 {
        monotonic_now().saturating_sub(self.started)
    }

    /// Adds a process to those that are traced.
    pub fn trace_process(&mut self, pid: u32, follow: bool) -> Result<()> {
        self.traced.insert(pid, u32::from(follow), 0).with_context(|| format!("tracing process {pid}"))
    }

    /// Probes the functions of a file, in one process or in all that map it.
    pub fn attach(&mut self, file: &Path, points: &[Point], pid: Option<u32>) -> Result<()> {
        let links = self.programs.attach(&mut self.loaded, file, points, pid)?;
        self.links.push(links);
        Ok(())
    }

    /// Takes all probes off. The ring keeps what is in it.
    pub fn detach(&mut self) -> Result<()> {
        for links in self.links.drain(..) {
            Programs::detach(&mut self.loaded, links).context("detaching probes")?;
        }
        Ok(())
    }

    /// Waits for a wake-up, but no longer than `timeout`, then hands on everything that is in the ring. Returns the
    /// number of events.
    pub fn poll(&mut self, sink: &mut dyn Sink, timeout: Duration) -> Result<usize> {
        let mut ready = libc::pollfd { fd: self.ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid structure.
        unsafe { libc::poll(&raw mut ready, 1, timeout) };
        let mut total = 0;
        // What arrives meanwhile belongs to the next call: a fast target must not keep us here.
        loop {
            self.fill_batch();
            if self.batch.is_empty() {
                break;
            }
            total += self.batch.len();
            self.hand_on(sink);
            if total > 1 << 20 {
                break;
            }
        }
        Ok(total)
    }

    fn fill_batch(&mut self) {
        self.batch.clear();
        while self.batch.len() < BATCH {
            let Some(bytes) = self.ring.next() else { break };
            let event = Record::from_bytes(&bytes)
                .and_then(|record| Event::decode(&record, record.time.saturating_sub(self.started)));
            match event {
                Some(event) => self.batch.push(event),
                None => self.undecodable += 1,
            }
        }
    }

    /// Gives the batch to the sink, with what `/proc` says about processes that have just changed before and behind.
    fn hand_on(&mut self, sink: &mut dyn Sink) {
        for event in &self.batch {
            match event.op {
                Op::Exec => {
                    if let Ok(process) = ProcessInfo::read(event.pid, event.time) {
                        sink.process(&process);
                    }
                    self.remapped.insert(event.pid);
                }
                Op::Fork { child, .. } => {
                    if let Ok(process) = ProcessInfo::read(child, event.time) {
                        sink.process(&process);
                    }
                    self.remapped.insert(child);
                }
                Op::Mmap { protection, fd, .. } if protection & PROT_EXEC != 0 && fd >= 0 => {
                    self.remapped.insert(event.pid);
                }
                _ => {}
            }
        }
        sink.events(&self.batch);
        for pid in std::mem::take(&mut self.remapped) {
            if let Ok(mappings) = maps::read(pid) {
                sink.mappings(self.now(), pid, &mappings);
            }
        }
    }

    /// Hands on the rest, and a gap for each process whose last records were lost. Call it after [`Self::detach`].
    pub fn finish(&mut self, sink: &mut dyn Sink) -> Result<()> {
        while self.poll(sink, Duration::ZERO)? > 0 {}
        let time = self.now();
        let gaps: Vec<Event> = self
            .lost
            .iter()
            .filter_map(Result::ok)
            .filter(|&(_, lost)| lost > 0)
            .map(|(pid, lost)| Event { time, pid, tid: pid, op: Op::Gap { lost } })
            .collect();
        if !gaps.is_empty() {
            sink.events(&gaps);
        }
        Ok(())
    }

    /// What was counted so far, all CPUs together.
    pub fn counters(&self) -> Counters {
        let mut counters = [0; COUNTERS];
        for (index, counter) in counters.iter_mut().enumerate() {
            if let Ok(values) = self.counts.get(&(index as u32), 0) {
                *counter = values.iter().sum();
            }
        }
        counters[Counter::Dropped as usize] += self.undecodable;
        counters
    }
}
