//! Threads, and the reallocations that they have begun.

use super::blocks::Block;
use crate::recording::{Count, Input, Saved, saved};

/// More reallocations at once in one thread than this are not believed: the oldest has lost its end.
const MAX_PENDING: usize = 4;

/// A thread of a traced process.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// When it began, or when it was first seen, in nanoseconds since the trace began.
    pub started: u64,
    /// When it ended, if it did.
    pub ended: Option<u64>,
    /// Its events, of all kinds.
    pub events: u64,
    pub(super) pending: Vec<PendingRealloc>,
    /// Bytes of the mapping that is being moved or resized.
    pub(super) mremap: Option<u64>,
}

/// A reallocation that has begun: the old block is neither live nor gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingRealloc {
    /// Address of the old block, 0 for none.
    pub(super) addr: u64,
    /// The old block, when it was known.
    pub(super) old: Option<Block>,
    size: u64,
    caller: u64,
}

impl Thread {
    pub(super) fn new(tid: u32, started: u64) -> Self {
        Self { tid, started, ..Self::default() }
    }

    /// Remembers a reallocation, and hands back one that must be given up for it.
    pub(super) fn begin(&mut self, addr: u64, old: Option<Block>, size: u64, caller: u64) -> Option<PendingRealloc> {
        let given_up = (self.pending.len() == MAX_PENDING).then(|| self.pending.remove(0));
        self.pending.push(PendingRealloc { addr, old, size, caller });
        given_up
    }

    /// The reallocation that this end belongs to, taken out: the innermost of the same call. A thread can be in
    /// several at once, when a signal handler reallocates. Those begun later can no longer end: they come after it.
    pub(super) fn end(&mut self, size: u64, caller: u64) -> Vec<PendingRealloc> {
        match self.pending.iter().rposition(|pending| pending.size == size && pending.caller == caller) {
            Some(at) => self.pending.split_off(at),
            None => Vec::new(),
        }
    }
}

saved!(Thread { tid: u32, started: u64, ended: Option::<u64>, events: Count, pending: Pending, mremap: Option::<u64> });
saved!(PendingRealloc { addr: u64, old: Option::<Block>, size: u64, caller: u64 });

/// The reallocations of a thread.
struct Pending;

impl Pending {
    fn save(pending: &Vec<PendingRealloc>, out: &mut Vec<u8>) {
        pending.save(out);
    }

    fn load(input: &mut Input<'_>) -> Option<Vec<PendingRealloc>> {
        let pending = Vec::<PendingRealloc>::load(input)?;
        let is_sane = |begun: &PendingRealloc| begun.old.is_none_or(|old| old.addr == begun.addr);
        (pending.len() <= MAX_PENDING && pending.iter().all(is_sane)).then_some(pending)
    }
}
