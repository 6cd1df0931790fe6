//! The session's table of stacks: the daemon's side.

use crate::capture::Sink;
use memfrag_common::session::STACKS_FILE;
use memfrag_common::stacks::{BYTES, Frame, Table};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Frames that are handed on at once.
const BATCH: usize = 4096;

/// The table, and how much of it has been told.
#[derive(Debug)]
pub(crate) struct Stacks {
    map: MmapRaw,
    /// Numbers up to this one have been looked at.
    told: u32,
    /// Those of them that were not whole: a thread was about to write them, or was killed then.
    unfinished: Vec<u32>,
}

impl Stacks {
    /// Makes the table's file in the session's directory. It takes memory only as it fills.
    pub(crate) fn create(data: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(data.join(STACKS_FILE))?;
        file.set_len(BYTES as u64)?;
        Ok(Self { map: MmapOptions::new().len(BYTES).map_raw(&file)?, told: 0, unfinished: Vec::new() })
    }

    /// Tells the frames that were not told yet.
    pub(crate) fn tell(&mut self, sink: &mut dyn Sink) {
        let Self { map, told, unfinished } = self;
        // SAFETY: as many bytes were mapped, and stay mapped as long as this value, which the table does not outlive.
        let table = unsafe { Table::at(map.as_mut_ptr()) };
        let handed = table.handed();
        if handed <= *told && unfinished.is_empty() {
            return;
        }
        let mut batch: Vec<Frame> = Vec::new();
        let late = std::mem::take(unfinished);
        for number in late.into_iter().chain(*told + 1..=handed) {
            match table.get(number) {
                Some(frame) => batch.push(frame),
                None => unfinished.push(number),
            }
            if batch.len() == BATCH {
                sink.stacks(&batch);
                batch.clear();
            }
        }
        *told = handed.max(*told);
        if !batch.is_empty() {
            sink.stacks(&batch);
        }
    }
}
