//! The calls of a recording again, under any allocator.
//!
//! | module | job |
//! |---|---|
//! | `plan` | from requests to steps of threads: blocks become slots, and threads wait where a block changes hands |
//! | `survey` | how much of each block was resident, and what is live at a moment |
//! | `compact` | what is live at a moment as a plan of its own |
//! | `data` | the steps as a file, which the program in `program/` goes through |
//! | `choose` | which heap of a recording is replayed |
//! | `follow` | that heap's requests, and what was seen of its process's memory |
//! | `artefact` | a recording made into data, or into a directory that stands alone |
//! | `allocators` | the allocators of this machine |
//! | `run` | the program run under one of them, watched and limited |
//! | `cgroup` | the control group that limits it, where one can be had |
//!
//! The program is written in C and needs nothing but a C library, because an emitted replay is to be built where there
//! is no memfrag; the same program, built with memfrag and embedded in it, does the runs.

mod allocators;
mod artefact;
mod cgroup;
mod choose;
mod compact;
mod data;
mod follow;
mod plan;
mod run;
mod survey;

pub use allocators::{Allocator, AllocatorError};
pub use artefact::{Language, ReplayError, Wanted, emit, prepare};
pub use choose::{Candidate, candidates};
pub use compact::{Compact, Order};
pub use data::DataFile;
pub use plan::{How, Planned, Planner, Reading, Step, Steps};
pub use run::{Ended, LimitedBy, Limits, Manner, Outcome, Point, Run, Sums, Touch, run};
pub use survey::{Kinds, Touched};
