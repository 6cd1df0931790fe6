//! From a frame to the one that called it.
//!
//! A [`Rule`] tells for a place in the code where its function's frame ends and where it has saved what its caller
//! needs. It is the part of DWARF's call frame information that compilers use for nearly all code; [`cfi`] finds it
//! in a loaded file. Code that keeps frame pointers has one rule for all places, [`Rule::FRAME_POINTER`].
//!
//! All of it is pure: what lies on the stack is asked for by [`Memory`], which alone knows what may be read.

#[cfg(not(target_arch = "bpf"))]
pub mod cfi;
#[cfg(not(target_arch = "bpf"))]
pub mod elf;
#[cfg(target_has_atomic = "64")]
#[cfg(not(target_arch = "bpf"))]
pub mod walk;
mod x86_64;

pub use x86_64::{Cfa, FramePointer, Rule, Step, step, step_packed};

/// Where a frame is: the registers as they are once the call that it is in has returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// The return address of that call.
    pub pc: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer's register, whatever the function uses it for.
    pub fp: u64,
}

/// What lies on the stack.
pub trait Memory {
    /// The word at an address; `None` where none may be read.
    fn word(&self, address: u64) -> Option<u64>;
}
