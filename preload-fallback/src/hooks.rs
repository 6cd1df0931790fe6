//! The functions that the program calls instead of the allocator's.
//!
//! A free is recorded before the real call, an allocation after it: then the merged order of all threads is one that
//! could have been. A call that failed is an allocation at address 0.

use crate::record::{Call, Entry, call};
use crate::x86_64::entry;
use crate::{resolve, segment};
use core::ffi::{c_int, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use memfrag_common::loss::Counter;
use memfrag_common::{Function, Kind};

entry! {
    malloc => hooked_malloc, "rsi", "rdx";
    calloc => hooked_calloc, "rdx", "rcx";
    realloc => hooked_realloc, "rdx", "rcx";
    reallocarray => hooked_reallocarray, "rcx", "r8";
    memalign => hooked_memalign, "rdx", "rcx";
    aligned_alloc => hooked_aligned_alloc, "rdx", "rcx";
    posix_memalign => hooked_posix_memalign, "rcx", "r8";
    valloc => hooked_valloc, "rsi", "rdx";
    pvalloc => hooked_pvalloc, "rsi", "rdx";
    free => hooked_free, "rsi", "rdx";
    cfree => hooked_cfree, "rsi", "rdx";
    free_sized => hooked_free_sized, "rdx", "rcx";
    free_aligned_sized => hooked_free_aligned_sized, "rcx", "r8";
}

type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
type Malloc2 = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type PosixMemalign = unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int;
type Free = unsafe extern "C" fn(*mut c_void);

/// A function behind this library, looked up when it is first called.
struct Real {
    name: &'static [u8],
    at: AtomicPtr<c_void>,
}

impl Real {
    const fn new(name: &'static [u8]) -> Self {
        Self { name, at: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline(always)]
    fn get(&self) -> *mut c_void {
        let at = self.at.load(Relaxed);
        if at.is_null() { self.look_up() } else { at }
    }

    /// A program that calls a function which nobody else defines could not have run without this library.
    #[cold]
    #[inline(never)]
    fn look_up(&self) -> *mut c_void {
        segment::first();
        let found = resolve::next(self.name);
        if found.is_null() {
            crate::sys::abort(b"memfrag: the program called an allocator function that does not exist\n");
        }
        self.at.store(found, Relaxed);
        found
    }
}

static MALLOC: Real = Real::new(b"malloc");
static CALLOC: Real = Real::new(b"calloc");
static REALLOC: Real = Real::new(b"realloc");
static MEMALIGN: Real = Real::new(b"memalign");
static ALIGNED_ALLOC: Real = Real::new(b"aligned_alloc");
static POSIX_MEMALIGN: Real = Real::new(b"posix_memalign");
static VALLOC: Real = Real::new(b"valloc");
static PVALLOC: Real = Real::new(b"pvalloc");
static FREE: Real = Real::new(b"free");

/// The real function as a pointer of its type.
macro_rules! real {
    ($real:ident as $type:ty) => {{
        let at = $real.get();
        // SAFETY: the symbol's type is fixed by the C library's interface.
        unsafe { mem::transmute::<*mut c_void, $type>(at) }
    }};
}

/// Where an allocator lies that calls its own public functions. Calls from there are part of the outer call. The C
/// library's allocator never does; and what else libc allocates, it allocates for its caller.
static INNER_START: AtomicUsize = AtomicUsize::new(0);
static INNER_END: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Whether a call comes from within the real allocator.
#[inline(always)]
fn inner(entry: Entry) -> bool {
    let (site, start) = (entry.site() as usize, INNER_START.load(Relaxed));
    if start == 0 {
        find_inner();
    }
    if start > 1 && site >= start && site < INNER_END.load(Relaxed) {
        crate::process::count(Counter::Nested, 1);
        return true;
    }
    false
}

#[cold]
#[inline(never)]
fn find_inner() {
    let malloc = MALLOC.get();
    // libc is told from other allocators by what only it has.
    let (start, end) = if resolve::neighbour(malloc, b"gnu_get_libc_version") || resolve::neighbour(malloc, b"fork") {
        (1, 1)
    } else {
        resolve::span(malloc)
    };
    INNER_END.store(end, Relaxed);
    INNER_START.store(start.max(1), Relaxed);
}

fn log2(alignment: usize) -> u8 {
    alignment.checked_ilog2().unwrap_or(0) as u8
}

#[inline(always)]
fn allocated(function: Function, align_log2: u8, block: *mut c_void, size: usize, entry: Entry) {
    if !inner(entry) {
        segment::after_allocation(block, size, entry);
        call(Call { kind: Kind::Alloc, function, align_log2, addr: block as u64, size: size as u64 }, entry);
    }
}

#[inline(always)]
fn freed(function: Function, block: *mut c_void, size: usize, entry: Entry) {
    if !block.is_null() && !inner(entry) {
        call(Call { kind: Kind::Free, function, align_log2: 0, addr: block as u64, size: size as u64 }, entry);
    }
}

unsafe extern "C" fn hooked_malloc(size: usize, entry: Entry) -> *mut c_void {
    let real = real!(MALLOC as Malloc);
    // SAFETY: the program's own call, handed on.
    let block = unsafe { real(size) };
    allocated(Function::Malloc, 0, block, size, entry);
    block
}

unsafe extern "C" fn hooked_calloc(count: usize, size: usize, entry: Entry) -> *mut c_void {
    let real = real!(CALLOC as Malloc2);
    // SAFETY: the program's own call, handed on.
    let block = unsafe { real(count, size) };
    allocated(Function::Calloc, 0, block, count.saturating_mul(size), entry);
    block
}

/// `realloc` and `reallocarray`, between its two records.
#[inline(always)]
fn reallocated(
    function: Function,
    old: *mut c_void,
    size: usize,
    entry: Entry,
    real: impl FnOnce() -> *mut c_void,
) -> *mut c_void {
    if inner(entry) {
        return real();
    }
    let record = |kind: Kind, block: *mut c_void| {
        call(Call { kind, function, align_log2: 0, addr: block as u64, size: size as u64 }, entry);
    };
    record(Kind::ReallocBegin, old);
    let block = real();
    segment::after_allocation(block, size, entry);
    record(Kind::ReallocEnd, block);
    block
}

unsafe extern "C" fn hooked_realloc(old: *mut c_void, size: usize, entry: Entry) -> *mut c_void {
    let real = real!(REALLOC as Realloc);
    // SAFETY: the program's own call, handed on.
    reallocated(Function::Realloc, old, size, entry, || unsafe { real(old, size) })
}

/// C libraries define this through `realloc`; so does this one, to have one record of it.
unsafe extern "C" fn hooked_reallocarray(old: *mut c_void, count: usize, size: usize, entry: Entry) -> *mut c_void {
    let real = real!(REALLOC as Realloc);
    let total = count.checked_mul(size);
    reallocated(Function::Reallocarray, old, total.unwrap_or(usize::MAX), entry, || {
        // A size that `realloc` refuses sets `errno` as the overflow should.
        // SAFETY: the program's own call, handed on.
        unsafe { real(old, total.unwrap_or(usize::MAX)) }
    })
}

unsafe extern "C" fn hooked_memalign(alignment: usize, size: usize, entry: Entry) -> *mut c_void {
    let real = real!(MEMALIGN as Malloc2);
    // SAFETY: the program's own call, handed on.
    let block = unsafe { real(alignment, size) };
    allocated(Function::Memalign, log2(alignment), block, size, entry);
    block
}

unsafe extern "C" fn hooked_aligned_alloc(alignment: usize, size: usize, entry: Entry) -> *mut c_void {
    let real = real!(ALIGNED_ALLOC as Malloc2);
    // SAFETY: the program's own call, handed on.
    let block = unsafe { real(alignment, size) };
    allocated(Function::AlignedAlloc, log2(alignment), block, size, entry);
    block
}

unsafe extern "C" fn hooked_posix_memalign(
    out: *mut *mut c_void,
    alignment: usize,
    size: usize,
    entry: Entry,
) -> c_int {
    let real = real!(POSIX_MEMALIGN as PosixMemalign);
    // SAFETY: the program's own call, handed on.
    let result = unsafe { real(out, alignment, size) };
    // SAFETY: on success the function has written the block there.
    let block = if result == 0 { unsafe { *out } } else { ptr::null_mut() };
    allocated(Function::PosixMemalign, log2(alignment), block, size, entry);
    result
}

unsafe extern "C" fn hooked_valloc(size: usize, entry: Entry) -> *mut c_void {
    let real = real!(VALLOC as Malloc);
    // SAFETY: the program's own call, handed on.
    let block = unsafe { real(size) };
    allocated(Function::Valloc, 0, block, size, entry);
    block
}

unsafe extern "C" fn hooked_pvalloc(size: usize, entry: Entry) -> *mut c_void {
    let real = real!(PVALLOC as Malloc);
    // SAFETY: the program's own call, handed on.
    let block = unsafe { real(size) };
    allocated(Function::Pvalloc, 0, block, size, entry);
    block
}

unsafe extern "C" fn hooked_free(block: *mut c_void, entry: Entry) {
    freed(Function::Free, block, 0, entry);
    let real = real!(FREE as Free);
    // SAFETY: the program's own call, handed on.
    unsafe { real(block) };
    segment::after_free(entry);
}

/// Gone from most C libraries, but old programs still ask for it; it has always been `free`.
unsafe extern "C" fn hooked_cfree(block: *mut c_void, entry: Entry) {
    freed(Function::Cfree, block, 0, entry);
    let real = real!(FREE as Free);
    // SAFETY: the program's own call, handed on.
    unsafe { real(block) };
    segment::after_free(entry);
}

/// C23 allows this to be `free`, which older C libraries lack under this name.
unsafe extern "C" fn hooked_free_sized(block: *mut c_void, size: usize, entry: Entry) {
    freed(Function::FreeSized, block, size, entry);
    let real = real!(FREE as Free);
    // SAFETY: the program's own call, handed on.
    unsafe { real(block) };
    segment::after_free(entry);
}

/// As [`hooked_free_sized`].
unsafe extern "C" fn hooked_free_aligned_sized(block: *mut c_void, _: usize, size: usize, entry: Entry) {
    freed(Function::FreeAlignedSized, block, size, entry);
    let real = real!(FREE as Free);
    // SAFETY: the program's own call, handed on.
    unsafe { real(block) };
    segment::after_free(entry);
}
