//! How much memory a block takes where it lies.

use crate::glibc::layout::{HEADER, chunk_bytes};
use crate::target::residency::PAGE;
use std::ops::Range;

/// The smallest request that glibc maps by itself unless it is told otherwise.
const MMAP_THRESHOLD: u64 = 128 << 10;

/// The rule by which a request becomes the memory that it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Footprint {
    /// The bytes requested and no more: what is known of any allocator.
    #[default]
    Requested,
    /// glibc's chunks: a header, the request, and padding to 16 bytes.
    Glibc,
}

impl Footprint {
    /// The memory that a block of `size` bytes at `addr` takes, header and padding included.
    ///
    /// Under glibc a chunk begins [`HEADER`] bytes before its block, and chunks lie one behind the other.
    #[inline]
    pub fn of(self, addr: u64, size: u64) -> Range<u64> {
        match self {
            Self::Requested => addr..addr.saturating_add(size),
            Self::Glibc if Self::is_mapped(addr, size) => {
                let start = addr - HEADER;
                // The next chunk's header, whose first field every other chunk may use, is not there.
                let bytes = chunk_bytes(size).saturating_add(HEADER / 2);
                start..start.saturating_add(bytes).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
            }
            Self::Glibc => {
                let start = addr.saturating_sub(HEADER);
                start..start.saturating_add(chunk_bytes(size))
            }
        }
    }

    /// Bytes of that memory.
    #[inline]
    pub fn bytes(self, addr: u64, size: u64) -> u64 {
        let range = self.of(addr, size);
        range.end - range.start
    }

    /// Whether glibc mapped the block by itself: such a chunk begins a page, and only large requests get one.
    ///
    /// One in 256 large blocks of an arena begins a page as well; it is then taken for less than a page too much.
    #[inline]
    pub fn is_mapped(addr: u64, size: u64) -> bool {
        size >= MMAP_THRESHOLD && addr % PAGE == HEADER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glibcs_chunks_lie_one_behind_the_other() {
        assert_eq!(Footprint::Glibc.of(0x1010, 24), 0x1000..0x1020);
        assert_eq!(Footprint::Glibc.of(0x1030, 25), 0x1020..0x1050);
        assert_eq!(Footprint::Requested.of(0x1010, 24), 0x1010..0x1028);
    }

    #[test]
    fn a_chunk_mapped_by_itself_takes_whole_pages() {
        let addr = 0x7f00_0000_0010;
        // A chunk without a next one behind it cannot use that one's first field.
        let request = 33 * PAGE - HEADER - 8;
        assert_eq!(Footprint::Glibc.bytes(addr, request), 33 * PAGE);
        assert_eq!(Footprint::Glibc.bytes(addr, request + 1), 34 * PAGE);
        assert_eq!(Footprint::Glibc.bytes(addr + 16, request), 33 * PAGE - 16);
        assert_eq!(Footprint::Glibc.bytes(addr + 16, request + 1), 33 * PAGE);
    }

    #[test]
    fn the_ends_of_the_address_space_are_kept() {
        for addr in [0, 1, 16, u64::MAX - 15, u64::MAX] {
            for size in [0, 1, u64::MAX] {
                for footprint in [Footprint::Requested, Footprint::Glibc] {
                    let range = footprint.of(addr, size);
                    assert!(range.start <= range.end);
                    assert_eq!(footprint.bytes(addr, size), range.end - range.start);
                }
            }
        }
    }
}
