//! The events of a recording under allocation policies.
//!
//! [`ModelHeap`] turns the events of one heap into requests on numbered blocks and passes them on to any number of
//! [`Policy`]s, so that all see the same in one reading. [`Models`] does so for all heaps of a process tree. All is
//! pure: no I/O, no clock.
//!
//! | module | job |
//! |---|---|
//! | `policy` | the trait: what a policy is asked, what it answers |
//! | `listener` | the trait of those that hear the same and place nothing |
//! | `heap` | one heap's events as requests; what a complete stream would not have shown |
//! | `live` | the live blocks by address |
//! | `classic` | first, best and next fit, buddies, slabs, pages by class, compaction, lifetimes apart |
//! | `lifetimes` | how long the blocks of each call site live |
//! | [`ptmalloc`] | glibc's own allocator |
//! | `choice` | policies by name |
//! | `recipe` | which of them one process's heap is to be under |
//! | `tree` | which heap an event belongs to: fork, exec, exit |

mod choice;
mod classic;
mod heap;
mod lifetimes;
mod listener;
mod live;
mod policy;
pub mod ptmalloc;
mod recipe;
mod tree;

pub use choice::{CHOICES, Choice, Setting};
pub use classic::{CLASSICS, Classic};
pub use heap::{ModelHeap, Oddities};
pub use lifetimes::Lifetimes;
pub use listener::{Listener, Listening};
pub use policy::{BlockId, Caller, Contents, Counts, Fact, Footprint, MallInfo, Policy, Request, Step};
pub use ptmalloc::Ptmalloc;
pub use recipe::Recipe;
pub use tree::{Factory, Modelled, Models};

#[cfg(test)]
mod tests;
