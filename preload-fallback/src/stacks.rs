//! The stack of a call, as far as it is to be recorded.
//!
//! The thread walks its own stack, from the hook's caller upwards and never beyond the stack's end, and looks new
//! frames up in the session's table. Where it is not on the stack that it began with (a signal handler's, a
//! coroutine's), nothing is known of what may be read, and only the caller is recorded.

use crate::process::count;
use crate::record::{Entry, Thread};
use crate::{rules, sys, x86_64};
use core::cell::Cell;
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32};
use memfrag_common::loss::Counter;
use memfrag_common::session::Stacks;
use memfrag_common::stacks::Table;
use memfrag_common::unwind::walk::{Walk, Walked};
use memfrag_common::unwind::{Memory, Rule};

/// A [`Stacks`].
static MODE: AtomicU32 = AtomicU32::new(Stacks::Caller as u32);
/// The session's table, mapped once and inherited.
static TABLE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// Below the end of the main thread's stack, so many bytes are its own and nobody else's: the kernel maps nothing
/// there by itself.
const MAIN_STACK: u64 = 128 << 20;

/// Bounds that contain nothing.
const NOWHERE: (u64, u64) = (1, 1);

/// A thread's stack. All zero bytes are a valid value.
#[derive(Debug)]
pub(crate) struct Stack {
    /// What is remembered of the last walk, in the thread's ring.
    walk: Cell<*const Walk>,
    /// From where to where it is this thread's, 0 when not yet known.
    low: Cell<u64>,
    high: Cell<u64>,
}

impl Default for Stack {
    fn default() -> Self {
        Self { walk: Cell::new(ptr::null()), low: Cell::new(0), high: Cell::new(0) }
    }
}

impl Stack {
    /// Gives the thread a place for what it remembers.
    ///
    /// # Safety
    ///
    /// `walk` points to a `Walk` that is this thread's alone as long as it keeps its ring.
    pub(crate) unsafe fn attach(&self, walk: *const Walk) {
        self.walk.set(walk);
        self.low.set(0);
        if full() {
            // SAFETY: as the caller promises.
            unsafe { &*walk }.forget();
        }
    }
}

/// What may be read of a stack: from the frame of the call to the end.
struct Readable {
    low: u64,
    high: u64,
}

impl Memory for Readable {
    #[inline(always)]
    fn word(&self, address: u64) -> Option<u64> {
        if address & 7 != 0 || address < self.low || address >= self.high {
            return None;
        }
        // SAFETY: an aligned word of this thread's own stack, between its stack pointer and the stack's end.
        Some(unsafe { ptr::with_exposed_provenance::<u64>(address as usize).read_volatile() })
    }
}

/// Learns what is to be recorded, and maps the table if there is to be one.
pub(crate) fn begin(mode: u32, map: impl FnOnce() -> Option<*mut u8>) {
    if mode == Stacks::FramePointers as u32 || mode == Stacks::Dwarf as u32 {
        if TABLE.load(Relaxed).is_null() {
            let Some(table) = map() else { return };
            TABLE.store(table, Release);
        }
        if mode == Stacks::Dwarf as u32 {
            rules::begin();
        }
    }
    MODE.store(mode, Release);
}

fn full() -> bool {
    MODE.load(Relaxed) > Stacks::Caller as u32
}

/// Who called, if that is to be recorded.
#[inline(always)]
pub(crate) fn site(entry: Entry) -> u64 {
    if MODE.load(Relaxed) == Stacks::None as u32 { 0 } else { entry.site() }
}

/// Who called, and the number of the stack.
#[inline(always)]
pub(crate) fn of(thread: &Thread, entry: Entry) -> (u64, u32) {
    match MODE.load(Relaxed) {
        mode if mode == Stacks::Caller as u32 => (entry.site(), 0),
        mode if mode == Stacks::None as u32 => (0, 0),
        _ => (entry.site(), number(thread, entry)),
    }
}

#[inline(never)]
fn number(thread: &Thread, entry: Entry) -> u32 {
    let start = entry.caller();
    let stack = &thread.stack;
    if stack.low.get() == 0 {
        find_bounds(stack, start.sp);
    }
    if start.sp < stack.low.get() || start.sp >= stack.high.get() {
        count(Counter::StackLost, 1);
        return 0;
    }
    // SAFETY: a thread that records has a ring, and with it this; the mapping stays as long as the process.
    let walk = unsafe { &*stack.walk.get() };
    // SAFETY: mapped before the mode was set, as long as a table is, and never given back.
    let table = unsafe { Table::at(TABLE.load(Acquire)) };
    let memory = Readable { low: start.sp, high: stack.high.get() };
    let walked = if MODE.load(Relaxed) == Stacks::FramePointers as u32 {
        walk.number(start, 0, &memory, |_| Some(Rule::FRAME_POINTER), &table)
    } else {
        walk.number(start, rules::generation(), &memory, rules::of, &table)
    };
    if walked.number == 0 || walked.cut {
        tell(walked);
    }
    walked.number
}

#[cold]
fn tell(walked: Walked) {
    count(if walked.number == 0 { Counter::StackLost } else { Counter::StackCut }, 1);
}

/// Finds out where the thread's stack begins and ends, unless it is on another one just now.
#[cold]
#[inline(never)]
fn find_bounds(stack: &Stack, sp: u64) {
    if sys::on_alternate_stack() {
        return;
    }
    let (low, high) = bounds(sp).unwrap_or(NOWHERE);
    stack.high.set(high);
    stack.low.set(low);
}

fn bounds(sp: u64) -> Option<(u64, u64)> {
    let mapping = mapping(sp)?;
    if mapping.is_main_stack {
        return Some((mapping.end.saturating_sub(MAIN_STACK), mapping.end));
    }
    // Behind the stack may lie what is not the thread's, and goes away before it does.
    let thread_pointer = x86_64::thread_pointer();
    let own = (sp..mapping.end).contains(&thread_pointer);
    own.then_some((mapping.start, thread_pointer & !7))
}

/// A line of `/proc/self/maps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    is_main_stack: bool,
}

/// The mapping that holds an address.
fn mapping(address: u64) -> Option<Mapping> {
    let file = sys::File::open(b"/proc/self/maps\0", sys::flags::READ)?;
    let mut lines = Lines::default();
    let mut found = None;
    let mut buffer = [0u8; 512];
    while found.is_none() {
        // SAFETY: a buffer of this length.
        let got = unsafe { file.read(buffer.as_mut_ptr(), buffer.len()) };
        let Some(bytes) = buffer.get(..got).filter(|bytes| !bytes.is_empty()) else { break };
        found =
            bytes.iter().filter_map(|&byte| lines.next(byte)).find(|line| (line.start..line.end).contains(&address));
    }
    file.close();
    found
}

/// Takes the text of mappings byte by byte.
#[derive(Debug, Default)]
struct Lines {
    line: Mapping,
    /// Which word of the line it is at; spaces in a path count as well.
    word: u32,
    /// How much of the name of the main stack the last word is.
    matched: usize,
    is_apart: bool,
}

impl Lines {
    const NAME: &'static [u8] = b"[stack]";

    /// The line that a byte ends.
    fn next(&mut self, byte: u8) -> Option<Mapping> {
        match byte {
            b'\n' => {
                let mut line = self.line;
                line.is_main_stack = self.word == 6 && self.matched == Self::NAME.len();
                *self = Self::default();
                return Some(line);
            }
            b' ' => self.is_apart = true,
            byte => {
                if self.is_apart || self.word == 0 {
                    self.word += 1;
                    self.is_apart = false;
                    self.matched = 0;
                }
                self.byte(byte);
            }
        }
        None
    }

    fn byte(&mut self, byte: u8) {
        match (self.word, byte) {
            // Two numbers with a hyphen between: the second is collected where the first one was.
            (1, b'-') => self.line.start = core::mem::take(&mut self.line.end),
            (1, digit) => {
                let digit = char::from(digit).to_digit(16).unwrap_or(0);
                self.line.end = self.line.end << 4 | u64::from(digit);
            }
            (6, byte) if Self::NAME.get(self.matched) == Some(&byte) => self.matched += 1,
            _ => self.matched = usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mappings_are_taken_apart() {
        let text = b"00400000-0040b000 r-xp 00000000 08:02 135 /usr/bin/a [stack]\n\
            7f0000001000-7f0000002000 rw-p 00000000 00:00 0 \n\
            7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n\
            7ffc00100000-7ffc00121000 rw-p 00000000 00:00 0                          [stack]x\n";
        let mut lines = Lines::default();
        let found: Vec<Mapping> = text.iter().filter_map(|&byte| lines.next(byte)).collect();
        let line = |start, end, is_main_stack| Mapping { start, end, is_main_stack };
        assert_eq!(
            found,
            [
                line(0x40_0000, 0x40_b000, false),
                line(0x7f00_0000_1000, 0x7f00_0000_2000, false),
                line(0x7ffc_0000_0000, 0x7ffc_0002_1000, true),
                line(0x7ffc_0010_0000, 0x7ffc_0012_1000, false),
            ]
        );
    }

    #[test]
    fn a_thread_finds_its_own_stack() {
        let check = || {
            let here = 0u64;
            let at = (&raw const here) as u64;
            let (low, high) = bounds(at).expect("a thread has a stack");
            assert!((low..high).contains(&at) && high - low <= MAIN_STACK, "{low:#x} {at:#x} {high:#x}");
            assert!(
                high % 8 == 0 && mapping(high - 8).is_some_and(|mapping| (mapping.start..mapping.end).contains(&at))
            );
        };
        check();
        std::thread::scope(|scope| {
            (0..4).for_each(|_| {
                scope.spawn(check);
            });
        });
    }
}
