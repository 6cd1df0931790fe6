//! The `.mfrag` file: everything that was captured, in order, in about two bytes an event.
//!
//! A recording is a header, then chunks that each stand on their own, then an index that is only a short cut. What is
//! not whole is passed over and counted; `docs/FORMAT.md` describes the bytes.
//!
//! ```text
//! events ─► encode ─► columns ─┐ (another thread)            ┌─► decode ─► events
//!                              ├─► chunk ─► file ─► chunk ───┤
//! notes ───────────────────────┘                             └─► notes
//! ```

mod background;
mod checkpoint;
mod chunk;
mod columns;
mod cursor;
mod decode;
mod encode;
mod error;
mod follow;
mod header;
mod index;
mod items;
mod model;
mod notes;
mod pick;
mod reader;
mod redact;
mod saved;
mod scan;
mod stacks;
mod store;
mod tables;
mod times;
mod varint;
mod writer;

pub use checkpoint::{Checkpoint, Checkpoints, Written};
pub use chunk::EventsSummary;
pub use cursor::{Cursor, Limit, Mark, Next};
pub use error::RecordingError;
pub use header::{Header, VERSION};
pub use items::{Item, Items};
pub use notes::End;
pub use pick::Picker;
pub use reader::{Damage, EventsChunk, Reader, Verification};
pub use redact::Redactor;
pub(crate) use saved::{Count, Saved, load_counters, load_mappings, save_counters, save_mappings, saved};
pub use stacks::Stacks;
pub(crate) use varint::{Input, put};
pub use writer::{Status, Summary, Writer};

#[cfg(test)]
mod tests;
