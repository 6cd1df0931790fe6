//! Blocks in the order of their addresses.

use super::region::Slot;
use super::{Block, REGION_BITS, SPAN_BITS, Span};
use std::ops::RangeInclusive;

/// Blocks in order of their addresses; see [`by_address`](super::Blocks::by_address).
#[derive(Debug)]
pub struct ByAddress<'a> {
    within: RangeInclusive<u64>,
    /// Spans, the next one last.
    spans: Vec<(u64, &'a Span)>,
    /// Place of the next region in its span.
    region: usize,
    /// The slots of the region under way.
    slots: &'a [Slot],
    /// Where its blocks lie, the next one last: address above, index of the slot below.
    order: Vec<(u64, u32)>,
}

impl<'a> ByAddress<'a> {
    pub(super) fn new(within: RangeInclusive<u64>, spans: Vec<(u64, &'a Span)>) -> Self {
        Self { within, spans, region: 0, slots: &[], order: Vec::new() }
    }

    /// Goes on to the next region that has blocks; false when there is none.
    fn next_region(&mut self) -> bool {
        while let Some(&(number, span)) = self.spans.last() {
            let Some(region) = span.get(self.region) else {
                self.spans.pop();
                self.region = 0;
                continue;
            };
            let number = number << SPAN_BITS | self.region as u64;
            self.region += 1;
            let addresses = region.taken().map(|(at, slot)| (slot.addr(number), at as u32));
            self.order.extend(addresses.filter(|(addr, _)| self.within.contains(addr)));
            if !self.order.is_empty() {
                self.order.sort_unstable_by_key(|(addr, _)| std::cmp::Reverse(*addr));
                self.slots = region.slots();
                return true;
            }
        }
        false
    }
}

impl Iterator for ByAddress<'_> {
    type Item = Block;

    #[inline]
    fn next(&mut self) -> Option<Block> {
        if self.order.is_empty() && !self.next_region() {
            return None;
        }
        let (addr, at) = self.order.pop()?;
        Some(self.slots[at as usize].block(addr >> REGION_BITS))
    }
}
