//! Checkpoints of a recording: gone on from where it is read, made while it is written.
//!
//! Whoever traces has no heaps and needs none. So checkpoints are [made](make) by a reader like any other; what it makes is
//! handed to the thread that writes the file. Where it would need too much memory it gives up, and where it cannot keep
//! pace it stays behind: the recording then has fewer checkpoints, or none.

use super::ReportBuilder;
use crate::recording::{Checkpoint, Cursor, Item, Limit, Mark, Next, Reader, RecordingError};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Events between two checkpoints: gone through in less than a second.
pub const SPACING: u64 = 8 << 20;
/// A checkpoint at the end of a recording spares so many events at least.
const SPARED: u64 = 2 << 20;
/// Bytes of the recording between two checkpoints, for each byte that one takes.
const SHARE: u64 = 12;
/// What a checkpoint is thought to take until one was made, the lesser of two: bytes of memory that heaps take for each
/// of its bytes, which is too much for small heaps; and its bytes for a live block, and for all else, which is too much
/// for forked heaps, whose blocks it has once.
const MEMORY_A_BYTE: u64 = 6;
const BYTES_A_BLOCK: u64 = 10;
const BYTES_BESIDES: u64 = 64 << 10;
/// Memory that the heaps may take, and which part of what the machine has left.
const MOST_MEMORY: u64 = 2 << 30;
const PART_OF_AVAILABLE: u64 = 4;
/// Events between two looks at that.
const MEMORY_LOOK: u64 = 1 << 20;
/// How often a file that has not grown is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Checkpoints that turn out to be damaged before the search is given up.
const ATTEMPTS: usize = 4;

/// The last state before which nothing is later than `time`, and which is not behind the event of number `event`, that a
/// recording has a checkpoint of; with the place whose state it is. Checkpoints that are damaged, or of another version,
/// are passed over.
pub fn last_before(reader: &Reader, time: u64, event: u64) -> Option<(Mark, ReportBuilder)> {
    let checkpoints = reader.checkpoints_before(time, event).take(ATTEMPTS);
    checkpoints.into_iter().find_map(|checkpoint| Some((*checkpoint.mark(), restore(reader, &checkpoint)?)))
}

/// The state that a checkpoint holds, if it is whole.
pub fn restore(reader: &Reader, checkpoint: &Checkpoint) -> Option<ReportBuilder> {
    ReportBuilder::load(&reader.state(checkpoint)?)
}

/// What [`make`] has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// How many checkpoints.
    pub checkpoints: u64,
    /// Bytes that they take in the file.
    pub bytes: u64,
}

/// Follows a recording, open for reading, and writes checkpoints of it to `out`, for
/// [`pass_on`](crate::recording::Checkpoints::pass_on). When `ended` is set no more comes: it then goes through what is
/// left, makes a last checkpoint if that is worth it, and returns.
///
/// # Errors
/// When the recording cannot be followed, `out` takes no more, or it is better to give up.
pub fn make(file: File, path: &Path, ended: &AtomicBool, out: &mut dyn Write) -> Result<Made, GaveUp> {
    Work::new(ended, out).run(file, path)
}

/// Why there will be no more checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum GaveUp {
    /// The recording cannot be followed.
    #[error("{0}")]
    Reading(#[from] RecordingError),
    /// A checkpoint cannot be packed, or handed over.
    #[error("cannot hand a checkpoint over: {0}")]
    Writing(#[from] io::Error),
    /// The heaps are too large.
    #[error("the heaps take {bytes} bytes of memory here, and {most} may be taken")]
    Memory {
        /// Bytes that they take.
        bytes: u64,
        /// Bytes that they may take.
        most: u64,
    },
}

/// The checkpoint that was made last.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    event: u64,
    /// Where it stands in the file, about.
    offset: u64,
    bytes: u64,
    /// Bytes of memory that its heaps took.
    memory: u64,
}

struct Work<'a> {
    ended: &'a AtomicBool,
    out: &'a mut dyn Write,
    made: Made,
    last: Last,
    /// See [`SPACING`] and [`SPARED`].
    spacing: u64,
    spared: u64,
}

impl<'a> Work<'a> {
    fn new(ended: &'a AtomicBool, out: &'a mut dyn Write) -> Self {
        Self { ended, out, made: Made::default(), last: Last::default(), spacing: SPACING, spared: SPARED }
    }

    fn run(mut self, file: File, path: &Path) -> Result<Made, GaveUp> {
        let mut reader = Reader::follow(file, path)?;
        // What will have no checkpoint costs nothing.
        while reader.events() < self.spacing / 2 {
            if self.ended.load(Ordering::Relaxed) {
                return Ok(self.made);
            }
            std::thread::sleep(LOOK);
            reader.refresh()?;
        }
        let mut builder = ReportBuilder::new(None);
        builder.count_lifetimes();
        let mut cursor = Cursor::new(&reader);
        let mut looked_at = 0;
        loop {
            match cursor.next(&reader, &Limit::default()) {
                Next::Item(item) => {
                    let is_events = matches!(item, Item::Events(_));
                    builder.take(item);
                    if !is_events {
                        continue;
                    }
                }
                Next::Beyond | Next::End => {
                    let ends = self.ended.load(Ordering::Relaxed);
                    if !reader.refresh()? {
                        if ends {
                            if let Some(mark) = cursor.mark() {
                                self.consider(&reader, &mark, &builder, self.spared)?;
                            }
                            return Ok(self.made);
                        }
                        std::thread::sleep(LOOK);
                    }
                    continue;
                }
            }
            if cursor.event() - looked_at >= MEMORY_LOOK {
                looked_at = cursor.event();
                check_memory(builder.heaps().memory_bytes())?;
            }
            if let Some(mark) = cursor.mark() {
                self.consider(&reader, &mark, &builder, self.spacing)?;
            }
        }
    }

    /// Makes a checkpoint, if it is so many events since the last one, and the recording has grown enough to bear it.
    fn consider(&mut self, reader: &Reader, mark: &Mark, builder: &ReportBuilder, spacing: u64) -> Result<(), GaveUp> {
        if mark.event() - self.last.event < spacing {
            return Ok(());
        }
        let memory = builder.heaps().memory_bytes();
        let expected = match self.last.bytes {
            0 => {
                let heaps = builder.heaps();
                let blocks: u64 = heaps.processes().iter().map(|process| heaps.heap(process).blocks().len()).sum();
                (memory / MEMORY_A_BYTE).min(blocks.saturating_mul(BYTES_A_BLOCK).saturating_add(BYTES_BESIDES))
            }
            bytes => (u128::from(bytes) * u128::from(memory) / u128::from(self.last.memory.max(1))) as u64,
        };
        let offset = reader.offset_of(mark.chunk());
        if offset.saturating_sub(self.last.offset) < expected.saturating_mul(SHARE) {
            return Ok(());
        }
        let Some(state) = builder.save() else { return Ok(()) };
        if let Some(bytes) = reader.write_checkpoint(mark, &state, self.out)? {
            self.last = Last { event: mark.event(), offset, bytes, memory };
            self.made.checkpoints += 1;
            self.made.bytes += bytes;
        }
        Ok(())
    }
}

fn check_memory(bytes: u64) -> Result<(), GaveUp> {
    let most = available().map_or(MOST_MEMORY, |available| (available / PART_OF_AVAILABLE).min(MOST_MEMORY));
    if bytes > most { Err(GaveUp::Memory { bytes, most }) } else { Ok(()) }
}

/// Bytes of memory that the machine has left (`MemAvailable`).
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests;
