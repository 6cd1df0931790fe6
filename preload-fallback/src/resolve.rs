//! Finding the real functions: what `dlsym(RTLD_NEXT, …)` would answer.
//!
//! `dlsym` itself allocates, leaves a message for `dlerror` when a symbol does not exist, and is not to be called
//! before libc is ready or from a signal handler. So the list of loaded objects that the dynamic linker keeps for
//! debuggers is read instead, from this library on, in the order in which symbols are looked up. Nothing is called,
//! so there is no time at which this may not be done.

use crate::x86_64;
use core::ffi::{CStr, c_char, c_void};
use core::ptr;

/// The part of glibc's and musl's `struct link_map` that the interface for debuggers fixes.
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: *const [usize; 2],
    next: *const LinkMap,
}

/// The part of `struct r_debug` used here.
#[repr(C)]
struct Debug {
    version: i32,
    map: *const LinkMap,
}

const DT_HASH: usize = 4;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_GNU_HASH: usize = 0x6fff_fef5;
const DT_VERSYM: usize = 0x6fff_fff0;
const STT_TLS: u8 = 6;
const STT_IFUNC: u8 = 10;

/// A symbol of an ELF file.
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: usize,
}

/// One loaded object's tables.
struct Object {
    base: usize,
    strings: usize,
    symbols: usize,
    gnu_hash: usize,
    hash: usize,
    versions: usize,
}

/// The object that holds this library, null when the linker tells nothing.
fn own() -> *const LinkMap {
    let debug = x86_64::debug_state().cast::<Debug>();
    if debug.is_null() {
        return ptr::null();
    }
    // SAFETY: the linker's own structure, set up before any code of ours can run.
    let mut map = unsafe { (*debug).map };
    let dynamic = x86_64::own_dynamic();
    while !map.is_null() {
        // SAFETY: an entry of the linker's list. Entries go away only through `dlclose`, which does not take objects
        // that were there before this library was initialised.
        let entry = unsafe { &*map };
        if entry.dynamic.cast() == dynamic {
            break;
        }
        map = entry.next;
    }
    map
}

/// The path under which this library was loaded.
pub(crate) fn own_path() -> Option<&'static [u8]> {
    let map = own();
    if map.is_null() {
        return None;
    }
    // SAFETY: an entry of the linker's list; it stays, as this library cannot be unloaded.
    let name = unsafe { (*map).name };
    // SAFETY: the linker's names end with a zero byte.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_bytes())
}

/// The address of `name` in the first object behind this library that defines it, null when there is none.
pub(crate) fn next(name: &[u8]) -> *mut c_void {
    let map = own();
    if map.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: an entry of the linker's list.
    let mut map = unsafe { (*map).next };
    while !map.is_null() {
        // SAFETY: an entry of the linker's list.
        let entry = unsafe { &*map };
        if let Some(object) = Object::new(entry) {
            let found = object.find(name);
            if !found.is_null() {
                return found;
            }
        }
        map = entry.next;
    }
    ptr::null_mut()
}

impl Object {
    fn new(map: &LinkMap) -> Option<Self> {
        let mut object = Self { base: map.base, strings: 0, symbols: 0, gnu_hash: 0, hash: 0, versions: 0 };
        let mut entry = map.dynamic;
        if entry.is_null() {
            return None;
        }
        loop {
            // SAFETY: a dynamic section ends with a null tag.
            let [tag, value] = unsafe { *entry };
            // glibc relocates these addresses in place, other linkers do not.
            let address = if value < map.base { value.wrapping_add(map.base) } else { value };
            match tag {
                0 => break,
                DT_HASH => object.hash = address,
                DT_STRTAB => object.strings = address,
                DT_SYMTAB => object.symbols = address,
                DT_GNU_HASH => object.gnu_hash = address,
                DT_VERSYM => object.versions = address,
                _ => {}
            }
            // SAFETY: not yet at the end.
            entry = unsafe { entry.add(1) };
        }
        (object.strings != 0 && object.symbols != 0).then_some(object)
    }

    fn find(&self, name: &[u8]) -> *mut c_void {
        let mut hidden = ptr::null_mut();
        let mut visit = |index: usize| -> Option<*mut c_void> {
            let symbol = ptr::with_exposed_provenance::<Symbol>(self.symbols + index * size_of::<Symbol>());
            // SAFETY: the index comes from the object's own hash table.
            let symbol = unsafe { &*symbol };
            let kind = symbol.info & 15;
            if symbol.section == 0 || kind == STT_TLS || symbol.info >> 4 == 0 || !self.is_named(symbol, name) {
                return None;
            }
            let address: *mut c_void = ptr::with_exposed_provenance_mut(self.base.wrapping_add(symbol.value));
            if self.versions != 0 {
                // SAFETY: the table has an entry for each symbol.
                let version = unsafe { *ptr::with_exposed_provenance::<u16>(self.versions + index * 2) };
                if version & 0x8000 != 0 {
                    hidden = address;
                    return None;
                }
            }
            if kind == STT_IFUNC {
                // SAFETY: such a symbol's value is a function that returns the address.
                let resolver: extern "C" fn() -> *mut c_void = unsafe { core::mem::transmute(address) };
                return Some(resolver());
            }
            Some(address)
        };
        let found = if self.gnu_hash != 0 { self.by_gnu_hash(name, &mut visit) } else { self.by_hash(&mut visit) };
        // An old version of a symbol is taken where there is no current one, as `dlsym` does.
        found.unwrap_or(hidden)
    }

    fn by_gnu_hash<T>(&self, name: &[u8], visit: &mut impl FnMut(usize) -> Option<T>) -> Option<T> {
        let word = |at: usize| {
            // SAFETY: inside the table, as its own header describes it.
            unsafe { *ptr::with_exposed_provenance::<u32>(self.gnu_hash + at * 4) }
        };
        let hash = name.iter().fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)));
        let (buckets, first, bloom) = (word(0) as usize, word(1) as usize, word(2) as usize);
        if buckets == 0 {
            return None;
        }
        let table = 4 + bloom * 2;
        let mut index = word(table + hash as usize % buckets) as usize;
        if index < first {
            return None;
        }
        loop {
            let link = word(table + buckets + index - first);
            if link | 1 == hash | 1
                && let Some(found) = visit(index)
            {
                return Some(found);
            }
            if link & 1 != 0 {
                return None;
            }
            index += 1;
        }
    }

    fn by_hash<T>(&self, visit: &mut impl FnMut(usize) -> Option<T>) -> Option<T> {
        if self.hash == 0 {
            return None;
        }
        // SAFETY: the table's second word is the number of symbols.
        let symbols = unsafe { *ptr::with_exposed_provenance::<u32>(self.hash + 4) };
        (1..symbols as usize).find_map(visit)
    }

    fn is_named(&self, symbol: &Symbol, name: &[u8]) -> bool {
        let at = ptr::with_exposed_provenance::<c_char>(self.strings + symbol.name as usize);
        // SAFETY: an object's names end with zero bytes.
        unsafe { CStr::from_ptr(at) }.to_bytes() == name
    }
}

/// Whether the object that holds `address` defines `name`.
pub(crate) fn neighbour(address: *const c_void, name: &[u8]) -> bool {
    let (start, end) = span(address);
    let found = next(name) as usize;
    found != 0 && (start..end).contains(&found)
}

/// From the start of the object that holds `address` to the start of the next one above it in memory, as near as
/// the list of objects tells.
pub(crate) fn span(address: *const c_void) -> (usize, usize) {
    let address = address as usize;
    let (mut start, mut end) = (0, usize::MAX);
    let debug = x86_64::debug_state().cast::<Debug>();
    if debug.is_null() {
        return (0, 0);
    }
    // SAFETY: the linker's own structure, set up before any code of ours can run.
    let mut map = unsafe { (*debug).map };
    while !map.is_null() {
        // SAFETY: an entry of the linker's list.
        let entry = unsafe { &*map };
        if entry.base <= address && entry.base > start {
            start = entry.base;
        }
        if entry.base > address && entry.base < end {
            end = entry.base;
        }
        map = entry.next;
    }
    if start == 0 { (0, 0) } else { (start, end) }
}
