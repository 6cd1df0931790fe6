//! Finding the chunks of a file that has no index, or none yet.

use super::chunk::{ChunkHeader, HEADER, MAGIC};
use super::index::Entry;
use super::reader::{Damage, read_up_to};
use std::fs::File;
use std::io;

/// What a scan finds next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A chunk that lies in the file from end to end.
    Chunk(Entry),
    /// Bytes that are no chunk, from here on: they have been passed over.
    Damage {
        /// How many.
        bytes: u64,
    },
    /// Nothing more: what follows is no whole chunk.
    End {
        /// Bytes of it.
        bytes: u64,
    },
}

/// Goes from chunk to chunk; where there is none, looks for the next one. Takes up where it ended when the file has
/// grown.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    /// Everything before this place has been accounted for.
    at: u64,
    /// Where to look on for a chunk, when there is none at that place.
    searched: Option<u64>,
    window: Window,
}

impl Scan {
    /// Begins at a place of the file.
    pub(super) fn new(at: u64) -> Self {
        Self { at, ..Self::default() }
    }

    /// Goes back to a place, because the file was cut there.
    pub(super) fn go_back(&mut self, at: u64) {
        *self = Self::new(at.min(self.at));
    }

    /// The next thing in a file of `length` bytes. While it grows, what looks like the beginning of a chunk at its end
    /// is one that is being written; else it is none.
    pub(super) fn next(&mut self, file: &File, length: u64, grows: bool) -> io::Result<Found> {
        let rest = length.saturating_sub(self.at);
        if rest == 0 {
            return Ok(Found::End { bytes: 0 });
        }
        if self.searched.is_none() {
            let header = self.window.at(file, self.at, HEADER)?.first_chunk().and_then(ChunkHeader::decode);
            let whole = header.filter(|header| header.length() <= rest);
            if let Some(header) = whole {
                let entry = Entry { offset: self.at, header };
                self.at += header.length();
                return Ok(Found::Chunk(entry));
            }
            if grows && (header.is_some() || rest < HEADER as u64) {
                return Ok(Found::End { bytes: rest });
            }
        }
        let from = self.searched.unwrap_or(self.at + 1);
        let Some(next) = self.window.find(file, from)?.filter(|&next| next < length) else {
            if grows {
                // The beginning of a magic may be there already.
                self.searched = Some(from.max((length + 1).saturating_sub(MAGIC.len() as u64)));
            }
            return Ok(Found::End { bytes: rest });
        };
        self.searched = None;
        let bytes = next - self.at;
        self.at = next;
        Ok(Found::Damage { bytes })
    }
}

impl Damage {
    /// Takes a stretch into account in which there was no chunk.
    pub(super) const fn stretch(&mut self, bytes: u64) {
        self.chunks += 1;
        self.bytes += bytes;
    }
}

/// The part of the file that a scan is looking at. It is read once, however often the scan starts anew within it.
#[derive(Clone, Debug, Default)]
struct Window {
    bytes: Vec<u8>,
    start: u64,
    length: usize,
}

impl Window {
    /// Bytes read at once when looking for something. Going from header to header takes much less.
    const SEARCH: usize = 256 << 10;

    /// The bytes from `at` on, at least `wanted` of them unless the file ends before.
    fn at(&mut self, file: &File, at: u64, wanted: usize) -> io::Result<&[u8]> {
        let inside = at.checked_sub(self.start).filter(|&skip| skip + wanted as u64 <= self.length as u64);
        let skip = if let Some(skip) = inside {
            skip as usize
        } else {
            self.bytes.resize(self.bytes.len().max(wanted), 0);
            self.start = at;
            self.length = read_up_to(file, &mut self.bytes[..wanted], at)?;
            0
        };
        Ok(&self.bytes[skip..self.length])
    }

    /// Where the next chunk may begin, from `from` on.
    fn find(&mut self, file: &File, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        loop {
            // What is left of the window first, then the next stretch.
            let held = (self.start + self.length as u64).saturating_sub(at) as usize;
            let wanted = if held >= HEADER && at >= self.start { held } else { Self::SEARCH };
            let bytes = self.at(file, at, wanted)?;
            if let Some(place) = bytes.windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
                return Ok(Some(at + place as u64));
            }
            let length = bytes.len();
            if length < wanted || length < MAGIC.len() {
                return Ok(None);
            }
            at += (length - MAGIC.len() + 1) as u64;
        }
    }
}
