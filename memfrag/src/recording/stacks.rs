//! Recorded stacks: a tree of return addresses, in chunks of their own.
//!
//! A stack is a number, that of its innermost frame, and each frame names the one that called it. Chunks of stacks
//! stand before the events that use them, but belong to no place in particular: whoever wants a stack looks in all.

use super::chunk::{ChunkHeader, HEADER, kind};
use super::columns::Unpacker;
use super::reader::Reader;
use super::varint::{Input, fold, put, unfold};
use memfrag_common::stacks::{Frame, UNKNOWN};
use std::sync::{Mutex, PoisonError};

/// The largest number of a frame. There are that many in a recording at most.
const MOST: u32 = 1 << 24;

/// Frames that are written at once: more than come in any moment, and far fewer than fit a chunk.
const ENOUGH: u32 = 1 << 16;

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    bytes: Vec<u8>,
    count: u32,
    last: (u32, u64),
}

impl Waiting {
    /// Takes a frame; `true` when it is time to write. One whose number or caller is impossible is left out.
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        if frame.number > MOST || frame.parent >= frame.number {
            return false;
        }
        let (number, address) = self.last;
        put(&mut self.bytes, fold(u64::from(frame.number).wrapping_sub(u64::from(number))));
        put(&mut self.bytes, u64::from(frame.number - frame.parent));
        put(&mut self.bytes, fold(frame.address.wrapping_sub(address)));
        self.last = (frame.number, frame.address);
        self.count += 1;
        self.count >= ENOUGH
    }

    /// The header, not yet complete, and the bytes of a chunk of what waits, given the events before it.
    pub(super) fn take(&mut self, first_event: u64) -> Option<(ChunkHeader, Vec<u8>)> {
        let Self { bytes, count, .. } = std::mem::take(self);
        let header = ChunkHeader { kind: kind::STACKS, items: count, first_event, ..ChunkHeader::default() };
        (count > 0).then_some((header, bytes))
    }
}

/// Adds the frames of a chunk; `None` when it is damaged.
pub(super) fn decode(bytes: &[u8], items: u32, frames: &mut Vec<Frame>) -> Option<()> {
    let mut input = Input::new(bytes);
    let (mut number, mut address) = (0u64, 0u64);
    for _ in 0..items {
        number = number.wrapping_add(unfold(input.varint()?));
        let parent = number.checked_sub(input.varint()?)?;
        address = address.wrapping_add(unfold(input.varint()?));
        if number > u64::from(MOST) || parent >= number {
            return None;
        }
        frames.push(Frame { number: number as u32, parent: parent as u32, address });
    }
    input.is_empty().then_some(())
}

/// The stacks of a recording, read when the first one is asked for. It may grow meanwhile; any number of threads may
/// ask.
#[derive(Debug)]
pub struct Stacks(Mutex<Known>);

#[derive(Debug)]
struct Known {
    reader: Reader,
    /// Chunks looked at.
    chunks: usize,
    /// In order of their numbers, each once.
    frames: Vec<Frame>,
}

impl Stacks {
    /// The stacks of the recording that is read by this.
    pub fn of(reader: &Reader) -> Self {
        Self(Mutex::new(Known { reader: reader.clone(), chunks: 0, frames: Vec::new() }))
    }

    /// The return addresses of a stack, the innermost first, and whether they are all: outer ones may be unknown.
    /// Empty for the number 0, and where the recording has lost the stack.
    pub fn get(&self, number: u32) -> (Vec<u64>, bool) {
        if number == 0 {
            return (Vec::new(), false);
        }
        // Nothing that panics runs under the lock, and frames are whole between any two statements.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut addresses = Vec::new();
        let mut next = number;
        while next != 0 {
            let Some(frame) = known.find(next) else { return (addresses, false) };
            if frame.address == UNKNOWN {
                return (addresses, false);
            }
            addresses.push(frame.address);
            // Less than the frame's own number, so this ends.
            next = frame.parent;
        }
        (addresses, true)
    }
}

impl Known {
    fn find(&mut self, number: u32) -> Option<Frame> {
        self.at(number).or_else(|| {
            self.read();
            self.at(number)
        })
    }

    fn at(&self, number: u32) -> Option<Frame> {
        // Numbers are given without gaps, mostly.
        let near = self.frames.get(number.checked_sub(1)? as usize).filter(|frame| frame.number == number);
        let found = || self.frames.binary_search_by_key(&number, |frame| frame.number).ok();
        near.or_else(|| self.frames.get(found()?)).copied()
    }

    /// Takes in what has come since the last look.
    fn read(&mut self) {
        // What cannot be read now is not known, as if it were not there.
        if self.reader.has_grown().unwrap_or(false) {
            let _ = self.reader.refresh();
        }
        let from = std::mem::replace(&mut self.chunks, self.reader.chunk_count());
        let entries = self.reader.entries();
        let chunks = (from..entries.len()).filter(|&at| entries[at].header.kind == kind::STACKS);
        let Ok(mut unpacker) = Unpacker::new() else { return };
        let (mut bytes, mut room) = (Vec::new(), Vec::new());
        let before = self.frames.len();
        for at in chunks {
            let whole = self.frames.len();
            let added = chunk(&self.reader, at, &mut unpacker, &mut bytes, &mut room, &mut self.frames);
            if added.is_none() {
                self.frames.truncate(whole);
            }
            if self.frames.len() > MOST as usize {
                break;
            }
        }
        if self.frames.len() > before {
            self.frames.sort_by_key(|frame| frame.number);
            self.frames.dedup_by_key(|frame| frame.number);
        }
    }
}

/// Hands out all frames of a recording, some at once. Those of damaged chunks are missing.
pub(super) fn all(reader: &Reader, mut each: impl FnMut(&mut [Frame])) {
    let Ok(mut unpacker) = Unpacker::new() else { return };
    let (mut bytes, mut room, mut frames) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..reader.chunk_count() {
        if reader.entries()[at].header.kind != kind::STACKS {
            continue;
        }
        frames.clear();
        if chunk(reader, at, &mut unpacker, &mut bytes, &mut room, &mut frames).is_some() {
            each(&mut frames);
        }
    }
}

/// Adds the frames of the chunk at a position of the list; `None` when it is damaged.
pub(super) fn chunk(
    reader: &Reader,
    position: usize,
    unpacker: &mut Unpacker,
    bytes: &mut Vec<u8>,
    room: &mut Vec<u8>,
    frames: &mut Vec<Frame>,
) -> Option<()> {
    let header = reader.chunk(position, bytes)?;
    let payload = bytes.get(HEADER + header.meta_length as usize..)?;
    unpacker.unpack_bytes(payload, header.unpacked_length as usize, room)?;
    decode(room, header.items, frames)
}
