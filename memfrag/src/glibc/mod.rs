//! glibc's heap (ptmalloc): how it lies in memory, read from outside.
//!
//! | module | job |
//! |---|---|
//! | [`layout`] | arenas, segments and chunks: what a walk finds, and what trim yield and blame work on |

pub mod layout;

pub use layout::{Arena, Chunk, ChunkKind, Layout, MappedChunk, Segment};
