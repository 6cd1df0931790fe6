//! What is counted when something is not recorded, or recorded only after it was put right.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// A counter that each backend keeps. The number is its index in the BPF programs' per-CPU array and in the
        /// preload library's header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// Every counter, in order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What the counter counts, in words.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The counter's name in the recording and in JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

counters! {
    /// Records that found no room in the ring: the only counter that means loss by overrun.
    Dropped, "records that found no room in the ring";
    /// Calls that an allocator function made to another one, and that were left out as part of the outer call.
    Nested, "calls of the allocator to itself, left out";
    /// Jumps from one allocator function to another, left out as part of the first.
    TailCall, "jumps from one allocator function to another, left out";
    /// Entries that never returned and were put aside when the stack showed that they had gone.
    Stale, "calls that never returned (longjmp, exceptions, lost returns)";
    /// Returns without a recorded entry: the call began before the probes.
    NoEntry, "returns of calls that began before the probes";
    /// More calls in flight in one thread than there is room for; the oldest was put aside.
    Overflow, "calls in flight beyond the room for one thread";
    /// No room to remember a thread: its event was lost.
    ThreadMapFull, "events lost because too many threads were in flight";
    /// The traced program waited for room in its ring.
    Waited, "times that the program waited for room in its ring";
    /// The walk of a stack ended before its outermost frame: what lies there cannot be unwound.
    StackCut, "stacks whose outer frames are not known";
    /// A stack was not recorded: the table was full, or the thread was not on its own stack.
    StackLost, "stacks that are not known but for the caller";
    /// A process told of code that it mapped, or of a program that it began, and there was no room for it.
    MappingsLost, "changes of mapped code that found no room";
}

/// How many counters there are.
pub const COUNTERS: usize = Counter::ALL.len();

impl Counter {
    /// Whether an increment means that an event is missing from the stream.
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Dropped | Self::ThreadMapFull)
    }
}
