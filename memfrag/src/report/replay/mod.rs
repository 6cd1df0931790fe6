//! The same calls under other allocators, beside the recorded program.

mod model;
mod text;

pub use model::{Mappings, Original, Reading, ReplayReport, RunReport, build};
pub use text::render;
