//! Opening a recording, whole or not.

use super::chunk::{ChunkHeader, EventsSummary, HEADER, kind};
use super::columns::Unpacker;
use super::cursor::{Cursor, Mark};
use super::error::RecordingError;
use super::header::{Header, MAX_FIELDS, PREFIX, Prefix, VERSION};
use super::index::{self, Entry, TRAILER};
use super::items::Items;
use super::notes::End;
use super::scan::Scan;
use super::times::Times;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
/// Reading takes `&self` and keeps no position, so that several threads may go over it at once. Copies share the file.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    header: Header,
    pub(super) chunks: Vec<Entry>,
    pub(super) complete: bool,
    pub(super) damage: Damage,
    pub(super) cut_bytes: u64,
    pub(super) length: u64,
    /// Whether no more is expected.
    pub(super) settled: bool,
    pub(super) scan: Scan,
    pub(super) times: Times,
    events: u64,
    last_time: u64,
}

impl Reader {
    /// Opens a recording. One without an index, because it was cut short or is still being written, is searched for
    /// its chunks; the chunks themselves are checked when they are read.
    ///
    /// # Errors
    /// When the file cannot be read, is no recording, has a damaged header, or comes from a newer memfrag.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let error = |source| RecordingError::Io { action: "open", path: path.to_path_buf(), source };
        let mut reader = Self::follow(File::open(path).map_err(error)?, path)?;
        reader.settle()?;
        Ok(reader)
    }

    /// Opens a recording that may still be written. What there is of it can be read at once, and
    /// [`refresh`](Self::refresh) finds what has come since. `path` is for messages alone.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn follow(file: File, path: &Path) -> Result<Self, RecordingError> {
        let error = |action| move |source| RecordingError::Io { action, path: path.to_path_buf(), source };
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
            file: Arc::new(file),
            path: path.to_path_buf(),
            header,
            chunks: Vec::new(),
            complete: false,
            damage: Damage::default(),
            cut_bytes: 0,
            length,
            settled: false,
            scan: Scan::new(first),
            times: Times::default(),
            events: 0,
            last_time: 0,
        };
        if let Some(chunks) = reader.indexed(first) {
            for entry in chunks {
                reader.add(entry);
            }
            reader.complete = true;
            reader.settled = true;
            reader.scan = Scan::new(length);
        } else {
            reader.search(true)?;
            if reader.complete {
                reader.settle()?;
            }
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

    /// Bytes of the file without those of an unfinished chunk at its end: what a copy must have.
    pub const fn whole_bytes(&self) -> u64 {
        self.length - self.cut_bytes
    }

    /// The damage found when the file was opened. Going over the chunks may find more.
    pub const fn damage(&self) -> Damage {
        self.damage
    }

    /// Events in the file, damaged chunks included.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The latest time in the file, in nanoseconds since the trace began.
    pub const fn last_time(&self) -> u64 {
        self.last_time
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

    /// Everything up to a moment, that included, in nanoseconds since the trace began; chunks in which everything is
    /// later are not read. Events need not stand in the order of their times: those that come late are among it.
    pub fn items_until(&self, time: u64) -> Items<'_> {
        Items::until(self, time)
    }

    /// As [`items`](Self::items) or, with `until`, as [`items_until`](Self::items_until): what comes from a place on.
    pub fn items_from(&self, mark: &Mark, until: Option<u64>) -> Items<'_> {
        Items::from(self, mark, until)
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

    /// How the recording ended; `None` when it was cut short, or has not ended.
    pub fn end(&self) -> Option<End> {
        let mut last = self.chunks.iter().enumerate().rev().filter(|(_, entry)| entry.header.kind == kind::NOTES);
        Cursor::end_in(self, last.next()?.0)
    }

    /// How many chunks there are, of all kinds.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes of the file before the chunk of this number; for one that there is not, before the end of the last one.
    pub fn offset_of(&self, chunk: usize) -> u64 {
        let end = |entry: &Entry| entry.offset + entry.header.length();
        self.chunks.get(chunk).map(|entry| entry.offset).or_else(|| self.chunks.last().map(end)).unwrap_or(0)
    }

    /// Takes a chunk into the list.
    pub(super) fn add(&mut self, entry: Entry) {
        if entry.header.kind == kind::EVENTS {
            self.events += u64::from(entry.header.items);
        }
        self.last_time = self.last_time.max(entry.header.last_time);
        self.times.add(&entry.header);
        self.chunks.push(entry);
    }

    /// Takes the chunks that end behind a place out of the list. Gives the place where the first of them began.
    pub(super) fn forget_behind(&mut self, length: u64) -> Option<u64> {
        let kept = self.chunks.partition_point(|entry| entry.offset + entry.header.length() <= length);
        let first = self.chunks.get(kept)?.offset;
        let all = std::mem::take(&mut self.chunks);
        (self.events, self.last_time, self.times) = (0, 0, Times::default());
        all.into_iter().take(kept).for_each(|entry| self.add(entry));
        Some(first)
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

    pub(super) fn index_is_whole(&self, entry: &Entry) -> bool {
        self.read_chunk(entry, &mut Vec::new()).is_some()
    }

    /// Whether nothing but a trailer follows.
    pub(super) fn is_trailer(&self, at: u64) -> bool {
        let mut trailer = [0; TRAILER];
        self.length - at == TRAILER as u64
            && self.file.read_exact_at(&mut trailer, at).is_ok()
            && index::find(&trailer, 0, self.length).is_some()
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
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
