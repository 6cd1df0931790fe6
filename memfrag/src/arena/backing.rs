//! The memory behind an arena.

use super::error::CreateError;
use super::pages::Pages;
use allocator_api2::alloc::{Allocator, Global};
use memmap2::{MmapMut, MmapRaw};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// Memory that an arena gives out.
///
/// # Safety
/// As long as the value lives, wherever it is moved to: [`Backing::memory`] returns the same range, which may be read
/// and written, which nobody else uses, and which begins at a multiple of 16.
pub unsafe trait Backing: Send + Sync {
    /// Where an arena on this memory keeps its tables: never in the memory itself.
    type Tables: Allocator + Clone + Send;

    /// All of the memory.
    fn memory(&self) -> NonNull<[u8]>;

    /// Memory for the tables.
    fn tables(&self) -> Self::Tables;
}

/// Whole pages for this many bytes.
fn rounded(capacity: usize) -> Result<usize, CreateError> {
    if capacity == 0 {
        return Err(CreateError::ZeroCapacity);
    }
    let rounded = capacity.checked_next_multiple_of(PAGE).filter(|&bytes| isize::try_from(bytes).is_ok());
    rounded.ok_or(CreateError::TooLarge { capacity })
}

/// Private memory from `mmap`, zero until it is written, and resident only where it was touched. The tables are in pages
/// of their own, so that this memory can stand behind a program's global allocator.
#[derive(Debug)]
pub struct Mapped(MmapRaw);

impl Mapped {
    /// Maps memory, in whole pages.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn new(capacity: usize) -> Result<Self, CreateError> {
        let capacity = rounded(capacity)?;
        match MmapMut::map_anon(capacity) {
            Ok(map) => Ok(Self(map.into())),
            Err(source) => Err(CreateError::Map { capacity, source }),
        }
    }
}

// SAFETY: a private mapping of its own, readable and writable until it is unmapped by its drop, and begins with a page.
unsafe impl Backing for Mapped {
    type Tables = Pages;

    fn memory(&self) -> NonNull<[u8]> {
        let start = NonNull::new(self.0.as_mut_ptr()).unwrap_or(NonNull::dangling());
        NonNull::slice_from_raw_parts(start, self.0.len())
    }

    fn tables(&self) -> Pages {
        Pages
    }
}

/// Memory from the program's own allocator: where there is no `mmap`, or under an interpreter that watches each access.
#[derive(Debug)]
pub struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory alone.
unsafe impl Send for Buffer {}
// SAFETY: shared, it gives away no more than a pointer.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Allocates memory, in whole pages and aligned to them.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn new(capacity: usize) -> Result<Self, CreateError> {
        let capacity = rounded(capacity)?;
        let layout = Layout::from_size_align(capacity, PAGE).map_err(|_| CreateError::TooLarge { capacity })?;
        // SAFETY: its size is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        let start = start.ok_or(CreateError::Map { capacity, source: std::io::ErrorKind::OutOfMemory.into() })?;
        Ok(Self { start, layout })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody has it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

// SAFETY: memory of its own, freed by its drop alone, and aligned to pages.
unsafe impl Backing for Buffer {
    type Tables = Global;

    fn memory(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.start, self.layout.size())
    }

    fn tables(&self) -> Global {
        Global
    }
}
