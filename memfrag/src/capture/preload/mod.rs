//! Capture with the preload library: the daemon's side.
//!
//! A session is a directory in shared memory. A command that is launched with the session's environment loads the
//! library, makes its file there and writes its records to rings in it; so do the processes that it starts. The
//! session looks for files, reads the rings, and merges them into one causal order.
//!
//! | module | its job |
//! |---|---|
//! | `directory` | the directory and the library in it |
//! | `clock` | ticks and nanoseconds |
//! | `image` | one program image: its files and rings |
//! | `roster` | which images there are, and since and until when |
//! | `pass` | one pass over the rings |
//! | `watermark` | up to where no record can come any more |
//! | `merge` | one order out of many rings |
//! | `stacks` | the table of stacks that all of them share |
//! | `output` | records to batches of events |

#![allow(clippy::cast_ptr_alignment, reason = "mappings are page-aligned, and so are the parts of the shared layout")]

mod clock;
mod directory;
mod image;
mod merge;
mod output;
mod pass;
mod roster;
mod stacks;
mod watermark;

use crate::capture::{Capture, Counters, Sink, monotonic};
use crate::target::{Mapping, ProcessInfo};
use clock::{Every, Ticker};
use directory::Directory;
use image::{Image, has_ended};
use memfrag_common::loss::COUNTERS;
use memfrag_common::names::Names;
use memfrag_common::session::{MAGIC, SESSION_FILE, STACKS_FILE, SessionHeader, Stacks, VERSION};
use memmap2::{MmapOptions, MmapRaw};
use merge::Merger;
use output::Output;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

/// Slots of a ring unless the session is told otherwise: 2 MiB for each thread that allocates.
pub const RING_SLOTS: u32 = 1 << 16;

/// How long the end of a session waits for ended processes that bring nothing more.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the library's variable is called.
const PRELOAD: &str = "LD_PRELOAD";

/// What one call of [`PreloadSession::poll`] has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events handed to the sink.
    pub events: u64,
    /// Traced processes that are still running.
    pub running: usize,
    /// Traced processes ever seen.
    pub seen: usize,
}

/// A session of the preload backend.
#[derive(Debug)]
pub struct PreloadSession {
    directory: Directory,
    header: MmapRaw,
    slots: u32,
    images: Vec<Image>,
    known: HashSet<OsString>,
    output: Output,
    /// The table of stacks, if there is one.
    stacks: Option<stacks::Stacks>,
    merger: Merger,
    /// Ticks at which the last pass began.
    last_pass: u64,
    /// Records taken out of the rings.
    taken: u64,
    /// Passes since one took anything.
    idle: u32,
    /// What the last pass suggests to wait before the next.
    pause: Duration,
    /// The session's count of processes when the directory was last read.
    processes: u64,
    seen: usize,
    scan: Every,
    check: Every,
    look: Every,
    statuses: HashMap<u32, i32>,
    mappings: HashMap<u32, Rc<Vec<Mapping>>>,
    descriptions: HashMap<u32, ProcessInfo>,
    /// What children are that have not appeared yet, of parents that have ended.
    orphans: HashMap<u32, (ProcessInfo, Rc<Vec<Mapping>>)>,
    totals: HashMap<u32, Counters>,
    foreign: u64,
    damaged: u64,
    finishing: bool,
    /// The programs are faster than what is made of their records.
    behind: bool,
}

impl PreloadSession {
    /// Makes a session with rings of [`RING_SLOTS`] that records callers. The trace begins now.
    ///
    /// # Errors
    ///
    /// When there is no place for the shared files or the library.
    pub fn create() -> io::Result<Self> {
        Self::with(RING_SLOTS, Stacks::Caller)
    }

    /// Makes a session with rings of `slots` records each, rounded up to a power of two, that records so much of stacks.
    ///
    /// # Errors
    ///
    /// When there is no place for the shared files or the library.
    pub fn with(slots: u32, stacks: Stacks) -> io::Result<Self> {
        let slots = slots.clamp(64, 1 << 24).next_power_of_two();
        let directory = Directory::create()?;
        let ticker = Ticker::start();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.data().join(SESSION_FILE))?;
        file.set_len(4096)?;
        let map = MmapOptions::new().len(4096).map_raw(&file)?;
        let session = Self {
            header: map,
            slots,
            images: Vec::new(),
            known: HashSet::from([SESSION_FILE, STACKS_FILE].map(OsString::from)),
            output: Output::new(ticker),
            stacks: stacks.are_full().then(|| stacks::Stacks::create(directory.data())).transpose()?,
            merger: Merger::default(),
            last_pass: ticker.now(),
            taken: 0,
            idle: 0,
            pause: Duration::ZERO,
            processes: 0,
            seen: 0,
            scan: Every::new(Duration::from_millis(100)),
            check: Every::new(Duration::from_millis(5)),
            look: Every::new(Duration::from_secs(1)),
            statuses: HashMap::new(),
            mappings: HashMap::new(),
            descriptions: HashMap::new(),
            orphans: HashMap::new(),
            totals: HashMap::new(),
            foreign: 0,
            damaged: 0,
            finishing: false,
            behind: false,
            directory,
        };
        let header = session.header();
        header.version.store(VERSION, Relaxed);
        header.clock.store(ticker.clock() as u32, Relaxed);
        header.daemon.store(std::process::id(), Relaxed);
        header.ring_slots.store(slots, Relaxed);
        header.stacks.store(stacks as u32, Relaxed);
        header.limit_to(&Names::default());
        header.heartbeat.store(monotonic(), Relaxed);
        header.active.store(1, Relaxed);
        header.magic.store(MAGIC, Release);
        Ok(session)
    }

    /// Limits the session to programs of these names, before the first one is launched.
    pub fn limit_to(&self, names: &Names) {
        self.header().limit_to(names);
    }

    fn header(&self) -> &SessionHeader {
        let header: *const SessionHeader = self.header.as_ptr().cast();
        // SAFETY: the mapping is a page, the header smaller, all its fields atomic.
        unsafe { &*header }
    }

    /// The variables with which a command is to be launched, given those that it would have otherwise.
    pub fn env(&self) -> Vec<(OsString, OsString)> {
        let mut libraries = self.directory.library().into_os_string();
        if let Some(others) = std::env::var_os(PRELOAD).filter(|others| !others.as_bytes().is_empty()) {
            libraries.push(":");
            libraries.push(others);
        }
        vec![(OsString::from(PRELOAD), libraries)]
    }

    /// Tells how a process ended, which its parent alone can learn: the event of its end then carries the status.
    pub fn exited(&mut self, pid: u32, wait_status: i32) {
        self.statuses.insert(pid, wait_status);
    }

    /// Hands on what the programs have done, waiting for it up to `timeout`.
    ///
    /// # Errors
    ///
    /// When the session's directory cannot be read.
    pub fn poll(&mut self, sink: &mut dyn Sink, timeout: Duration) -> io::Result<Progress> {
        let deadline = Instant::now() + timeout;
        let before = self.output.events;
        loop {
            let pause = self.pause.min(deadline.saturating_duration_since(Instant::now()));
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
            self.pass(sink)?;
            let events = self.output.events - before;
            if events > 0 || Instant::now() >= deadline {
                return Ok(Progress { events, running: self.running(), seen: self.seen });
            }
        }
    }

    /// Hands on all that is left, and ends the session: programs that still run go on untraced.
    ///
    /// # Errors
    ///
    /// When the session's directory cannot be read.
    pub fn finish(&mut self, sink: &mut dyn Sink) -> io::Result<Progress> {
        let before = self.output.events;
        // What was written before this call is older than the passes that follow.
        let end = self.output.ticker.now();
        self.header().active.store(0, Release);
        self.finishing = true;
        // Ended processes go once they are read to the end. One that a stopped thread holds back is given up, but not
        // while there still is something to read, however long that takes.
        let mut read = (self.taken, Instant::now());
        while self.last_pass <= end || (self.images.iter().any(Image::ended) && read.1.elapsed() < PATIENCE) {
            self.pass(sink)?;
            if self.taken != read.0 || self.last_pass <= end {
                read = (self.taken, Instant::now());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        let running = self.running();
        if running > 0 {
            self.directory.keep_library();
        }
        Ok(Progress { events: self.output.events - before, running, seen: self.seen })
    }

    /// The counters of all processes together.
    pub fn counters(&self) -> Counters {
        let mut sum = [0; COUNTERS];
        for counters in self.counters_by_process().values() {
            for (total, value) in sum.iter_mut().zip(counters) {
                *total += value;
            }
        }
        sum
    }

    /// The counters of each process, its images taken together.
    pub fn counters_by_process(&self) -> HashMap<u32, Counters> {
        let mut all = self.totals.clone();
        for image in &self.images {
            let entry = all.entry(image.pid).or_default();
            for (total, value) in entry.iter_mut().zip(image.counters()) {
                *total += value;
            }
        }
        all
    }

    /// Events that came so late that others with later stamps had already been handed on: their thread had been
    /// stopped for over a second between the stamp and the record.
    pub fn late(&self) -> u64 {
        self.output.late
    }

    /// Records of unknown kinds, files of another version, and rings whose indices made no sense.
    pub fn unreadable(&self) -> u64 {
        self.output.unknown + self.foreign + self.damaged
    }

    /// `CLOCK_MONOTONIC` nanoseconds from the start of the trace to now.
    pub fn elapsed(&self) -> u64 {
        self.output.ticker.nanoseconds(self.output.ticker.now())
    }

    fn running(&self) -> usize {
        self.images.iter().filter(|image| !image.ended()).count()
    }
}

impl Drop for PreloadSession {
    fn drop(&mut self) {
        self.header().active.store(0, Release);
        if self.images.iter().any(|image| !image.pidfd.as_ref().is_none_or(has_ended)) {
            self.directory.keep_library();
        }
    }
}

impl Capture for PreloadSession {
    /// The session's clock runs since it was made, which is only a moment ago.
    fn begin(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn poll(&mut self, sink: &mut dyn Sink, timeout: Duration) -> anyhow::Result<u64> {
        Ok(Self::poll(self, sink, timeout)?.events)
    }

    /// However much lies in the rings. But a thread that was stopped in the middle of a record holds back what others
    /// made later: that comes when it goes on.
    fn settle(&mut self, sink: &mut dyn Sink) -> anyhow::Result<()> {
        let now = self.output.ticker.now();
        let mut moved = (self.taken, Instant::now());
        while self.last_pass <= now || (self.holds_older(now) && moved.1.elapsed() < PATIENCE) {
            self.pass(sink)?;
            if self.taken != moved.0 {
                moved = (self.taken, Instant::now());
            }
        }
        Ok(())
    }

    fn stop(&mut self, sink: &mut dyn Sink) -> anyhow::Result<()> {
        self.finish(sink)?;
        Ok(())
    }

    fn counters(&self) -> Vec<(Option<u32>, Counters)> {
        let all = std::iter::once((None, Self::counters(self)));
        all.chain(self.counters_by_process().into_iter().map(|(pid, counters)| (Some(pid), counters))).collect()
    }

    fn now(&self) -> u64 {
        self.elapsed()
    }

    fn exited(&mut self, pid: u32, status: i32) {
        Self::exited(self, pid, status);
    }
}
