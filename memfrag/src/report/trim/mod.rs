//! What trimming a heap would return and did return, for people and for programs.

pub mod model;
pub mod text;

pub use model::TrimReport;
pub use text::render;
