//! The record: 48 bytes, one layout for every kind of event.
//!
//! A fixed layout lets the preload library's ring be an array of slots, and the BPF side reserve a constant
//! size, which is the cheapest form of its ring buffer. What the fields hold depends on the kind:
//!
//! | kind | `addr` | `size` | `site` | `extra` |
//! |---|---|---|---|---|
//! | `Alloc` | block, 0 when it failed | requested bytes | return address | |
//! | `Free` | block | declared bytes of a sized free, else 0 | return address | |
//! | `ReallocBegin` | old block | requested bytes | return address | |
//! | `ReallocEnd` | new block, 0 when it failed or freed | requested bytes | return address | |
//! | `Fork` | child's process id | clone flags | | |
//! | `Exec` | the program's name, [in words](crate::names::words), zero when unknown | its second half | | |
//! | `ThreadStart`, `ThreadExit` | | | | |
//! | `Exit` | wait status, or [`UNKNOWN_STATUS`] | | | |
//! | `Mmap` | start | bytes | protection, flags << 32 | file descriptor |
//! | `Munmap`, `MunmapFailed` | start | bytes | | |
//! | `MremapBegin` | old start | old bytes | | |
//! | `MremapEnd` | new start, 0 when it failed | new bytes | | |
//! | `Brk` | new end of the heap segment | | | |
//! | `Madvise` | start | bytes | | advice |
//! | `Gap` | | lost events | | |

/// `addr` of an [`Kind::Exit`] record when the status could not be learned.
pub const UNKNOWN_STATUS: u64 = u64::MAX;

/// What a record tells. The numbers are part of the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A block was allocated (reported when the call returned), or the call failed.
    Alloc = 1,
    /// A block is about to be freed (reported before the call).
    Free = 2,
    /// A reallocation starts; from here on the old block may be gone.
    ReallocBegin = 3,
    /// The reallocation of the same thread has ended.
    ReallocEnd = 4,
    /// The process made another process.
    Fork = 5,
    /// The process runs another program from here on: its old heap is gone.
    Exec = 6,
    /// The process has ended.
    Exit = 7,
    /// `tid` is a new thread of the process.
    ThreadStart = 8,
    /// `tid` has ended.
    ThreadExit = 9,
    /// Memory was mapped (reported at the call's return).
    Mmap = 10,
    /// Memory is about to be unmapped (reported before the call).
    Munmap = 11,
    /// The unmapping of the same thread failed after all.
    MunmapFailed = 12,
    /// A mapping is about to be moved or resized.
    MremapBegin = 13,
    /// The move or resize of the same thread has ended.
    MremapEnd = 14,
    /// The end of the heap segment was set.
    Brk = 15,
    /// The kernel was advised about a range.
    Madvise = 16,
    /// Events of this process were lost here.
    Gap = 17,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Alloc,
            2 => Self::Free,
            3 => Self::ReallocBegin,
            4 => Self::ReallocEnd,
            5 => Self::Fork,
            6 => Self::Exec,
            7 => Self::Exit,
            8 => Self::ThreadStart,
            9 => Self::ThreadExit,
            10 => Self::Mmap,
            11 => Self::Munmap,
            12 => Self::MunmapFailed,
            13 => Self::MremapBegin,
            14 => Self::MremapEnd,
            15 => Self::Brk,
            16 => Self::Madvise,
            17 => Self::Gap,
            _ => return None,
        })
    }
}

/// One event as it travels from the traced program to the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// When: nanoseconds of the monotonic clock, or raw ticks where the transport says so.
    pub time: u64,
    /// See the table of the module.
    pub addr: u64,
    /// See the table of the module.
    pub size: u64,
    /// See the table of the module.
    pub site: u64,
    /// Process (thread group) id, as seen in the initial namespace by BPF, in the process's own by preload.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// A [`Kind`].
    pub kind: u8,
    /// A [`crate::Function`] for allocator events, else 0.
    pub function: u8,
    /// Base-2 logarithm of the requested alignment, 0 where the function takes none.
    pub align_log2: u8,
    /// Written as 0; readers ignore it.
    pub reserved: u8,
    /// See the table of the module; for allocator events the number of a recorded stack, 0 for none.
    pub extra: u32,
}

const _: () = assert!(size_of::<Record>() == Record::SIZE && align_of::<Record>() == 8);
const _: () = assert!(core::mem::offset_of!(Record, pid) == 32);
const _: () = assert!(core::mem::offset_of!(Record, kind) == 40);
const _: () = assert!(core::mem::offset_of!(Record, extra) == 44);

impl Record {
    /// Bytes of a record on the wire.
    pub const SIZE: usize = 48;

    /// Reads a record from the first 48 bytes of `bytes`; `None` when there are fewer.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.first_chunk()?;
        let word = |at: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(value)
        };
        let half = |at: usize| {
            (u64::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3], 0, 0, 0, 0])) as u32
        };
        Some(Self {
            time: word(0),
            addr: word(8),
            size: word(16),
            site: word(24),
            pid: half(32),
            tid: half(36),
            kind: bytes[40],
            function: bytes[41],
            align_log2: bytes[42],
            reserved: bytes[43],
            extra: half(44),
        })
    }

    /// The record's bytes as they lie in memory.
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        for (at, word) in [(0, self.time), (8, self.addr), (16, self.size), (24, self.site)] {
            bytes[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        }
        for (at, half) in [(32, self.pid), (36, self.tid), (44, self.extra)] {
            bytes[at..at + 4].copy_from_slice(&half.to_ne_bytes());
        }
        bytes[40..44].copy_from_slice(&[self.kind, self.function, self.align_log2, self.reserved]);
        bytes
    }
}
