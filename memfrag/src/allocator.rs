//! Where memfrag's own blocks come from: not from libc, so that probes on the machine's C library do not make memfrag
//! trace itself.
//!
//! The state of a large heap is read and changed all over, and an address that the processor has no translation for
//! costs as much as the memory itself. So beyond a first few megabytes memory comes in huge pages, where the system has them.

use dlmalloc::{Allocator, Dlmalloc};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A huge page. dlmalloc gives memory at its top back from this size on: in larger steps the two would undo each other.
const HUGE: usize = 2 << 20;
/// A program with so much memory is given more in huge pages.
const SMALL: usize = 16 << 20;

/// The allocator of the whole program.
pub(crate) struct Blocks(Mutex<Dlmalloc<Mappings>>);

impl Blocks {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Dlmalloc::new_with_allocator(Mappings { bytes: AtomicUsize::new(0) })))
    }

    fn lock(&self) -> MutexGuard<'_, Dlmalloc<Mappings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: dlmalloc keeps what the trait asks for, one call at a time, and the lock itself allocates nothing.
unsafe impl GlobalAlloc for Blocks {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not zero, says the caller.
        unsafe { self.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from here with this layout, says the caller.
        unsafe { self.lock().free(block, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { self.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`, and the new size is not zero.
        unsafe { self.lock().realloc(block, layout.size(), layout.align(), size) }
    }
}

/// The memory below.
struct Mappings {
    /// Mapped at present.
    bytes: AtomicUsize,
}

impl Mappings {
    fn map(size: usize) -> Option<*mut u8> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, where the system likes, touches nothing that there is.
        let place = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        (place != libc::MAP_FAILED).then_some(place.cast())
    }

    /// Whole huge pages. A system that has none to give gives small ones.
    fn map_huge(size: usize) -> Option<(*mut u8, usize)> {
        let size = size.checked_next_multiple_of(HUGE)?;
        let mut place = Self::map(size)?;
        if place.addr() % HUGE != 0 {
            // SAFETY: the mapping made above, which nobody knows of.
            unsafe { libc::munmap(place.cast(), size) };
            let wider = Self::map(size.checked_add(HUGE)?)?;
            let before = wider.addr().next_multiple_of(HUGE) - wider.addr();
            place = wider.wrapping_add(before);
            // SAFETY: this end of the wider mapping is not kept. `munmap` refuses an empty one.
            unsafe { libc::munmap(wider.cast(), before) };
            // SAFETY: nor is the other.
            unsafe { libc::munmap(place.wrapping_add(size).cast(), HUGE - before) };
        }
        // SAFETY: the mapping made above; the advice changes nothing that it holds.
        unsafe { libc::madvise(place.cast(), size, libc::MADV_HUGEPAGE) };
        Some((place, size))
    }
}

// SAFETY: what is handed out are fresh mappings, and what comes back is unmapped and nothing else.
unsafe impl Allocator for Mappings {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let mapped = match self.bytes.load(Ordering::Relaxed) {
            SMALL.. => Self::map_huge(size),
            _ => Self::map(size).map(|place| (place, size)),
        };
        let Some((place, size)) = mapped else { return (ptr::null_mut(), 0, 0) };
        self.bytes.fetch_add(size, Ordering::Relaxed);
        (place, size, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        // Asked for mappings of single blocks only, which this version of dlmalloc does not make.
        ptr::null_mut()
    }

    fn free_part(&self, place: *mut u8, old: usize, new: usize) -> bool {
        // SAFETY: the part behind `new` belongs to a mapping of ours and is used no more, says dlmalloc.
        let done = unsafe { libc::munmap(place.wrapping_add(new).cast(), old - new) == 0 };
        if done {
            self.bytes.fetch_sub(old - new, Ordering::Relaxed);
        }
        done
    }

    fn free(&self, place: *mut u8, size: usize) -> bool {
        self.free_part(place, size, 0)
    }

    fn can_release_part(&self, _: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_memory_comes_in_whole_huge_pages() {
        let mappings = Mappings { bytes: AtomicUsize::new(0) };
        let (few, size, _) = mappings.alloc(SMALL);
        assert_eq!((few.is_null(), size), (false, SMALL));
        for asked in [1 << 16, HUGE, 5 * HUGE + 4096] {
            let (many, size, _) = mappings.alloc(asked);
            assert_eq!((many.addr() % HUGE, size), (0, asked.next_multiple_of(HUGE)));
            // SAFETY: all of the mapping can be written to.
            unsafe { many.write_bytes(1, size) };
            assert!(mappings.free_part(many, size, HUGE / 2));
            // SAFETY: the first byte of the part that is left.
            assert_eq!(unsafe { many.read() }, 1);
            assert!(mappings.free(many, HUGE / 2));
        }
        assert!(mappings.free(few, SMALL));
        assert_eq!(mappings.bytes.into_inner(), 0);
    }

    #[test]
    fn more_than_there_is_gives_nothing() {
        for bytes in [0, SMALL] {
            let mappings = Mappings { bytes: AtomicUsize::new(bytes) };
            assert!(mappings.alloc(usize::MAX - 4095).0.is_null());
        }
    }
}
