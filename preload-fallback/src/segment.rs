//! The end of the heap segment, told whenever a call of the allocator has moved it.
//!
//! glibc moves it by an inner call, in front of which nothing can stand. But it exports the variable in which it keeps
//! the end, and a call that has moved it can be told by that.

use crate::record::{self, Entry};
use crate::{resolve, sys};
use core::ffi::c_void;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicPtr, AtomicUsize};
use memfrag_common::Kind;

/// Where libc keeps the end; [`TOLD`] itself where there is no such variable, and then nothing ever differs.
static END: AtomicPtr<AtomicUsize> = AtomicPtr::new((&raw const TOLD).cast_mut());
/// The end that was told last; 0 before the first one.
static TOLD: AtomicUsize = AtomicUsize::new(0);

/// The header of a chunk and what rounding may add: a block for which the segment grew reaches the old end with these.
const ROUNDING: usize = 64;

/// The segment's first end, to be asked for before the allocator's first call.
#[cold]
pub(crate) fn first() -> usize {
    let told = TOLD.load(Relaxed);
    if told != 0 {
        return told;
    }
    let end = sys::segment_end();
    // Another thread may have been here meanwhile; its answer stands.
    if TOLD.compare_exchange(0, end, Relaxed, Relaxed).is_ok() {
        let variable = resolve::next(b"__curbrk").cast::<AtomicUsize>();
        if !variable.is_null() {
            END.store(variable, Relaxed);
        }
    }
    TOLD.load(Relaxed)
}

#[inline(always)]
fn end() -> usize {
    // SAFETY: this library's variable, or a word of libc's, which stays where it is as long as libc does.
    unsafe { (*END.load(Relaxed)).load(Relaxed) }
}

/// After an allocation: tells the end if the segment has grown for this block.
#[inline(always)]
pub(crate) fn after_allocation(block: *mut c_void, size: usize, entry: Entry) {
    if end() != TOLD.load(Relaxed) {
        grown(block as usize, size, entry);
    }
}

/// After a block was freed: tells the end if the segment was cut.
#[inline(always)]
pub(crate) fn after_free(entry: Entry) {
    if end() != TOLD.load(Relaxed) {
        cut(entry);
    }
}

#[cold]
#[inline(never)]
fn grown(block: usize, size: usize, entry: Entry) {
    let (end, told) = (end(), TOLD.load(Relaxed));
    // Before libc's first own call its variable is 0.
    if end == 0 || end == told {
        return;
    }
    // What grew for another thread's block is that thread's to tell, which stands right before it then.
    let behind = block.saturating_add(size).saturating_add(ROUNDING) > told;
    if end < told || behind && block < end {
        tell(told, end, entry);
    }
}

#[cold]
#[inline(never)]
fn cut(entry: Entry) {
    let (end, told) = (end(), TOLD.load(Relaxed));
    if end != 0 && end < told {
        tell(told, end, entry);
    }
}

fn tell(told: usize, end: usize, entry: Entry) {
    if TOLD.compare_exchange(told, end, Relaxed, Relaxed).is_ok() {
        record::event(Kind::Brk, end as u64, entry);
    }
}
