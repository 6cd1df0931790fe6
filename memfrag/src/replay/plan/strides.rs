//! Threads kept abreast: none gets ahead of the recorded order by more than two strides.
//!
//! Blocks that change hands tie threads to each other only here and there. What else ran side by side, as memory that one
//! thread gave back before another one asked for more, would come in any order that the scheduler likes, and an allocator
//! that shares memory between threads would come to another size each time.

/// Calls of one stride for each running thread: few beside what a heap holds, many beside what a wait costs.
const CALLS: u64 = 256;

/// How much a thread had done: allocations, reallocations, frees, samples and the end, from its start.
pub(super) type Done = (u32, u64);

/// Where the recorded order stands.
#[derive(Debug)]
pub(super) struct Strides {
    /// The stride at hand, counted from 0.
    number: u64,
    /// Calls of it that are still to come.
    left: u64,
    /// What threads had done when it began.
    begin: Vec<Done>,
    /// What they had done when the one before began.
    before: Vec<Done>,
}

impl Strides {
    /// No call yet.
    pub(super) const fn new() -> Self {
        Self { number: 0, left: CALLS, begin: Vec::new(), before: Vec::new() }
    }

    /// The stride at hand.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// What must be done before anyone makes a call of the stride at hand.
    pub(super) fn required(&self) -> &[Done] {
        &self.before
    }

    /// Counts a call. After the last one of a stride, `running` tells how much those who run have done by now.
    pub(super) fn called(&mut self, running: impl FnOnce() -> Vec<Done>) {
        self.left -= 1;
        if self.left == 0 {
            let running = running();
            self.number += 1;
            self.left = CALLS * (running.len() as u64).max(1);
            self.before = std::mem::replace(&mut self.begin, running);
        }
    }
}
