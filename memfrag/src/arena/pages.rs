//! Memory for the tables of an arena: pages from the system, so that a program's allocator needs no other allocator.

use super::backing::PAGE;
use allocator_api2::alloc::{AllocError, Allocator};
use std::alloc::Layout;
use std::ptr::{self, NonNull};

/// Maps each allocation by itself. Meant for few tables that grow by doubling; the kernel moves them when they do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pages;

/// Whole pages for a layout.
fn length(layout: Layout) -> Result<usize, AllocError> {
    if layout.align() > PAGE {
        return Err(AllocError);
    }
    layout.size().checked_next_multiple_of(PAGE).ok_or(AllocError)
}

fn found(start: *mut libc::c_void, length: usize) -> Result<NonNull<[u8]>, AllocError> {
    if start == libc::MAP_FAILED {
        return Err(AllocError);
    }
    let start = NonNull::new(start.cast()).ok_or(AllocError)?;
    Ok(NonNull::slice_from_raw_parts(start, length))
}

// SAFETY: what is mapped stays until it is unmapped by its own layout, and all values of the type are the same.
unsafe impl Allocator for Pages {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let length = length(layout)?;
        if length == 0 {
            let nowhere = NonNull::new(ptr::without_provenance_mut(layout.align())).ok_or(AllocError)?;
            return Ok(NonNull::slice_from_raw_parts(nowhere, 0));
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: maps new pages at an address that the kernel chooses.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        found(start, length)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // New pages are zero.
        self.allocate(layout)
    }

    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
        if let Ok(length @ 1..) = length(layout) {
            // SAFETY: mapped by `allocate` with this length, and the caller uses it no more.
            unsafe { libc::munmap(start.as_ptr().cast(), length) };
        }
    }

    unsafe fn grow(&self, start: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let (before, after) = (length(old)?, length(new)?);
        if before == 0 {
            return self.allocate(new);
        }
        // SAFETY: mapped by `allocate` with the length of then; the caller uses the new address from now on.
        let start = unsafe { libc::mremap(start.as_ptr().cast(), before, after, libc::MREMAP_MAYMOVE) };
        found(start, after)
    }
}
