//! Following the program through `fork`.
//!
//! A child notices by itself that it is one (see [`crate::process`]); what is to be done here is to tell the daemon at
//! which point of the parent's events it was made, and to have the child appear even if it never allocates.

use crate::process;
use crate::record::{self, Entry, Thread};
use crate::resolve;
use crate::x86_64::{self, entry};
use core::ffi::{c_int, c_void};
use core::mem;
use core::sync::atomic::Ordering::Relaxed;
use memfrag_common::Kind;

entry! {
    fork => hooked_fork, "rdi", "rsi";
    _Fork => hooked_plain_fork, "rdi", "rsi";
}

unsafe extern "C" fn hooked_fork(entry: Entry) -> c_int {
    around(entry, resolve::next(b"fork"))
}

unsafe extern "C" fn hooked_plain_fork(entry: Entry) -> c_int {
    around(entry, resolve::next(b"_Fork"))
}

fn around(entry: Entry, real: *mut c_void) -> c_int {
    // SAFETY: both functions are of this type; a program that calls them has them.
    let real = unsafe { mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(real) };
    let thread = x86_64::thread();
    if !attached(thread) && !process::attach(thread) {
        return real();
    }
    // From the stamp to the record nothing later may be released, or the child's first events would come before it.
    let before = thread.ring.hold(entry.frame());
    thread.held.set(before == 0);
    let at = process::stamp_of_fork();
    let child = real();
    if child == 0 {
        if !attached(thread) {
            process::attach(thread);
        }
        return child;
    }
    thread.held.set(false);
    if child > 0 {
        record::held(thread, entry.frame(), Kind::Fork, u64::from(child.cast_unsigned()), at);
    }
    thread.ring.let_go(before);
    child
}

fn attached(thread: &Thread) -> bool {
    thread.key.load(Relaxed) == process::state().epoch.load(Relaxed).wrapping_add(1)
}
