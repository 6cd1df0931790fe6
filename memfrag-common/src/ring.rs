//! The ring through which one thread of a traced program hands its records to the daemon.
//!
//! One producer, one consumer, an array of slots in shared memory, each a [packed](crate::packed) record. The producer is a thread that may be
//! interrupted at any instruction by a signal handler that itself allocates, may be left for good by a `longjmp` out
//! of such a handler, and may be killed; the consumer is another process.
//!
//! # The producer
//!
//! A record is *staged* in the thread's own memory before it is copied to its slot and committed:
//!
//! 1. `state` ← frame | [`STAMPING`]; the stamp is taken and the record staged, its place still open;
//! 2. `state` ← frame | [`STAGED`];
//! 3. the place is settled: it becomes `head`, unless it is settled already;
//! 4. if `head` is at that place, the slot is written and `head` moved on, if it still is there;
//! 5. `state` ← 0.
//!
//! Settling and committing are single instructions, which is all that a thread's own handlers ask for. A handler that
//! finds a record staged first carries out steps 3 and 4 on the interrupted call's behalf, then pushes its own, puts
//! the stage back and returns. The interrupted call goes on, writes at most the same words to the same slot again, and
//! its commit finds `head` moved. So nothing is lost, doubled or held back, however deep handlers nest and whether or
//! not they ever return. (The one exception: a handler that interrupts step 4, publishes a whole ring's worth of
//! records and then returns, lets the interrupted call write once to a slot that has been given out anew.)
//!
//! The frame in `state` is the stack pointer of the outermost call: a call that finds the stack above it knows that
//! the old call is gone ([`Producer::heal`]).
//!
//! # Stamps
//!
//! A stamp is taken before the slot is committed, so an interrupting handler's later stamps may stand before it in the
//! ring. The consumer lifts a stamp to its predecessor's: a free not yet carried out and an allocation not yet
//! returned may be moved forward to any time before the call goes on.
//!
//! # The consumer's watermark
//!
//! Rings are merged by stamp. In a pass that begins at T the consumer reads each ring's `state`, then `head`. A ring
//! seen idle has published every stamp that it took before the store of `state` could be late, that is, up to the
//! beginning of the *previous* pass; a ring seen stamping has published all that are below its last stamp, and may
//! still publish one equal to it. The least of these is the watermark: no record at or below it can arrive any more.

use core::cell::Cell;
use core::ptr;
#[cfg(not(loom))]
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
#[cfg(loom)]
use loom::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::packed::WORDS;

/// In `state`: a stamp is being taken; nothing is staged.
pub const STAMPING: u64 = 1;
/// In `state`: a whole record is staged.
pub const STAGED: u64 = 2;

/// One record's place, as words that both sides read and write atomically.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub struct Slot {
    words: [AtomicU64; WORDS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 32);

impl Slot {
    /// The words as they are now: whole only between the commit and the release of the slot.
    #[inline]
    pub fn load(&self) -> [u64; WORDS] {
        core::array::from_fn(|at| self.words[at].load(Relaxed))
    }
}

/// Words on a cache line of their own.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Line<T>(pub T);

/// What the producer writes.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ProducerLine {
    /// Records ever committed.
    pub head: AtomicU64,
    /// 0, or a frame with [`STAMPING`] or [`STAGED`].
    pub state: AtomicU64,
}

/// Who has the ring.
#[derive(Debug, Default)]
#[repr(C)]
pub struct OwnerLine {
    /// The thread's id; 0 when the ring is free.
    pub owner: AtomicU64,
    /// A stamp not above any of the owner's.
    pub born: AtomicU64,
}

/// The head of a ring in shared memory.
#[derive(Debug, Default)]
#[repr(C)]
pub struct RingHeader {
    /// Written by the producer.
    pub producer: Line<ProducerLine>,
    /// Records ever consumed; written by the consumer.
    pub tail: Line<AtomicU64>,
    /// Written when the ring changes hands.
    pub owner: Line<OwnerLine>,
}

impl RingHeader {
    /// The consumer's look at the ring: `state` first, then `head`. The order matters, see the module.
    #[inline]
    pub fn observe(&self) -> (u64, u64) {
        let state = self.producer.0.state.load(Acquire);
        (state, self.producer.0.head.load(Acquire))
    }

    /// Gives the slots below `tail` back to the producer.
    #[inline]
    pub fn release(&self, tail: u64) {
        self.tail.0.store(tail, Release);
    }
}

/// Why a record was not pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another call of this thread is at work on the ring, in this state.
    Busy(u64),
    /// There is no free slot.
    Full,
}

/// Called between the steps of a push. Tests interrupt there; the real thing does nothing.
pub trait Steps {
    /// After step `number`. `false` leaves the call for good, like a `longjmp`.
    fn step(&self, number: u32) -> bool;
}

/// Nothing happens between the steps.
#[derive(Clone, Copy, Debug)]
pub struct Uninterrupted;

impl Steps for Uninterrupted {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "nothing must remain of it in the hot path")]
    fn step(&self, _: u32) -> bool {
        true
    }
}

/// A thread's side of its ring. All zero bytes are a valid value: not attached.
#[derive(Debug)]
#[repr(C)]
pub struct Producer {
    header: Cell<*const RingHeader>,
    slots: Cell<*const Slot>,
    mask: Cell<u64>,
    /// The consumer's index as last read.
    tail: Cell<u64>,
    /// Records given up since the last one pushed.
    lost: Cell<u64>,
    /// The staged record's place, or [`OPEN`].
    place: Cell<u64>,
    stage: [Cell<u64>; WORDS],
}

/// How many slots ahead the producer sends for memory.
const AHEAD: u64 = 18;

/// A staged record has no place yet.
const OPEN: u64 = u64::MAX;

impl Default for Producer {
    fn default() -> Self {
        Self {
            header: Cell::new(ptr::null()),
            slots: Cell::new(ptr::null()),
            mask: Cell::new(0),
            tail: Cell::new(0),
            lost: Cell::new(0),
            place: Cell::new(0),
            stage: Default::default(),
        }
    }
}

impl Producer {
    /// Takes a ring over from whoever had it before.
    ///
    /// # Safety
    ///
    /// `header` and `slots` point to a ring of `count` slots, a power of two, that stays mapped as long as this
    /// producer is used, and no other producer uses it.
    pub unsafe fn attach(&self, header: *const RingHeader, slots: *const Slot, count: u64) {
        self.header.set(header);
        self.slots.set(slots);
        self.mask.set(count - 1);
        self.lost.set(0);
        let header = self.header();
        self.tail.set(header.tail.0.load(Acquire));
        header.producer.0.state.store(0, Release);
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the hot path")]
    fn header(&self) -> &RingHeader {
        // SAFETY: `attach` was given a header that stays mapped; no method but it is called before.
        unsafe { &*self.header.get() }
    }

    /// Pushes a record: `stamp` gives its first word, `fields` are the others. `frame` is the stack pointer of the
    /// call, a multiple of four and not 0.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the hot path")]
    pub fn push(&self, frame: u64, fields: [u64; WORDS - 1], stamp: impl FnOnce() -> u64) -> Result<(), Refused> {
        self.push_with(frame, fields, stamp, &Uninterrupted)
    }

    /// [`Self::push`] with something to do between its steps.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the hot path")]
    pub fn push_with(
        &self,
        frame: u64,
        fields: [u64; WORDS - 1],
        stamp: impl FnOnce() -> u64,
        steps: &impl Steps,
    ) -> Result<(), Refused> {
        let line = &self.header().producer.0;
        let state = line.state.load(Relaxed);
        if state != 0 {
            return Err(Refused::Busy(state));
        }
        if line.head.load(Relaxed).wrapping_sub(self.tail.get()) > self.mask.get() {
            return Err(Refused::Full);
        }
        if self.write(frame, fields, stamp, steps) {
            line.state.store(0, Release);
            steps.step(u32::MAX);
        }
        Ok(())
    }

    /// Pushes a record from within another call of this thread, which may go on afterwards or not.
    #[cold]
    pub fn push_nested(
        &self,
        frame: u64,
        fields: [u64; WORDS - 1],
        stamp: impl FnOnce() -> u64,
        steps: &impl Steps,
    ) -> Result<(), Refused> {
        let line = &self.header().producer.0;
        let outer = line.state.load(Relaxed);
        if outer & STAGED != 0 && !self.finish(steps) {
            return Ok(());
        }
        if line.head.load(Relaxed).wrapping_sub(self.tail.get()) > self.mask.get() {
            return Err(Refused::Full);
        }
        let stage: [u64; WORDS] = core::array::from_fn(|at| self.stage[at].get());
        let place = self.place.get();
        if !self.write(frame, fields, stamp, steps) {
            return Ok(());
        }
        // Nothing is staged while the stage is put back.
        line.state.store(frame | STAMPING, Release);
        for (cell, word) in self.stage.iter().zip(stage) {
            cell.set(word);
            if !steps.step(20) {
                return Ok(());
            }
        }
        self.place.set(place);
        line.state.store(outer, Release);
        steps.step(u32::MAX);
        Ok(())
    }

    /// The call that left `state` behind is gone: what it had staged is committed, and the ring is idle.
    #[cold]
    pub fn heal(&self) {
        let line = &self.header().producer.0;
        if line.state.load(Relaxed) & STAGED != 0 {
            self.finish(&Uninterrupted);
        }
        line.state.store(0, Release);
    }

    /// Marks the ring as about to be stamped without a record in sight, so that the consumer releases nothing
    /// that is later; [`Self::let_go`] ends it. Returns the state to put back.
    pub fn hold(&self, frame: u64) -> u64 {
        let line = &self.header().producer.0;
        let before = line.state.load(Relaxed);
        if before == 0 {
            line.state.store(frame | STAMPING, Release);
        }
        before
    }

    /// Whether a call is at work on the ring, or was left there.
    pub fn busy(&self) -> bool {
        self.header().producer.0.state.load(Relaxed) != 0
    }

    /// Ends a [`Self::hold`].
    pub fn let_go(&self, before: u64) {
        self.header().producer.0.state.store(before, Release);
    }

    /// Reads how far the consumer is. Returns the number of free slots.
    pub fn refresh(&self) -> u64 {
        let header = self.header();
        self.tail.set(header.tail.0.load(Acquire));
        (self.mask.get() + 1).saturating_sub(header.producer.0.head.load(Relaxed).wrapping_sub(self.tail.get()))
    }

    /// Counts a record that was given up and sees to it that the next push is refused as [`Refused::Full`], so that
    /// the loss can be told first.
    pub fn give_up(&self) {
        self.lost.set(self.lost.get() + 1);
        self.tail.set(self.header().producer.0.head.load(Relaxed).wrapping_sub(self.mask.get() + 1));
    }

    /// Records given up since the last call of this.
    pub fn take_lost(&self) -> u64 {
        self.lost.replace(0)
    }

    /// Records given up and not yet told of.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Steps 1 to 4. `false` when the call was left.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the hot path")]
    fn write(&self, frame: u64, fields: [u64; WORDS - 1], stamp: impl FnOnce() -> u64, steps: &impl Steps) -> bool {
        let line = &self.header().producer.0;
        line.state.store(frame | STAMPING, Release);
        if !steps.step(1) {
            return false;
        }
        let stamp = stamp();
        let words: [u64; WORDS] = core::array::from_fn(|at| if at == 0 { stamp } else { fields[at - 1] });
        if !steps.step(2) {
            return false;
        }
        for (cell, word) in self.stage.iter().zip(words) {
            cell.set(word);
            if !steps.step(3) {
                return false;
            }
        }
        self.place.set(OPEN);
        if !steps.step(4) {
            return false;
        }
        line.state.store(frame | STAGED, Release);
        steps.step(5) && self.finish_with(words, steps)
    }

    /// Steps 3 and 4 for the record on the stage.
    fn finish(&self, steps: &impl Steps) -> bool {
        self.finish_with(core::array::from_fn(|at| self.stage[at].get()), steps)
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the hot path")]
    fn finish_with(&self, words: [u64; WORDS], steps: &impl Steps) -> bool {
        let line = &self.header().producer.0;
        let head = line.head.load(Relaxed);
        if !steps.step(6) {
            return false;
        }
        let place = unlocked::settle(&self.place, head);
        if !steps.step(7) {
            return false;
        }
        if line.head.load(Relaxed) != place {
            return true;
        }
        if !steps.step(8) {
            return false;
        }
        let at = (place & self.mask.get()) as usize;
        // SAFETY: `attach` was given as many slots as the mask says.
        let slot = unsafe { self.slots.get().add(at) };
        // SAFETY: a mapped slot, all of it atomic.
        let slot = unsafe { &*slot };
        for (word, value) in slot.words.iter().zip(words) {
            word.store(value, Relaxed);
            if !steps.step(9) {
                return false;
            }
        }
        unlocked::commit(&line.head, place);
        // The consumer has read the slots ahead, so their lines are in its cache: they are sent for in good time.
        let ahead = (place.wrapping_add(AHEAD) & self.mask.get()) as usize;
        unlocked::expect_write(self.slots.get().wrapping_add(ahead));
        steps.step(10)
    }
}

/// Read-modify-write in one instruction and without a bus lock: whole towards the thread's own signal handlers,
/// and, as no other thread writes these words, all that is needed.
#[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
mod unlocked {
    use super::{AtomicU64, Cell, OPEN};
    use core::arch::asm;

    /// `place` becomes `head` if it is open. Returns what it then is.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "one instruction")]
    pub(super) fn settle(place: &Cell<u64>, head: u64) -> u64 {
        let before: u64;
        // SAFETY: the operand is a live, aligned word of this thread.
        unsafe {
            asm!("cmpxchg qword ptr [{place}], {head}", place = in(reg) place.as_ptr(), head = in(reg) head,
                 inout("rax") OPEN => before, options(nostack));
        }
        if before == OPEN { head } else { before }
    }

    /// The slot will soon be written.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "one instruction")]
    pub(super) fn expect_write(slot: *const super::Slot) {
        // SAFETY: a hint, which accesses nothing.
        unsafe { asm!("prefetchw byte ptr [{slot}]", slot = in(reg) slot, options(nostack, preserves_flags)) };
    }

    /// `head` moves on from `place` if it is there. No earlier store can be seen after this one (x86-64).
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "one instruction")]
    pub(super) fn commit(head: &AtomicU64, place: u64) {
        // SAFETY: the operand is a live, aligned word that only this thread writes; the consumer's loads of it are
        // atomic, and so is this aligned store.
        unsafe {
            asm!("cmpxchg qword ptr [{head}], {next}", head = in(reg) head.as_ptr(), next = in(reg) place.wrapping_add(1),
                 inout("rax") place => _, options(nostack));
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
mod unlocked {
    use super::{AtomicU64, Cell, OPEN, Relaxed, Release};

    pub(super) fn settle(place: &Cell<u64>, head: u64) -> u64 {
        if place.get() == OPEN {
            place.set(head);
        }
        place.get()
    }

    pub(super) fn expect_write(_: *const super::Slot) {}

    pub(super) fn commit(head: &AtomicU64, place: u64) {
        let _ = head.compare_exchange(place, place.wrapping_add(1), Release, Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
