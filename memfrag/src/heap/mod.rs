//! What the traced processes hold, rebuilt from their events: live blocks, sums, peaks, the process tree.
//!
//! [`Heaps::apply_all`] takes events in their order. Everything here is pure state: no I/O, no clock, and the same
//! events give the same state.
//!
//! | module | job |
//! |---|---|
//! | `tree` | which process and which heap an event belongs to: fork, exec, exit, ids used again |
//! | `process`, `thread` | who the processes are, their threads, reallocations under way |
//! | `state` | one heap: what each allocator call changes |
//! | `blocks`, `directory` | the live blocks by address |
//! | `reconcile` | the state checked against the heap as it lies in memory |
//! | `pages`, `footprint` | how full each page is with them, and by which rule |
//! | `activity`, `classes` | what happened lately on each page, and what is live by class, while somebody watches |
//! | `snapshot`, `past` | what a heap held at a moment, while it goes on: copied, or told by what has changed since |
//! | `origin` | the distinct calls that allocate |
//! | `totals` | what is counted, by which rules; anomalies |
//! | `lifetimes` | how long freed blocks have lived, where that is counted |
//! | `timeline`, `readings` | the course over time, and the heap whenever memory was read |
//! | `requests`, `growth` | how large the requests were; growths of the heap segment that the free memory could have spared |
//! | `maps` | sums of the mapping calls |

mod activity;
mod blocks;
mod classes;
mod directory;
mod footprint;
mod growth;
mod hash;
mod lifetimes;
mod maps;
mod origin;
mod pages;
mod past;
mod process;
mod readings;
mod reconcile;
mod requests;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod thread;
mod timeline;
mod totals;
mod tree;

pub use activity::{Activity, HALF_LIFE_MS, PageActivity, SLOT_BITS, Tick, cooled};
pub use blocks::{Block, Blocks, ByAddress, MAX_SIZE};
pub use classes::{Classes, size_class};
pub use footprint::Footprint;
pub use growth::Growths;
pub(crate) use hash::BuildWordHasher;
pub use lifetimes::Lifetimes;
pub use maps::MapTotals;
pub use origin::{Origin, OriginId, OriginTotals};
pub use pages::{Occupancy, PageRun, Pages, Record, Runs, TABLE_PAGES};
pub use process::Process;
pub use readings::{Reading, Readings};
pub use requests::Requests;
pub use snapshot::Snapshot;
pub use state::Heap;
pub use thread::Thread;
pub use timeline::{MAX_POINTS, Point};
pub use totals::{Amount, Anomalies, FunctionTotals, Functions, Peak, Totals};
pub use tree::Heaps;
