//! Who is traced: processes, their mappings and memory, and the allocators that they use.

pub mod maps;
pub mod memory;
pub mod process;

pub use memory::MemorySample;
pub use process::{Mapping, ProcessInfo};
