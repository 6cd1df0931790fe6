//! The arena: memory, and the books that say which of it is whose.

use super::backing::{Backing, Mapped};
use super::block::{Block, Event, Tag};
use super::books::Books;
use super::error::{AllocError, CreateError, FreeError, ResizeError};
use super::free_list::Hole;
use super::lines::Lines;
use super::padding::Padding;
use super::state::{Figures, State};
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What guards are filled with.
const GUARD: u8 = 0xa5;

/// Who is told of every event, in their order. See [`Arena::observe`].
pub type Observer = Box<dyn FnMut(&Event) + Send>;

/// How an arena behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Bytes behind each request, and as many more as rounding leaves, that are filled with a pattern and looked at
    /// when the block is freed or resized: if something has written there, that fails with
    /// [`FreeError::Corrupted`]. With 0 there is no guard, not even in what rounding leaves.
    pub guard: u32,
}

/// A range of memory that blocks are given out of by first fit. Unmapped when it is dropped.
///
/// All that is known of the blocks lies outside of the range, so a program that writes where it must not spoils its
/// own data and not the arena. Any number of threads may use it; they wait for one another.
///
/// ```
/// use allocator_api2::vec::Vec;
/// use memfrag::arena::Arena;
///
/// let arena = Arena::new(1 << 20)?;
/// let mut squares = Vec::new_in(arena.tagged("squares"));
/// squares.extend((0..100_u64).map(|n| n * n));
/// assert_eq!(arena.figures().blocks, 1);
/// assert_eq!(arena.state().blocks[0].tag, "squares");
/// drop(squares);
/// assert_eq!(arena.figures().holes, 1);
/// # Ok::<(), memfrag::arena::CreateError>(())
/// ```
pub struct Arena<B: Backing = Mapped> {
    inner: Mutex<Inner<B>>,
    start: NonNull<u8>,
    size: u64,
    guard: u32,
    /// After what uses its memory.
    _backing: B,
}

struct Inner<B: Backing> {
    books: Books<B::Tables>,
    observer: Option<Observer>,
}

impl<B: Backing> Inner<B> {
    fn tell(&mut self, event: &Event) {
        if let Some(observer) = &mut self.observer {
            observer(event);
        }
    }
}

// SAFETY: the pointer is into the backing, which may be sent, and moves with it.
unsafe impl<B: Backing> Send for Arena<B> {}
// SAFETY: what is shared is behind the lock; blocks belong to whoever they were given to.
unsafe impl<B: Backing> Sync for Arena<B> {}

impl<B: Backing> fmt::Debug for Arena<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("start", &self.start).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Arena<Mapped> {
    /// Maps an arena of so many bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// When there is nothing to map, or the system maps nothing.
    pub fn new(capacity: usize) -> Result<Self, CreateError> {
        Ok(Self::on(Mapped::new(capacity)?, Options::default()))
    }
}

impl<B: Backing> Arena<B> {
    /// An arena on memory that there is already.
    pub fn on(backing: B, options: Options) -> Self {
        let memory = backing.memory();
        let start = memory.cast::<u8>();
        let first = start.addr().get() as u64;
        let size = memory.len() as u64;
        let books = Books::new_in(first..first + size, backing.tables());
        let inner = Mutex::new(Inner { books, observer: None });
        Self { inner, start, size, guard: options.guard, _backing: backing }
    }

    /// Gives out a block of at least `size` bytes by first fit. A size of 0 gives a block of its own too. What it holds
    /// is what was there before.
    ///
    /// # Errors
    /// When no hole is large enough, or the alignment is no power of two.
    pub fn allocate(&self, size: usize, align: usize, tag: Tag) -> Result<NonNull<[u8]>, AllocError> {
        let mut inner = self.lock();
        match inner.books.allocate(size as u64, u64::from(self.guard), align as u64, tag) {
            Ok(block) => {
                self.put_guard(&block);
                inner.tell(&Event::Allocated(block));
                Ok(NonNull::slice_from_raw_parts(self.pointer(block.address), size))
            }
            Err(error) => {
                inner.tell(&Event::Refused(error));
                Err(error)
            }
        }
    }

    /// Takes a block back. Every pointer that is not a live block's own is refused.
    ///
    /// # Errors
    /// [`FreeError`]; nothing has changed then but the count of misuses.
    ///
    /// # Safety
    /// If a block begins there, nobody uses it any more.
    pub unsafe fn deallocate(&self, block: NonNull<u8>) -> Result<(), FreeError> {
        // SAFETY: as the caller promises.
        unsafe { self.deallocate_as(block, None) }
    }

    /// As [`Arena::deallocate`], of a block that the caller says has this size and alignment.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn deallocate_as(
        &self,
        block: NonNull<u8>,
        layout: Option<std::alloc::Layout>,
    ) -> Result<(), FreeError> {
        let address = block.addr().get() as u64;
        let mut inner = self.lock();
        let fits = self.inspect(&inner, address).and_then(|block| match layout {
            Some(layout) if layout.size() as u64 != block.requested || layout.align() as u64 > block.align => {
                Err(FreeError::WrongLayout {
                    address,
                    requested: block.requested,
                    align: block.align,
                    size: layout.size() as u64,
                    claimed: layout.align() as u64,
                })
            }
            _ => Ok(()),
        });
        if let Err(error) = fits {
            inner.books.misused();
            return Err(error);
        }
        let block = inner.books.free(address)?;
        inner.tell(&Event::Freed(block));
        Ok(())
    }

    /// Gives a block another size, with what it holds up to the smaller of both: in place where possible, else at a
    /// new one. Its alignment and tag stay.
    ///
    /// # Errors
    /// [`ResizeError`]; the block is then as before.
    ///
    /// # Safety
    /// If a block begins there, nobody uses it meanwhile, nor by the old pointer afterwards.
    pub unsafe fn resize(&self, block: NonNull<u8>, size: usize) -> Result<NonNull<[u8]>, ResizeError> {
        let mut inner = self.lock();
        let address = block.addr().get() as u64;
        if let Err(error) = self.inspect(&inner, address) {
            inner.books.misused();
            return Err(error.into());
        }
        let (before, after) = match inner.books.resize(address, size as u64, u64::from(self.guard)) {
            Ok(resized) => resized,
            Err(error) => {
                if let ResizeError::Room(refused) = error {
                    inner.tell(&Event::Refused(refused));
                }
                return Err(error);
            }
        };
        let place = self.pointer(after.address);
        if before.address != after.address {
            let kept = before.requested.min(after.requested) as usize;
            // SAFETY: both lie in the arena. The new place was free while the old one was taken, so they do not overlap;
            // the old one is free now, but for that somebody would need the lock.
            unsafe { self.pointer(before.address).copy_to_nonoverlapping(place, kept) };
        }
        self.put_guard(&after);
        inner.tell(&Event::Resized { before, after });
        Ok(NonNull::slice_from_raw_parts(place, size))
    }

    /// Has every event told to `observer` from now on, in the order in which they happen: threads wait for one another
    /// until it returns. `None` ends that. Returns the observer of before.
    ///
    /// The observer must not use the arena itself, which waits for it.
    pub fn observe(&self, observer: Option<Observer>) -> Option<Observer> {
        std::mem::replace(&mut self.lock().observer, observer)
    }

    /// The sums.
    pub fn figures(&self) -> Figures {
        self.lock().books.figures()
    }

    /// All blocks and holes.
    pub fn state(&self) -> State {
        let inner = self.lock();
        let holes: Vec<Hole> = inner.books.holes().collect();
        State { range: inner.books.range(), figures: inner.books.figures(), blocks: inner.books.blocks(), holes }
    }

    /// What blocks take beyond what was requested.
    pub fn padding(&self) -> Padding {
        self.state().padding()
    }

    /// How the blocks lie on cache lines of this many bytes.
    pub fn lines(&self, line: u64) -> Lines {
        self.state().lines(line)
    }

    /// The blocks whose guards were overwritten, upwards.
    pub fn corrupted(&self) -> Vec<Block> {
        let inner = self.lock();
        let mut blocks = inner.books.blocks();
        blocks.retain(|block| self.first_overwritten(block).is_some());
        blocks
    }

    /// Whether an address lies in the arena.
    pub fn contains(&self, pointer: *const u8) -> bool {
        (pointer.addr() as u64).wrapping_sub(self.first()) < self.size
    }

    fn first(&self) -> u64 {
        self.start.addr().get() as u64
    }

    /// A pointer to a block of the arena.
    fn pointer(&self, address: u64) -> NonNull<u8> {
        // SAFETY: the books give out addresses of the backing's memory only.
        unsafe { self.start.add((address - self.first()) as usize) }
    }

    /// The block that begins at an address, if its guard is whole.
    fn inspect(&self, inner: &Inner<B>, address: u64) -> Result<Block, FreeError> {
        let block = inner.books.block(address)?;
        match self.first_overwritten(&block) {
            Some(at) => Err(FreeError::Corrupted { address, requested: block.requested, at }),
            None => Ok(block),
        }
    }

    fn put_guard(&self, block: &Block) {
        if self.guard > 0 {
            let behind = self.pointer(block.address + block.requested);
            // SAFETY: the block's own bytes behind what was requested, which nobody may use.
            unsafe { behind.write_bytes(GUARD, block.padding() as usize) };
        }
    }

    /// The first address of a block's guard that something has written to.
    fn first_overwritten(&self, block: &Block) -> Option<u64> {
        if self.guard == 0 {
            return None;
        }
        let guard = block.address + block.requested..block.end();
        guard.into_iter().find(|&at| {
            // SAFETY: a byte of the block, initialised by `put_guard`.
            let byte = unsafe { self.pointer(at).read_volatile() };
            byte != GUARD
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<B>> {
        // An observer that panicked has done so after the books were done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Panics when the books contradict themselves.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.lock().books.check();
    }
}
