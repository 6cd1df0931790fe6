//! What an arena refuses, and why.

use std::io;

/// Why there is no arena.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Of no bytes.
    #[error("an arena of 0 bytes can hold nothing; ask for at least one byte")]
    ZeroCapacity,
    /// More bytes than a process has addresses.
    #[error("an arena of {capacity} bytes is larger than the address space")]
    TooLarge {
        /// Bytes asked for.
        capacity: usize,
    },
    /// The system gave no memory.
    #[error("cannot map {capacity} bytes for an arena: {source}; see `ulimit -v` and vm.overcommit_memory")]
    Map {
        /// Bytes asked for, whole pages.
        capacity: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Why there is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// No hole is large enough.
    #[error(
        "no room for {size} bytes aligned to {align}: {free} bytes are free, of which the largest hole has {largest}"
    )]
    OutOfMemory {
        /// Bytes requested.
        size: u64,
        /// Alignment requested.
        align: u64,
        /// Bytes that are free in all.
        free: u64,
        /// Bytes of the largest hole.
        largest: u64,
    },
    /// An alignment is a power of two.
    #[error("{align} is no alignment: not a power of two")]
    InvalidAlignment {
        /// What was asked for.
        align: u64,
    },
}

/// Why a pointer was not freed or resized. The arena is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreeError {
    /// It points nowhere into the arena.
    #[error("{address:#x} is foreign to the arena, which lies at {start:#x}..{end:#x}")]
    Foreign {
        /// The pointer.
        address: u64,
        /// The arena's first address.
        start: u64,
        /// The address behind its last.
        end: u64,
    },
    /// It points into free memory: the block was freed before, or there never was one.
    #[error("{address:#x} is free already: a block there has been freed before, or there never was one")]
    DoubleFree {
        /// The pointer.
        address: u64,
    },
    /// It points into a block, and not at its first byte.
    #[error("{address:#x} points into a block, and not at its beginning")]
    Misaligned {
        /// The pointer.
        address: u64,
    },
    /// The block was allocated with another size or a smaller alignment than it is freed with.
    #[error(
        "the block at {address:#x} has {requested} bytes aligned to {align}, and is given back as one of {size} bytes aligned to {claimed}"
    )]
    WrongLayout {
        /// The pointer.
        address: u64,
        /// Bytes that were requested.
        requested: u64,
        /// Alignment that was requested.
        align: u64,
        /// Bytes that it is said to have.
        size: u64,
        /// Alignment that it is said to have.
        claimed: u64,
    },
    /// The guard behind the block was overwritten. The block stays allocated, for whoever looks for the culprit.
    #[error("something has written behind the block at {address:#x} of {requested} bytes, first at {at:#x}")]
    Corrupted {
        /// The pointer.
        address: u64,
        /// Bytes that were requested.
        requested: u64,
        /// The first address behind it that was overwritten.
        at: u64,
    },
}

/// Why a block was not resized. It is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResizeError {
    /// There is no such block.
    #[error(transparent)]
    Block(#[from] FreeError),
    /// There is no room for it.
    #[error(transparent)]
    Room(#[from] AllocError),
}
