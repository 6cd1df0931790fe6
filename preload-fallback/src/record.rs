//! One record into the thread's ring; what to do when that is busy or full.

use crate::process::{self, Wait};
use crate::stacks::{self, Stack};
use crate::sys;
use crate::x86_64::{self, THREAD_BYTES};
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memfrag_common::loss::Counter;
use memfrag_common::packed::{WORDS, pack};
use memfrag_common::ring::{Producer, Refused, Uninterrupted};
use memfrag_common::unwind::Registers;
use memfrag_common::{Function, Kind, Record};

/// A thread's own state. All zero bytes are a valid value: the thread has no ring yet.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Thread {
    /// The process state's epoch plus one, where the ring is this thread's in this process.
    pub(crate) key: AtomicU64,
    /// The thread's id.
    pub(crate) tid: Cell<u32>,
    /// The number of its ring, which no other thread has at the same time; from 1.
    pub(crate) number: Cell<u16>,
    /// The thread is in `fork`, and holds its ring there.
    pub(crate) held: Cell<bool>,
    /// The last wait for room was in vain: the next are short.
    pub(crate) impatient: Cell<bool>,
    /// The last stamp, for how many more records it may serve, and the daemon's pass then.
    pub(crate) last_stamp: Cell<u64>,
    pub(crate) stamps_left: Cell<u64>,
    pub(crate) beat: Cell<u64>,
    /// The ring's end of this thread.
    pub(crate) ring: Producer,
    /// The thread's stack.
    pub(crate) stack: Stack,
}

const _: () = assert!(size_of::<Thread>() <= THREAD_BYTES && align_of::<Thread>() <= 64);

/// Where a hook was called from.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Entry {
    /// The stack pointer at the entry, where the return address lies.
    at: *const u64,
    /// The frame pointer, or whatever the caller keeps in its register.
    fp: u64,
}

impl Entry {
    /// The return address.
    #[inline(always)]
    pub(crate) fn site(self) -> u64 {
        // SAFETY: the hook's own return address, which stays where it is until the hook returns.
        unsafe { *self.at }
    }

    /// The stack pointer: a multiple of eight.
    #[inline(always)]
    pub(crate) fn frame(self) -> u64 {
        self.at as u64
    }

    /// The caller's registers as they are once the call has returned.
    #[inline(always)]
    pub(crate) fn caller(self) -> Registers {
        Registers { pc: self.site(), sp: self.frame() + 8, fp: self.fp }
    }
}

/// What a record says, but for who and when.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) function: Function,
    pub(crate) align_log2: u8,
    pub(crate) addr: u64,
    pub(crate) size: u64,
}

/// Records a call.
#[inline(always)]
pub(crate) fn call(call: Call, entry: Entry) {
    let thread = x86_64::thread();
    if thread.key.load(Relaxed) != process::state().epoch.load(Relaxed).wrapping_add(1) {
        unattached(thread, call, entry);
        return;
    }
    let (site, stack) = match call.kind {
        Kind::Alloc | Kind::ReallocEnd => stacks::of(thread, entry),
        _ => (stacks::site(entry), 0),
    };
    let record = Record {
        kind: call.kind as u8,
        function: call.function as u8,
        align_log2: call.align_log2,
        addr: call.addr,
        size: call.size,
        site,
        extra: stack,
        ..Record::default()
    };
    let Some(fields) = pack(&record) else { return give_up(thread) };
    let alone = process::alone_with(thread, call.addr);
    if let Err(refused) = thread.ring.push(entry.frame(), fields, || process::stamp_of(thread, alone)) {
        refused_once(thread, entry.frame(), fields, refused);
    }
}

#[cold]
#[inline(never)]
fn unattached(thread: &Thread, call: Call, entry: Entry) {
    if process::attach(thread) {
        self::call(call, entry);
    }
}

/// Records something that has no call site, by a thread that may have no ring yet.
#[cold]
pub(crate) fn event(kind: Kind, addr: u64, entry: Entry) {
    let thread = x86_64::thread();
    let attached = thread.key.load(Relaxed) == process::state().epoch.load(Relaxed).wrapping_add(1);
    if attached || process::attach(thread) {
        plain(thread, entry.frame(), kind, addr);
    }
}

/// Records something that has no call site. The thread has a ring.
pub(crate) fn plain(thread: &Thread, frame: u64, kind: Kind, addr: u64) {
    let Some(fields) = bare(thread, kind, addr, 0) else { return give_up(thread) };
    if let Err(refused) = thread.ring.push(frame, fields, || process::stamp_of(thread, false)) {
        refused_once(thread, frame, fields, refused);
    }
}

/// Records what was stamped before, while the ring has been held since.
pub(crate) fn held(thread: &Thread, frame: u64, kind: Kind, addr: u64, stamp: u64) {
    let Some(fields) = bare(thread, kind, addr, 0) else { return give_up(thread) };
    while thread.ring.push_nested(frame, fields, || stamp, &Uninterrupted).is_err() {
        if !make_room(thread) {
            return;
        }
        tell_loss(thread, frame);
    }
}

/// What no call of the allocator is. Those from which the daemon learns whose the ring is name the thread.
fn bare(thread: &Thread, kind: Kind, addr: u64, lost: u64) -> Option<[u64; WORDS - 1]> {
    let site = if matches!(kind, Kind::ThreadStart | Kind::Gap) { u64::from(thread.tid.get()) } else { 0 };
    pack(&Record { kind: kind as u8, addr, size: lost, site, ..Record::default() })
}

/// Counts a record that is not made, and sees to it that the next one is preceded by word of it.
#[cold]
#[inline(never)]
fn give_up(thread: &Thread) {
    process::count(Counter::Dropped, 1);
    thread.ring.give_up();
}

#[cold]
#[inline(never)]
fn refused_once(thread: &Thread, frame: u64, fields: [u64; WORDS - 1], refused: Refused) {
    let mut refused = refused;
    loop {
        let result = match refused {
            Refused::Busy(state) => {
                // The stack of a live call lies above this one's, or this is a signal handler on a stack of its own.
                if frame >= state & !7 && !sys::on_alternate_stack() {
                    process::count(Counter::Stale, 1);
                    thread.ring.heal();
                    thread.ring.push(frame, fields, || process::stamp_of(thread, false))
                } else {
                    thread.ring.push_nested(frame, fields, || process::stamp_of(thread, false), &Uninterrupted)
                }
            }
            Refused::Full => {
                if !make_room(thread) {
                    return;
                }
                tell_loss(thread, frame);
                thread.ring.push(frame, fields, || process::stamp_of(thread, false))
            }
        };
        match result {
            Ok(()) => return,
            Err(again) => refused = again,
        }
    }
}

/// Says how much was lost before, once there is room again.
fn tell_loss(thread: &Thread, frame: u64) {
    let lost = thread.ring.lost();
    if lost == 0 {
        return;
    }
    let Some(fields) = bare(thread, Kind::Gap, 0, lost) else { return };
    let told = match thread.ring.push(frame, fields, || process::stamp_of(thread, false)) {
        Err(Refused::Busy(_)) => {
            thread.ring.push_nested(frame, fields, || process::stamp_of(thread, false), &Uninterrupted)
        }
        other => other,
    };
    if told.is_ok() {
        thread.ring.take_lost();
        thread.impatient.set(false);
    }
}

/// Waits for room in the ring. `false` when the record is to be given up, which then has been counted.
fn make_room(thread: &Thread) -> bool {
    // A loss to tell needs a place of its own.
    let needed = if thread.ring.lost() == 0 { 1 } else { 2 };
    if thread.ring.refresh() >= needed {
        return true;
    }
    match process::wait(thread, needed) {
        Wait::Room => true,
        Wait::InVain => {
            thread.impatient.set(true);
            give_up(thread);
            false
        }
        Wait::Off => false,
    }
}
