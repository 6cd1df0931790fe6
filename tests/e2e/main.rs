//! End-to-end tests: what memfrag must do to real programs and tell about them, one module for each topic.
//!
//! They are run one at a time (`--test-threads=1`): probes sit on libraries that all processes share, and what is
//! timed here is disturbed by company.

mod agreement;
mod arena;
mod at_exit;
mod attach;
mod bad_input;
mod blame;
mod brief;
mod browser;
mod checkpoints;
mod compare;
mod crash;
mod dashboard;
mod dashboard_trace;
mod endings;
mod fidelity;
mod filter;
mod frames;
mod heap_bad_input;
mod heap_walk;
mod interchange;
mod model;
mod pages;
mod pictures;
mod real_programs;
mod remedies;
mod replay;
mod resident;
mod stacks;
mod trim;
mod truth;
mod workloads;
