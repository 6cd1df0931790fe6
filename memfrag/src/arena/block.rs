//! Blocks, and what happens to them.

use super::error::AllocError;
use memfrag_common::{Event as Recorded, Function, Op};

/// What a block is for, in the words of whoever allocates it; empty where nobody has said.
pub type Tag = &'static str;

/// A block that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first address.
    pub address: u64,
    /// Bytes requested.
    pub requested: u64,
    /// Bytes taken: the request and the guard, rounded up to a multiple of [`GRANULE`](super::GRANULE).
    pub size: u64,
    /// The alignment requested, a power of two.
    pub align: u64,
    /// What it is for.
    pub tag: Tag,
    /// Blocks allocated before it.
    pub number: u64,
}

impl Block {
    /// The address behind the last one that it takes.
    pub const fn end(&self) -> u64 {
        self.address + self.size
    }

    /// Bytes that it takes beyond what was requested.
    pub const fn padding(&self) -> u64 {
        self.size - self.requested
    }
}

/// Something that happened in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A block was given out.
    Allocated(Block),
    /// A block was given back.
    Freed(Block),
    /// A block has another size now, and may be elsewhere.
    Resized {
        /// As it was.
        before: Block,
        /// As it is.
        after: Block,
    },
    /// A request was refused.
    Refused(AllocError),
}

/// When and by whom, for events of an arena that are to be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since the recording began.
    pub time: u64,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// An address in the code that called.
    pub site: u64,
}

impl Event {
    /// The event as a recording keeps it, for a [`recording::Writer`](crate::recording::Writer) to take: calls of
    /// `malloc`, `aligned_alloc`, `free` and `realloc`.
    pub fn recorded(&self, stamp: Stamp) -> impl Iterator<Item = Recorded> + use<> {
        let Stamp { time, pid, tid, site } = stamp;
        let allocation = |addr: u64, size: u64, align: u64| {
            let aligned = align > super::GRANULE && align.is_power_of_two();
            let function = if aligned { Function::AlignedAlloc } else { Function::Malloc };
            let align_log2 = if aligned { align.trailing_zeros() as u8 } else { 0 };
            Op::Alloc { function, align_log2, addr, size, site, stack: 0 }
        };
        let ops = match *self {
            Self::Allocated(block) => [Some(allocation(block.address, block.requested, block.align)), None],
            Self::Freed(block) => {
                [Some(Op::Free { function: Function::Free, addr: block.address, size: 0, site }), None]
            }
            Self::Resized { before, after } => {
                let (function, size) = (Function::Realloc, after.requested);
                [
                    Some(Op::ReallocBegin { function, old: before.address, size, site }),
                    Some(Op::ReallocEnd { function, addr: after.address, size, site, stack: 0 }),
                ]
            }
            Self::Refused(AllocError::OutOfMemory { size, align, .. }) => [Some(allocation(0, size, align)), None],
            // The caller's mistake: nothing was asked of the arena.
            Self::Refused(AllocError::InvalidAlignment { .. }) => [None, None],
        };
        ops.into_iter().flatten().map(move |op| Recorded { time, pid, tid, op })
    }
}
