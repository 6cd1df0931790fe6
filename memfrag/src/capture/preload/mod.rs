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
//! | `merge` | one order out of many rings |
//! | `output` | records to batches of events |

#![allow(clippy::cast_ptr_alignment, reason = "mappings are page-aligned, and so are the parts of the shared layout")]

mod clock;
mod directory;
mod image;
mod merge;
mod output;

use crate::capture::{Capture, Counters, Sink};
use crate::target::{Mapping, process};
use clock::{Every, Ticker, monotonic};
use directory::Directory;
use image::{Image, Opened, Ring, has_ended};
use memfrag_common::event::Op;
use memfrag_common::loss::COUNTERS;
use memfrag_common::session::{MAGIC, Origin, SESSION_FILE, SessionHeader, VERSION};
use memmap2::{MmapOptions, MmapRaw};
use merge::Merger;
use output::Output;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

/// Slots of a ring unless the session is told otherwise: 1.5 MiB for each thread that allocates.
pub const RING_SLOTS: u32 = 1 << 15;

/// A thread that has been about to write for so long is stopped, not at work: the others need not wait for it.
const STOPPED: Duration = Duration::from_secs(1);

/// How long to wait after a pass that found hardly anything, and after one that found nothing: short enough for a ring
/// not to fill up meanwhile, long enough to leave the processor to the programs.
const PAUSE: Duration = Duration::from_micros(150);
const REST: Duration = Duration::from_millis(1);

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
    descriptions: HashMap<u32, crate::target::ProcessInfo>,
    totals: HashMap<u32, Counters>,
    foreign: u64,
    damaged: u64,
    finishing: bool,
}

impl PreloadSession {
    /// Makes a session with rings of [`RING_SLOTS`]. The trace begins now.
    ///
    /// # Errors
    ///
    /// When there is no place for the shared files or the library.
    pub fn create() -> io::Result<Self> {
        Self::with_ring_slots(RING_SLOTS)
    }

    /// Makes a session with rings of `slots` records each, rounded up to a power of two.
    ///
    /// # Errors
    ///
    /// When there is no place for the shared files or the library.
    pub fn with_ring_slots(slots: u32) -> io::Result<Self> {
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
            known: HashSet::from([OsString::from(SESSION_FILE)]),
            output: Output::new(ticker),
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
            totals: HashMap::new(),
            foreign: 0,
            damaged: 0,
            finishing: false,
            directory,
        };
        let header = session.header();
        header.version.store(VERSION, Relaxed);
        header.clock.store(ticker.clock() as u32, Relaxed);
        header.daemon.store(std::process::id(), Relaxed);
        header.ring_slots.store(slots, Relaxed);
        header.heartbeat.store(monotonic(), Relaxed);
        header.active.store(1, Relaxed);
        header.magic.store(MAGIC, Release);
        Ok(session)
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

    /// One look at everything.
    fn pass(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        // A store takes no longer to be seen than this: see the module of the ring.
        let slack = self.output.ticker.ticks(Duration::from_micros(20));
        let mut begin = self.output.ticker.now();
        while begin.saturating_sub(self.last_pass) < slack {
            std::hint::spin_loop();
            begin = self.output.ticker.now();
        }
        // After the pass's own stamp: whoever sees this takes a later one.
        self.header().heartbeat.store(monotonic(), Release);
        let now = Instant::now();
        if self.check.due(now) || self.finishing {
            for image in &mut self.images {
                image.dead = image.dead || image.pidfd.as_ref().is_none_or(has_ended);
            }
        }
        // Whoever was dead by now has counted its files before.
        let processes = self.header().processes.load(Acquire);
        if processes != self.processes || self.scan.due(now) {
            self.processes = processes;
            self.find_images()?;
        }
        let before = self.taken;
        let watermark = self.observe(begin);
        self.release(watermark, sink);
        self.last_pass = begin;
        let taken = self.taken - before;
        self.idle = if taken == 0 { self.idle.saturating_add(1) } else { 0 };
        self.pause = self.pause_after(taken);
        if self.look.due(now) {
            self.refresh_mappings(sink);
        }
        self.retire(sink);
        self.output.flush(sink);
        Ok(())
    }

    /// How long to wait after a pass that took so many records. What still lies in the rings is as a rule too young
    /// for its pass, not for the next: only a ring held back by a thread at work is worth no hurry.
    fn pause_after(&self, taken: u64) -> Duration {
        let share = self.share() / 2;
        let waiting = self.images.iter().flat_map(|image| &image.rings).map(|ring| ring.head - ring.tail).max();
        match (taken, waiting.unwrap_or(0)) {
            (taken, waiting) if taken >= share || (waiting >= share && self.idle < 3) => Duration::ZERO,
            (0, 0) => REST,
            _ => PAUSE,
        }
    }

    /// How many records one pass takes. The next pass takes none that were made after this one began: were it to
    /// empty the rings, a program that keeps them full would find the daemon with nothing that it may take.
    fn share(&self) -> u64 {
        if self.finishing { u64::MAX } else { (u64::from(self.slots) / 4).max(1024) }
    }

    fn find_images(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(self.directory.data())? {
            let entry = entry?;
            let name = entry.file_name();
            // Names with a dot are further files of the same process.
            if self.known.contains(&name) || name.as_bytes().contains(&b'.') {
                continue;
            }
            match Image::open(&entry.path(), self.slots) {
                Ok(Opened::Image(image)) => {
                    self.known.insert(name);
                    self.add(*image);
                }
                Ok(Opened::Unfinished) => {}
                Ok(Opened::Foreign) => {
                    self.known.insert(name);
                    self.foreign += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.known.insert(name);
                    self.foreign += 1;
                    if error.raw_os_error() == Some(libc::EMFILE) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, image: Image) {
        let pid = image.pid;
        self.seen += 1;
        self.images.push(image);
        // Appearances are told in order.
        self.images.sort_by_key(|image| image.born);
        // Of the images of one process all but the last are gone. An image of the same id that started at another
        // time was another process, which must have ended.
        let mut later = self.images.iter_mut().rev().filter(|image| image.pid == pid);
        if let Some(last) = later.next() {
            let last = last.start_ticks;
            for old in later {
                old.replaced = old.start_ticks == last;
                old.dead = true;
            }
        }
    }

    /// Looks how far each ring is. Returns the watermark: no record at or below it can come any more.
    fn observe(&mut self, begin: u64) -> u64 {
        let mut watermark = self.last_pass;
        let stopped = self.output.ticker.ticks(STOPPED);
        for image in &mut self.images {
            if image.find_rings().is_err() {
                self.damaged += 1;
            }
            let ended = image.ended();
            for ring in &mut image.rings {
                let (state, head) = ring.header().observe();
                if head < ring.tail || head - ring.tail > ring.capacity() {
                    self.damaged += 1;
                    ring.tail = head;
                }
                ring.head = head;
                if state == 0 || ended {
                    ring.at_work = None;
                    continue;
                }
                let since = match ring.at_work {
                    Some((old_state, old_head, since)) if (old_state, old_head) == (state, head) => since,
                    _ => begin,
                };
                ring.at_work = Some((state, head, since));
                if begin - since < stopped {
                    let last = if head > ring.tail { ring.slot(head - 1).load()[0] } else { ring.last };
                    watermark = watermark.min(last);
                }
            }
        }
        watermark
    }

    /// Hands on everything up to the watermark.
    fn release(&mut self, watermark: u64, sink: &mut dyn Sink) {
        while let Some(index) = self.images.iter().position(|image| !image.announced && image.born <= watermark) {
            let born = self.images[index].born;
            self.release_records(born.saturating_sub(1), u64::MAX, sink);
            self.announce(index, sink);
        }
        self.release_records(watermark, self.share(), sink);
    }

    /// Hands on the records up to `limit`, but no more than `most`.
    fn release_records(&mut self, limit: u64, most: u64, sink: &mut dyn Sink) {
        let mut rings: Vec<&mut Ring> =
            self.images.iter_mut().flat_map(|image| &mut image.rings).filter(|ring| ring.tail < ring.head).collect();
        let output = &mut self.output;
        self.taken += self.merger.release(&mut rings, limit, most, |words, stamp| output.record(words, stamp, sink));
    }

    /// Tells that an image has appeared.
    fn announce(&mut self, index: usize, sink: &mut dyn Sink) {
        let image = &mut self.images[index];
        image.announced = true;
        let (pid, parent, born, origin) = (image.pid, image.ppid, image.born, image.origin);
        let time = self.output.ticker.nanoseconds(born);
        let (mut info, maps) = image.describe(time);
        let exec_of_known = origin == Origin::Exec && self.descriptions.contains_key(&pid);
        let has_parent = self.descriptions.contains_key(&parent);
        if has_parent && !exec_of_known && !self.output.told.remove(&pid) {
            let flags = match origin {
                Origin::Fork => {
                    self.output.appeared.insert(pid);
                    0
                }
                // It began in its parent's memory or in a copy, which does not matter any more.
                Origin::Exec => (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
            };
            self.output.remark(born, parent, parent, Op::Fork { child: pid, flags }, sink);
        }
        self.output.flush(sink);
        let maps = if origin == Origin::Fork {
            if let Some(known) = self.descriptions.get(&parent) {
                info.comm.clone_from(&known.comm);
                info.exe.clone_from(&known.exe);
                info.cmdline.clone_from(&known.cmdline);
            }
            self.mappings.get(&parent).map(Rc::clone).unwrap_or_default()
        } else {
            Rc::new(maps)
        };
        sink.process(&info);
        sink.mappings(time, pid, &maps);
        self.mappings.insert(pid, maps);
        self.descriptions.insert(pid, info);
        if origin == Origin::Exec && (exec_of_known || has_parent) {
            self.output.remark(born, pid, pid, Op::Exec, sink);
        }
    }

    /// Looks whether running processes have loaded libraries since.
    fn refresh_mappings(&mut self, sink: &mut dyn Sink) {
        for image in self.images.iter().filter(|image| image.announced && !image.ended()) {
            let Ok(maps) = process::files(image.pid) else { continue };
            tell_mappings(&mut self.mappings, &mut self.output, image.pid, maps, sink);
        }
    }

    /// Lets go of images that have ended and been read to the end.
    fn retire(&mut self, sink: &mut dyn Sink) {
        let me = std::process::id();
        let mut index = 0;
        while let Some(image) = self.images.get(index) {
            let read = image.announced && image.rings.iter().all(|ring| ring.tail == ring.head);
            // The status of our own child will be told.
            let known = image.ppid != me || self.statuses.contains_key(&image.pid) || self.finishing || image.replaced;
            if !(image.ended() && read && known) {
                index += 1;
                continue;
            }
            let image = self.images.remove(index);
            let entry = self.totals.entry(image.pid).or_default();
            for (total, value) in entry.iter_mut().zip(image.counters()) {
                *total += value;
            }
            if let Some(maps) = image.last_mappings() {
                tell_mappings(&mut self.mappings, &mut self.output, image.pid, maps, sink);
            }
            // Nothing can be written to them any more.
            for chunk in 0..=image.rings.len() {
                let mut path = image.path().as_os_str().to_owned();
                if chunk > 0 {
                    path.push(format!(".{chunk}"));
                }
                if fs::remove_file(&path).is_err() {
                    break;
                }
            }
            if let Some(name) = image.path().file_name() {
                self.known.remove(name);
            }
            let stamp = image.rings.iter().map(|ring| ring.last).max().unwrap_or(image.born);
            for ring in &image.rings {
                let owner = ring.header().owner.0.owner.load(Relaxed) as u32;
                if owner != 0 {
                    self.output.remark(stamp, image.pid, owner, Op::ThreadExit, sink);
                }
            }
            if !image.replaced {
                let status = self.statuses.remove(&image.pid);
                self.output.remark(stamp, image.pid, image.pid, Op::Exit { status }, sink);
                self.descriptions.remove(&image.pid);
                self.mappings.remove(&image.pid);
                self.output.told.remove(&image.pid);
                self.output.appeared.remove(&image.pid);
            }
        }
    }
}

/// Tells a process's mappings if they have changed.
fn tell_mappings(
    known: &mut HashMap<u32, Rc<Vec<Mapping>>>,
    output: &mut Output,
    pid: u32,
    maps: Vec<Mapping>,
    sink: &mut dyn Sink,
) {
    if maps.is_empty() || known.get(&pid).is_some_and(|old| **old == maps) {
        return;
    }
    output.flush(sink);
    sink.mappings(output.last(), pid, &maps);
    known.insert(pid, Rc::new(maps));
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
