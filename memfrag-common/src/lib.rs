//! The one wire format of memfrag: what the BPF programs and the preload library write and the daemon reads.
//!
//! Both capture backends emit the same [`Record`], a fixed layout of 48 bytes, which the preload library's rings hold
//! [`packed`]; the daemon decodes it once into an [`Event`]. The crate allocates nothing, does no I/O and knows no serialisation framework.
//!
//! | module | what both sides must agree on |
//! |---|---|
//! | [`function`] | the numbers of the allocator's functions |
//! | [`record`] | the layout of a record and its constructors |
//! | [`event`] | what a record means, decoded |
//! | [`config`] | what the loader tells the BPF programs |
//! | [`packed`] | a record in half a cache line |
//! | [`ring`] | the preload library's ring: slots in shared memory, one producer, one consumer |
//! | [`session`] | the other shared memory of a preload session |
//! | [`stacks`] | the table of a session's stacks, in shared memory |
//! | [`told`] | stacks as the BPF programs tell them |
//! | [`unwind`] | walking a thread's stack |
//! | [`names`] | which programs a trace is limited to |
//! | [`loss`] | what is counted when something is not recorded |
//! | [`prefetch`] | sending for memory before it is needed |

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod config;
pub mod event;
pub mod function;
pub mod loss;
pub mod names;
#[cfg(not(target_arch = "bpf"))]
pub mod packed;
#[cfg(not(target_arch = "bpf"))]
pub mod prefetch;
pub mod record;
#[cfg(target_has_atomic = "64")]
#[cfg(not(target_arch = "bpf"))]
pub mod ring;
#[cfg(all(target_has_atomic = "64", not(loom)))]
#[cfg(not(target_arch = "bpf"))]
pub mod session;
#[cfg(target_has_atomic = "64")]
#[cfg(not(target_arch = "bpf"))]
pub mod stacks;
pub mod told;
pub mod unwind;

pub use event::{Event, Op};
pub use function::Function;
pub use record::{Kind, Record};
