//! What a record means: the type that everything behind the capture works on.

use crate::function::Function;
use crate::record::{Kind, Record, UNKNOWN_STATUS};

/// The flag of `clone` (`include/uapi/linux/sched.h`) with which the child acts on its parent's address space.
pub const CLONE_VM: u64 = 0x100;
/// The flag with which the child is a thread of its parent.
pub const CLONE_THREAD: u64 = 0x1_0000;

/// One event of a traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the trace began.
    pub time: u64,
    /// Process (thread group) id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// What happened.
    pub op: Op,
}

/// What happened. Addresses and sizes are the process's own, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// An allocation returned. `addr` is 0 when it failed.
    Alloc {
        /// The function called.
        function: Function,
        /// Base-2 logarithm of the requested alignment, 0 where the function takes none.
        align_log2: u8,
        /// The block.
        addr: u64,
        /// Bytes requested.
        size: u64,
        /// Return address of the call.
        site: u64,
        /// Number of a recorded stack, 0 for none.
        stack: u32,
    },
    /// A block is freed; never null.
    Free {
        /// The function called.
        function: Function,
        /// The block.
        addr: u64,
        /// Bytes that a sized free declared, else 0.
        size: u64,
        /// Return address of the call.
        site: u64,
    },
    /// A reallocation begins. Until this thread's [`Op::ReallocEnd`] the old block may be gone or not.
    ReallocBegin {
        /// The function called.
        function: Function,
        /// The old block, 0 for none.
        old: u64,
        /// Bytes requested.
        size: u64,
        /// Return address of the call.
        site: u64,
    },
    /// A reallocation has ended. With `addr` 0 it failed, and the old block lives on, unless `size` is 0:
    /// then the old block was freed.
    ReallocEnd {
        /// The function called.
        function: Function,
        /// The block as it is now.
        addr: u64,
        /// Bytes requested.
        size: u64,
        /// Return address of the call.
        site: u64,
        /// Number of a recorded stack, 0 for none.
        stack: u32,
    },
    /// The process made another one.
    Fork {
        /// The new process's id.
        child: u32,
        /// The flags of `clone`: with [`CLONE_VM`] the child acts on the parent's own heap.
        flags: u64,
    },
    /// The process starts another program with an empty heap.
    Exec,
    /// The process has ended.
    Exit {
        /// Wait status as `waitpid` gives it, where it could be learned.
        status: Option<i32>,
    },
    /// The thread has begun.
    ThreadStart,
    /// The thread has ended.
    ThreadExit,
    /// Memory was mapped.
    Mmap {
        /// First address.
        addr: u64,
        /// Bytes.
        size: u64,
        /// `PROT_*`.
        protection: u32,
        /// `MAP_*`.
        flags: u32,
        /// The file mapped, or −1.
        fd: i32,
    },
    /// Memory is unmapped.
    Munmap {
        /// First address.
        addr: u64,
        /// Bytes.
        size: u64,
    },
    /// The thread's last [`Op::Munmap`] failed: the memory is still there.
    MunmapFailed {
        /// First address.
        addr: u64,
        /// Bytes.
        size: u64,
    },
    /// A mapping is about to be moved or resized.
    MremapBegin {
        /// First address.
        addr: u64,
        /// Bytes.
        size: u64,
    },
    /// The thread's move or resize has ended; with `addr` 0 it failed and nothing changed.
    MremapEnd {
        /// First address now.
        addr: u64,
        /// Bytes now.
        size: u64,
    },
    /// The end of the heap segment was set.
    Brk {
        /// The first address behind the segment.
        end: u64,
    },
    /// The kernel was advised about a range.
    Madvise {
        /// First address.
        addr: u64,
        /// Bytes.
        size: u64,
        /// `MADV_*`.
        advice: u32,
    },
    /// Events of this process were lost before the next one.
    Gap {
        /// How many.
        lost: u64,
    },
}

impl Event {
    /// The block that an allocator's event is about, the old one where a reallocation begins; 0 where there is none.
    /// `None` for every other event.
    #[inline]
    pub const fn block(&self) -> Option<u64> {
        match self.op {
            Op::Alloc { addr, .. }
            | Op::Free { addr, .. }
            | Op::ReallocBegin { old: addr, .. }
            | Op::ReallocEnd { addr, .. } => Some(addr),
            _ => None,
        }
    }

    /// Decodes a record, with its time already made relative to the trace. `None` for a kind or function that this
    /// version does not know; the caller counts it.
    #[inline]
    pub fn decode(record: &Record, time: u64) -> Option<Self> {
        let r = record;
        let function = || Function::from_u8(r.function);
        let op = match Kind::from_u8(r.kind)? {
            Kind::Alloc => Op::Alloc {
                function: function()?,
                align_log2: r.align_log2,
                addr: r.addr,
                size: r.size,
                site: r.site,
                stack: r.extra,
            },
            Kind::Free => Op::Free { function: function()?, addr: r.addr, size: r.size, site: r.site },
            Kind::ReallocBegin => Op::ReallocBegin { function: function()?, old: r.addr, size: r.size, site: r.site },
            Kind::ReallocEnd => {
                Op::ReallocEnd { function: function()?, addr: r.addr, size: r.size, site: r.site, stack: r.extra }
            }
            Kind::Fork => Op::Fork { child: r.addr as u32, flags: r.size },
            Kind::Exec => Op::Exec,
            Kind::Exit => Op::Exit { status: (r.addr != UNKNOWN_STATUS).then_some(r.addr as i32) },
            Kind::ThreadStart => Op::ThreadStart,
            Kind::ThreadExit => Op::ThreadExit,
            Kind::Mmap => Op::Mmap {
                addr: r.addr,
                size: r.size,
                protection: r.site as u32,
                flags: (r.site >> 32) as u32,
                fd: r.extra.cast_signed(),
            },
            Kind::Munmap => Op::Munmap { addr: r.addr, size: r.size },
            Kind::MunmapFailed => Op::MunmapFailed { addr: r.addr, size: r.size },
            Kind::MremapBegin => Op::MremapBegin { addr: r.addr, size: r.size },
            Kind::MremapEnd => Op::MremapEnd { addr: r.addr, size: r.size },
            Kind::Brk => Op::Brk { end: r.addr },
            Kind::Madvise => Op::Madvise { addr: r.addr, size: r.size, advice: r.extra },
            Kind::Gap => Op::Gap { lost: r.size },
        };
        Some(Self { time, pid: r.pid, tid: r.tid, op })
    }

    /// The record that decodes to this event.
    pub fn encode(&self) -> Record {
        let mut r = Record { time: self.time, pid: self.pid, tid: self.tid, ..Record::default() };
        let mut range = |kind: Kind, addr: u64, size: u64| {
            r.kind = kind as u8;
            r.addr = addr;
            r.size = size;
        };
        match self.op {
            Op::Alloc { function, align_log2, addr, size, site, stack } => {
                range(Kind::Alloc, addr, size);
                r.function = function as u8;
                r.align_log2 = align_log2;
                r.site = site;
                r.extra = stack;
            }
            Op::Free { function, addr, size, site } => {
                range(Kind::Free, addr, size);
                r.function = function as u8;
                r.site = site;
            }
            Op::ReallocBegin { function, old, size, site } => {
                range(Kind::ReallocBegin, old, size);
                r.function = function as u8;
                r.site = site;
            }
            Op::ReallocEnd { function, addr, size, site, stack } => {
                range(Kind::ReallocEnd, addr, size);
                r.function = function as u8;
                r.site = site;
                r.extra = stack;
            }
            Op::Fork { child, flags } => range(Kind::Fork, u64::from(child), flags),
            Op::Exec => range(Kind::Exec, 0, 0),
            Op::Exit { status } => {
                let status = status.map_or(UNKNOWN_STATUS, |status| u64::from(status.cast_unsigned()));
                range(Kind::Exit, status, 0);
            }
            Op::ThreadStart => range(Kind::ThreadStart, 0, 0),
            Op::ThreadExit => range(Kind::ThreadExit, 0, 0),
            Op::Mmap { addr, size, protection, flags, fd } => {
                range(Kind::Mmap, addr, size);
                r.site = u64::from(protection) | u64::from(flags) << 32;
                r.extra = fd.cast_unsigned();
            }
            Op::Munmap { addr, size } => range(Kind::Munmap, addr, size),
            Op::MunmapFailed { addr, size } => range(Kind::MunmapFailed, addr, size),
            Op::MremapBegin { addr, size } => range(Kind::MremapBegin, addr, size),
            Op::MremapEnd { addr, size } => range(Kind::MremapEnd, addr, size),
            Op::Brk { end } => range(Kind::Brk, end, 0),
            Op::Madvise { addr, size, advice } => {
                range(Kind::Madvise, addr, size);
                r.extra = advice;
            }
            Op::Gap { lost } => range(Kind::Gap, 0, lost),
        }
        r
    }
}
