//! The analysis against plain statements of its rules.

mod blame;
mod heaps;
mod ledger;
