//! An arena as an allocator for collections.

use super::arena::Arena;
use super::backing::Backing;
use super::block::Tag;
use allocator_api2::alloc::{AllocError, Allocator};
use std::alloc::Layout;
use std::ptr::{self, NonNull};

/// An arena as an [`Allocator`], whose blocks all get one tag. See [`Arena::tagged`].
#[derive(Debug)]
pub struct Tagged<'a, B: Backing> {
    arena: &'a Arena<B>,
    tag: Tag,
}

impl<B: Backing> Clone for Tagged<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backing> Copy for Tagged<'_, B> {}

impl<B: Backing> Arena<B> {
    /// The arena as an allocator whose blocks get this tag. `&arena` itself is one whose blocks get none.
    pub const fn tagged(&self, tag: Tag) -> Tagged<'_, B> {
        Tagged { arena: self, tag }
    }
}

/// What a request for nothing gets: an aligned pointer to no memory.
fn nothing(layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
    let nowhere = NonNull::new(ptr::without_provenance_mut(layout.align())).ok_or(AllocError)?;
    Ok(NonNull::slice_from_raw_parts(nowhere, 0))
}

// SAFETY: blocks stay where they are until they are freed or resized, for as long as the arena is borrowed, and copies
// of the value mean the same arena.
unsafe impl<B: Backing> Allocator for Tagged<'_, B> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return nothing(layout);
        }
        self.arena.allocate(layout.size(), layout.align(), self.tag).map_err(|_| AllocError)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: the caller's promise. What is refused is counted as a misuse, and stays allocated.
            let freed = unsafe { self.arena.deallocate_as(block, Some(layout)) };
            debug_assert!(freed.is_ok(), "{freed:?}");
        }
    }

    unsafe fn grow(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { self.fit(block, old, new) }
    }

    unsafe fn grow_zeroed(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        let grown = unsafe { self.fit(block, old, new) }?;
        // SAFETY: `new.size()` is at least `old.size()`, so this stays within the block.
        let behind = unsafe { grown.cast::<u8>().add(old.size()) };
        // SAFETY: what the block has grown by is nobody else's.
        unsafe { behind.write_bytes(0, new.size() - old.size()) };
        Ok(grown)
    }

    unsafe fn shrink(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { self.fit(block, old, new) }
    }
}

impl<B: Backing> Tagged<'_, B> {
    /// Gives a block another layout.
    ///
    /// # Safety
    /// The block is the caller's alone and has the layout `old`.
    unsafe fn fit(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // A block remembers the alignment that it was asked for with.
        if old.size() > 0 && new.size() > 0 && new.align() == old.align() {
            // SAFETY: the caller gives it up.
            return unsafe { self.arena.resize(block, new.size()) }.map_err(|_| AllocError);
        }
        let fresh = self.allocate(new)?;
        // SAFETY: both have at least so many bytes, and the new one is nobody else's.
        unsafe { block.copy_to_nonoverlapping(fresh.cast(), old.size().min(new.size())) };
        // SAFETY: the caller gives it up.
        unsafe { self.deallocate(block, old) };
        Ok(fresh)
    }
}

// SAFETY: as `Tagged`, which does everything.
unsafe impl<B: Backing> Allocator for &Arena<B> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.tagged("").allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.tagged("").deallocate(block, layout) };
    }

    unsafe fn grow(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { self.tagged("").grow(block, old, new) }
    }

    unsafe fn grow_zeroed(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { self.tagged("").grow_zeroed(block, old, new) }
    }

    unsafe fn shrink(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { self.tagged("").shrink(block, old, new) }
    }
}
