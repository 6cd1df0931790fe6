//! What one pass over the live blocks, in order of their addresses, tells.

use super::mesh::{self, Spans};
use crate::heap::{Block, Footprint};

/// Bytes of a cache line.
pub const LINE: u64 = 64;

/// Sums over live blocks.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Bytes requested for blocks that share memory with others.
    pub requested: u64,
    /// Bytes that those take.
    pub taken: u64,
    /// How many they are.
    pub blocks: u64,
    /// Bytes requested for blocks that glibc mapped by themselves.
    pub mapped_requested: u64,
    /// Bytes that those take: whole pages.
    pub mapped_taken: u64,
    /// How many they are.
    pub mapped_blocks: u64,
    /// Cache lines with at least one requested byte.
    pub active_lines: u64,
    /// Requested bytes, each counted once for its line.
    pub line_bytes: u64,
    /// Blocks that lie on more than one cache line.
    pub split: u64,
    /// Blocks that lie on more cache lines than they would if they began with one.
    pub needlessly_split: u64,
    /// Pages with room, to be meshed.
    pub spans: Spans,
}

impl Survey {
    /// Looks at blocks, which must come in order of their addresses.
    pub fn of(blocks: impl Iterator<Item = Block>, footprint: Footprint) -> Self {
        let mut survey = Self::default();
        // One past the last cache line met.
        let mut lines_until = 0;
        let mut spans = mesh::Builder::default();
        for block in blocks {
            let taken = footprint.of(block.addr, block.size);
            let bytes = taken.end - taken.start;
            if footprint == Footprint::Glibc && Footprint::is_mapped(block.addr, block.size) {
                survey.mapped_blocks += 1;
                survey.mapped_requested += block.size;
                survey.mapped_taken += bytes;
            } else {
                survey.blocks += 1;
                survey.requested += block.size;
                survey.taken += bytes;
            }
            spans.add(taken);
            if block.size > 0 {
                survey.lines(&block, &mut lines_until);
            }
        }
        survey.spans = spans.finish();
        survey
    }

    fn lines(&mut self, block: &Block, until: &mut u64) {
        let first = block.addr / LINE;
        let last = block.addr.saturating_add(block.size - 1) / LINE;
        let lines = last - first + 1;
        self.split += u64::from(lines > 1);
        self.needlessly_split += u64::from(lines > block.size.div_ceil(LINE));
        self.active_lines += (last + 1).saturating_sub(first.max(*until));
        self.line_bytes += block.size;
        *until = last + 1;
    }

    /// Bytes of headers: 8 of each chunk, 16 of one mapped by itself. Only under glibc's rule.
    pub fn header_bytes(&self) -> u64 {
        8 * self.blocks + 16 * self.mapped_blocks
    }

    /// Bytes of padding behind the requests of blocks that share memory with others.
    pub fn padding_bytes(&self) -> u64 {
        (self.taken - self.requested).saturating_sub(8 * self.blocks)
    }

    /// Bytes of padding of blocks mapped by themselves, to whole pages.
    pub fn mapped_padding_bytes(&self) -> u64 {
        (self.mapped_taken - self.mapped_requested).saturating_sub(16 * self.mapped_blocks)
    }

    /// Requested bytes over taken ones, of all blocks.
    pub fn padding_efficiency(&self) -> Option<f64> {
        let taken = self.taken + self.mapped_taken;
        (taken > 0).then(|| (self.requested + self.mapped_requested) as f64 / taken as f64)
    }

    /// Requested bytes of a cache line over its size, the mean over the lines that have any.
    pub fn line_utilization(&self) -> Option<f64> {
        (self.active_lines > 0).then(|| self.line_bytes as f64 / (self.active_lines * LINE) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::OriginId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn block(addr: u64, size: u64) -> Block {
        Block { addr, size, time: 0, thread: 1, origin: OriginId::UNSEEN }
    }

    #[test]
    fn headers_and_padding_are_told_apart() {
        // Chunks of 32 and 112 bytes, and one of 34 pages for 135168 bytes.
        let blocks = [block(0x1010, 10), block(0x1030, 100), block(0x7f00_0000_0010, 135_168)];
        let survey = Survey::of(blocks.into_iter(), Footprint::Glibc);
        assert_eq!((survey.requested, survey.taken, survey.blocks), (110, 144, 2));
        assert_eq!((survey.mapped_requested, survey.mapped_taken, survey.mapped_blocks), (135_168, 34 * 4096, 1));
        assert_eq!(survey.header_bytes(), 32);
        assert_eq!((survey.padding_bytes(), survey.mapped_padding_bytes()), (18, 34 * 4096 - 135_168 - 16));
        assert_eq!(survey.padding_efficiency(), Some(135_278.0 / (144.0 + 34.0 * 4096.0)));
    }

    #[test]
    fn lines_that_two_blocks_share_count_once() {
        // Bytes 16..56 and 56..136: three lines, 120 bytes.
        let survey = Survey::of([block(16, 40), block(56, 80)].into_iter(), Footprint::Requested);
        assert_eq!((survey.active_lines, survey.split, survey.needlessly_split), (3, 1, 1));
        assert_eq!(survey.line_utilization(), Some(120.0 / 192.0));
        // 128 bytes from a line's beginning need both lines; from elsewhere they need one more.
        let survey = Survey::of([block(64, 128), block(208, 128)].into_iter(), Footprint::Requested);
        assert_eq!((survey.active_lines, survey.split, survey.needlessly_split), (5, 2, 1));
    }

    proptest! {
        #[test]
        fn lines_equal_a_set_of_lines(gaps in prop::collection::vec((0..200_u64, 0..300_u64), 0..30)) {
            let mut blocks = Vec::new();
            let mut at = 1000;
            for (gap, size) in gaps {
                blocks.push(block(at + gap, size));
                at += gap + size.max(1);
            }
            let bytes = blocks.iter().flat_map(|block| block.addr..block.addr + block.size);
            let lines: BTreeSet<u64> = bytes.map(|byte| byte / LINE).collect();
            let survey = Survey::of(blocks.into_iter(), Footprint::Requested);
            prop_assert_eq!(survey.active_lines, lines.len() as u64);
        }
    }
}
