//! How to leave the frame of a function, remembered by return address.
//!
//! The rule for a return address is looked for once, in the call frame information of the file that holds it, which is
//! in memory with the file's code: so libraries that are loaded later need nothing, and nothing is compiled in
//! advance. A file whose code is on a thread's stack is not unloaded meanwhile.

use crate::record::Entry;
use crate::x86_64::entry;
use crate::{resolve, sys};
use core::ffi::{c_int, c_void};
use core::mem;
use core::ptr;
use core::slice;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use memfrag_common::unwind::{Rule, cfi, elf};

/// Places in the memory of rules, a power of two.
const PLACES: usize = 1 << PLACES_LOG2;
const PLACES_LOG2: u32 = 15;

/// A remembered rule. Both words are written without a lock: one that does not belong to the other fits no address.
#[repr(C)]
struct Place {
    /// The mixed address, with the rule.
    check: AtomicU64,
    rule: AtomicU64,
}

/// [`PLACES`], mapped once.
static KNOWN: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

/// Counts what may have made remembered rules untrue.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The C library's function that finds a loaded object by address without a lock (glibc 2.35), [`ABSENT`] when it
/// has none.
static FIND_OBJECT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
const ABSENT: usize = 1;

/// Where the kernel has put the program's own program headers, and how many there are.
static HEADERS_AT: AtomicU64 = AtomicU64::new(0);
static HEADERS_COUNT: AtomicU64 = AtomicU64::new(0);
const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;

entry! {
    dlclose => hooked_dlclose, "rsi", "rdx";
}

/// What is loaded next may lie where this library was.
unsafe extern "C" fn hooked_dlclose(handle: *mut c_void, _: Entry) -> c_int {
    let real = resolve::next(b"dlclose");
    // SAFETY: the symbol's type is fixed by the C library's interface; a program that calls it has it.
    let real = unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(real) };
    // SAFETY: the program's own call, handed on.
    let result = unsafe { real(handle) };
    GENERATION.fetch_add(1, Release);
    result
}

/// Gets ready to find rules.
pub(crate) fn begin() {
    if KNOWN.load(Relaxed).is_null()
        && let Some(places) = sys::map_private(PLACES * size_of::<Place>())
    {
        KNOWN.store(places.cast(), Release);
    }
    if FIND_OBJECT.load(Relaxed).is_null() {
        let found = resolve::next(b"_dl_find_object");
        FIND_OBJECT.store(if found.is_null() { ptr::without_provenance_mut(ABSENT) } else { found }, Release);
        find_headers();
    }
}

fn find_headers() {
    let Some(file) = sys::File::open(b"/proc/self/auxv\0", sys::flags::READ) else { return };
    let mut words = [0u64; 128];
    // SAFETY: a buffer of this length.
    let got = unsafe { file.read(words.as_mut_ptr().cast(), size_of_val(&words)) } / 8;
    file.close();
    for pair in words.get(..got).unwrap_or(&[]).chunks_exact(2) {
        match *pair {
            [AT_PHDR, at] => HEADERS_AT.store(at, Relaxed),
            [AT_PHNUM, count] => HEADERS_COUNT.store(count, Relaxed),
            _ => {}
        }
    }
}

/// For which rules what a walk remembers holds.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Acquire)
}

/// The rule for a call that returns to `pc`.
#[inline(always)]
pub(crate) fn of(pc: u64) -> Option<Rule> {
    let generation = u64::from(GENERATION.load(Relaxed));
    // Different addresses stay different, but differ in every bit.
    let mixed = (pc ^ generation << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let places = KNOWN.load(Relaxed);
    if places.is_null() {
        return None;
    }
    // SAFETY: the index is below the number of places.
    let place = unsafe { places.add((mixed >> (64 - PLACES_LOG2)) as usize) };
    // SAFETY: mapped for good, all of it atomic, and zero is valid.
    let place = unsafe { &*place };
    let rule = place.rule.load(Relaxed);
    if place.check.load(Relaxed) == mixed ^ rule
        && let Some(rule) = Rule::unpack(rule)
    {
        return Some(rule);
    }
    look_up(pc, mixed, place)
}

/// What has no rule is not remembered: something else may be loaded there later.
#[cold]
#[inline(never)]
fn look_up(pc: u64, mixed: u64, place: &Place) -> Option<Rule> {
    let (section, header) = information(pc)?;
    let rule = cfi::rule(&section, header, pc)?;
    if let Some(packed) = rule.pack() {
        place.rule.store(packed, Relaxed);
        place.check.store(mixed ^ packed, Relaxed);
    }
    Some(rule)
}

/// glibc's `struct dl_find_object`, with its reserved words.
#[repr(C)]
#[derive(Default)]
struct Object {
    flags: u64,
    start: u64,
    end: u64,
    map: u64,
    header: u64,
    reserved: [u64; 11],
}

/// The call frame information of the file whose code holds an address, and where its header lies.
fn information(pc: u64) -> Option<(cfi::Section<'static>, u64)> {
    let find = FIND_OBJECT.load(Acquire);
    if find.is_null() || find.addr() == ABSENT {
        return None;
    }
    // SAFETY: the function's type is fixed by the C library's interface.
    let find = unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn(u64, *mut Object) -> c_int>(find) };
    let mut object = Object::default();
    // SAFETY: writes a structure that is no larger than this one.
    if unsafe { find(pc - 1, &raw mut object) } != 0 || object.header == 0 || object.map == 0 {
        return None;
    }
    // SAFETY: the object that holds a function on this thread's stack is mapped from its start to its end and stays.
    let bytes = unsafe { segment(&object) }?;
    Some((cfi::Section::new(bytes, bytes.as_ptr() as u64), object.header))
}

/// The bytes of a page that a file's headers lie in, and those of a program header.
const PAGE: usize = 4096;
const HEADER: usize = 56;

/// The bytes of the loaded segment that holds an object's header.
///
/// # Safety
///
/// The linker has told of the object, which stays mapped as long as the bytes are used.
unsafe fn segment(object: &Object) -> Option<&'static [u8]> {
    // SAFETY: a mapped range is at least a page.
    let first = unsafe { slice::from_raw_parts(ptr::with_exposed_provenance::<u8>(object.start as usize), PAGE) };
    let table = if let Some(place) = elf::program_headers(first) {
        first.get(place)?
    } else {
        // A program whose segments lie apart, of which the linker tells the one with the code.
        let (at, count) = (HEADERS_AT.load(Relaxed) as usize, HEADERS_COUNT.load(Relaxed) as usize);
        if at == 0 || count > PAGE / HEADER {
            return None;
        }
        // SAFETY: where the kernel says that it has put them, and so many.
        unsafe { slice::from_raw_parts(ptr::with_exposed_provenance::<u8>(at), count * HEADER) }
    };
    // SAFETY: the linker's entry of a loaded object, which begins with how far the file was moved.
    let bias = unsafe { *ptr::with_exposed_provenance::<u64>(object.map as usize) };
    let segment = elf::segments(table)
        .find(|segment| segment.kind == elf::LOAD && segment.holds(object.header.wrapping_sub(bias)))?;
    let begin = ptr::with_exposed_provenance::<u8>(bias.wrapping_add(segment.address) as usize);
    // SAFETY: as the caller promises: the segment is mapped as the file's own headers say.
    Some(unsafe { slice::from_raw_parts(begin, usize::try_from(segment.bytes).ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_once_and_then_remembered() {
        begin();
        if FIND_OBJECT.load(Relaxed).addr() == ABSENT {
            // Without the linker's list there is nothing to find it by: as in a static test.
            return;
        }
        let pc = a_rule_is_found_once_and_then_remembered as *const () as u64 + 1;
        let rule = of(pc).expect("this test can be unwound");
        assert_eq!(of(pc), Some(rule));
        assert_eq!(of(0x1000), None);
    }
}
