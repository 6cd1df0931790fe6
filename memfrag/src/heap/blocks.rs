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

use super::directory::Directory;
use super::origin::OriginId;
use memfrag_common::prefetch::prefetch;
use std::ops::RangeInclusive;
use std::sync::Arc;

mod saved;

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

/// A block as it lies in its region's table.
#[derive(Clone, Copy, Debug)]
struct Slot {
    time: u64,
    size_low: u32,
    size_high: u16,
    offset: u16,
    /// [`OriginId::NONE`] in an empty slot.
    origin: OriginId,
    thread: u32,
}

const _: () = assert!(size_of::<Slot>() == 24);

impl Slot {
    const EMPTY: Self = Self { time: 0, size_low: 0, size_high: 0, offset: 0, origin: OriginId::NONE, thread: 0 };

    fn new(block: &Block) -> Self {
        let size = block.size.min(MAX_SIZE);
        Self {
            time: block.time,
            size_low: size as u32,
            size_high: (size >> 32) as u16,
            offset: block.addr as u16,
            origin: block.origin,
            thread: block.thread,
        }
    }

    fn is_empty(&self) -> bool {
        self.origin == OriginId::NONE
    }

    fn addr(&self, region: u64) -> u64 {
        region << REGION_BITS | u64::from(self.offset)
    }

    fn block(&self, region: u64) -> Block {
        Block {
            addr: self.addr(region),
            size: u64::from(self.size_low) | u64::from(self.size_high) << 32,
            time: self.time,
            thread: self.thread,
            origin: self.origin,
        }
    }
}

/// The slots of a region, and whether another process still reads the same ones.
#[derive(Clone, Debug)]
enum Slots {
    Owned(Vec<Slot>),
    Shared(Arc<Vec<Slot>>),
}

/// The blocks that begin in one region.
#[derive(Clone, Debug)]
struct Region {
    slots: Slots,
    len: u32,
}

impl Region {
    const EMPTY: Self = Self { slots: Slots::Owned(Vec::new()), len: 0 };

    fn slots(&self) -> &[Slot] {
        match &self.slots {
            Slots::Owned(slots) => slots,
            Slots::Shared(slots) => slots,
        }
    }

    /// The slots that hold blocks, with their indices.
    fn taken(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots().iter().enumerate().filter(|(_, slot)| !slot.is_empty())
    }

    /// The slots to write to: a shared table is copied now, unless the other process is gone already.
    fn slots_mut(&mut self) -> &mut Vec<Slot> {
        if let Slots::Shared(shared) = &mut self.slots {
            let shared = std::mem::take(shared);
            self.slots = Slots::Owned(Arc::unwrap_or_clone(shared));
        }
        match &mut self.slots {
            Slots::Owned(slots) => slots,
            Slots::Shared(_) => unreachable!("made its own above"),
        }
    }

    /// A second handle on the same slots.
    fn share(&mut self) -> Self {
        let shared = match std::mem::replace(&mut self.slots, Slots::Owned(Vec::new())) {
            Slots::Owned(slots) => Arc::new(slots),
            Slots::Shared(shared) => shared,
        };
        self.slots = Slots::Shared(Arc::clone(&shared));
        Self { slots: Slots::Shared(shared), len: self.len }
    }

    /// Where a block at `offset` would like to lie among `capacity` slots. Fibonacci hashing spreads the even strides
    /// in which blocks lie; the product of the range allows capacities that are no powers of two.
    fn home(offset: u16, capacity: usize) -> usize {
        (usize::from(offset.wrapping_mul(40_503)) * capacity) >> REGION_BITS
    }

    /// The slot that holds `offset`, or the empty one where it would go. There is always an empty one.
    fn probe(slots: &[Slot], offset: u16) -> usize {
        let mut at = Self::home(offset, slots.len());
        while !slots[at].is_empty() && slots[at].offset != offset {
            at += 1;
            if at == slots.len() {
                at = 0;
            }
        }
        at
    }

    fn get(&self, offset: u16) -> Option<&Slot> {
        let slots = self.slots();
        if slots.is_empty() {
            return None;
        }
        let slot = &slots[Self::probe(slots, offset)];
        (!slot.is_empty()).then_some(slot)
    }

    /// Puts a slot in, and hands back the one it replaced.
    fn insert(&mut self, slot: Slot) -> Option<Slot> {
        let len = self.len as usize;
        let slots = self.slots_mut();
        if !slots.is_empty() {
            let at = Self::probe(slots, slot.offset);
            if !slots[at].is_empty() {
                return Some(std::mem::replace(&mut slots[at], slot));
            }
            if len < Self::limit(slots.len()) {
                slots[at] = slot;
                self.len += 1;
                return None;
            }
        }
        let larger = match slots.len() {
            0 => 2,
            capacity if capacity.is_power_of_two() => capacity + capacity / 2,
            capacity => capacity / 3 * 4,
        };
        Self::rehash(slots, larger);
        let at = Self::probe(slots, slot.offset);
        slots[at] = slot;
        self.len += 1;
        None
    }

    /// How many of `capacity` slots may be taken.
    fn limit(capacity: usize) -> usize {
        capacity * 3 / 4
    }

    fn rehash(slots: &mut Vec<Slot>, capacity: usize) {
        let mut fresh = vec![Slot::EMPTY; capacity];
        for slot in slots.iter().filter(|slot| !slot.is_empty()) {
            let at = Self::probe(&fresh, slot.offset);
            fresh[at] = *slot;
        }
        *slots = fresh;
    }

    fn remove(&mut self, offset: u16) -> Option<Slot> {
        let slots = self.slots();
        if slots.is_empty() {
            return None;
        }
        // Looked up before the slots are made their own: a free that finds nothing must not copy a shared table.
        let mut hole = Self::probe(slots, offset);
        if slots[hole].is_empty() {
            return None;
        }
        let left = self.len as usize - 1;
        let slots = self.slots_mut();
        let removed = slots[hole];
        // Those behind move up as long as that brings them nearer to their homes, so that no slot need be marked as
        // deleted and a long life leaves no trace.
        let capacity = slots.len();
        let mut at = hole;
        loop {
            at = if at + 1 == capacity { 0 } else { at + 1 };
            if slots[at].is_empty() {
                break;
            }
            let wanted = Self::home(slots[at].offset, capacity);
            let distance = |from: usize| if at >= from { at - from } else { at + capacity - from };
            if distance(wanted) >= distance(hole) {
                slots[hole] = slots[at];
                hole = at;
            }
        }
        slots[hole] = Slot::EMPTY;
        if capacity >= 64 && left < capacity / 8 {
            Self::rehash(slots, 16.max(capacity.next_power_of_two() / 4));
        }
        self.len -= 1;
        Some(removed)
    }
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

/// Blocks in order of their addresses; see [`Blocks::by_address`].
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
    fn new(within: RangeInclusive<u64>, spans: Vec<(u64, &'a Span)>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn block(addr: u64, size: u64) -> Block {
        Block { addr, size, time: addr ^ size, thread: size as u32, origin: OriginId::new(7) }
    }

    #[test]
    fn holds_the_widest_values() {
        let mut blocks = Blocks::default();
        let widest =
            Block { addr: u64::MAX, size: MAX_SIZE, time: u64::MAX, thread: u32::MAX, origin: OriginId::new(0) };
        assert_eq!(blocks.insert(&widest), None);
        assert_eq!(blocks.get(u64::MAX), Some(widest));
        assert_eq!(blocks.range(0, u64::MAX).next(), None);
        assert_eq!(blocks.by_address().next(), Some(widest));
        assert_eq!(blocks.remove(u64::MAX), Some(widest));
        assert!(blocks.is_empty());
    }

    #[test]
    fn stays_within_its_price() {
        for stride in [16, 32, 48, 96, 1024] {
            let mut blocks = Blocks::default();
            let mut worst = 0.0_f64;
            for number in 0..200_000 {
                blocks.insert(&block(0x5500_0000_0000 + number * stride, stride - 8));
                if number > 50_000 && number % 997 == 0 {
                    worst = worst.max(blocks.memory_bytes() as f64 / blocks.len() as f64);
                }
            }
            assert!(worst <= 64.0, "{worst:.1} B a block at a stride of {stride}");
        }
    }

    #[test]
    fn gives_memory_back_after_a_peak() {
        let mut blocks = Blocks::default();
        for number in 0..100_000 {
            blocks.insert(&block(number * 64, 48));
        }
        let peak = blocks.memory_bytes();
        for number in 0..100_000 {
            if number % 1000 != 0 {
                blocks.remove(number * 64);
            }
        }
        assert_eq!(blocks.len(), 100);
        assert!(blocks.memory_bytes() * 10 < peak, "{} of {peak}", blocks.memory_bytes());
    }

    #[derive(Clone, Debug)]
    enum Change {
        Insert(usize, u64, u64),
        Remove(usize, u64),
        Fork(usize),
        Drop(usize),
        Range(usize, u64, u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        // Few regions and few offsets in them, so that tables fill, wrap around and shrink.
        let addr =
            || (0..6_u64, 0..200_u64).prop_map(|(region, slot)| ((region * region) << (REGION_BITS + 2)) + slot * 16);
        prop_oneof![
            8 => (any::<usize>(), addr(), 0..1_u64 << 50).prop_map(|(on, addr, size)| Change::Insert(on, addr, size)),
            6 => (any::<usize>(), addr()).prop_map(|(on, addr)| Change::Remove(on, addr)),
            1 => any::<usize>().prop_map(Change::Fork),
            1 => any::<usize>().prop_map(Change::Drop),
            1 => (any::<usize>(), addr(), addr()).prop_map(|(on, a, b)| Change::Range(on, a, b)),
        ]
    }

    proptest! {
        #[test]
        fn equals_ordered_maps(changes in prop::collection::vec(change(), 1..600)) {
            let mut spaces = vec![(Blocks::default(), BTreeMap::new())];
            for change in changes {
                let count = spaces.len();
                match change {
                    Change::Insert(on, addr, size) => {
                        let (blocks, oracle) = &mut spaces[on % count];
                        let new = Block { size: size.min(MAX_SIZE), ..block(addr, size) };
                        prop_assert_eq!(blocks.insert(&new), oracle.insert(addr, new));
                    }
                    Change::Remove(on, addr) => {
                        let (blocks, oracle) = &mut spaces[on % count];
                        prop_assert_eq!(blocks.remove(addr), oracle.remove(&addr));
                    }
                    Change::Fork(on) if count < 5 => {
                        let (blocks, oracle) = &mut spaces[on % count];
                        let child = (blocks.fork(), oracle.clone());
                        spaces.push(child);
                    }
                    Change::Drop(on) if count > 1 => drop(spaces.swap_remove(on % count)),
                    Change::Fork(_) | Change::Drop(_) => {}
                    Change::Range(on, start, end) => {
                        let (blocks, oracle) = &spaces[on % count];
                        let expected: Vec<Block> =
                            oracle.iter().filter(|(addr, _)| (start..end).contains(*addr)).map(|(_, b)| *b).collect();
                        prop_assert_eq!(blocks.range(start, end).collect::<Vec<_>>(), expected);
                    }
                }
            }
            for (blocks, oracle) in &spaces {
                prop_assert_eq!(blocks.len(), oracle.len() as u64);
                let mut all: Vec<Block> = blocks.iter().collect();
                all.sort_by_key(|block| block.addr);
                prop_assert_eq!(blocks.by_address().collect::<Vec<_>>(), all.clone());
                prop_assert_eq!(all, oracle.values().copied().collect::<Vec<_>>());
            }
        }
    }
}
