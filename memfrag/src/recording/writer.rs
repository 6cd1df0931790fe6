//! Writing a recording.

use super::background::{Job, Output, Shared};
use super::checkpoint::{Checkpoints, Written};
use super::chunk::{ChunkHeader, kind};
use super::columns::Draft;
use super::encode::Encoder;
use super::error::RecordingError;
use super::header::Header;
use super::notes::{self, End};
use super::stacks::Waiting;
use super::store::Store;
use crate::capture::{Counters, Sink};
use crate::glibc::Layout;
use crate::target::{Mapping, MemorySample, ProcessInfo, Residency};
use memfrag_common::Event;
use memfrag_common::stacks::Frame;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Events wait no longer than this for their chunk to fill up, unless the writer is told otherwise.
const PATIENCE: Duration = Duration::from_millis(500);
/// Notes are written when they have become this many bytes, full chunk of events or not.
const NOTES_ENOUGH: usize = 256 << 10;
/// Chunks that may wait for the disk; with more, the capturing thread waits.
const WAITING: usize = 4;

/// How a recording is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Everything given so far is or will be in the file.
    Recording,
    /// The file could not take more. It ends with its last whole chunk and can be read.
    Stopped {
        /// What happened and what to do.
        reason: String,
        /// Events given that are not in the file.
        not_recorded: u64,
    },
}

/// What a finished recording holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Events in the file.
    pub events: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Events given that are not in the file.
    pub not_recorded: u64,
    /// The checkpoints in it.
    pub checkpoints: Written,
    /// Whether the file has its index; without, opening it takes a scan.
    pub complete: bool,
    /// Why the recording stopped before its end, if it did.
    pub stopped: Option<String>,
}

/// Writes a recording as its parts come in.
///
/// No call fails: when the file cannot take more, the recording stops, [`Writer::status`] says why, and whatever
/// comes later is counted. Call [`Writer::tick`] a few times a second, so that events do not wait for their chunk to
/// fill up: what a killed process had not been told to write is lost.
pub struct Writer {
    encoder: Encoder,
    /// Events given.
    given: u64,
    stacks: Waiting,
    notes: Vec<u8>,
    note_count: u32,
    note_times: (u64, u64),
    /// The latest time that the writer was told.
    now: u64,
    /// The time at which the oldest waiting event or note came.
    waiting_since: Option<u64>,
    /// For how long, in nanoseconds.
    patience: u64,
    shared: Arc<Shared>,
    jobs: Option<SyncSender<Job>>,
    checkpoints: Checkpoints,
    empty: Receiver<Draft>,
    worker: Option<JoinHandle<Output>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("given", &self.given).field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Writer {
    /// Begins a recording in the file at `path`, which is replaced if it exists. Under sudo the file is given to the
    /// user who called it.
    ///
    /// # Errors
    /// When the file cannot be created, or cannot take the header.
    pub fn create(path: &Path, header: &Header) -> Result<Self, RecordingError> {
        let error = |source| RecordingError::Io { action: "create", path: path.to_path_buf(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(error)?;
        // Some file systems know no owners; a recording that is root's is better than none.
        let _ = give_to_caller_of_sudo(&file);
        Self::on(file, path, header)
    }

    /// Begins a recording in an empty file that is open for writing. The path is only what messages call it.
    ///
    /// # Errors
    /// When the file cannot take the header.
    pub fn on(mut file: File, path: &Path, header: &Header) -> Result<Self, RecordingError> {
        let error = |action| move |source| RecordingError::Io { action, path: path.to_path_buf(), source };
        let start = header.encode(path)?;
        // It tells who follows the recording that its writer lives. Where the file system knows no locks, they take it
        // for one that was cut short, and still see what comes.
        let _ = file.try_lock();
        file.append(&start).map_err(error("write the header of"))?;
        Self::with_store(Box::new(file), path, start.len() as u64).map_err(error("start writing"))
    }

    /// Writes behind a header of `length` bytes.
    pub(super) fn with_store(store: Box<dyn Store>, path: &Path, length: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (jobs, to_do) = mpsc::sync_channel(WAITING);
        let (done, empty) = mpsc::channel();
        let output = Output::new(store, path, length, Arc::clone(&shared))?;
        let worker =
            std::thread::Builder::new().name("memfrag-record".into()).spawn(move || output.run(&to_do, &done))?;
        Ok(Self {
            encoder: Encoder::new(),
            given: 0,
            stacks: Waiting::default(),
            notes: Vec::new(),
            note_count: 0,
            note_times: (u64::MAX, 0),
            now: 0,
            waiting_since: None,
            patience: PATIENCE.as_nanos() as u64,
            shared,
            checkpoints: Checkpoints::new(jobs.clone()),
            jobs: Some(jobs),
            empty,
            worker: Some(worker),
        })
    }

    /// Whether the recording still takes what it is given.
    pub fn status(&self) -> Status {
        match self.shared.reason() {
            None => Status::Recording,
            Some(reason) => Status::Stopped { reason, not_recorded: self.shared.not_recorded() },
        }
    }

    /// Bytes of the file so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// Notes what the backend has counted since the trace began, for one process or for all of it. The counters are
    /// stored with the latest time that the writer knows of.
    pub fn counters(&mut self, pid: Option<u32>, counters: &Counters) {
        let time = self.now;
        self.note(time, |notes, before| notes::put_counters(notes, before, time, pid, counters));
    }

    /// Where checkpoints of the states that the recording leads to go. Who makes them follows the file as any other
    /// reader does, and may outlive the writer.
    pub fn checkpoints(&self) -> Checkpoints {
        self.checkpoints.clone()
    }

    /// How long events and notes may wait for their chunk to fill up: half a second unless it is set. Chunks that are
    /// written early take more bytes an event, and whoever follows the recording sees them early.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    }

    /// Tells the time, in nanoseconds since the trace began. What has waited for long enough is written.
    pub fn tick(&mut self, now_ns: u64) {
        self.now = self.now.max(now_ns);
        if self.waiting_since.is_some_and(|since| self.now - since >= self.patience) {
            self.flush();
        }
    }

    /// Has everything written that was given so far, without waiting for it.
    pub fn flush(&mut self) {
        self.waiting_since = None;
        self.flush_stacks();
        self.flush_notes();
        if self.encoder.len() > 0 {
            let first = self.given - self.encoder.len() as u64;
            let draft = self.empty.try_recv().unwrap_or_else(|_| Draft::new());
            let sealed = self.encoder.seal(draft, first);
            self.send(Job::Events(Box::new(sealed)));
        }
    }

    /// Ends the recording at `end_ns` and waits until all of it is written. `status` is the wait status of the
    /// command that was traced, if one was launched and has ended.
    ///
    /// # Errors
    /// When the writing thread has gone, which it never should. A disk that could not take everything is no error:
    /// the summary tells.
    pub fn finish(self, end_ns: u64, status: Option<i32>) -> Result<Summary, RecordingError> {
        self.finish_as(End { time: end_ns, status, ..End::default() })
    }

    /// Ends the recording as another one has ended, of which it is a copy; what could not be recorded is added.
    pub(super) fn finish_as(mut self, end: End) -> Result<Summary, RecordingError> {
        self.flush();
        self.checkpoints.close();
        drop(self.jobs.take());
        let output = self.worker.take().and_then(|worker| worker.join().ok()).ok_or_else(|| RecordingError::Io {
            action: "finish",
            path: PathBuf::from("the recording"),
            source: io::Error::other("its writing thread has failed"),
        })?;
        let end = End {
            events: self.shared.events(),
            not_recorded: end.not_recorded.saturating_add(self.shared.not_recorded()),
            stopped: self.shared.reason().unwrap_or(end.stopped),
            ..end
        };
        let mut notes = Vec::new();
        notes::put_end(&mut notes, self.given, &end);
        let header = ChunkHeader {
            kind: kind::NOTES,
            items: 1,
            first_time: end.time,
            last_time: end.time,
            first_event: self.given,
            ..ChunkHeader::default()
        };
        let checkpoints = output.checkpoints();
        let (bytes, ended) = output.finish(header, &notes);
        let stopped = self
            .shared
            .reason()
            .or_else(|| ended.as_ref().err().map(|error| format!("cannot write its index: {error}")));
        let complete = ended.is_ok();
        Ok(Summary { events: end.events, bytes, checkpoints, not_recorded: end.not_recorded, complete, stopped })
    }

    /// Writes what was given and leaves the recording without an end. Why it could not be written, if so.
    pub(super) fn leave(self) -> Option<String> {
        let shared = Arc::clone(&self.shared);
        drop(self);
        shared.reason()
    }

    fn send(&mut self, job: Job) {
        let events = match &job {
            Job::Events(sealed) => u64::from(sealed.header.items),
            Job::Notes(..) | Job::Checkpoint(_) => 0,
        };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            self.shared.add_not_recorded(events);
            self.shared.fail("the thread that writes the recording has failed".into());
        }
    }

    /// Stacks stand before the events that use them.
    fn flush_stacks(&mut self) {
        if let Some((header, frames)) = self.stacks.take(self.given - self.encoder.len() as u64) {
            self.send(Job::Notes(header, frames));
        }
    }

    fn flush_notes(&mut self) {
        if self.note_count > 0 {
            let header = ChunkHeader {
                kind: kind::NOTES,
                items: self.note_count,
                first_time: self.note_times.0,
                last_time: self.note_times.1,
                first_event: self.given - self.encoder.len() as u64,
                ..ChunkHeader::default()
            };
            let notes = std::mem::take(&mut self.notes);
            self.note_count = 0;
            self.note_times = (u64::MAX, 0);
            self.send(Job::Notes(header, notes));
        }
    }

    /// Takes a note that `put` writes, given the number of events before it.
    fn note(&mut self, time: u64, put: impl FnOnce(&mut Vec<u8>, u64)) {
        if self.shared.has_failed() {
            return;
        }
        put(&mut self.notes, self.given);
        self.note_count += 1;
        self.note_times = (self.note_times.0.min(time), self.note_times.1.max(time));
        self.now = self.now.max(time);
        self.waiting_since.get_or_insert(self.now);
        if self.notes.len() >= NOTES_ENOUGH {
            self.flush_notes();
        }
    }
}

impl Sink for Writer {
    fn behind(&mut self, behind: bool) {
        self.encoder.set_behind(behind);
    }

    fn events(&mut self, events: &[Event]) {
        if self.shared.has_failed() {
            self.shared.add_not_recorded(events.len() as u64);
            return;
        }
        let Some(last) = events.last() else { return };
        let mut rest = events;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.encoder.room()));
            self.encoder.push_all(now);
            self.given += now.len() as u64;
            if self.encoder.room() == 0 {
                self.flush();
            }
            rest = later;
        }
        if self.encoder.len() > 0 {
            // The events tell the time as well, unless theirs is nonsense.
            let since = *self.waiting_since.get_or_insert(self.now.max(self.encoder.first_time().min(last.time)));
            if last.time.saturating_sub(since) >= self.patience {
                self.flush();
            }
        }
    }

    fn process(&mut self, process: &ProcessInfo) {
        self.note(process.time, |notes, before| notes::put_process(notes, before, process));
    }

    fn mappings(&mut self, time: u64, pid: u32, mappings: &[Mapping]) {
        self.note(time, |notes, before| notes::put_mappings(notes, before, time, pid, mappings));
    }

    fn memory(&mut self, sample: &MemorySample) {
        self.note(sample.time, |notes, before| notes::put_memory(notes, before, sample));
    }

    fn residency(&mut self, residency: &Residency) {
        self.note(residency.time, |notes, before| notes::put_residency(notes, before, residency));
    }

    fn stacks(&mut self, frames: &[Frame]) {
        if self.shared.has_failed() {
            return;
        }
        for frame in frames {
            if self.stacks.push(*frame) {
                self.flush_stacks();
            }
        }
    }

    fn layout(&mut self, time: u64, pid: u32, layout: &Layout) {
        notes::put_layout(time, pid, layout, |put| self.note(time, put));
    }
}

impl Drop for Writer {
    /// A recording that is not finished has no end and no index, but everything that was given.
    fn drop(&mut self) {
        if self.worker.is_some() {
            self.flush();
            self.checkpoints.close();
            drop(self.jobs.take());
            if let Some(worker) = self.worker.take() {
                // A thread that failed has said so to `status` already.
                let _ = worker.join();
            }
        }
    }
}

/// A recording made under sudo belongs to whoever called sudo, not to root.
fn give_to_caller_of_sudo(file: &File) -> io::Result<()> {
    let id = |name| std::env::var(name).ok().and_then(|id| id.parse::<u32>().ok());
    let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) else { return Ok(()) };
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    // Devices and pipes stay whose they are.
    if is_root && file.metadata()?.is_file() {
        std::os::unix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    Ok(())
}
