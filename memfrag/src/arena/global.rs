//! An arena as the allocator of a whole program.

use super::arena::{Arena, Observer};
use super::backing::Mapped;
use super::block::Tag;
use super::state::{Figures, State};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

thread_local! {
    /// What this thread allocates comes from the system's allocator.
    static OUTSIDE: Cell<bool> = const { Cell::new(false) };
    /// This thread is inside the arena, whose lock it may hold.
    static BUSY: Cell<bool> = const { Cell::new(false) };
    /// What blocks that this thread allocates are for.
    static TAG: Cell<Tag> = const { Cell::new("") };
    /// Blocks of the arena that were freed while this thread was inside, each pointing to the next.
    static LATE: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// Sets a thread's word until it is dropped.
struct During<T: Copy + 'static> {
    word: &'static std::thread::LocalKey<Cell<T>>,
    before: T,
}

impl<T: Copy + 'static> During<T> {
    fn set(word: &'static std::thread::LocalKey<Cell<T>>, value: T) -> Self {
        Self { word, before: word.replace(value) }
    }
}

impl<T: Copy + 'static> Drop for During<T> {
    fn drop(&mut self) {
        self.word.set(self.before);
    }
}

/// An [`Arena`] that a program can name as its `#[global_allocator]`; it is mapped at the first allocation.
///
/// What an observer of it allocates, and what is allocated within [`GlobalArena::outside`], comes from the system's
/// allocator. Each block goes back to where it came from, whoever frees it and when. When the arena is full, allocations
/// fail as they do when a system has no memory.
///
/// ```
/// use memfrag::arena::GlobalArena;
///
/// #[global_allocator]
/// static ARENA: GlobalArena = GlobalArena::new(64 << 20);
///
/// let words = GlobalArena::tagged("words", || vec!["a program", "in an arena"]);
/// let state = ARENA.state().expect("it is mapped");
/// assert_eq!(state.block_at(words.as_ptr() as u64).unwrap().tag, "words");
/// ```
pub struct GlobalArena {
    capacity: usize,
    arena: OnceLock<Option<Arena<Mapped>>>,
}

impl fmt::Debug for GlobalArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalArena").field("capacity", &self.capacity).field("arena", &self.arena.get()).finish()
    }
}

impl GlobalArena {
    /// An arena that will have so many bytes, rounded up to whole pages.
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, arena: OnceLock::new() }
    }

    /// Has every event told to `observer` from now on, on the thread that it happens on and before that thread goes on.
    /// `None` ends that. No other thread gets or frees a block meanwhile, so the observer must not wait for one that may.
    pub fn observe(&self, observer: Option<Observer>) {
        let _outside = During::set(&OUTSIDE, true);
        let before = self.arena().map(|arena| self.inside(|| arena.observe(observer)));
        drop(before);
    }

    /// The sums; `None` when the system has given no memory for the arena.
    pub fn figures(&self) -> Option<Figures> {
        let arena = self.arena()?;
        Some(self.inside(|| arena.figures()))
    }

    /// All blocks and holes; `None` as for [`GlobalArena::figures`]. The lists themselves are not in the arena.
    pub fn state(&self) -> Option<State> {
        let arena = self.arena()?;
        Some(self.inside(|| arena.state()))
    }

    /// What this thread allocates while `work` runs gets this tag.
    pub fn tagged<T>(tag: Tag, work: impl FnOnce() -> T) -> T {
        let _tag = During::set(&TAG, tag);
        work()
    }

    /// What this thread allocates while `work` runs comes from the system's allocator, and is not observed.
    pub fn outside<T>(work: impl FnOnce() -> T) -> T {
        let _outside = During::set(&OUTSIDE, true);
        work()
    }

    fn arena(&self) -> Option<&Arena<Mapped>> {
        // To map it allocates nothing.
        self.arena.get_or_init(|| Arena::new(self.capacity).ok()).as_ref()
    }

    /// Runs what may take the arena's lock and call its observer, then frees what that has freed.
    fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        let result = {
            let _busy = During::set(&BUSY, true);
            work()
        };
        while let Some(block) = NonNull::new(LATE.get()) {
            // SAFETY: a dead block of at least 16 bytes, into which `dealloc` has written the next one's address.
            LATE.set(unsafe { block.cast::<*mut u8>().read() });
            let _busy = During::set(&BUSY, true);
            if let Some(arena) = self.arena() {
                // SAFETY: whoever freed it has given it up. A refusal is counted by the arena.
                let _ = unsafe { arena.deallocate(block) };
            }
        }
        result
    }

    /// The arena, when a pointer is into it.
    fn owner(&self, pointer: *mut u8) -> Option<&Arena<Mapped>> {
        self.arena.get()?.as_ref().filter(|arena| arena.contains(pointer))
    }
}

// SAFETY: blocks come from the arena or from the system's allocator, both of which keep the promises, and go back to
// where their address says that they came from. Nothing here unwinds or allocates by itself.
unsafe impl GlobalAlloc for GlobalArena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if OUTSIDE.get() || BUSY.get() {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let Some(arena) = self.arena() else { return ptr::null_mut() };
        let block = self.inside(|| arena.allocate(layout.size(), layout.align(), TAG.get()));
        block.map_or(ptr::null_mut(), |block| block.as_ptr().cast())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (Some(arena), Some(block)) = (self.owner(block), NonNull::new(block)) else {
            // SAFETY: the caller's promise: what is not the arena's came from the system.
            return unsafe { System.dealloc(block, layout) };
        };
        if BUSY.get() {
            // SAFETY: the caller gives up a block of at least 16 bytes, aligned to 16.
            unsafe { block.cast::<*mut u8>().write(LATE.get()) };
            LATE.set(block.as_ptr());
            return;
        }
        // SAFETY: the caller's promise. A refusal is counted by the arena.
        let _ = self.inside(|| unsafe { arena.deallocate_as(block, Some(layout)) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (Some(arena), Some(old)) = (self.owner(block), NonNull::new(block)) else {
            // SAFETY: as in `dealloc`.
            return unsafe { System.realloc(block, layout, size) };
        };
        if !BUSY.get() {
            // SAFETY: the caller's promise.
            let resized = self.inside(|| unsafe { arena.resize(old, size) });
            return resized.map_or(ptr::null_mut(), |block| block.as_ptr().cast());
        }
        // SAFETY: the caller promises that `size` is none that overflows.
        let fresh = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller promises that `size` is not 0.
        let fresh = unsafe { System.alloc(fresh) };
        if !fresh.is_null() {
            // SAFETY: both have at least so many bytes, and the new one is nobody else's.
            unsafe { block.copy_to_nonoverlapping(fresh, size.min(layout.size())) };
            // SAFETY: the caller gives it up.
            unsafe { self.dealloc(block, layout) };
        }
        fresh
    }
}
