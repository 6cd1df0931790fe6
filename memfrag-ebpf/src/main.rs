//! The BPF programs of memfrag: uprobes on an allocator's functions, the life of processes and threads, and the
//! system calls that change a process's mappings, all written as records to one ring.
//!
//! | file | programs |
//! |---|---|
//! | `probes/allocation` | entry and return of everything that allocates, reallocs included |
//! | `probes/free` | entry of everything that frees |
//! | `probes/lifecycle` | tasks made and ended, programs started |
//! | `probes/memory` | mmap, munmap, mremap, brk, madvise |
//! | `probes/nothing` | nothing, for measuring |
//!
//! `stacks` walks the stacks of calls that allocate, where that is asked for.
//!
//! What is not inlined has a plain name: the compiler's own would hold a hash of where the sources lie, and the
//! committed object is to be the same wherever it is built.
//!
//! One ring keeps the order: a record's room is reserved under the ring's lock, frees are reported at entry and
//! allocations at return, so a block's free always stands before the allocation that uses its address again.

#![no_std]
#![no_main]
#![allow(internal_features, reason = "the atomic instructions of the target are not offered otherwise")]
#![feature(core_intrinsics)]

mod emit;
mod inflight;
mod log;
mod maps;
mod probes;
mod stacks;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The programs have no panicking paths: the verifier would refuse this loop.
    loop {}
}

/// The kernel lets only programs under a GPL-compatible licence call its tracing helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
