//! Sums for neighbouring cells of one size.

use std::ops::Range;

/// Sums for cells, by their places.
#[derive(Debug)]
pub(super) struct Cells<'a, S> {
    first: u64,
    bits: u32,
    sums: &'a mut [S],
}

impl<'a, S> Cells<'a, S> {
    /// The cells of 2^`bits` bytes from number `first` on.
    pub(super) fn new(first: u64, bits: u32, sums: &'a mut [S]) -> Self {
        Self { first, bits, sums }
    }

    /// Their addresses.
    pub(super) fn bytes(&self) -> Range<u64> {
        self.first << self.bits..(self.first + self.sums.len() as u64) << self.bits
    }

    /// The sum of the cell that holds an address, if it is one of these.
    #[inline]
    pub(super) fn at(&mut self, address: u64) -> Option<&mut S> {
        self.sums.get_mut((address >> self.bits).wrapping_sub(self.first) as usize)
    }

    /// Goes over the cells of which a part lies in a range of addresses, with the bytes of that part.
    pub(super) fn spread(&mut self, range: Range<u64>, mut add: impl FnMut(&mut S, u64)) {
        let all = self.bytes();
        let (start, end) = (range.start.max(all.start), range.end.min(all.end));
        if start >= end {
            return;
        }
        let first = start >> self.bits;
        let last = (end - 1) >> self.bits;
        let sums = &mut self.sums[(first - self.first) as usize..=(last - self.first) as usize];
        for (cell, sum) in (first..).zip(sums) {
            let cell = cell << self.bits;
            add(sum, end.min(cell + (1 << self.bits)) - start.max(cell));
        }
    }
}
