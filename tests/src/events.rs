//! A recording as a list of events.

use anyhow::{Context, Result, ensure};
use memfrag::recording::{Item, Reader};
use memfrag_common::Event;
use std::path::Path;

/// Every event of a recording, in its order, as far as the recording goes.
pub fn read(recording: &Path) -> Result<Vec<Event>> {
    let reader = Reader::open(recording).with_context(|| format!("opening {}", recording.display()))?;
    let mut events = Vec::new();
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        match item {
            Item::Events(more) => events.extend_from_slice(more),
            Item::Missing { events } => ensure!(events == 0, "{events} events are damaged"),
            _ => {}
        }
    }
    Ok(events)
}
