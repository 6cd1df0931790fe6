//! glibc's heap (ptmalloc): how it lies in memory, read from outside.
//!
//! | module | job |
//! |---|---|
//! | [`layout`] | arenas, segments and chunks: what a walk finds, and what trim yield and blame work on |
//! | [`version`] | where each version of glibc keeps what |
//! | [`memory`] | reading another process's memory |
//! | [`stop`] | stopping a process for a moment |
//! | `restart_x86_64` | having its system calls go on as if it had not been |
//! | `state`, `find` | an arena's state and the parameters, and finding them without symbols |
//! | `walk`, `caches`, `mapped` | chunks of arenas, those in caches, those mapped by themselves |
//! | [`walker`] | all of these together: a process's heap |
//! | [`trim`] | what `malloc_trim` would return |
//! | [`inject`] | calls `malloc_trim` in a running process |

mod caches;
mod find;
pub mod inject;
pub mod layout;
mod mapped;
pub mod memory;
mod restart_x86_64;
mod state;
pub mod stop;
pub mod trim;
pub mod version;
mod walk;
pub mod walker;

pub use caches::ThreadCache;
pub use layout::{Arena, Chunk, ChunkKind, Layout, MappedChunk, Segment};
pub use state::Parameters;
pub use stop::Stopped;
pub use trim::TrimYield;
pub use version::Version;
pub use walk::Damage;
pub use walker::{Confidence, Discrepancy, Snapshot, Walk, WalkError, Walker};
