//! Who is traced: processes, their mappings and memory, and the allocators that they use.

pub mod allocator;
pub mod elf;
pub mod file;
pub mod memory;
pub mod process;

pub use allocator::AllocatorKind;
pub use memory::MemorySample;
pub use process::{Mapping, ProcessInfo};
