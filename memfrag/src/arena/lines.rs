//! How blocks lie on cache lines: lines that are fetched for a few bytes, small blocks that need two, and lines that
//! hold what belongs to different parts of a program.

use super::block::{Block, Tag};
use std::ops::Range;

/// A cache line with at least one live block on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, counted from the arena's first address.
    pub index: u64,
    /// Its first address.
    pub address: u64,
    /// Bytes on it that were requested.
    pub used: u64,
    /// Bytes on it that blocks take beyond that.
    pub padding: u64,
    /// Bytes on it that are free.
    pub free: u64,
    /// Blocks that lie on it, wholly or in part.
    pub blocks: u64,
    /// Whether a block is split between this line and the one before or behind it, though one line could hold it.
    pub split: bool,
    /// The tags of its blocks, each once, in the order of addresses.
    pub tags: Vec<Tag>,
}

impl Line {
    /// Bytes on it that nobody asked for.
    pub const fn wasted(&self) -> u64 {
        self.padding + self.free
    }

    /// Requested of all its bytes.
    pub fn utilization(&self) -> f64 {
        self.used as f64 / (self.used + self.wasted()) as f64
    }
}

/// How blocks lie on cache lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// Bytes of a line.
    pub line: u64,
    /// Lines of the arena.
    pub total: u64,
    /// Those with a live block on them, upwards.
    pub active: Vec<Line>,
    /// Those of which every byte was requested.
    pub full: u64,
    /// Blocks of at most a line that lie on two.
    pub split_blocks: u64,
    /// Lines with blocks of more than one tag: where threads keep to tags, each may wait for the other's line.
    pub shared: u64,
}

impl Lines {
    pub(super) fn of(range: &Range<u64>, blocks: &[Block], line: u64) -> Self {
        assert!(line.is_power_of_two(), "{line} is no size of a cache line");
        let mut lines = Self {
            line,
            total: (range.end - range.start).div_ceil(line),
            active: Vec::new(),
            full: 0,
            split_blocks: 0,
            shared: 0,
        };
        for block in blocks {
            // What nobody asked for needs no line.
            let wanted = block.requested.max(1);
            let first = block.address / line;
            let is_split = wanted <= line && first != (block.address + wanted - 1) / line;
            lines.split_blocks += u64::from(is_split);
            for number in first..=(block.end() - 1) / line {
                let address = number * line;
                let of = |end: u64| end.min(address + line).saturating_sub(block.address.max(address));
                let (used, taken) = (of(block.address + block.requested), of(block.end()));
                let at = lines.line_at(range, address);
                at.used += used;
                at.padding += taken - used;
                at.free -= taken;
                at.blocks += 1;
                at.split |= is_split && of(block.address + wanted) > 0;
                if !at.tags.contains(&block.tag) {
                    at.tags.push(block.tag);
                }
            }
        }
        lines.full = lines.count(|at| at.wasted() == 0);
        lines.shared = lines.count(|at| at.tags.len() > 1);
        lines
    }

    /// The line that begins at an address. Blocks come upwards, so it is the last one or new.
    fn line_at(&mut self, range: &Range<u64>, address: u64) -> &mut Line {
        if self.active.last().is_none_or(|last| last.address != address) {
            let inside = range.end.min(address + self.line) - range.start.max(address);
            self.active.push(Line {
                index: (address - range.start / self.line * self.line) / self.line,
                address,
                used: 0,
                padding: 0,
                free: inside,
                blocks: 0,
                split: false,
                tags: Vec::new(),
            });
        }
        let last = self.active.len() - 1;
        &mut self.active[last]
    }

    fn count(&self, of: impl Fn(&Line) -> bool) -> u64 {
        self.active.iter().filter(|line| of(line)).count() as u64
    }

    /// Requested of all bytes of active lines, 1 without any: what of each fetched line is of use.
    pub fn utilization(&self) -> f64 {
        let used: u64 = self.active.iter().map(|line| line.used).sum();
        let wasted: u64 = self.active.iter().map(Line::wasted).sum();
        if self.active.is_empty() { 1.0 } else { used as f64 / (used + wasted) as f64 }
    }
}

/// Bytes of a cache line of this machine, 64 where it does not tell.
pub fn cache_line() -> u64 {
    // SAFETY: asks the C library for a number.
    let line = unsafe { libc::sysconf(libc::_SC_LEVEL1_DCACHE_LINESIZE) };
    u64::try_from(line).ok().filter(|line| line.is_power_of_two()).unwrap_or(64)
}
