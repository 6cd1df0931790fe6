//! A process's heap beside what allocation policies make of the same requests.

mod model;
mod text;

pub use model::{Comparison, Document, MOST_FORETOLD, MallInfo, Outcome, Real, outcomes};
pub use text::{percent, render};
