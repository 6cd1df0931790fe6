//! States of the heaps at places of the recording, in chunks of their own.
//!
//! A checkpoint is nothing but a short cut: whoever does not know it, or finds it damaged, goes through the events
//! before it. What the state's bytes mean is not the recording's business; here they are cut into chunks and put
//! together again. `docs/FORMAT.md` describes both.

use super::background::Job;
use super::chunk::{self, ChunkHeader, HEADER, kind};
use super::columns::{Packer, Unpacker};
use super::cursor::Mark;
use super::reader::Reader;
use super::varint::{Input, put};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How states are coded. A reader uses those of its own number alone.
const VERSION: u64 = 1;
/// Bytes of a state that a chunk takes. Events that come meanwhile wait for one chunk at most.
const PART: usize = 4 << 20;
/// The most bytes of a state.
pub(super) const MAX_STATE: usize = 1 << 29;
/// More bytes than the meta part has.
const MAX_META: u32 = 64;
/// How long to wait for the events that are to be written first.
const NAP: Duration = Duration::from_millis(2);

/// What stands before each part of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Events before the place.
    pub(super) event: u64,
    /// Where the chunk begins in the file that comes next at that place.
    offset: u64,
    /// Bytes of the whole state.
    length: u64,
    /// The number of this part, from 0.
    pub(super) part: u64,
}

impl Meta {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for value in [VERSION, self.event, self.offset, self.length, self.part] {
            put(&mut out, value);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input::new(bytes);
        if input.varint()? != VERSION {
            return None;
        }
        let (event, offset, length, part) = (input.varint()?, input.varint()?, input.varint()?, input.varint()?);
        Some(Self { event, offset, length, part }).filter(|_| length > 0 && length <= MAX_STATE as u64)
    }

    /// Whether the state ends with this part, as [`Reader::write_checkpoint`] cuts it.
    pub(super) const fn is_last(&self) -> bool {
        self.part >= (self.length - 1) / PART as u64
    }
}

/// A part of a checkpoint on its way into the file.
pub(super) struct Part {
    /// The chunk's, not yet complete.
    pub(super) header: ChunkHeader,
    /// What `bytes` says.
    pub(super) meta: Meta,
    /// The chunk's meta part.
    pub(super) bytes: Vec<u8>,
    /// Its payload as it is stored.
    pub(super) payload: Vec<u8>,
}

/// The checkpoints that a recording was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many are whole.
    pub count: u64,
    /// Bytes that they take in the file.
    pub bytes: u64,
    /// Events before the place that the last of them is of.
    pub event: u64,
}

/// Where checkpoints of a recording that is being written go: see [`Writer::checkpoints`](super::Writer::checkpoints).
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    /// `None` once the recording has ended.
    jobs: Arc<Mutex<Option<SyncSender<Job>>>>,
}

impl Checkpoints {
    pub(super) fn new(jobs: SyncSender<Job>) -> Self {
        Self { jobs: Arc::new(Mutex::new(Some(jobs))) }
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Has the parts of checkpoints written that come [from somewhere](Reader::write_checkpoint), each whenever nothing
    /// else waits to be. Returns at the end of what comes, or when the recording has ended.
    ///
    /// # Errors
    /// When they cannot be read, or are none.
    pub fn pass_on(&self, from: &mut dyn Read) -> io::Result<()> {
        let other = || io::Error::new(io::ErrorKind::InvalidData, "what came is no part of a checkpoint");
        loop {
            let mut bytes = Vec::new();
            from.take(HEADER as u64).read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                return Ok(());
            }
            let header = bytes.first_chunk().and_then(ChunkHeader::decode).ok_or_else(other)?;
            let (mut meta, mut payload) = (Vec::new(), Vec::new());
            from.take(u64::from(header.meta_length)).read_to_end(&mut meta)?;
            from.take(u64::from(header.stored_length)).read_to_end(&mut payload)?;
            // One that was cut short is left out: who made it has ended.
            let is_whole = payload.len() == header.stored_length as usize;
            if header.kind != kind::CHECKPOINT {
                return Err(other());
            }
            if !is_whole {
                return Ok(());
            }
            let part = Part { header, meta: Meta::decode(&meta).ok_or_else(other)?, bytes: meta, payload };
            if !self.send(Job::Checkpoint(Box::new(part))) {
                return Ok(());
            }
        }
    }

    /// Hands a job over once there is room; false when the recording has ended.
    fn send(&self, mut job: Job) -> bool {
        loop {
            // Not held while waiting: who ends the recording must not wait for this.
            let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(sender) = &*jobs else { return false };
            match sender.try_send(job) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => job = back,
            }
            drop(jobs);
            std::thread::sleep(NAP);
        }
    }
}

/// A checkpoint in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    meta: Meta,
    mark: Mark,
    /// Its first chunk.
    position: usize,
}

impl Checkpoint {
    /// The place whose state it holds, from which a cursor can go on.
    pub const fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Bytes of the state unpacked.
    pub const fn state_bytes(&self) -> u64 {
        self.meta.length
    }
}

impl Reader {
    /// Writes a state that was reached at `mark` as a checkpoint's parts, for [`Checkpoints::pass_on`]. Returns how many
    /// bytes they take; `None` when the state is too large.
    ///
    /// # Errors
    /// When it cannot be packed, or `out` cannot take it.
    pub fn write_checkpoint(&self, mark: &Mark, state: &[u8], out: &mut dyn Write) -> io::Result<Option<u64>> {
        if state.is_empty() || state.len() > MAX_STATE {
            return Ok(None);
        }
        let offset = self.offset_of(mark.chunk());
        let mut packer = Packer::new()?;
        let (mut payload, mut whole) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for (part, piece) in (0..).zip(state.chunks(PART)) {
            let meta = Meta { event: mark.event(), offset, length: state.len() as u64, part }.encode();
            packer.pack_bytes(piece, &mut payload)?;
            let (unpacked_length, last_time) = (piece.len() as u32, mark.latest());
            let header =
                ChunkHeader { kind: kind::CHECKPOINT, items: 1, unpacked_length, last_time, ..ChunkHeader::default() };
            chunk::assemble(header, &meta, &payload, &mut whole);
            out.write_all(&whole)?;
            bytes += whole.len() as u64;
        }
        out.flush()?;
        Ok(Some(bytes))
    }

    /// The checkpoints before which nothing is later than `time`, and which are not behind the event of number `event`;
    /// the last one first. They are found by their headers: whether one is whole shows when [its state is
    /// read](Self::state).
    pub fn checkpoints_before(&self, time: u64, event: u64) -> impl Iterator<Item = Checkpoint> + '_ {
        let chunks = self.entries().iter().enumerate().rev();
        let wanted = chunks.filter(move |(_, entry)| {
            entry.header.kind == kind::CHECKPOINT
                && entry.header.last_time <= time
                && entry.header.meta_length <= MAX_META
        });
        let found = wanted.filter_map(|(position, entry)| {
            let mut bytes = [0; MAX_META as usize];
            let bytes = &mut bytes[..entry.header.meta_length as usize];
            self.file.read_exact_at(bytes, entry.offset + HEADER as u64).ok()?;
            let meta = Meta::decode(bytes).filter(|meta| meta.part == 0 && meta.event <= entry.header.first_event)?;
            let chunk = self.entries()[..position].partition_point(|entry| entry.offset < meta.offset);
            let mark = Mark::found(chunk, meta.event, entry.header.last_time, self.damage());
            Some(Checkpoint { meta, mark, position })
        });
        found.filter(move |checkpoint| checkpoint.meta.event <= event)
    }

    /// The state that a checkpoint holds; `None` when a part of it is damaged or was not written.
    pub fn state(&self, checkpoint: &Checkpoint) -> Option<Vec<u8>> {
        let mut unpacker = Unpacker::new().ok()?;
        let (mut state, mut bytes, mut piece) = (Vec::new(), Vec::new(), Vec::new());
        let mut expected = checkpoint.meta;
        let chunks = (checkpoint.position..).zip(self.entries().get(checkpoint.position..)?);
        for (position, _) in chunks.filter(|(_, entry)| entry.header.kind == kind::CHECKPOINT) {
            let header = self.chunk(position, &mut bytes)?;
            let (meta, payload) = bytes[HEADER..].split_at_checked(header.meta_length as usize)?;
            if Meta::decode(meta)? != expected || header.last_time != checkpoint.mark.latest() {
                return None;
            }
            unpacker.unpack_bytes(payload, header.unpacked_length as usize, &mut piece)?;
            state.extend_from_slice(&piece);
            if state.len() as u64 >= expected.length {
                return (state.len() as u64 == expected.length).then_some(state);
            }
            if piece.is_empty() {
                return None;
            }
            expected.part += 1;
        }
        None
    }
}
