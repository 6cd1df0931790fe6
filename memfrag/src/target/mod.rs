//! Who is traced: processes, their mappings and memory, and the allocators that they use.

pub mod allocator;
pub mod command;
pub mod elf;
pub mod file;
pub mod library;
pub mod link_map;
pub mod loader_cache;
pub mod maps;
pub mod memory;
pub mod process;
pub mod residency;

pub use allocator::AllocatorKind;
pub use memory::MemorySample;
pub use process::{Mapping, ProcessInfo};
pub use residency::Residency;
