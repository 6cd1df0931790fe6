//! The library that memfrag loads into a program where BPF cannot be used.
//!
//! It stands before the program's allocator and writes a record of each call to the calling thread's ring in shared
//! memory, from where the daemon reads it. It runs inside other people's programs, at any time: before libc has
//! initialised itself, in signal handlers, while a thread is being torn down, in the child of a fork. Hence:
//!
//! - no `std`, no allocation, no lock on the way of a call, no panic that could reach C;
//! - nothing of libc but the allocator itself, the memory functions that the compiler calls, and the clock where
//!   the processor has none that serves; the rest are system calls of its own, which leave `errno` alone;
//! - no file stays open, no thread, no signal handler, no key of thread-specific data.
//!
//! | module | its job |
//! |---|---|
//! | `hooks` | the functions that the program calls instead of the allocator's |
//! | `fork` | following the program through `fork` |
//! | `spawn` | following it through `exec` with an environment that was cleaned |
//! | `record` | one record into the thread's ring; what to do when that is busy or full |
//! | `touched` | which thread had a block in hand last, so that few records need the time |
//! | `shadow` | where that is written, beside the heap |
//! | `process` | the process's files and the rings of its threads |
//! | `stacks` | the stack of a call, as far as it is to be recorded |
//! | `rules` | how to leave the frame of a function, remembered by return address |
//! | `segment` | the end of the heap segment |
//! | `text` | what the process says about itself |
//! | `resolve` | finding the real functions behind this library |
//! | `sys` | system calls |
//! | `x86_64` | everything that depends on the processor |

#![cfg_attr(not(test), no_std)]
#![allow(unreachable_pub, reason = "a cdylib exports by symbol, not by path")]
#![allow(clippy::inline_always, reason = "the hot path is one function per hook, on purpose")]
#![allow(clippy::cast_ptr_alignment, reason = "mappings are page-aligned, and so are the parts of the shared layout")]
#![allow(dead_code, reason = "under test nothing is exported, and what only exports use is idle")]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the preload library exists for x86-64 only: another processor needs its own `x86_64.rs`");

mod fork;
mod hooks;
mod process;
mod record;
mod resolve;
mod rules;
mod segment;
mod shadow;
mod spawn;
mod stacks;
mod sys;
mod text;
mod touched;
mod x86_64;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::abort(b"memfrag: the preload library failed\n")
}
