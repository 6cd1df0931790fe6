//! MemFragX's log: a line for each call, `ts_ns,event,ptr,size,tid`.
//!
//! Its own tracer stamps with the wall clock, logs a free after it and an allocation likewise, so that the two can
//! stand in the wrong order where an address is used again, leaves the old block of a `REALLOC` out, and writes no size
//! behind `FREE`. [`Import`] repairs what can be repaired and counts the rest; [`Export`] writes rows without these faults.

mod export;
mod import;
#[cfg(test)]
mod tests;

pub use export::{Export, Exported, Summary};
pub use import::{Import, ImportError, Imported};

/// The names of the columns, in the order in which they are written.
const COLUMNS: [&str; 5] = ["ts_ns", "event", "ptr", "size", "tid"];

/// The log's name in the directory of a run.
pub const LOG: &str = "mftrace_log.csv";
