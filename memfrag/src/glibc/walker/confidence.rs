//! How far a walk can be trusted.

use thiserror::Error;

/// How sure it is that a walk shows the heap as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// The process stood still, and everything adds up.
    Exact,
    /// The process ran on; yet everything adds up.
    Consistent,
    /// Something does not add up; see [`Walk::discrepancies`](super::Walk::discrepancies).
    Doubtful,
}

impl Confidence {
    /// The name by which it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Consistent => "consistent",
            Self::Doubtful => "doubtful",
        }
    }
}

/// Something that a heap walk and the allocator's own records do not agree on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Discrepancy {
    /// An arena's segments against its `system_mem`.
    #[error("the arena {arena:#x} counts {system} bytes as obtained, its segments have {walked}")]
    System {
        /// The arena.
        arena: u64,
        /// What it counts.
        system: u64,
        /// What was found.
        walked: u64,
    },
    /// Mapped chunks against the parameters' count of them.
    #[error("the allocator counts {chunks} mapped chunks of {bytes} bytes, {found} of {found_bytes} were found")]
    Mapped {
        /// What it counts.
        chunks: u64,
        /// Their bytes.
        bytes: u64,
        /// What was found.
        found: u64,
        /// Their bytes.
        found_bytes: u64,
    },
    /// Entries of caches and fastbins for which there is no chunk in use.
    #[error("{chunks} entries of caches or fastbins lead to no chunk in use, the first to {first:#x}")]
    Strays {
        /// How many.
        chunks: u64,
        /// The first one.
        first: u64,
    },
    /// Fastbins that lead nowhere.
    #[error("{lists} fastbins of the arena {arena:#x} lead nowhere")]
    Fastbins {
        /// The arena.
        arena: u64,
        /// How many lists.
        lists: u32,
    },
}
