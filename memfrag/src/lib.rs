//! memfrag: where a process's memory goes, which call sites pin it, and what would free it.
//!
//! The modules stand in the order in which the data flows:
//!
//! ```text
//! target ─► probes ─► capture ─► recording ─► heap ─► report
//! (who)     (where)   (events)   (the log)   (state)  (shown)
//! ```

pub mod capture;
pub mod heap;
pub mod probes;
pub mod recording;
pub mod report;
pub mod target;
