//! Where probes go: which functions of an allocator are traced, and on which instruction of each.
//!
//! | module | what it answers |
//! |---|---|
//! | [`table`] | which symbols are allocator functions, and in which registers their arguments arrive |
//! | [`elf`] | where these symbols lie in a file |
//! | [`x86_64`] | on which instruction of a function a probe is cheap and sees every call once |
//! | [`plan`](mod@plan) | all probes of one file |

pub mod plan;
pub mod table;
pub mod x86_64;

pub use crate::target::elf;
pub use plan::{LeftOut, PlanError, ProbePlan, ProbePoint, Reason, plan};
pub use table::{Arguments, Register, Shape};
pub use x86_64::{Class, Placement};
