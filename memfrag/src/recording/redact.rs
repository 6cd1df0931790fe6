//! A copy of a recording that may leave the machine: the same heap, without what tells whose it is.
//!
//! Sizes, times, order and the numbers of threads and processes stay, since they are what a recording is for. What goes:
//!
//! - **Where the system put the program.** Addresses that the kernel chooses at random are moved by a number that is
//!   thrown away. It is a multiple of [`HEAP_MAX`], so that blocks, pages and arenas lie to each other as they did; of
//!   the 28 random bits of an address of Linux on x86-64 the upper 14 are lost.
//! - **Paths**, but for those of shared libraries in the system's own folders, which say no more than which
//!   distribution it was. Without a path no function of a file is named.
//! - **Names of programs, words of command lines, the machine's name**, and of the environment what might be a path.
//! - **Checkpoints**, which are only a short cut.

use super::error::RecordingError;
use super::header::Header;
use super::items::Item;
use super::reader::Reader;
use super::stacks;
use super::writer::Writer;
use crate::capture::Sink as _;
use crate::glibc::Layout;
use crate::glibc::layout::HEAP_MAX;
use crate::target::{Mapping, ProcessInfo, Residency};
use memfrag_common::{Event, Op};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// From here up the kernel puts what it puts at random: programs that can lie anywhere begin at two thirds of the
/// address space of 47 bits, libraries and mappings lie above them. What lies below was put there on purpose.
pub(super) const RANDOM: u64 = 0x5000_0000_0000;
/// Behind all addresses of programs. The pages that the kernel lends them beyond are always in the same place.
pub(super) const END: u64 = 1 << 47;
/// So many different moves there are: two to the 28th pages, which is as far as the kernel moves anything.
const MOVES: u64 = (1 << 28) * 4096 / HEAP_MAX;

/// The folders of the system's own libraries.
const SYSTEM: [&str; 4] = ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/"];
/// What the kernel calls mappings that are no files.
const KERNELS: [&str; 7] = ["[heap]", "[stack]", "[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]"];
/// Where a file is said to lie.
const FOLDER: &str = "/redacted";
/// What stands for words that are left out.
const LEFT_OUT: &str = "redacted";
/// In place of why a recording stopped early.
const WITHHELD: &str = "the recording could not take more; why is left out of this copy";

/// Takes out of the parts of one recording what tells whose it is. The same name stands for the same thing throughout.
#[derive(Debug)]
pub struct Redactor {
    /// By how much addresses are moved down.
    down: u64,
    files: HashMap<PathBuf, PathBuf>,
    programs: HashMap<String, String>,
    events: Vec<Event>,
}

impl Redactor {
    /// One that moves addresses by what nobody knows.
    ///
    /// # Errors
    /// When the kernel has no random numbers to give.
    pub fn new() -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        // Never by nothing.
        let down = (1 + u64::from_le_bytes(random) % (MOVES - 1)) * HEAP_MAX;
        Ok(Self { down, files: HashMap::new(), programs: HashMap::new(), events: Vec::new() })
    }

    /// Writes what a reader has, as far as it has it, into an empty file that is open for writing. `path` is only what
    /// messages call it. A recording that was cut short, or has not ended, gives one that seems cut short.
    ///
    /// # Errors
    /// When the file cannot take all of it.
    pub fn write(mut self, reader: &Reader, file: File, path: &Path) -> Result<(), RecordingError> {
        let mut writer = Writer::on(file, path, &self.header(reader.header()))?;
        stacks::all(reader, |frames| {
            for frame in &mut *frames {
                frame.address = self.moved(frame.address);
            }
            writer.stacks(frames);
        });
        let (mut items, mut end, mut at) = (reader.items(), None, (0, 0, 0));
        while let Some(item) = items.next_item() {
            match item {
                Item::Events(events) => {
                    at = events.last().map_or(at, |event| (event.time, event.pid, event.tid));
                    writer.events(self.events(events));
                }
                Item::Process(process) => writer.process(&self.process(process)),
                Item::Mappings { time, pid, mappings } => writer.mappings(time, pid, &self.mappings(mappings)),
                Item::Memory(sample) => writer.memory(&sample),
                Item::Residency(residency) => writer.residency(&self.residency(residency)),
                Item::Layout { time, pid, layout } => writer.layout(time, pid, &self.layout(layout)),
                Item::Counters { time, pid, counters } => {
                    writer.tick(time);
                    writer.counters(pid, &counters);
                }
                // Nothing is damaged in the copy, but as much is missing.
                Item::Missing { events: lost } => {
                    let (time, pid, tid) = at;
                    writer.events(&[Event { time, pid, tid, op: Op::Gap { lost } }]);
                }
                Item::End(found) => end = Some(found),
            }
        }
        let stopped = match end {
            Some(mut end) => {
                if !end.stopped.is_empty() {
                    // The reason names the file.
                    WITHHELD.clone_into(&mut end.stopped);
                }
                writer.finish_as(end)?.stopped
            }
            None => writer.leave(),
        };
        stopped.map_or(Ok(()), |reason| Err(RecordingError::Stopped { reason }))
    }

    /// The header of the copy.
    pub fn header(&self, header: &Header) -> Header {
        let command = header.command.first().map(|_| LEFT_OUT.into()).into_iter().collect();
        Header { hostname: String::new(), command, ..header.clone() }
    }

    /// Events with their addresses moved. The next call uses the room again.
    pub fn events(&mut self, events: &[Event]) -> &[Event] {
        let mut moved = std::mem::take(&mut self.events);
        moved.clear();
        moved.extend(events.iter().map(|event| Event { op: self.op(event.op), ..*event }));
        self.events = moved;
        &self.events
    }

    fn op(&self, mut op: Op) -> Op {
        match &mut op {
            Op::Alloc { addr, site, .. }
            | Op::Free { addr, site, .. }
            | Op::ReallocBegin { old: addr, site, .. }
            | Op::ReallocEnd { addr, site, .. } => {
                *addr = self.moved(*addr);
                *site = self.moved(*site);
            }
            Op::Mmap { addr, .. }
            | Op::Munmap { addr, .. }
            | Op::MunmapFailed { addr, .. }
            | Op::MremapBegin { addr, .. }
            | Op::MremapEnd { addr, .. }
            | Op::Brk { end: addr }
            | Op::Madvise { addr, .. } => *addr = self.moved(*addr),
            Op::Fork { .. } | Op::Exec | Op::Exit { .. } | Op::ThreadStart | Op::ThreadExit | Op::Gap { .. } => {}
        }
        op
    }

    fn process(&mut self, process: ProcessInfo) -> ProcessInfo {
        let number = self.programs.len() + 1;
        let program = self.programs.entry(process.comm).or_insert_with(|| format!("program-{number}")).clone();
        let cmdline = process.cmdline.first().map(|_| program.clone()).into_iter().collect();
        let exe = self.file(process.exe);
        let settings = process.settings.into_iter().map(setting).collect();
        ProcessInfo { comm: program, cmdline, exe, settings, ..process }
    }

    fn mappings(&mut self, mappings: Vec<Mapping>) -> Vec<Mapping> {
        let moved = mappings.into_iter().map(|mapping| {
            let Range { start, end } = self.range(mapping.start..mapping.end);
            let path = self.file(mapping.path);
            // With the inode the file could be known again.
            let inode = if path.starts_with(FOLDER) { 0 } else { mapping.inode };
            Mapping { start, end, path, inode, ..mapping }
        });
        moved.collect()
    }

    fn residency(&self, mut residency: Residency) -> Residency {
        for region in &mut residency.regions {
            region.range = self.range(region.range.clone());
            for run in &mut region.resident {
                *run = self.range(run.clone());
            }
        }
        residency
    }

    fn layout(&self, mut layout: Layout) -> Layout {
        for arena in &mut layout.arenas {
            arena.address = self.moved(arena.address);
            for segment in &mut arena.segments {
                segment.range = self.range(segment.range.clone());
                segment.first = self.moved(segment.first);
            }
        }
        for chunk in &mut layout.mapped {
            chunk.address = self.moved(chunk.address);
        }
        layout
    }

    /// What a file is called in the copy.
    fn file(&mut self, path: PathBuf) -> PathBuf {
        if is_public(&path) {
            return path;
        }
        let number = self.files.len() + 1;
        self.files.entry(path).or_insert_with(|| Path::new(FOLDER).join(format!("file-{number}"))).clone()
    }

    fn moved(&self, address: u64) -> u64 {
        if (RANDOM..END).contains(&address) { address - self.down } else { address }
    }

    fn range(&self, range: Range<u64>) -> Range<u64> {
        // The end of the last page belongs to the page.
        let end = if range.end == END { END - self.down } else { self.moved(range.end) };
        self.moved(range.start)..end
    }
}

/// Whether a path says nothing of whose the recording is.
fn is_public(path: &Path) -> bool {
    let (bytes, name) = (path.as_os_str().as_bytes(), path.file_name().unwrap_or_default().as_bytes());
    let is_library = name.windows(3).any(|part| part == b".so");
    let lies_there = SYSTEM.iter().any(|folder| bytes.starts_with(folder.as_bytes()));
    bytes.is_empty() || KERNELS.iter().any(|known| bytes == known.as_bytes()) || (is_library && lies_there)
}

/// A word `NAME=VALUE` of the environment without what could be a path.
fn setting(word: String) -> String {
    match word.split_once('=') {
        Some((name, value)) if value.contains('/') => format!("{name}={LEFT_OUT}"),
        _ => word,
    }
}
