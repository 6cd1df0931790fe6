//! What makes call sites readable: the names of functions, and the frames above them.

use crate::recording::{Reader, Stacks};
use crate::symbolize::Symbols;

/// The names and the stacks of a recording. Any number of threads may use them.
#[derive(Debug)]
pub struct Names {
    pub(super) symbols: Symbols,
    pub(super) stacks: Stacks,
}

impl Names {
    /// Those of the recording that is read by this, which may grow.
    pub fn of(reader: &Reader) -> Self {
        Self { symbols: Symbols::new(reader.header().started_unix_ns), stacks: Stacks::of(reader) }
    }
}
