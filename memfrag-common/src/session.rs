//! The shared memory of a preload session, besides the rings.
//!
//! The daemon makes a directory with one file for the session. Each program image makes a file for itself:
//! a header with counters, a text area that says who it is, then [`RINGS_PER_CHUNK`] rings. When it needs more rings
//! it makes files of that many more, named like its own with `.1`, `.2` … behind. Files are sparse: a ring that no
//! thread ever used costs nothing.

use crate::loss::COUNTERS;
use crate::names::{MOST_NAMES, Name, Names};
use crate::ring::{RingHeader, Slot};
use crate::unwind::walk::Walk;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// First word of a session's and of a process's file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"memfragS");

/// Version of the layout. Library and daemon are always of one build; this catches a library left in the environment.
pub const VERSION: u32 = 2;

/// What the name of a session's directory begins with; the daemon's process id, `-` and a hexadecimal number follow.
pub const DIRECTORY: &str = "memfrag-";

/// The daemon's id, if this is how a session's directory is called: the prefix, the id, and a time.
pub fn daemon_of(name: &str) -> Option<u32> {
    let (daemon, time) = name.strip_prefix(DIRECTORY)?.split_once('-')?;
    u128::from_str_radix(time, 16).ok()?;
    daemon.parse().ok()
}

/// The library's file name in the session's directory.
pub const LIBRARY: &str = "libmemfrag_preload.so";

/// The directory of all other files, beside the library: a directory, or a link to one where the library's own place
/// has no room for the data.
pub const DATA: &str = "data";

/// The session's file in [`DATA`].
pub const SESSION_FILE: &str = "session";

/// The file of the [table of stacks](crate::stacks) in [`DATA`], where stacks are recorded.
pub const STACKS_FILE: &str = "stacks";

/// Bytes of the shared memory without a file that the library keeps in a process of several threads: by this length,
/// which nobody else's mapping is likely to have, it is told from the program's own.
pub const SHADOW_BYTES: usize = (16 << 20) + 0x1_f000;

/// Rings in one file.
pub const RINGS_PER_CHUNK: u32 = 16;

/// Most files of one process, hence the most threads that are recorded at the same time.
pub const MAX_CHUNKS: u32 = 256;

/// Where the text area of a process's file begins.
pub const TEXT_OFFSET: usize = 4096;

/// Where the rings of a process's first file begin. Other files begin with a ring.
pub const RINGS_OFFSET: usize = 512 << 10;

/// Bytes of the text area.
pub const TEXT_BYTES: usize = RINGS_OFFSET - TEXT_OFFSET;

/// Where in a ring what its thread remembers of its stack begins, which the daemon does not read.
pub const WALK_OFFSET: usize = 4096;

/// Bytes before a ring's slots.
pub const RING_HEADER_BYTES: usize = WALK_OFFSET + size_of::<Walk>().next_multiple_of(4096);

/// How stamps are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Clock {
    /// The processor's time stamp counter, where the kernel itself trusts it.
    Tsc = 1,
    /// `clock_gettime(CLOCK_MONOTONIC)`, nanoseconds.
    Monotonic = 2,
}

/// What of a call's stack is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Stacks {
    /// Nothing, not even who called.
    None = 1,
    /// The caller.
    #[default]
    Caller = 2,
    /// All frames, by the chain of frame pointers.
    FramePointers = 3,
    /// All frames, by the call frame information of the files that the code is in.
    Dwarf = 4,
}

impl Stacks {
    /// Whether more than the caller is recorded.
    pub const fn are_full(self) -> bool {
        matches!(self, Self::FramePointers | Self::Dwarf)
    }
}

/// The session's file. Written by the daemon, but for `processes`.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SessionHeader {
    /// [`MAGIC`], stored last.
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// A [`Clock`].
    pub clock: AtomicU32,
    /// The daemon's process id.
    pub daemon: AtomicU32,
    /// Slots of a ring, a power of two.
    pub ring_slots: AtomicU32,
    /// 1 while the daemon reads.
    pub active: AtomicU32,
    /// A [`Stacks`].
    pub stacks: AtomicU32,
    /// `CLOCK_MONOTONIC` nanoseconds at which the daemon last looked at the rings.
    pub heartbeat: AtomicU64,
    /// How many images have made their file: when it moves, the daemon looks for new ones.
    pub processes: AtomicU64,
    /// The [`Names`] that the session is limited to, each [as words](Name::to_words).
    names: [[AtomicU64; 4]; MOST_NAMES],
}

impl SessionHeader {
    /// Limits the session to programs of these names; for the daemon, before anyone sees the file.
    pub fn limit_to(&self, names: &Names) {
        for (place, name) in self.names.iter().zip(names.iter()) {
            place.iter().zip(name.to_words()).for_each(|(place, word)| place.store(word, Relaxed));
        }
    }

    /// What the session is limited to.
    pub fn names(&self) -> Names {
        let names =
            self.names.each_ref().map(|words| Name::from_words(words.each_ref().map(|word| word.load(Relaxed))));
        Names::new(&names).unwrap_or_default()
    }
}

/// How an image came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Origin {
    /// By `exec`: its heap was empty.
    Exec = 0,
    /// By `fork`: it has a copy of its parent's heap.
    Fork = 1,
}

/// The first page of a process's file. Written by the process.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ProcessHeader {
    /// [`MAGIC`], stored last.
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// Process id, in the process's own namespace.
    pub pid: AtomicU32,
    /// Parent's process id.
    pub ppid: AtomicU32,
    /// An [`Origin`].
    pub origin: AtomicU32,
    /// A stamp below all of the image's own; for [`Origin::Fork`] above all that the child inherited.
    pub born: AtomicU64,
    /// Start time in clock ticks since boot, 0 when unknown.
    pub start_ticks: AtomicU64,
    /// Rings handed out so far.
    pub rings: AtomicU32,
    /// 1 when the image has given up recording for good.
    pub off: AtomicU32,
    /// The name that the kernel gives the process, [as words](crate::names::words).
    pub comm: [AtomicU64; 2],
    /// Bytes of the program's path, at the start of the text area; the command line and the mappings follow.
    pub exe_bytes: AtomicU32,
    /// Bytes of the command line as `/proc/PID/cmdline` gives it.
    pub cmdline_bytes: AtomicU32,
    /// Bytes of `/proc/PID/maps`.
    pub maps_bytes: AtomicU32,
    /// How often the mappings have been written.
    pub maps_version: AtomicU32,
    /// Indexed by [`crate::loss::Counter`].
    pub counters: [AtomicU64; COUNTERS],
}

const _: () = assert!(size_of::<ProcessHeader>() <= TEXT_OFFSET);
const _: () = assert!(size_of::<RingHeader>() <= WALK_OFFSET);

/// Bytes of a ring with so many slots, in whole pages.
pub const fn ring_bytes(slots: u32) -> usize {
    RING_HEADER_BYTES + (slots as usize * size_of::<Slot>()).next_multiple_of(4096)
}

/// Bytes of a process's file number `chunk`.
pub const fn chunk_bytes(chunk: u32, slots: u32) -> usize {
    rings_offset(chunk) + RINGS_PER_CHUNK as usize * ring_bytes(slots)
}

/// Where the rings begin in a process's file number `chunk`.
pub const fn rings_offset(chunk: u32) -> usize {
    if chunk == 0 { RINGS_OFFSET } else { 0 }
}
