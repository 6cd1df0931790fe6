//! The memory that a process maps, as its system calls tell. Totals only: which pages lie where is another matter.

use crate::recording::{Count, saved};

/// What the mapping calls of a process add up to. Only calls made during the trace count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapTotals {
    /// Calls that mapped.
    pub mmaps: u64,
    /// Bytes mapped by them.
    pub mapped_bytes: u64,
    /// Calls that unmapped.
    pub munmaps: u64,
    /// Bytes unmapped by them; also of memory that was mapped before the trace or never.
    pub unmapped_bytes: u64,
    /// Mappings moved or resized; growth counts as mapped, shrinking as unmapped.
    pub mremaps: u64,
    /// Calls of `madvise`.
    pub madvises: u64,
    /// Last end of the program's heap segment that was seen.
    pub brk_end: Option<u64>,
    /// Bytes by which the heap segment has grown, shrinking taken off; summed over the programs that the process was.
    pub brk_growth: i64,
}

impl MapTotals {
    pub(super) fn mapped(&mut self, bytes: u64) {
        self.mmaps += 1;
        self.mapped_bytes = self.mapped_bytes.wrapping_add(bytes);
    }

    pub(super) fn unmapped(&mut self, bytes: u64) {
        self.munmaps += 1;
        self.unmapped_bytes = self.unmapped_bytes.wrapping_add(bytes);
    }

    /// Takes an unmapping back that failed after it was announced.
    pub(super) fn not_unmapped(&mut self, bytes: u64) {
        self.munmaps = self.munmaps.saturating_sub(1);
        self.unmapped_bytes = self.unmapped_bytes.wrapping_sub(bytes);
    }

    pub(super) fn remapped(&mut self, before: u64, after: u64) {
        self.mremaps += 1;
        self.mapped_bytes = self.mapped_bytes.wrapping_add(after.saturating_sub(before));
        self.unmapped_bytes = self.unmapped_bytes.wrapping_add(before.saturating_sub(after));
    }

    pub(super) fn brk(&mut self, end: u64) {
        let before = self.brk_end.replace(end).unwrap_or(end);
        self.brk_growth = self.brk_growth.wrapping_add(end.wrapping_sub(before).cast_signed());
    }

    /// Another program begins, with a segment of its own.
    pub(super) fn begin_anew(&mut self) {
        self.brk_end = None;
    }
}

saved!(MapTotals {
    mmaps: Count,
    mapped_bytes: u64,
    munmaps: Count,
    unmapped_bytes: u64,
    mremaps: Count,
    madvises: Count,
    brk_end: Option::<u64>,
    brk_growth: i64,
});
