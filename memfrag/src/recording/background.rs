//! The thread that packs and writes, so that the capturing thread need not.

use super::checkpoint::{Part, Written};
use super::chunk::{self, ChunkHeader, kind};
use super::columns::{Draft, Packer};
use super::encode::Sealed;
use super::index::{self, Entry};
use super::store::Store;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What it costs, in nanoseconds for each byte saved, to pack columns: a store that takes less is given them as they are
/// when there is no time to lose.
const PACKING_COST: f64 = 3.0;

/// Something to write.
pub(super) enum Job {
    /// A chunk of events.
    Events(Box<Sealed>),
    /// A chunk of notes or of stacks: its header, not yet complete, and what is in it.
    Notes(ChunkHeader, Vec<u8>),
    /// A part of a checkpoint.
    Checkpoint(Box<Part>),
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// What both threads see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Set once, when a write has failed.
    failed: AtomicBool,
    /// Events that came too late to be written.
    not_recorded: AtomicU64,
    /// Events in whole chunks on the disk.
    events: AtomicU64,
    /// Bytes of the file.
    bytes: AtomicU64,
    /// Why the recording stopped.
    reason: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(super) fn not_recorded(&self) -> u64 {
        self.not_recorded.load(Ordering::Relaxed)
    }

    pub(super) fn add_not_recorded(&self, events: u64) {
        self.not_recorded.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first failure is the one that counts.
    pub(super) fn fail(&self, why: String) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.failed.store(true, Ordering::Release);
    }
}

/// The file as far as it has been written.
pub(super) struct Output {
    store: Box<dyn Store>,
    path: PathBuf,
    packer: Packer,
    /// Bytes of the header and all whole chunks.
    length: u64,
    /// Events given before whatever comes next.
    events_before: u64,
    chunks: Vec<Entry>,
    checkpoints: Written,
    /// Parts in the file of the checkpoint that is under way.
    parts: u64,
    /// Nanoseconds that the store takes for a byte, averaged over the last chunks.
    append_cost: f64,
    shared: Arc<Shared>,
    body: Vec<u8>,
    payload: Vec<u8>,
    whole: Vec<u8>,
}

impl Output {
    /// Begins behind a header of `length` bytes that has been written.
    pub(super) fn new(store: Box<dyn Store>, path: &Path, length: u64, shared: Arc<Shared>) -> io::Result<Self> {
        shared.bytes.store(length, Ordering::Relaxed);
        Ok(Self {
            store,
            path: path.to_path_buf(),
            packer: Packer::new()?,
            length,
            events_before: 0,
            chunks: Vec::new(),
            checkpoints: Written::default(),
            parts: 0,
            append_cost: 0.0,
            shared,
            body: Vec::new(),
            payload: Vec::new(),
            whole: Vec::new(),
        })
    }

    /// Works until there are no more jobs. Buffers that are free again go back by `empty`.
    pub(super) fn run(mut self, jobs: &Receiver<Job>, empty: &Sender<Draft>) -> Self {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Events(sealed) => {
                    let Sealed { mut draft, in_haste, header, meta } = *sealed;
                    self.events(&mut draft, in_haste, header, &meta);
                    // The capturing thread may be gone already.
                    let _ = empty.send(draft);
                }
                Job::Notes(header, notes) => self.notes(header, &notes),
                Job::Checkpoint(part) => self.checkpoint(*part),
            }
        }
        self
    }

    fn events(&mut self, draft: &mut Draft, in_haste: bool, mut header: ChunkHeader, meta: &[u8]) {
        let events = u64::from(header.items);
        self.events_before = header.first_event + events;
        if self.shared.has_failed() {
            self.shared.add_not_recorded(events);
            return;
        }
        let plain = in_haste && self.append_cost < PACKING_COST;
        let packed = self.packer.pack(draft, plain, &mut self.body, &mut self.payload);
        let written = packed.and_then(|unpacked| {
            header.unpacked_length = unpacked as u32;
            self.append(header, meta)
        });
        match written {
            Ok(()) => {
                self.shared.events.fetch_add(events, Ordering::Relaxed);
            }
            Err(error) => {
                self.shared.add_not_recorded(events);
                self.fail(&error);
            }
        }
    }

    pub(super) fn notes(&mut self, mut header: ChunkHeader, notes: &[u8]) {
        if self.shared.has_failed() {
            return;
        }
        header.unpacked_length = notes.len() as u32;
        let written = self.packer.pack_bytes(notes, &mut self.payload).and_then(|()| self.append(header, &[]));
        if let Err(error) = written {
            self.fail(&error);
        }
    }

    fn checkpoint(&mut self, part: Part) {
        let Part { mut header, meta, bytes, payload } = part;
        // Without the parts before it is good for nothing.
        if self.shared.has_failed() || meta.part != 0 && meta.part != self.parts {
            return;
        }
        self.parts = 0;
        header.first_event = self.events_before;
        self.payload = payload;
        let before = self.length;
        match self.append(header, &bytes) {
            Ok(()) if meta.is_last() => {
                self.checkpoints.count += 1;
                self.checkpoints.event = meta.event;
            }
            Ok(()) => self.parts = meta.part + 1,
            // It is not missed. Events that do not fit either say why.
            Err(_) => {
                if let Err(error) = self.store.cut(self.length) {
                    self.fail(&error);
                }
            }
        }
        self.checkpoints.bytes += self.length - before;
    }

    /// The checkpoints that are in the file.
    pub(super) const fn checkpoints(&self) -> Written {
        self.checkpoints
    }

    /// Appends the packed payload as a chunk. After an error any part of it may be in the file.
    fn append(&mut self, header: ChunkHeader, meta: &[u8]) -> io::Result<()> {
        chunk::assemble(header, meta, &self.payload, &mut self.whole);
        let begun = Instant::now();
        self.store.append(&self.whole)?;
        // One that takes long for once does not make a slow store.
        let cost = (begun.elapsed().as_nanos() as f64 / self.whole.len() as f64).min(4.0 * PACKING_COST);
        self.append_cost += (cost - self.append_cost) / 8.0;
        // The index needs the header as it was written.
        if let Some(written) = self.whole.first_chunk().and_then(ChunkHeader::decode) {
            self.chunks.push(Entry { offset: self.length, header: written });
        }
        self.length += self.whole.len() as u64;
        self.shared.bytes.store(self.length, Ordering::Relaxed);
        Ok(())
    }

    /// Cuts the file back to its last whole chunk and says why no more will come.
    fn fail(&mut self, error: &io::Error) {
        let cut = match self.store.cut(self.length) {
            Ok(()) => String::new(),
            Err(error) => format!(" (and cannot cut off the chunk begun: {error}; readers pass over it)"),
        };
        let hint = match error.kind() {
            io::ErrorKind::StorageFull => "free some space or record to another disk with -o",
            io::ErrorKind::QuotaExceeded => "raise the quota or record to another disk with -o",
            io::ErrorKind::FileTooLarge => "raise the limit on file sizes (ulimit -f)",
            _ => "check the disk",
        };
        self.shared.fail(format!(
            "cannot write {}: {error}{cut}; the recording ends here, readable, with {} events; {hint}",
            self.path.display(),
            self.shared.events(),
        ));
    }

    /// Ends the file: the last notes, the index, the trailer. When they do not fit, the file stays as it was before
    /// them, readable without. Returns the bytes of the file.
    pub(super) fn finish(mut self, end_header: ChunkHeader, end: &[u8]) -> (u64, io::Result<()>) {
        let before = self.length;
        let result = self.try_finish(end_header, end);
        if result.is_err() {
            // What cannot be cut off is passed over by readers.
            let _ = self.store.cut(before);
            self.length = before;
        }
        (self.length, result)
    }

    fn try_finish(&mut self, mut header: ChunkHeader, end: &[u8]) -> io::Result<()> {
        header.unpacked_length = end.len() as u32;
        self.packer.pack_bytes(end, &mut self.payload)?;
        self.append(header, &[])?;
        let mut entries = std::mem::take(&mut self.body);
        entries.clear();
        index::encode(&self.chunks, &mut entries);
        self.packer.pack_bytes(&entries, &mut self.payload)?;
        let items = self.chunks.len() as u32;
        let unpacked_length = entries.len() as u32;
        let at = self.length;
        self.append(ChunkHeader { kind: kind::INDEX, items, unpacked_length, ..ChunkHeader::default() }, &[])?;
        self.store.append(&index::trailer(at))?;
        self.length += index::TRAILER as u64;
        self.shared.bytes.store(self.length, Ordering::Relaxed);
        Ok(())
    }
}
