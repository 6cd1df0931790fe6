//! A recording as a list of events.

use anyhow::{Result, bail};
use memfrag_common::Event;
use std::path::Path;

/// Every event of a recording, in its order, as far as the recording goes.
pub fn read(recording: &Path) -> Result<Vec<Event>> {
    bail!("{}: memfrag::recording has no reader yet", recording.display())
}
