//! memfrag: where a process's memory goes, which call sites pin it, and what would free it.
//!
//! The modules stand in the order in which the data flows:
//!
//! ```text
//! target ─► probes ─► capture ─► recording ─► heap ─► analysis ─► report
//! (who)     (where)   (events)   (the log)   (state)  (meaning)   (shown)
//!    │                               ▲ ▼
//!    │                          interchange (other tools' logs)
//!    └─────────────────────────────────────► glibc ──┘          symbolize
//!                                           (layout)          (names)
//!                                              ├─► model   (the same events under other policies)
//!                                              └─► replay  (the same events run again under real allocators)
//! ```

pub mod analysis;
pub mod arena;
pub mod capture;
pub mod glibc;
pub mod heap;
pub mod interchange;
pub mod model;
pub mod probes;
pub mod recording;
pub mod replay;
pub mod report;
pub mod server;
pub mod symbolize;
pub mod target;
