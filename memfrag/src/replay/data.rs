//! The steps of a plan as a file.
//!
//! ```text
//! header   96 bytes: "MFREPLAY", then little-endian u32 version, threads, slots, readings, and u64 calls,
//!          offset of the table of threads, offset of the readings, length of the file; the rest is zero
//! chunks   u32 bytes of steps, u32 thread, u64 offset of the thread's next chunk or 0, then whole steps
//! threads  u64 for each thread: the offset of its first chunk, or 0
//! readings u64 time in nanoseconds, u64 resident bytes, u64 resident anonymous bytes, for each
//! ```
//!
//! A step is a byte that says which, and its numbers as LEB128:
//!
//! ```text
//!  1 malloc    slot, size            7 join    thread
//!  2 calloc    slot, size            8 wait    thread, how much it has done
//!  3 memalign  slot, size, log2      9 sample  number of the reading
//!  4 realloc   slot, size           10 touch   pages of the next block that are written to; without it, all
//!  5 free      slot                 11 pause   microseconds since the first call
//!  6 spawn     thread               12 end
//! ```
//!
//! The header is written last: a file that was cut short
//! has none. Memory is bounded by the number of threads, whatever the number of steps.

use super::plan::{How, Planned, Step, Steps};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The version that is written.
pub(super) const VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"MFREPLAY";
const HEADER: u64 = 96;
const CHUNK_HEADER: usize = 16;
/// Bytes of steps in a chunk; one step may go over it.
const CHUNK: usize = 32 << 10;

#[derive(Debug, Default)]
struct Stream {
    /// Room for a chunk's header, then steps.
    chunk: Vec<u8>,
    first: u64,
    /// Offset of the last chunk written.
    last: Option<u64>,
}

/// Writes a plan's steps to a file.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    length: u64,
    streams: Vec<Stream>,
    /// The first write that failed. Nothing is written after it.
    failed: Option<io::Error>,
}

impl DataFile {
    /// Begins in an empty file.
    pub fn new(file: File) -> Self {
        Self { file, length: HEADER, streams: Vec::new(), failed: None }
    }

    fn flush(&mut self, thread: usize) {
        let stream = &mut self.streams[thread];
        if stream.chunk.len() <= CHUNK_HEADER || self.failed.is_some() {
            return;
        }
        let steps = (stream.chunk.len() - CHUNK_HEADER) as u32;
        stream.chunk[..4].copy_from_slice(&steps.to_le_bytes());
        stream.chunk[4..8].copy_from_slice(&(thread as u32).to_le_bytes());
        let at = self.length;
        let written = self.file.write_all_at(&stream.chunk, at).and_then(|()| match stream.last {
            Some(last) => self.file.write_all_at(&at.to_le_bytes(), last + 8),
            None => Ok(()),
        });
        if stream.last.is_none() {
            stream.first = at;
        }
        stream.last = Some(at);
        self.length += stream.chunk.len() as u64;
        stream.chunk.truncate(CHUNK_HEADER);
        stream.chunk.fill(0);
        self.failed = written.err();
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When the file could not take all of it.
    pub fn finish(mut self, planned: &Planned) -> io::Result<File> {
        (0..self.streams.len()).for_each(|thread| self.flush(thread));
        if let Some(error) = self.failed {
            return Err(error);
        }
        let firsts = (0..planned.threads as usize).map(|thread| self.streams.get(thread).map_or(0, |it| it.first));
        let mut tables: Vec<u8> = firsts.flat_map(u64::to_le_bytes).collect();
        let readings = planned.readings.iter().flat_map(|it| [it.time, it.rss, it.rss_anon]);
        tables.extend(readings.flat_map(u64::to_le_bytes));
        self.file.write_all_at(&tables, self.length)?;
        let mut header = [0; HEADER as usize];
        header[..8].copy_from_slice(MAGIC);
        let words = [VERSION, planned.threads, planned.slots, planned.readings.len() as u32];
        for (to, word) in header[8..24].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let readings_at = self.length + 8 * u64::from(planned.threads);
        let longs = [planned.calls, self.length, readings_at, self.length + tables.len() as u64];
        for (to, long) in header[24..56].chunks_exact_mut(8).zip(longs) {
            to.copy_from_slice(&long.to_le_bytes());
        }
        self.file.write_all_at(&header, 0)?;
        Ok(self.file)
    }
}

impl Steps for DataFile {
    fn step(&mut self, thread: u32, step: Step) {
        let thread = thread as usize;
        while self.streams.len() <= thread {
            self.streams.push(Stream { chunk: vec![0; CHUNK_HEADER], ..Stream::default() });
        }
        let chunk = &mut self.streams[thread].chunk;
        encode(step, chunk);
        if chunk.len() >= CHUNK {
            self.flush(thread);
        }
    }
}

/// Appends a step.
fn encode(step: Step, to: &mut Vec<u8>) {
    let (code, numbers): (u8, [Option<u64>; 3]) = match step {
        Step::Allocate { slot, how: How::Malloc, size } => (1, [Some(slot.into()), Some(size), None]),
        Step::Allocate { slot, how: How::Calloc, size } => (2, [Some(slot.into()), Some(size), None]),
        Step::Allocate { slot, how: How::Aligned(log2), size } => {
            (3, [Some(slot.into()), Some(size), Some(log2.into())])
        }
        Step::Reallocate { slot, size } => (4, [Some(slot.into()), Some(size), None]),
        Step::Free { slot } => (5, [Some(slot.into()), None, None]),
        Step::Spawn { thread } => (6, [Some(thread.into()), None, None]),
        Step::Join { thread } => (7, [Some(thread.into()), None, None]),
        Step::Wait { thread, done } => (8, [Some(thread.into()), Some(done), None]),
        Step::Sample { number } => (9, [Some(number.into()), None, None]),
        Step::Touch { pages } => (10, [Some(pages), None, None]),
        Step::Pause { microseconds } => (11, [Some(microseconds), None, None]),
        Step::End => (12, [None; 3]),
    };
    to.push(code);
    for mut number in numbers.into_iter().flatten() {
        while number >= 0x80 {
            to.push(number as u8 | 0x80);
            number >>= 7;
        }
        to.push(number as u8);
    }
}
