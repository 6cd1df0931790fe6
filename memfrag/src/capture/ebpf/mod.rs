//! Capture by uprobes and a BPF ring buffer: any process, without restart.
//!
//! | file | job |
//! |---|---|
//! | `object` | the BPF object: loaded, and its programs on processes and mappings attached |
//! | `links` | the probes of one allocator library, attached and detached together |
//! | `multi` | many probes in one link, by plain system calls |
//! | `capabilities` | whether this process may do all that |
//! | `calibrate` | what a probe costs on this machine |
//! | `discover` | which files to probe for a process, a command or the machine |
//! | `stacks` | whole stacks: what the programs tell of them, as the recording has it |
//! | `sideband` | what processes tell the kernel of programs that begin and code that is mapped |
//! | `images` | the program and the code of each process, as of the events that were read |
//! | `notices` | what is to be said about processes, and between which events |
//! | `code` | the call frame information of the files that processes run |
//! | `messages` | what an object built for debugging has to say |
//! | `tracefs` | where the kernel describes its tracepoints |

mod calibrate;
mod capabilities;
mod code;
mod discover;
mod images;
mod links;
mod messages;
mod multi;
mod notices;
mod object;
mod sideband;
mod stacks;
mod tracefs;

pub use calibrate::{Cost, calibrate};
pub use capabilities::{has_capabilities, missing_capabilities};
pub use discover::{Placing, known_allocators};
pub use links::kernel_release;
pub use links::{Body, Point, Role};

use super::{Capture, Counters, Sink, monotonic};
use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use discover::Discovery;
use images::Images;
use links::{Links, Programs};
use memfrag_common::config::Scope;
use memfrag_common::loss::{COUNTERS, Counter};
use memfrag_common::names::{self, Names, noted};
use memfrag_common::told::Walking;
use memfrag_common::{Event, Kind, Op, Record};
use messages::Messages;
use notices::Notices;
use object::Loaded;
use sideband::Sideband;
use stacks::Stacks;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// Default size of the ring: more than half a second of the highest rate that one core produces.
pub const RING_BYTES: u32 = 64 << 20;

/// Events handed on at a time.
const BATCH: usize = 4096;

/// Events handed on by one call at most.
const AT_ONCE: u64 = 1 << 20;

/// How to capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which processes the probes report.
    pub scope: Scope,
    /// Bytes of the ring, a power of two.
    pub ring_bytes: u32,
    /// Where probes go.
    pub placing: Placing,
    /// What they do.
    pub body: Body,
    /// Whether the events keep who called.
    pub callers: bool,
    /// How whole stacks are walked, if they are.
    pub walking: Walking,
    /// Names to which traced processes are limited, if there are any; not for [`Scope::Link`].
    pub names: Names,
}

impl Options {
    /// The usual: full records with their callers, best placement, the default ring.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            ring_bytes: RING_BYTES,
            placing: Placing::Best,
            body: Body::Full,
            callers: true,
            walking: Walking::Off,
            names: Names::default(),
        }
    }
}

/// A running capture.
pub struct EbpfCapture {
    scope: Scope,
    names: Names,
    callers: bool,
    links: Vec<Links>,
    discovery: Discovery,
    notices: Notices,
    images: Images,
    /// Why the kernel does not tell what processes run, where it does not.
    without_sideband: Option<String>,
    programs: Programs,
    ring: RingBuf<MapData>,
    counts: PerCpuArray<MapData, u64>,
    lost: HashMap<MapData, u32, u64>,
    traced: HashMap<MapData, u32, u32>,
    running: Array<MapData, u32>,
    /// Where whole stacks are recorded.
    stacks: Option<Stacks>,
    messages: Messages,
    /// Declared last: the programs go after everything that uses their maps.
    loaded: Loaded,
    started: u64,
    undecodable: u64,
    batch: Vec<Event>,
}

impl std::fmt::Debug for EbpfCapture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EbpfCapture")
            .field("links", &self.links.len())
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

impl EbpfCapture {
    /// Loads the programs; nothing is probed yet.
    ///
    /// # Errors
    /// Missing rights, a kernel without what is needed, or no tracefs.
    pub fn new(options: Options) -> Result<Self> {
        let mut loaded = object::load(&options)?;
        let programs = Programs::load(&mut loaded, options.body)?;
        loaded.attach_kernel_side()?;
        let messages = Messages::of(&mut loaded.ebpf);
        let ring = RingBuf::try_from(loaded.take_map("RECORDS")?)?;
        let counts = PerCpuArray::try_from(loaded.take_map("COUNTS")?)?;
        let lost = HashMap::try_from(loaded.take_map("LOST")?)?;
        let traced = HashMap::try_from(loaded.take_map("TRACED")?)?;
        let running = Array::try_from(loaded.take_map("RUNNING")?)?;
        let stacks = match options.walking {
            Walking::Off => None,
            Walking::FramePointers => Some(Stacks::new(None)),
            Walking::Rules => Some(Stacks::new(Some(stacks::rules(loaded.take_map("WALK_RULES")?)?))),
        };
        let (sideband, without_sideband) = match Sideband::open() {
            Ok(sideband) => (Some(sideband), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Ok(Self {
            scope: options.scope,
            names: options.names,
            callers: options.callers,
            links: Vec::new(),
            discovery: Discovery::new(options.placing),
            notices: Notices::new(options.scope),
            images: Images::new(sideband),
            without_sideband,
            programs,
            ring,
            counts,
            lost,
            traced,
            running,
            stacks,
            messages,
            loaded,
            started: monotonic(),
            undecodable: 0,
            batch: Vec::with_capacity(BATCH),
        })
    }

    /// Why mapping events and exit statuses are missing on this kernel, where they are.
    pub fn without_memory_events(&self) -> Option<&str> {
        self.loaded.without_memory_events.as_deref()
    }

    /// Why the kernel does not tell what processes run, where it does not. Then what it lets see of them in `/proc` is known,
    /// as long as they are there.
    pub fn without_sideband(&self) -> Option<&str> {
        self.without_sideband.as_deref()
    }

    /// Whether all probes of a file share one link (kernel 6.10 and later).
    pub fn has_multi_links(&self) -> bool {
        matches!(self.programs, Programs::Multi { .. })
    }

    /// Adds a process to those that are traced; where these are limited to names, from when it becomes another program
    /// on, if that has one of them.
    ///
    /// # Errors
    /// When the programs' table of processes is full.
    pub fn trace_process(&mut self, pid: u32, follow: bool) -> Result<()> {
        let followed = if follow { noted::FOLLOWED } else { 0 };
        let left_out = if self.names.is_empty() { 0 } else { noted::LEFT_OUT };
        self.note(pid, followed | left_out)
    }

    fn note(&mut self, pid: u32, noted: u32) -> Result<()> {
        self.traced.insert(pid, noted, 0).with_context(|| format!("tracing process {pid}"))
    }

    /// Probes the functions of a file, in one process or in all that map it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&mut self, file: &Path, points: &[Point], pid: Option<u32>) -> Result<()> {
        let links = self.programs.attach(&mut self.loaded, file, points, pid)?;
        self.links.push(links);
        Ok(())
    }

    /// Tells the sink what a process is that runs already; that is known from the beginning of the trace.
    pub fn introduce(&mut self, pid: u32, sink: &mut dyn Sink) {
        self.images.come_to(monotonic());
        self.notices.introduce(pid, &mut self.images);
        self.notices.last(0, &mut self.images);
        self.notices.hand_on(&[], sink);
    }

    fn elapsed(&self) -> u64 {
        monotonic().saturating_sub(self.started)
    }

    /// Takes all probes off. The ring keeps what is in it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach(&mut self) -> Result<()> {
        for links in self.links.drain(..) {
            Programs::detach(&mut self.loaded, links).context("detaching probes")?;
        }
        Ok(())
    }

    fn wait(&self, timeout: Duration) {
        let mut ready = libc::pollfd { fd: self.ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid structure. An early return only means an early look.
        unsafe { libc::poll(&raw mut ready, 1, timeout) };
    }

    fn fill_batch(&mut self) {
        self.batch.clear();
        while self.batch.len() < BATCH {
            let Some(bytes) = self.ring.next() else { break };
            if bytes.len() > Record::SIZE {
                let stacks = self.stacks.as_mut();
                if stacks.and_then(|stacks| stacks.take(&bytes, &mut self.images)).is_none() {
                    self.undecodable += 1;
                }
                continue;
            }
            let mut called = None;
            let event = Record::from_bytes(&bytes).and_then(|mut record| {
                if let Some(stacks) = &mut self.stacks
                    && (record.kind == Kind::Alloc as u8 || record.kind == Kind::ReallocEnd as u8)
                {
                    record.extra = stacks.number(record.tid, record.extra);
                }
                if record.kind == Kind::Exec as u8 {
                    let name: Vec<u8> = names::bytes_of([record.addr, record.size]).collect();
                    called = Some(String::from_utf8_lossy(&name).into_owned()).filter(|name| !name.is_empty());
                }
                if !self.callers && record.kind <= Kind::ReallocEnd as u8 {
                    record.site = 0;
                }
                self.images.come_to(record.time);
                Event::decode(&record, record.time.saturating_sub(self.started))
            });
            match event {
                Some(mut event) => {
                    self.notices.before(&mut event, called, self.batch.len(), &mut self.images);
                    self.batch.push(event);
                }
                None => self.undecodable += 1,
            }
        }
        self.notices.last(self.batch.len(), &mut self.images);
    }

    /// Gives the batch to the sink, with what is to be said about processes, and probes the code that is new.
    fn hand_on(&mut self, sink: &mut dyn Sink) {
        if let Some(stacks) = &mut self.stacks {
            let fresh = stacks.fresh();
            if !fresh.is_empty() {
                sink.stacks(&fresh);
            }
        }
        self.notices.hand_on(&self.batch, sink);
        for pid in self.notices.take_changed() {
            // A process that is gone by now has nothing left to probe.
            let _ = self.attach_process(pid);
        }
    }
}

impl Capture for EbpfCapture {
    fn begin(&mut self) -> Result<()> {
        self.started = monotonic();
        self.running.set(0, 1, 0).context("starting the trace")
    }

    fn poll(&mut self, sink: &mut dyn Sink, timeout: Duration) -> Result<u64> {
        self.wait(timeout);
        self.messages.print();
        let (mut total, now) = (0, monotonic());
        // What arrives meanwhile belongs to the next call: a fast target must not keep us here.
        while total < AT_ONCE {
            self.fill_batch();
            if self.batch.is_empty() {
                self.images.sweep(now);
                break;
            }
            total += self.batch.len() as u64;
            self.hand_on(sink);
        }
        Ok(total)
    }

    /// Also tells a gap for each process whose last records were lost.
    fn stop(&mut self, sink: &mut dyn Sink) -> Result<()> {
        // From here on no probe tells anything, whichever is taken off first.
        self.running.set(0, 0, 0).context("ending the trace")?;
        let detached = self.detach();
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
        detached
    }

    fn counters(&self) -> Vec<(Option<u32>, Counters)> {
        let mut counters = [0; COUNTERS];
        for (index, counter) in counters.iter_mut().enumerate() {
            if let Ok(values) = self.counts.get(&(index as u32), 0) {
                *counter = values.iter().sum();
            }
        }
        counters[Counter::Dropped as usize] += self.undecodable;
        counters[Counter::MappingsLost as usize] += self.images.lost();
        if let Some(stacks) = &self.stacks {
            counters[Counter::StackCut as usize] += stacks.cut;
            counters[Counter::StackLost as usize] += stacks.lost;
        }
        vec![(None, counters)]
    }

    fn now(&self) -> u64 {
        self.elapsed()
    }

    fn exited(&mut self, pid: u32, status: i32) {
        self.notices.exited(pid, status);
    }
}
