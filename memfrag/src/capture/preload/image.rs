//! A traced program image: its files, its rings, what it says about itself.

#![allow(clippy::cast_ptr_alignment, reason = "mappings are page-aligned, and so are the parts of the shared layout")]

use crate::target::process::{self, Stat};
use crate::target::{Mapping, ProcessInfo, maps};
use memfrag_common::loss::COUNTERS;
use memfrag_common::names;
use memfrag_common::ring::{RingHeader, Slot};
use memfrag_common::session::{
    MAGIC, MAX_CHUNKS, Origin, ProcessHeader, RING_HEADER_BYTES, RINGS_PER_CHUNK, TEXT_BYTES, TEXT_OFFSET, VERSION,
    chunk_bytes, ring_bytes, rings_offset,
};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// One ring, with the consumer's side of it.
#[derive(Debug)]
pub(crate) struct Ring {
    header: *const RingHeader,
    slots: *const Slot,
    mask: u64,
    /// The process that writes it.
    pub(crate) pid: u32,
    /// The thread whose records come next.
    pub(crate) tid: u32,
    /// Next to be read.
    pub(crate) tail: u64,
    /// As last observed.
    pub(crate) head: u64,
    /// The last stamp read, below which none is taken.
    pub(crate) last: u64,
    /// State, head and time of the first of the latest equal observations of a ring at work.
    pub(crate) at_work: Option<(u64, u64, u64)>,
}

impl Ring {
    /// A ring of a process, of which nothing has been read.
    ///
    /// # Safety
    ///
    /// `header` and `slots` point to a ring of `count` slots, a power of two, that stays mapped as long as this value
    /// is used.
    pub(crate) unsafe fn new(header: *const RingHeader, slots: *const Slot, count: u64, pid: u32) -> Self {
        let mut ring = Self { header, slots, mask: count - 1, pid, tid: 0, tail: 0, head: 0, last: 0, at_work: None };
        ring.last = ring.header().owner.0.born.load(Relaxed);
        ring
    }

    /// The consumer's view of the header.
    pub(crate) fn header(&self) -> &RingHeader {
        // SAFETY: `new` was given a header that stays mapped.
        unsafe { &*self.header }
    }

    /// The slot of index `at`.
    #[inline]
    pub(crate) fn slot(&self, at: u64) -> &Slot {
        // SAFETY: masked, hence one of the slots that `new` was given.
        let slot = unsafe { self.slots.add((at & self.mask) as usize) };
        // SAFETY: a mapped slot, all of it atomic.
        unsafe { &*slot }
    }

    /// How many slots there are.
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }
}

/// What a process's file is.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A whole header.
    Image(Box<Image>),
    /// Not ready yet.
    Unfinished,
    /// Not of this version, or not what it should be.
    Foreign,
}

/// A program image and its rings.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Image {
    path: PathBuf,
    chunks: Vec<MmapRaw>,
    slots: u32,
    /// Process id.
    pub(crate) pid: u32,
    /// Parent's process id.
    pub(crate) ppid: u32,
    /// Start time in clock ticks since boot, 0 when unknown: `exec` keeps it.
    pub(crate) start_ticks: u64,
    /// How it came to be.
    pub(crate) origin: Origin,
    /// Stamp below all of its own.
    pub(crate) born: u64,
    /// Its rings, in the order in which they were first used.
    pub(crate) rings: Vec<Ring>,
    /// Readable once the process has ended.
    pub(crate) pidfd: Option<OwnedFd>,
    /// The process has ended.
    pub(crate) dead: bool,
    /// The process has become another image.
    pub(crate) replaced: bool,
    /// Its appearance has been told.
    pub(crate) announced: bool,
    /// It has been told that it goes on unrecorded.
    pub(crate) left: bool,
}

impl Image {
    /// Maps the file at `path`.
    pub(crate) fn open(path: &Path, slots: u32) -> io::Result<Opened> {
        let Some(map) = map(path, chunk_bytes(0, slots))? else { return Ok(Opened::Unfinished) };
        // SAFETY: the mapping is as long as a first chunk, which begins with the header; all fields are atomic.
        let header = unsafe { &*map.as_ptr().cast::<ProcessHeader>() };
        match header.magic.load(Acquire) {
            0 => return Ok(Opened::Unfinished),
            MAGIC if header.version.load(Relaxed) == VERSION => {}
            _ => return Ok(Opened::Foreign),
        }
        let pid = header.pid.load(Relaxed);
        let fork = header.origin.load(Relaxed) == Origin::Fork as u32;
        let pidfd = pidfd(pid).filter(|_| {
            // The id may be another process's by now.
            let ticks = header.start_ticks.load(Relaxed);
            ticks == 0 || Stat::read(pid).is_ok_and(|stat| stat.start_ticks == ticks)
        });
        Ok(Opened::Image(Box::new(Self {
            path: path.to_owned(),
            slots,
            pid,
            ppid: header.ppid.load(Relaxed),
            start_ticks: header.start_ticks.load(Relaxed),
            origin: if fork { Origin::Fork } else { Origin::Exec },
            born: header.born.load(Relaxed),
            rings: Vec::new(),
            dead: pidfd.is_none(),
            pidfd,
            replaced: false,
            announced: false,
            left: false,
            chunks: vec![map],
        })))
    }

    fn header(&self) -> &ProcessHeader {
        // SAFETY: `open` checked the mapping's length.
        unsafe { &*self.chunks[0].as_ptr().cast::<ProcessHeader>() }
    }

    /// Whether the program took the daemon for dead, because that was silent for too long, and goes on unrecorded.
    pub(crate) fn has_left(&self) -> bool {
        self.header().off.load(Relaxed) != 0
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing more can come.
    pub(crate) fn ended(&self) -> bool {
        self.dead || self.replaced
    }

    /// Looks for rings that were not there before. An error means that a file is missing or too short.
    pub(crate) fn find_rings(&mut self) -> io::Result<()> {
        let rings = self.header().rings.load(Acquire).min(MAX_CHUNKS * RINGS_PER_CHUNK);
        while (self.rings.len() as u32) < rings {
            let index = self.rings.len() as u32;
            let chunk = index / RINGS_PER_CHUNK;
            if chunk as usize >= self.chunks.len() {
                let mut path = self.path.clone().into_os_string();
                path.push(format!(".{chunk}"));
                let path = PathBuf::from(path);
                let map = map(&path, chunk_bytes(chunk, self.slots))?;
                self.chunks.push(map.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
            let offset = rings_offset(chunk) + (index % RINGS_PER_CHUNK) as usize * ring_bytes(self.slots);
            // SAFETY: inside the mapping, which is as long as `chunk_bytes` says.
            let header = unsafe { self.chunks[chunk as usize].as_ptr().add(offset) };
            // SAFETY: as above.
            let slots = unsafe { header.add(RING_HEADER_BYTES) };
            // SAFETY: a ring with all its slots, as above; the mappings live as long as the image's rings.
            let ring = unsafe { Ring::new(header.cast(), slots.cast(), u64::from(self.slots), self.pid) };
            self.rings.push(ring);
        }
        Ok(())
    }

    /// The counters as they are now.
    pub(crate) fn counters(&self) -> [u64; COUNTERS] {
        let counters = &self.header().counters;
        std::array::from_fn(|at| counters[at].load(Relaxed))
    }

    /// Who it is, and its mappings when it began; both empty where a forked child leaves that to its parent.
    pub(crate) fn describe(&self, time: u64) -> (ProcessInfo, Vec<Mapping>) {
        let header = self.header();
        let text = self.text();
        let (exe, text) = text.split_at(length(header.exe_bytes.load(Relaxed), text.len()));
        let (cmdline, text) = text.split_at(length(header.cmdline_bytes.load(Relaxed), text.len()));
        let maps = &text[..length(header.maps_bytes.load(Acquire), text.len())];
        let exe = PathBuf::from(String::from_utf8_lossy(exe).into_owned());
        let comm: Vec<u8> = names::bytes_of(header.comm.each_ref().map(|word| word.load(Relaxed))).collect();
        let info = ProcessInfo {
            time,
            pid: self.pid,
            ppid: self.ppid,
            start_ticks: header.start_ticks.load(Relaxed),
            comm: String::from_utf8_lossy(&comm).into_owned(),
            exe,
            cmdline: process::words(cmdline),
            settings: process::settings(self.pid),
        };
        (info, maps::files(maps))
    }

    /// The mappings that an image wrote when it exited, if it did.
    pub(crate) fn last_mappings(&self) -> Option<Vec<Mapping>> {
        let header = self.header();
        let first = u32::from(self.origin == Origin::Exec);
        if header.maps_version.load(Acquire) <= first {
            return None;
        }
        let text = self.text();
        let begin = header.exe_bytes.load(Relaxed).saturating_add(header.cmdline_bytes.load(Relaxed));
        let text = text.get(begin as usize..)?;
        Some(maps::files(&text[..length(header.maps_bytes.load(Relaxed), text.len())]))
    }

    fn text(&self) -> Vec<u8> {
        let mut text = vec![0; TEXT_BYTES];
        let area = self.chunks[0].as_ptr().wrapping_add(TEXT_OFFSET);
        // SAFETY: the first chunk has the area; the process writes it only before it shows its header, or while it
        // refreshes its mappings, when a torn line is left out by the parser.
        unsafe {
            std::ptr::copy_nonoverlapping(area, text.as_mut_ptr(), TEXT_BYTES);
        }
        text
    }
}

/// Maps a whole file, if it is as long as it should be.
fn map(path: &Path, bytes: usize) -> io::Result<Option<MmapRaw>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.len() < bytes as u64 {
        return Ok(None);
    }
    MmapOptions::new().len(bytes).map_raw(&file).map(Some)
}

/// A length that another process tells, as far as there is room for it.
fn length(told: u32, room: usize) -> usize {
    (told as usize).min(room)
}

/// A descriptor that tells when the process ends; `None` when it already has.
fn pidfd(pid: u32) -> Option<OwnedFd> {
    // SAFETY: takes two numbers, returns a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: just opened, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    (!has_ended(&fd)).then_some(fd)
}

/// Whether the process of a descriptor has ended.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut wait = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure.
    unsafe { libc::poll(&raw mut wait, 1, 0) == 1 }
}
