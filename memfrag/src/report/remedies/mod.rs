//! What would bring resident memory down: foretold, and measured where it was tried.

mod model;
mod text;

pub use model::{Remedies, Remedy, Tried, foretold};
pub use text::render;
