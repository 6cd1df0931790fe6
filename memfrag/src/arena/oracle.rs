//! First fit by its definition: the live blocks in a list by address, and the gaps between them from below.

use std::collections::BTreeMap;
use std::ops::Range;

/// Shares no code and no data structure with what it is compared with.
#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) range: Range<u64>,
    /// The end of each block by its start.
    pub(crate) blocks: BTreeMap<u64, u64>,
}

impl Oracle {
    pub(crate) fn new(range: Range<u64>) -> Self {
        Self { range, blocks: BTreeMap::new() }
    }

    /// The gaps, upwards.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = Range<u64>> {
        let starts = self.blocks.keys().copied().chain([self.range.end]);
        let ends = [self.range.start].into_iter().chain(self.blocks.values().copied());
        ends.zip(starts).map(|(from, to)| from..to).filter(|gap| !gap.is_empty())
    }

    /// What a request takes.
    pub(crate) fn size(requested: u64) -> u64 {
        requested.max(1).div_ceil(16) * 16
    }

    /// The lowest place for a block in a gap.
    pub(crate) fn place(gap: &Range<u64>, requested: u64, align: u64) -> Option<u64> {
        let mut place = gap.start;
        while !place.is_multiple_of(align) {
            place += align - place % align;
        }
        (place + Self::size(requested) <= gap.end).then_some(place)
    }

    pub(crate) fn first_fit(&self, requested: u64, align: u64) -> Option<u64> {
        self.gaps().find_map(|gap| Self::place(&gap, requested, align))
    }

    pub(crate) fn put(&mut self, start: u64, requested: u64) {
        assert!(self.blocks.insert(start, start + Self::size(requested)).is_none());
    }
}
