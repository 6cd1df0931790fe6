//! The frame of a chunk: a fixed header, what a reader may want to know without unpacking, and the payload.

use super::varint::{Input, put};
use memfrag_common::Kind;
use std::collections::BTreeMap;

/// The first bytes of every chunk, by which a reader finds its way behind a damaged one.
pub(super) const MAGIC: [u8; 8] = *b"\xf6MFchunk";
/// Bytes of a chunk's header.
pub(super) const HEADER: usize = 64;
/// The most events in one chunk, so that every number of something within it fits 16 bits with one to spare.
pub(super) const MAX_EVENTS: usize = u16::MAX as usize;
/// The most bytes of a payload, before and after packing.
pub(super) const MAX_PAYLOAD: usize = 32 << 20;
/// More bytes than the columns hold for any one event, its share of the tables included.
const MAX_EVENT: usize = 128;
/// More bytes than the counts before the tables take.
const MAX_TABLE_COUNTS: usize = 32;
/// The most bytes of what lies between header and payload.
pub(super) const MAX_META: usize = 8 << 20;

/// What a chunk holds. Numbers not listed here are passed over by a reader.
pub(super) mod kind {
    /// Events in columns.
    pub(crate) const EVENTS: u8 = 1;
    /// Processes, mappings, memory samples, counters, the end.
    pub(crate) const NOTES: u8 = 2;
    /// Where the other chunks are.
    pub(crate) const INDEX: u8 = 3;
    /// The state of the heaps at a place.
    pub(crate) const CHECKPOINT: u8 = 4;
    /// Recorded stacks by number.
    pub(crate) const STACKS: u8 = 5;
}

/// A chunk's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    /// See [`kind`].
    pub(super) kind: u8,
    /// Items within: events, notes, index entries.
    pub(super) items: u32,
    /// Bytes between header and payload.
    pub(super) meta_length: u32,
    /// Bytes of the payload as stored.
    pub(super) stored_length: u32,
    /// Bytes of the payload unpacked.
    pub(super) unpacked_length: u32,
    /// Earliest time within; with no time at all, 0.
    pub(super) first_time: u64,
    /// Latest time within.
    pub(super) last_time: u64,
    /// How many events the recording was given before this chunk's first.
    pub(super) first_event: u64,
    /// Checksum of meta and payload.
    pub(super) checksum: u32,
}

impl ChunkHeader {
    /// Bytes of the whole chunk.
    pub(super) const fn length(&self) -> u64 {
        HEADER as u64 + self.meta_length as u64 + self.stored_length as u64
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let mut at = 0;
        let mut add = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        add(&MAGIC);
        add(&[self.kind, 0, 0, 0]);
        for value in [self.items, self.meta_length, self.stored_length, self.unpacked_length] {
            add(&value.to_le_bytes());
        }
        for value in [self.first_time, self.last_time, self.first_event] {
            add(&value.to_le_bytes());
        }
        add(&self.checksum.to_le_bytes());
        add(&[0; 4]);
        let own = crc32fast::hash(&out[..HEADER - 4]);
        out[HEADER - 4..].copy_from_slice(&own.to_le_bytes());
        out
    }

    /// Takes a header apart; `None` when the bytes are none, or damaged, or declare what no writer writes.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let mut input = Input::new(bytes);
        if input.array()? != MAGIC {
            return None;
        }
        let [kind, ..] = input.array::<4>()?;
        let header = Self {
            kind,
            items: input.u32()?,
            meta_length: input.u32()?,
            stored_length: input.u32()?,
            unpacked_length: input.u32()?,
            first_time: input.u64()?,
            last_time: input.u64()?,
            first_event: input.u64()?,
            checksum: input.u32()?,
        };
        let _reserved = input.u32()?;
        let whole = crc32fast::hash(&bytes[..HEADER - 4]) == input.u32()?;
        (whole && header.is_sane()).then_some(header)
    }

    /// Whether a writer may have written this.
    pub(super) const fn is_sane(&self) -> bool {
        let limit = match self.kind {
            kind::EVENTS if self.items as usize > MAX_EVENTS || self.items == 0 => return false,
            kind::EVENTS => self.items as usize * MAX_EVENT + MAX_TABLE_COUNTS,
            _ => MAX_PAYLOAD,
        };
        self.stored_length as usize <= MAX_PAYLOAD
            && self.unpacked_length as usize <= limit
            && self.meta_length as usize <= MAX_META
            && self.first_event < 1 << 63
    }
}

/// What lies unpacked before the columns of an events chunk: enough to pass over the chunk when it is of no interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsSummary {
    /// Events of each kind, without those that do not occur.
    pub kinds: Vec<(Kind, u32)>,
    /// Events of each process, in order of the process id.
    pub processes: Vec<(u32, u32)>,
}

impl EventsSummary {
    pub(super) fn encode(kinds: &[u32], processes: &BTreeMap<u32, u32>) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, kinds.iter().filter(|&&count| count > 0).count() as u64);
        for (number, &count) in kinds.iter().enumerate().filter(|&(_, &count)| count > 0) {
            put(&mut out, number as u64);
            put(&mut out, u64::from(count));
        }
        put(&mut out, processes.len() as u64);
        for (&pid, &count) in processes {
            put(&mut out, u64::from(pid));
            put(&mut out, u64::from(count));
        }
        out
    }

    pub(super) fn decode(meta: &[u8]) -> Option<Self> {
        let mut input = Input::new(meta);
        let mut summary = Self::default();
        for _ in 0..input.varint()? {
            let kind = Kind::from_u8(u8::try_from(input.varint()?).ok()?)?;
            summary.kinds.push((kind, input.varint32()?));
        }
        for _ in 0..input.varint()? {
            summary.processes.push((input.varint32()?, input.varint32()?));
        }
        input.is_empty().then_some(summary)
    }
}

/// A chunk as it goes to the file.
pub(super) fn assemble(mut header: ChunkHeader, meta: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    header.meta_length = meta.len() as u32;
    header.stored_length = payload.len() as u32;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(meta);
    hasher.update(payload);
    header.checksum = hasher.finalize();
    out.clear();
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(meta);
    out.extend_from_slice(payload);
}
