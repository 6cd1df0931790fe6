//! Addresses without looking anything up, for when the programs are faster than whoever writes.
//!
//! Each is told as its difference from the last new one, whatever the chunk has named before. What a reader makes of
//! that is what it makes of any new block; the writer need not keep what it does not look up. So it can begin with this
//! anywhere in a chunk, and end it only where another begins.

use super::super::columns::column;
use super::super::model::footprint;
use super::{Encoder, alloc, free};

impl Encoder {
    /// Takes events, for which there must be room.
    pub(super) fn push_all_in_haste(&mut self, events: &[memfrag_common::Event]) {
        for event in events {
            self.push::<true>(event);
        }
    }

    /// An allocation's address, not null.
    #[inline]
    pub(super) fn put_alloc_in_haste(&mut self, addr: u64, size: u64) {
        let lane = self.model.lane(self.thread);
        let difference = addr.wrapping_sub(lane.top);
        lane.top = addr.wrapping_add(footprint(size));
        let token = self.put_new(column::ALLOC_NEW, difference, alloc::NEW, alloc::WIDE);
        self.draft.allocs.push(token);
    }

    /// A freed address, not null.
    #[inline]
    pub(super) fn put_free_in_haste(&mut self, addr: u64) {
        let lane = self.model.lane(self.thread);
        let difference = addr.wrapping_sub(lane.freed_addr);
        lane.freed_addr = addr;
        let token = self.put_new(column::FREE_NEW, difference, free::NEW, free::WIDE);
        self.draft.frees.push(token);
    }
}
