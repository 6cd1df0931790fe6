//! A heap walked from outside, for people and for programs.

pub mod model;
pub mod text;

pub use model::HeapReport;
pub use text::render;
