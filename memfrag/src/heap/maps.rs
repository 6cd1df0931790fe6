//! The memory that a process maps, as its system calls tell. Totals only: which pages lie where is another matter.

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
    /// First end of the heap segment that was seen.
    pub brk_first: Option<u64>,
    /// Last end of the heap segment that was seen.
    pub brk_end: Option<u64>,
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
        self.brk_first.get_or_insert(end);
        self.brk_end = Some(end);
    }
}
