//! What an allocation policy is asked, and what it answers.

use crate::glibc::Layout;
use memfrag_common::Function;
use std::fmt;
use std::ops::Range;

/// A block's number, by which a policy keeps where it has put it: dense, from 0, and used again once the block is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

impl BlockId {
    /// As the index of a table.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who calls the allocator, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Nanoseconds since the trace began.
    pub time: u64,
    /// Thread id.
    pub thread: u32,
    /// Return address of the call.
    pub site: u64,
    /// Number of a recorded stack, 0 for none.
    pub stack: u32,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes.
    pub size: u64,
    /// Base-2 logarithm of the alignment asked for, 0 for none in particular.
    pub align_log2: u8,
    /// The function called.
    pub function: Function,
}

impl Request {
    /// The alignment in bytes that an address must have, at least `natural`, a power of two.
    #[inline]
    pub const fn align(&self, natural: u64) -> u64 {
        let asked = if self.align_log2 < 63 { 1 << self.align_log2 } else { 1 << 62 };
        if asked > natural { asked } else { natural }
    }
}

/// What the stream tells beside requests. A policy that does not rebuild the real allocator has no use for it.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// A thread has begun.
    ThreadStart,
    /// A thread has ended, or is about to.
    ThreadExit,
    /// This heap is that of a process which was just made: its first thread goes on as this thread of its parent, and
    /// the parent's other threads are not there. Under a shared heap they are, and both names mean one thread.
    Forked {
        /// The parent's thread.
        parent_thread: u32,
        /// Whether the heap is shared with the parent.
        shared: bool,
    },
    /// A block is freed that no event had told of; its real address.
    UnknownFree(u64),
    /// A block is resized that no event had told of; its real address. The block that it becomes follows as an
    /// allocation.
    UnknownRealloc(u64),
    /// An allocation failed in the real allocator.
    Failed(Request),
    /// The heap segment ends here now.
    Brk(u64),
    /// Memory was mapped.
    Mapped {
        /// First address.
        addr: u64,
        /// Bytes.
        size: u64,
        /// Whether it is a file's.
        is_file: bool,
    },
    /// Memory was unmapped.
    Unmapped {
        /// First address.
        addr: u64,
        /// Bytes.
        size: u64,
    },
    /// This many events were lost before the next one.
    Gap(u64),
    /// The real heap as it lay in memory.
    Layout(&'a Layout),
}

/// Bytes that a policy has obtained from the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Now; the final one, when nothing more comes.
    pub now: u64,
    /// The most.
    pub peak: u64,
    /// When that was reached first, in nanoseconds since the trace began.
    pub peak_time: u64,
}

impl Footprint {
    /// Sets the bytes held now.
    #[inline]
    pub fn set(&mut self, time: u64, bytes: u64) {
        self.now = bytes;
        if bytes > self.peak {
            self.peak = bytes;
            self.peak_time = time;
        }
    }
}

/// What lies in the footprint now, all in bytes but for `holes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Requested by live blocks.
    pub requested: u64,
    /// Taken by live blocks, headers and rounding included.
    pub taken: u64,
    /// Free within the footprint, caches included.
    pub free: u64,
    /// Free ranges.
    pub holes: u64,
    /// The largest of them.
    pub largest_hole: u64,
}

/// What a policy has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks placed, those of reallocations that moved included.
    pub placements: u64,
    /// Placements at the address that the real allocator gave; `None` where the policy does not foretell these.
    pub exact: Option<u64>,
    /// Requests that could not be served.
    pub failed: u64,
    /// Reallocations that stayed where they were.
    pub in_place: u64,
    /// Times that more memory was obtained from the system.
    pub growths: u64,
    /// Those of them for a request that the free bytes, taken together, would have held.
    pub avoidable_growths: u64,
    /// Events that cannot be, by what the policy knows: passed over.
    pub impossible: u64,
}

/// What `mallinfo2` tells, as far as the model knows it: the fields' names are glibc's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MallInfo {
    /// Bytes that arenas have obtained from the system.
    pub arena: u64,
    /// Free chunks outside fastbins and caches, tops included.
    pub ordblks: u64,
    /// Chunks in fastbins.
    pub smblks: u64,
    /// Mapped chunks.
    pub hblks: u64,
    /// Their bytes.
    pub hblkhd: u64,
    /// Bytes in fastbins.
    pub fsmblks: u64,
    /// Bytes neither in use nor cached.
    pub fordblks: u64,
    /// Bytes of the main arena's top.
    pub keepcost: u64,
}

/// What is sent for before a block is freed: see [`Policy::send_for`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What is found under the block's number.
    Block,
    /// What that leads to.
    Place,
    /// What lies around the block, as far as that is kept elsewhere.
    Around,
}

/// A policy that serves the requests of one heap.
///
/// Each block is named by a [`BlockId`]: between its allocation and its free no other block has the number. The driver
/// sees to that whatever the stream holds: a block that is allocated anew without a free is freed first, and what it
/// does not know is a [`Fact`]. Policies have no clock and do no I/O: the same calls give the same state.
pub trait Policy: fmt::Debug + Send {
    /// Its name, as on the command line.
    fn name(&self) -> &str;

    /// A block is wanted, and the real allocator has placed it at `observed`. Gives the policy's own address of the
    /// block, `None` when it cannot serve it. The block then counts as placed nowhere: its free comes nevertheless.
    fn allocate(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64>;

    /// A block that was allocated is freed.
    fn free(&mut self, caller: &Caller, block: BlockId);

    /// A block's size changes. The real allocator has put it to `observed`, which may be where it was. As
    /// [`Self::allocate`]; when the policy cannot serve it, the block stays as it was.
    fn reallocate(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64>;

    /// Sends for memory that the free of a live block will read, some events before that. The steps come in their order,
    /// each when what the one before has sent for may be there.
    fn send_for(&self, _block: BlockId, _step: Step) {}

    /// What else the stream tells.
    fn learn(&mut self, _caller: &Caller, _fact: Fact<'_>) {}

    /// Bytes obtained from the system.
    fn footprint(&self) -> Footprint;

    /// What lies in them now. May take time by the number of blocks.
    fn contents(&self) -> Contents;

    /// What was counted.
    fn counts(&self) -> Counts;

    /// What `mallinfo2` would tell, where the policy is glibc's.
    fn mallinfo(&self) -> Option<MallInfo> {
        None
    }

    /// The policy's own addresses of a block that it has placed, headers and rounding included.
    fn place_of(&self, block: BlockId) -> Option<Range<u64>>;

    /// The policy's own addresses that make up the footprint, upwards, none touching the next. Those that share memory
    /// count by themselves. Empty where blocks have no lasting addresses. May take time by the number of ranges.
    fn held(&self) -> Vec<Range<u64>> {
        Vec::new()
    }

    /// The copy that a forked process goes on with. Peak and counts go on from the parent's.
    fn fork(&self) -> Box<dyn Policy>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_keeps_its_first_time() {
        let mut footprint = Footprint::default();
        for (time, bytes) in [(1, 10), (2, 30), (3, 30), (4, 20)] {
            footprint.set(time, bytes);
        }
        assert_eq!(footprint, Footprint { now: 20, peak: 30, peak_time: 2 });
    }

    #[test]
    fn alignment_is_at_least_the_natural_one() {
        let aligned = |align_log2| Request { size: 1, align_log2, function: Function::Memalign }.align(16);
        assert_eq!([aligned(0), aligned(4), aligned(12), aligned(255)], [16, 16, 4096, 1 << 62]);
    }
}
