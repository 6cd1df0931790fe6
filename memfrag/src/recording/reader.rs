//! Opening a recording, whole or not.

use super::chunk::{ChunkHeader, EventsSummary, HEADER, MAGIC, kind};
use super::columns::Unpacker;
use super::error::RecordingError;
use super::header::{Header, MAX_FIELDS, PREFIX, Prefix, VERSION};
use super::index::{self, Entry, TRAILER};
use super::items::Items;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What was found damaged and passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Chunks whose checksum or content is wrong, and stretches in which no chunk could be found.
    pub chunks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Events that are known to be missing for it.
    pub events: u64,
}

/// A chunk of events, as far as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsChunk {
    /// Events within.
    pub events: u32,
    /// Events that the recording was given before.
    pub first_event: u64,
    /// Earliest time within, in nanoseconds since the trace began.
    pub first_time: u64,
    /// Latest time within.
    pub last_time: u64,
    /// Bytes in the file.
    pub bytes: u64,
    pub(super) position: usize,
}

/// The outcome of [`Reader::verify`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Events that could be read.
    pub events: u64,
    /// Chunks that could be read.
    pub chunks: u64,
    /// What could not.
    pub damage: Damage,
    /// Bytes of an unfinished chunk at the end of a recording that was cut short.
    pub cut_bytes: u64,
    /// Whether the recording was ended in order.
    pub complete: bool,
}

/// An open recording.
///
/// Reading takes `&self` and keeps no position, so that several threads may go over it at once.
#[derive(Debug)]
pub struct Reader {
    file: File,
    path: PathBuf,
    header: Header,
    chunks: Vec<Entry>,
    complete: bool,
    damage: Damage,
    cut_bytes: u64,
    length: u64,
}

impl Reader {
    /// Opens a recording. One without an index, because it was cut short or is still being written, is searched for
    /// its chunks; the chunks themselves are checked when they are read.
    ///
    /// # Errors
    /// When the file cannot be read, is no recording, has a damaged header, or comes from a newer memfrag.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let error = |action| move |source| RecordingError::Io { action, path: path.to_path_buf(), source };
        let file = File::open(path).map_err(error("open"))?;
        let length = file.metadata().map_err(error("examine"))?.len();
        let mut prefix = [0; PREFIX];
        let got = read_up_to(&file, &mut prefix, 0).map_err(error("read"))?;
        let known = got.min(super::header::MAGIC.len());
        if known == 0 || prefix[..known] != super::header::MAGIC[..known] {
            return Err(RecordingError::NotARecording { path: path.to_path_buf(), found: describe(&prefix[..got]) });
        }
        let damaged = |problem| RecordingError::Header { path: path.to_path_buf(), problem };
        let prefix = (got == PREFIX).then(|| Prefix::decode(&prefix)).flatten().ok_or_else(|| damaged("cut short"))?;
        if prefix.version > VERSION {
            return Err(RecordingError::NewerVersion {
                path: path.to_path_buf(),
                version: prefix.version,
                supported: VERSION,
            });
        }
        if prefix.version == 0 || prefix.length > MAX_FIELDS {
            return Err(damaged("damaged"));
        }
        let first = (PREFIX + prefix.length) as u64;
        if length < first {
            return Err(damaged("cut short"));
        }
        let mut fields = vec![0; prefix.length];
        file.read_exact_at(&mut fields, PREFIX as u64).map_err(error("read"))?;
        let header = Header::decode(&prefix, &fields).ok_or_else(|| damaged("damaged"))?;
        let mut reader = Self {
            file,
            path: path.to_path_buf(),
            header,
            chunks: Vec::new(),
            complete: false,
            damage: Damage::default(),
            cut_bytes: 0,
            length,
        };
        if let Some(chunks) = reader.indexed(first) {
            reader.chunks = chunks;
            reader.complete = true;
        } else {
            reader.scan(first).map_err(error("read"))?;
        }
        Ok(reader)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the recording says about itself.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the recording was ended in order and has its index.
    pub const fn complete(&self) -> bool {
        self.complete
    }

    /// Bytes of the file.
    pub const fn bytes(&self) -> u64 {
        self.length
    }

    /// Bytes at the end of the file that are no whole chunk: what was being written when the recording was cut short.
    pub const fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    /// The damage found when the file was opened. Going over the chunks may find more.
    pub const fn damage(&self) -> Damage {
        self.damage
    }

    /// Events in the file, damaged chunks included.
    pub fn events(&self) -> u64 {
        self.events_chunks().map(|chunk| u64::from(chunk.events)).sum()
    }

    /// The latest time in the file, in nanoseconds since the trace began.
    pub fn last_time(&self) -> u64 {
        self.chunks.iter().map(|entry| entry.header.last_time).max().unwrap_or(0)
    }

    /// The chunks of events, in the order in which they were written.
    pub fn events_chunks(&self) -> impl Iterator<Item = EventsChunk> + '_ {
        self.chunks.iter().enumerate().filter(|(_, entry)| entry.header.kind == kind::EVENTS).map(
            |(position, &Entry { header, .. })| EventsChunk {
                events: header.items,
                first_event: header.first_event,
                first_time: header.first_time,
                last_time: header.last_time,
                bytes: header.length(),
                position,
            },
        )
    }

    /// Which kinds of events and which processes a chunk holds, without unpacking it. `None` when it is damaged.
    pub fn summary(&self, chunk: &EventsChunk) -> Option<EventsSummary> {
        let mut bytes = Vec::new();
        let header = self.chunk(chunk.position, &mut bytes)?;
        EventsSummary::decode(bytes.get(HEADER..)?.get(..header.meta_length as usize)?)
    }

    /// Everything in the recording, in order.
    pub fn items(&self) -> Items<'_> {
        Items::new(self, None)
    }

    /// What happened from `times.start` until before `times.end`, in nanoseconds since the trace began. Processes and
    /// mappings learnt earlier are among it, because events mean little without them.
    pub fn items_between(&self, times: Range<u64>) -> Items<'_> {
        Items::new(self, Some(times))
    }

    /// Reads everything and says what is whole.
    pub fn verify(&self) -> Verification {
        let mut items = self.items();
        let mut events = 0;
        while let Some(item) = items.next_item() {
            if let super::Item::Events(some) = item {
                events += some.len() as u64;
            }
        }
        Verification {
            events,
            chunks: items.chunks_read(),
            damage: items.damage(),
            cut_bytes: self.cut_bytes,
            complete: self.complete,
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.chunks
    }

    /// Reads the chunk at `position` of the list, whole; `None` when it is not what it was, or damaged.
    pub(super) fn chunk(&self, position: usize, bytes: &mut Vec<u8>) -> Option<ChunkHeader> {
        let entry = self.chunks.get(position)?;
        self.read_chunk(entry, bytes)
    }

    fn read_chunk(&self, entry: &Entry, bytes: &mut Vec<u8>) -> Option<ChunkHeader> {
        let length = entry.header.length();
        if entry.offset.checked_add(length)? > self.length {
            return None;
        }
        bytes.resize(usize::try_from(length).ok()?, 0);
        self.file.read_exact_at(bytes, entry.offset).ok()?;
        let header = ChunkHeader::decode(bytes.first_chunk()?)?;
        (header == entry.header && crc32fast::hash(&bytes[HEADER..]) == header.checksum).then_some(header)
    }

    /// Unpacks the index chunk at `entry`, which must account for every byte from `first` on.
    fn index(&self, entry: &Entry, first: u64) -> Option<Vec<Entry>> {
        let mut bytes = Vec::new();
        let header = self.read_chunk(entry, &mut bytes)?;
        if header.kind != kind::INDEX || header.meta_length != 0 {
            return None;
        }
        let mut unpacked = Vec::new();
        Unpacker::new().ok()?.unpack_bytes(&bytes[HEADER..], header.unpacked_length as usize, &mut unpacked)?;
        index::decode(&unpacked, first, entry.offset)
    }

    /// The chunks as the index tells them; `None` when there is none, or not a believable one.
    fn indexed(&self, first: u64) -> Option<Vec<Entry>> {
        let mut trailer = [0; TRAILER];
        self.file.read_exact_at(&mut trailer, self.length.checked_sub(TRAILER as u64)?).ok()?;
        let offset = index::find(&trailer, first, self.length)?;
        let mut bytes = [0; HEADER];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        let entry = Entry { offset, header: ChunkHeader::decode(&bytes)? };
        if entry.offset + entry.header.length() + TRAILER as u64 != self.length {
            return None;
        }
        self.index(&entry, first)
    }

    /// Goes from chunk to chunk; where there is none, looks for the next one.
    fn scan(&mut self, first: u64) -> io::Result<()> {
        let mut window = Window::new();
        let mut at = first;
        while at < self.length {
            let header = window.at(&self.file, at, HEADER)?.first_chunk().and_then(ChunkHeader::decode);
            if let Some(header) = header.filter(|header| at + header.length() <= self.length) {
                let entry = Entry { offset: at, header };
                at += header.length();
                if header.kind == kind::INDEX {
                    // The chunks tell the same; what counts is that it is there and whole.
                    self.complete |= self.index_is_whole(&entry);
                } else {
                    self.chunks.push(entry);
                }
                continue;
            }
            let next = window.find(&self.file, at + 1)?;
            let skipped = next.unwrap_or(self.length) - at;
            if next.is_some() {
                self.damage.chunks += 1;
                self.damage.bytes += skipped;
            } else if !self.is_trailer(at) {
                self.cut_bytes = skipped;
            }
            at = next.unwrap_or(self.length);
        }
        Ok(())
    }

    fn index_is_whole(&self, entry: &Entry) -> bool {
        self.read_chunk(entry, &mut Vec::new()).is_some()
    }

    /// Whether nothing but a trailer follows.
    fn is_trailer(&self, at: u64) -> bool {
        let mut trailer = [0; TRAILER];
        self.length - at == TRAILER as u64
            && self.file.read_exact_at(&mut trailer, at).is_ok()
            && index::find(&trailer, 0, self.length).is_some()
    }
}

/// The part of the file that a scan is looking at. It is read once, however often the scan starts anew within it.
struct Window {
    bytes: Vec<u8>,
    start: u64,
    length: usize,
}

impl Window {
    /// Bytes read at once when looking for something. Going from header to header takes much less.
    const SEARCH: usize = 256 << 10;

    const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, length: 0 }
    }

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

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// The first bytes of a file in words.
fn describe(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing, it is empty".into();
    }
    format!("\"{}\"", bytes.escape_ascii())
}
