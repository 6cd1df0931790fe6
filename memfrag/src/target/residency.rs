//! Which pages of a process are in memory.

use std::ops::Range;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// What a region of address space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RegionKind {
    /// The brk heap.
    Heap = 1,
    /// Private anonymous memory that can be written: arenas, mapped chunks, other allocators, buffers.
    Anonymous = 2,
    /// A stack.
    Stack = 3,
    /// A file, its private pages included.
    File = 4,
    /// Shared memory without a file, and everything else.
    Other = 5,
}

impl RegionKind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Heap,
            2 => Self::Anonymous,
            3 => Self::Stack,
            4 => Self::File,
            5 => Self::Other,
            _ => return None,
        })
    }

    /// Whether an allocator may keep its blocks there, so that it matters which pages are resident.
    pub const fn may_hold_blocks(self) -> bool {
        matches!(self, Self::Heap | Self::Anonymous)
    }
}

/// One mapping of a process, and what of it is resident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its addresses.
    pub range: Range<u64>,
    /// What it is.
    pub kind: RegionKind,
    /// Bytes of it that are resident.
    pub resident_bytes: u64,
    /// Bytes of it that are swapped out.
    pub swapped_bytes: u64,
    /// The resident pages as runs of addresses, upwards, none touching the next; kept where the region
    /// [may hold blocks](RegionKind::may_hold_blocks), else empty.
    pub resident: Vec<Range<u64>>,
}

/// Which pages of a process were in memory at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Nanoseconds since the trace began.
    pub time: u64,
    /// Process id.
    pub pid: u32,
    /// All mappings, by address.
    pub regions: Vec<Region>,
}

impl Residency {
    /// Resident bytes of all regions.
    pub fn resident_bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.resident_bytes).sum()
    }

    /// The region that holds an address.
    pub fn region(&self, address: u64) -> Option<&Region> {
        let at = self.regions.partition_point(|region| region.range.end <= address);
        self.regions.get(at).filter(|region| region.range.contains(&address))
    }

    /// The runs of resident pages of all regions that may hold blocks, upwards.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.regions.iter().flat_map(|region| region.resident.iter().cloned())
    }
}
