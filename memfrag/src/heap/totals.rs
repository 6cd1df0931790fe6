//! What is counted, and by which rules.

use super::blocks::Block;
use crate::recording::{Count, Input, Saved, saved};
use memfrag_common::Function;

/// The sums of a heap's life.
///
/// | call | counts as |
/// |---|---|
/// | malloc, calloc, the aligned family, operator new, realloc of null: succeeded | `allocations`, size in `requested_bytes` |
/// | realloc of a block: succeeded | `reallocations`, new size in `requested_bytes`, old size in `freed_bytes` |
/// | realloc to zero that returned null | `frees`, old size in `freed_bytes` |
/// | free of a non-null pointer | `frees`, size in `freed_bytes` where the block was known |
/// | a call that failed | nothing here; see [`FunctionTotals::failed`] |
///
/// A block that ends without a call that was seen (see [`Anomalies`]) adds to `freed_bytes` alone. So at any moment
/// `inherited.bytes + requested_bytes − freed_bytes − discarded.bytes` is what is live, together with the old blocks
/// of reallocations under way. Sums wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Blocks allocated.
    pub allocations: u64,
    /// Calls that freed.
    pub frees: u64,
    /// Blocks resized or moved.
    pub reallocations: u64,
    /// Bytes requested by both kinds of call that gave a block.
    pub requested_bytes: u64,
    /// Requested bytes of the blocks that are gone.
    pub freed_bytes: u64,
}

/// A number of blocks and their requested bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many blocks.
    pub blocks: u64,
    /// Bytes requested for them.
    pub bytes: u64,
}

impl Amount {
    /// How much these are.
    pub(super) fn of(blocks: impl Iterator<Item = Block>) -> Self {
        let mut amount = Self::default();
        blocks.for_each(|block| amount.add(block.size));
        amount
    }

    /// Adds a block of `bytes`.
    pub fn add(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    pub(super) fn sub(&mut self, bytes: u64) {
        self.blocks -= 1;
        self.bytes = self.bytes.wrapping_sub(bytes);
    }
}

/// The moment at which most bytes were live; the first such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// When, in nanoseconds since the trace began.
    pub time: u64,
    /// What was live then.
    pub live: Amount,
}

/// What a single function of the allocator did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionTotals {
    /// Calls, failed ones included.
    pub calls: u64,
    /// Calls that should have given a block and did not.
    pub failed: u64,
    /// Bytes: requested in calls that succeeded, or freed where the function frees and the block was known.
    pub bytes: u64,
}

/// [`FunctionTotals`] of each function.
#[derive(Clone, Debug, Default)]
pub struct Functions([FunctionTotals; Functions::ROOM]);

impl Functions {
    const ROOM: usize = Function::ALL.len() + 1;

    /// The function's totals.
    pub fn get(&self, function: Function) -> FunctionTotals {
        self.0[function as usize]
    }

    /// The functions that were called, in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Function, FunctionTotals)> + '_ {
        Function::ALL.iter().map(|&function| (function, self.get(function))).filter(|(_, totals)| totals.calls > 0)
    }

    pub(super) fn called(&mut self, function: Function, failed: bool, bytes: u64) {
        let totals = &mut self.0[function as usize];
        totals.calls += 1;
        totals.failed += u64::from(failed);
        totals.bytes = totals.bytes.wrapping_add(bytes);
    }
}

macro_rules! anomalies {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// What the events of a process showed that a complete stream of events would not.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Anomalies { $($(#[$doc])* pub $name: u64,)* }

        impl Anomalies {
            /// Every kind: its name, how often it occurred, and what it means in words.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64, &'static str)> {
                [$((stringify!($name), self.$name, $text),)*].into_iter()
            }

            pub(super) fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }
        }

        saved!(Anomalies { $($name: Count),* });
    };
}

anomalies! {
    /// Frees of an address where no block was known: mostly blocks older than the trace.
    unmatched_frees, "freed blocks that were allocated before the trace began, or whose allocation was lost";
    /// Reallocations of an old block that was not known.
    unmatched_reallocs, "reallocated blocks that were allocated before the trace began, or whose allocation was lost";
    /// Blocks whose free was not seen: their address was handed out again, or a walk of the heap found their chunk free.
    missed_frees, "blocks found dead, their address handed out again or their memory free: their free was not seen";
    /// Blocks that a walk of the heap found in use, and that neither the first walk nor any event had told of.
    missed_allocations, "blocks found in use whose allocation was not seen";
    /// Ends of a reallocation whose beginning was not seen. The block is taken as new.
    realloc_without_begin, "reallocations whose beginning was not seen";
    /// Beginnings of a reallocation whose end was not seen. The old block counts as freed, or as live when the
    /// process ended meanwhile.
    realloc_without_end, "reallocations whose end was not seen";
    /// Reallocations that failed after another thread had been given the old block's address: the old block stays
    /// closed.
    restore_conflicts, "failed reallocations whose old block had meanwhile been handed out again";
    /// Events after the end of their process, left aside.
    after_exit, "events after the end of the process, left aside";
    /// Forks that were reported only after the child's first events.
    late_forks, "forks that were reported after the child's first events";
    /// Places where events were lost.
    gaps, "places where events were lost";
    /// The events lost there.
    lost_events, "events lost";
}

saved!(Totals { allocations: Count, frees: Count, reallocations: Count, requested_bytes: u64, freed_bytes: u64 });
saved!(Amount { blocks: Count, bytes: u64 });
saved!(Peak { time: u64, live: Amount });
saved!(FunctionTotals { calls: Count, failed: Count, bytes: u64 });

impl Saved for Functions {
    fn save(&self, out: &mut Vec<u8>) {
        self.iter().collect::<Vec<_>>().save(out);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        let mut functions = Self::default();
        for (function, totals) in Vec::<(Function, FunctionTotals)>::load(input)? {
            functions.0[function as usize] = totals;
        }
        Some(functions)
    }
}
