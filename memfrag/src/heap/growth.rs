//! Times when the heap segment grew although enough memory was free in it.

use super::blocks::Block;
use super::footprint::Footprint;
use super::pages::Pages;
use crate::recording::{Count, saved};
use crate::target::residency::PAGE;

/// Pages looked at, from the segment's end down, for the last one in use.
const TOP_PAGES: u64 = 1 << 16;

/// The growths of the heap segment, as far as the trace saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growths {
    /// How often it grew.
    pub count: u64,
    /// How often it grew for a block that the free memory in it, taken together, would have held.
    pub avoidable: u64,
    /// Bytes by which it grew then.
    pub avoidable_bytes: u64,
}

/// Follows the heap segment.
///
/// What lies below the first end that was seen is left aside, and so is what is free behind the last block: glibc
/// extends that anyway. What threads' caches hold counts as free.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub(super) growths: Growths,
    /// The first end that was seen, and the one now.
    ends: Option<(u64, u64)>,
    /// Bytes that live blocks between them take.
    taken: u64,
    /// A growth whose block has not been seen yet.
    pending: Option<Growth>,
}

#[derive(Clone, Copy, Debug)]
struct Growth {
    tid: u32,
    bytes: u64,
    /// Bytes that were free before it, those behind the last block aside.
    free: u64,
}

impl Segment {
    /// A thread has set the segment's end.
    pub(super) fn set_end(&mut self, tid: u32, end: u64, pages: &Pages) {
        let Some((first, before)) = self.ends else {
            self.ends = Some((end, end));
            return;
        };
        if end > before {
            let looked_at = before.saturating_sub(TOP_PAGES * PAGE).max(first)..before;
            // The page on which the last block ends counts as taken throughout.
            let below_top = pages.last_in_use(looked_at).map_or(0, |last| last.saturating_sub(first));
            self.growths.count += 1;
            self.pending = Some(Growth { tid, bytes: end - before, free: below_top.saturating_sub(self.taken) });
        }
        self.ends = Some((first, end));
    }

    #[inline]
    fn holds(&self, addr: u64) -> bool {
        self.ends.is_some_and(|(first, end)| first <= addr && addr < end)
    }

    /// A block has become live by a call of the thread.
    #[inline]
    pub(super) fn add(&mut self, tid: u32, addr: u64, size: u64, footprint: Footprint) {
        if !self.holds(addr) {
            return;
        }
        let bytes = footprint.bytes(addr, size);
        self.taken = self.taken.wrapping_add(bytes);
        if let Some(growth) = self.pending.take_if(|growth| growth.tid == tid)
            && growth.free >= bytes
        {
            self.growths.avoidable += 1;
            self.growths.avoidable_bytes = self.growths.avoidable_bytes.saturating_add(growth.bytes);
        }
    }

    /// A block is live no more.
    #[inline]
    pub(super) fn remove(&mut self, addr: u64, size: u64, footprint: Footprint) {
        if self.holds(addr) {
            self.taken = self.taken.wrapping_sub(footprint.bytes(addr, size));
        }
    }

    /// Another program begins, with a segment of its own.
    pub(super) fn begin_anew(&mut self) {
        *self = Self { growths: self.growths, ..Self::default() };
    }

    /// The segment of a forked process, which has not grown yet.
    pub(super) fn fork(&self) -> Self {
        Self { growths: Growths::default(), pending: None, ..*self }
    }

    /// Counts the live blocks anew, by another rule.
    pub(super) fn count_anew(&mut self, footprint: Footprint, blocks: impl Iterator<Item = Block>) {
        let own = blocks.filter(|block| self.holds(block.addr));
        self.taken = own.map(|block| footprint.bytes(block.addr, block.size)).fold(0, u64::wrapping_add);
    }
}

saved!(Growths { count: Count, avoidable: Count, avoidable_bytes: u64 });
saved!(Segment { growths: Growths, ends: Option::<(u64, u64)>, taken: u64, pending: Option::<Growth> });
saved!(Growth { tid: u32, bytes: u64, free: u64 });

#[cfg(test)]
mod tests {
    use crate::heap::{Footprint, Growths, Heaps};
    use crate::target::ProcessInfo;
    use memfrag_common::{Event, Function, Op};

    const BASE: u64 = 0x10_0000;
    const STEP: u64 = 0x2_1000;

    /// A heap of which two blocks of 32 KiB fill most; the first is freed, and a third one does not fit behind.
    fn growths(request: u64, grower: u32) -> Growths {
        let mut heaps = Heaps::default();
        heaps.learn(&ProcessInfo { pid: 1, ..ProcessInfo::default() });
        heaps.set_footprint(0, Footprint::Glibc);
        let alloc = |addr, size| Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 1, stack: 0 };
        let (half, function) = (0x8000, Function::Free);
        let ops = [
            (1, Op::Brk { end: BASE }),
            (1, Op::Brk { end: BASE + STEP }),
            (1, alloc(BASE + 16, half)),
            (1, alloc(BASE + 16 + half + 16, half)),
            (1, Op::Free { function, addr: BASE + 16, size: 0, site: 0 }),
            (grower, Op::Brk { end: BASE + 2 * STEP }),
            // Another thread's block is not what the heap grew for.
            (3 - grower, alloc(BASE + 3 * half, 24)),
            (grower, alloc(BASE + 4 * half, request)),
        ];
        for (time, (tid, op)) in (0..).zip(ops) {
            heaps.apply(&Event { time, pid: 1, tid, op });
        }
        heaps.heap(&heaps.processes()[0]).growths()
    }

    #[test]
    fn a_growth_for_a_block_that_would_have_fitted_is_avoidable() {
        // 32 KiB are free below the last block.
        for tid in [1, 2] {
            assert_eq!(growths(0x7000, tid), Growths { count: 2, avoidable: 1, avoidable_bytes: STEP });
            assert_eq!(growths(0x8100, tid), Growths { count: 2, avoidable: 0, avoidable_bytes: 0 });
        }
    }
}
