//! Two states side by side: two moments of one recording, or of two.

mod model;
mod text;

pub use model::{Beside, Between, ComparedSite, Comparison, Side, State, compare, side_by_side};
pub use text::render;
