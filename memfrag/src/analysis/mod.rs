//! What the state of a heap means: pure functions of it.
//!
//! | module | job |
//! |---|---|
//! | [`metrics`] | measures of fragmentation, each by its formula |
//! | [`reconstruct`] | glibc's layout from the live blocks, where no walk of the heap is at hand |
//! | [`census`] | a layout's chunks and the live blocks in them |
//! | [`resident`] | how much of a range of addresses is resident |
//! | [`sweep`] | one pass over a heap: what trimming returns, and what it would return without each owner |
//! | [`partition`] | owners of blocks: call sites, threads, size classes, ages, modules |
//! | [`sizes`] | live blocks by owner and size class |
//! | [`regions`] | the ranges of address space in which a heap lies |
//! | [`spread`] | how blocks lie in what a heap holds: free memory, holes, pages that they keep |
//! | [`strip`] | how full the heap was, by address and over time |
//! | [`ledger`] | where the resident bytes go |
//! | [`blame`] | the owners ranked by what goes with them |
//! | [`between`] | what became of blocks between two states, by call site |

pub mod between;
pub mod blame;
pub mod census;
pub mod ledger;
pub mod metrics;
pub mod partition;
pub mod reconstruct;
pub mod regions;
pub mod resident;
pub mod sizes;
pub mod spread;
pub mod strip;
pub mod sweep;
#[cfg(test)]
mod tests;

pub use blame::Blame;
pub use census::Census;
pub use ledger::Ledger;
pub use partition::{By, Key, Partition};
pub use resident::ResidentPages;
pub use spread::Spread;
