//! The index at the end: where every chunk is, with its header, so that a reader opens without touching them.

use super::chunk::{ChunkHeader, HEADER};
use super::varint::{Input, put};

/// The last bytes of a complete recording.
pub(super) const TRAILER_MAGIC: [u8; 8] = *b"MFRAGend";
/// Bytes behind the index chunk: its offset, a checksum of that, the magic.
pub(super) const TRAILER: usize = 20;

/// A chunk and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) header: ChunkHeader,
}

pub(super) fn encode(entries: &[Entry], out: &mut Vec<u8>) {
    let mut offset = 0;
    for entry in entries {
        let header = &entry.header;
        out.push(header.kind);
        for value in [
            entry.offset.wrapping_sub(offset),
            u64::from(header.items),
            u64::from(header.meta_length),
            u64::from(header.stored_length),
            u64::from(header.unpacked_length),
            header.first_time,
            header.last_time,
            header.first_event,
        ] {
            put(out, value);
        }
        out.extend(header.checksum.to_le_bytes());
        offset = entry.offset;
    }
}

/// Takes the index of a file apart whose first chunk begins at `first` and whose index begins at `end`. `None` when
/// it is damaged or does not account for every byte between them.
pub(super) fn decode(bytes: &[u8], first: u64, end: u64) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut input = Input::new(bytes);
    let (mut offset, mut expected) = (0u64, first);
    while !input.is_empty() {
        let kind = input.byte()?;
        offset = offset.wrapping_add(input.varint()?);
        let header = ChunkHeader {
            kind,
            items: input.varint32()?,
            meta_length: input.varint32()?,
            stored_length: input.varint32()?,
            unpacked_length: input.varint32()?,
            first_time: input.varint()?,
            last_time: input.varint()?,
            first_event: input.varint()?,
            checksum: input.u32()?,
        };
        if offset != expected || !header.is_sane() {
            return None;
        }
        expected = offset.checked_add(header.length())?;
        entries.push(Entry { offset, header });
    }
    (expected == end).then_some(entries)
}

/// The last bytes of a file whose index chunk begins at `index`.
pub(super) fn trailer(index: u64) -> [u8; TRAILER] {
    let mut out = [0; TRAILER];
    out[..8].copy_from_slice(&index.to_le_bytes());
    out[8..12].copy_from_slice(&crc32fast::hash(&index.to_le_bytes()).to_le_bytes());
    out[12..].copy_from_slice(&TRAILER_MAGIC);
    out
}

/// Where a trailer says that the index chunk begins; `None` when it is none, or the place cannot be.
pub(super) fn find(trailer: &[u8; TRAILER], first: u64, file_length: u64) -> Option<u64> {
    let mut input = Input::new(trailer);
    let index = input.u64()?;
    let whole = crc32fast::hash(&index.to_le_bytes()) == input.u32()? && input.array()? == TRAILER_MAGIC;
    let behind = index.checked_add((HEADER + TRAILER) as u64)?;
    (whole && index >= first && behind <= file_length).then_some(index)
}
