//! The live blocks of one address space, by address.
//!
//! The address space is cut into regions of 64 KiB, of which 32 make a span. A directory finds the span; inside each
//! region a small open-addressing table holds its blocks under the 16 low bits of their addresses. Against one large
//! table this
//!
//! - needs two bytes of address a block instead of eight,
//! - never rehashes ten million blocks at once,
//! - keeps neighbours together, which is what page metrics ask for,
//! - and makes a fork cheap: parent and child share a region's table until one of them changes it.
//!
//! A block costs 24 bytes divided by its table's load, which lies between 1/2 and 3/4: 32 to 48 bytes. Beyond that load
//! the clusters of linear probing grow faster than the memory shrinks.
//!
//! | module | job |
//! |---|---|
//! | `region` | the table of one region |
//! | `by_address` | all blocks in order |
//! | `saved` | blocks as bytes of a checkpoint |

use super::directory::Directory;
use super::origin::OriginId;
use memfrag_common::prefetch::prefetch;
use region::{Region, Slot, Slots};
use std::ops::RangeInclusive;

mod by_address;
mod region;
mod saved;

pub use by_address::ByAddress;
pub(super) use saved::{save_all, save_difference};

/// Base-2 logarithm of a region's size in bytes.
pub(super) const REGION_BITS: u32 = 16;

/// Base-2 logarithm of the regions of a span.
const SPAN_BITS: u32 = 5;

/// The largest size that a block can have; larger ones (no real allocator returns one) are held as this.
pub const MAX_SIZE: u64 = (1 << 48) - 1;

/// A live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its address.
    pub addr: u64,
    /// Bytes requested, at most [`MAX_SIZE`].
    pub size: u64,
    /// When it was allocated, in nanoseconds since the trace began.
    pub time: u64,
    /// The thread that allocated it.
    pub thread: u32,
    /// By what call.
    pub origin: OriginId,
}

/// The regions of a span, by address.
type Span = [Region; 1 << SPAN_BITS];

/// The number of the span that holds a region, and the region's place in it.
#[inline]
const fn split(region: u64) -> (u64, usize) {
    (region >> SPAN_BITS, region as usize % (1 << SPAN_BITS))
}

/// The live blocks of an address space. No two have the same address.
#[derive(Debug, Default)]
pub struct Blocks {
    spans: Directory<Box<Span>>,
    len: u64,
    /// Regions that have slots.
    regions: usize,
    /// Those of them that have no blocks, kept because the next allocation often goes where the last free was.
    empty: usize,
}

impl Blocks {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn region(&self, number: u64) -> Option<&Region> {
        let (span, place) = split(number);
        self.spans.get(span).map(|span| &span[place])
    }

    /// Gives up what only makes changes quick: see [`Directory::rest`].
    pub(super) fn rest(&mut self) {
        self.spans.rest();
    }

    /// The block at exactly this address.
    pub fn get(&self, addr: u64) -> Option<Block> {
        let region = addr >> REGION_BITS;
        Some(self.region(region)?.get(addr as u16)?.block(region))
    }

    /// Whether there are so many regions that the processor cannot have all their heads at hand.
    #[inline]
    pub(super) fn is_wide(&self) -> bool {
        const SPANS_AT_HAND: usize = 128;
        self.spans.len() > SPANS_AT_HAND
    }

    /// Sends for the head of the region that holds an address: what [`Self::send_for`] will need.
    #[inline]
    pub(super) fn send_for_region(&self, addr: u64) {
        if let Some(region) = self.region(addr >> REGION_BITS) {
            prefetch(region);
        }
    }

    /// Sends for the block at this address, or for the place where it would go.
    #[inline]
    pub(super) fn send_for(&self, addr: u64) {
        /// Slots of a line of 64 bytes, rounded up: those that a search looks at mostly lie on two lines.
        const LINE: usize = 3;
        let Some(region) = self.region(addr >> REGION_BITS) else { return };
        let slots = region.slots();
        let home = Region::home(addr as u16, slots.len());
        if let Some(slot) = slots.get(home) {
            prefetch(slot);
        }
        if let Some(slot) = slots.get(home + LINE) {
            prefetch(slot);
        }
    }

    /// Adds a block and hands back the one that it replaced.
    #[inline]
    pub(super) fn insert(&mut self, block: &Block) -> Option<Block> {
        let number = block.addr >> REGION_BITS;
        let (span, place) = split(number);
        let region = &mut self.spans.get_or_insert_with(span, || Box::new([Region::EMPTY; 1 << SPAN_BITS]))[place];
        if region.len == 0 {
            if region.slots().is_empty() {
                self.regions += 1;
            } else {
                self.empty -= 1;
            }
        }
        let old = region.insert(Slot::new(block));
        self.len += u64::from(old.is_none());
        old.map(|slot| slot.block(number))
    }

    /// Takes the block at exactly this address away.
    #[inline]
    pub(super) fn remove(&mut self, addr: u64) -> Option<Block> {
        let number = addr >> REGION_BITS;
        let (span, place) = split(number);
        let region = &mut self.spans.get_mut(span)?[place];
        let block = region.remove(addr as u16)?.block(number);
        self.len -= 1;
        if region.len == 0 {
            self.emptied();
        }
        Some(block)
    }

    /// A region has no blocks any more.
    #[cold]
    fn emptied(&mut self) {
        self.empty += 1;
        if self.empty > 64 + self.regions / 4 {
            self.spans.retain(|span| {
                span.iter_mut().filter(|region| region.len == 0).for_each(|region| *region = Region::EMPTY);
                span.iter().any(|region| region.len > 0)
            });
            self.regions -= self.empty;
            self.empty = 0;
        }
    }

    /// Takes everything away.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The same blocks for a forked process, in time proportional to the regions, not to the blocks: the tables are
    /// shared until either side changes them.
    pub(super) fn fork(&mut self) -> Self {
        let share = |region: &mut Region| if region.len > 0 { region.share() } else { Region::EMPTY };
        let spans = self
            .spans
            .iter_mut()
            .map(|(number, span)| (number, Box::new(span.each_mut().map(share))))
            .filter(|(_, span)| span.iter().any(|region| region.len > 0))
            .collect();
        Self { spans, len: self.len, regions: self.regions - self.empty, empty: 0 }
    }

    /// All blocks, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Block> + '_ {
        self.spans.iter().flat_map(|(number, span)| {
            let regions = (number << SPAN_BITS..).zip(span.iter());
            regions.flat_map(|(number, region)| region.taken().map(move |(_, slot)| slot.block(number)))
        })
    }

    /// All blocks, in order of their addresses. Takes about twice as long as [`Self::iter`].
    pub fn by_address(&self) -> ByAddress<'_> {
        self.by_address_within(0..=u64::MAX)
    }

    /// All blocks in order of their addresses, as a list.
    pub fn sorted(&self) -> Vec<Block> {
        let mut all = Vec::with_capacity(self.len as usize);
        all.extend(self.by_address());
        all
    }

    /// The blocks that begin within `start..end`, in order of their addresses.
    pub fn range(&self, start: u64, end: u64) -> ByAddress<'_> {
        if start < end { self.by_address_within(start..=end - 1) } else { ByAddress::new(0..=0, Vec::new()) }
    }

    /// As [`Self::range`], the last address included.
    pub(crate) fn within(&self, addresses: RangeInclusive<u64>) -> ByAddress<'_> {
        self.by_address_within(addresses)
    }

    fn by_address_within(&self, within: RangeInclusive<u64>) -> ByAddress<'_> {
        let (first, last) = (within.start() >> (REGION_BITS + SPAN_BITS), within.end() >> (REGION_BITS + SPAN_BITS));
        let mut spans: Vec<(u64, &Span)> = if last - first < self.spans.len() as u64 {
            (first..=last).filter_map(|number| Some((number, &**self.spans.get(number)?))).collect()
        } else {
            let spans = self.spans.iter().map(|(number, span)| (number, &**span));
            spans.filter(|(number, _)| (first..=last).contains(number)).collect()
        };
        spans.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        ByAddress::new(within, spans)
    }

    /// Bytes of the tables that nobody shares, and of what every handle has for itself.
    pub(super) fn own_bytes(&self) -> u64 {
        let regions = self.spans.iter().flat_map(|(_, span)| span.iter());
        let slots: usize = regions
            .map(|region| match &region.slots {
                Slots::Owned(slots) => slots.capacity() * size_of::<Slot>(),
                Slots::Shared(_) => 0,
            })
            .sum();
        (slots + self.spans.len() * size_of::<Span>() + self.spans.memory_bytes()) as u64
    }

    /// Bytes of memory that the blocks take here, tables and their free slots included; shared tables count in full.
    pub fn memory_bytes(&self) -> u64 {
        let regions = self.spans.iter().flat_map(|(_, span)| span.iter());
        let slots: usize = regions
            .map(|region| match &region.slots {
                Slots::Owned(slots) => slots.capacity() * size_of::<Slot>(),
                Slots::Shared(slots) => slots.capacity() * size_of::<Slot>() + size_of::<Vec<Slot>>() + 16,
            })
            .sum();
        (slots + self.spans.len() * size_of::<Span>() + self.spans.memory_bytes()) as u64
    }
}

#[cfg(test)]
mod tests;
