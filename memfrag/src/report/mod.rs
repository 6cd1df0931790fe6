//! What a recording says, for people and for programs.
//!
//! [`ReportBuilder`] is pushed what a backend or a recording has to tell and gives a [`Report`]; [`text`] and
//! [`json`] write one. No other module of these knows how anything is written.
//!
//! | module | job |
//! |---|---|
//! | [`build`] | from events to a report |
//! | [`model`] | the report itself; its field names are the JSON's |
//! | [`metrics`] | the measures of fragmentation in it |
//! | [`sites`] | call sites as functions and places in files, and by what they hold |
//! | [`ledger`], [`blame`] | where resident bytes go, and whose blocks keep free memory |
//! | `moment` | the heap when its pages were seen last |
//! | `allocator` | which allocator the mapped files mean |
//! | [`text`], `page`, `chart`, [`units`] | for the terminal |
//! | [`plots`] | pictures, and a page that holds them |
//! | [`policies`] | what allocation policies make of a heap's events |
//! | [`heap`], [`trim`] | a heap walked from outside, and what trimming would return of it |
//! | [`compare`] | two states side by side |
//! | [`remedies`] | what would bring resident memory down |
//! | [`replay`] | the same calls under other allocators, beside the recorded program |
//! | `names` | the names of functions, and the frames above call sites |
//! | [`json`] | for programs |
//! | [`checkpoint`] | states of a recording: made while it is written, gone on from when it is read |

mod allocator;
pub mod blame;
pub mod build;
mod chart;
pub mod checkpoint;
pub mod compare;
pub mod heap;
pub mod json;
pub mod ledger;
pub mod metrics;
pub mod model;
mod moment;
mod names;
mod page;
pub mod plots;
pub mod policies;
pub mod remedies;
pub mod replay;
pub mod sites;
pub mod text;
pub mod trim;
pub mod units;

pub use build::{RecordingMeta, ReportBuilder};
pub use model::Report;
pub use names::Names;
pub use page::Style;
