//! The process's files and the rings of its threads.
//!
//! What belongs to one process lies in a page that the kernel clears in the child of a fork, however that was made:
//! the child finds the epoch 0 and no lock held, and makes files of its own before its first record. (A child that
//! shares its parent's memory, as that of `vfork`, goes on as its parent until it becomes another program.)

use crate::record::{self, Thread};
use crate::x86_64;
use crate::{resolve, segment, stacks, sys, text, touched};
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use memfrag_common::Kind;
use memfrag_common::loss::Counter;
use memfrag_common::ring::{RingHeader, Slot};
use memfrag_common::session::{
    Clock, DATA, MAGIC, MAX_CHUNKS, Origin, ProcessHeader, RING_HEADER_BYTES, RINGS_PER_CHUNK, SESSION_FILE,
    STACKS_FILE, SessionHeader, VERSION, WALK_OFFSET, chunk_bytes, ring_bytes, rings_offset,
};

/// What a forked child must not inherit.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct State {
    /// Names the process's files; 0 before there are any, [`OFF`] when there never will be.
    pub(crate) epoch: AtomicU64,
    /// 1 while a thread makes files or takes a ring, with all signals blocked.
    lock: AtomicU32,
    /// Where the search for a free ring goes on.
    cursor: AtomicU32,
}

/// How many records may have the stamp of one before them.
const STAMPS_SHARED: u64 = 31;

/// The epoch of a process that is not recorded.
const OFF: u64 = 4;

/// How long a program waits for room, and how old the daemon's last sign of life may be meanwhile.
const PATIENCE: u64 = 2_000_000_000;
const IMPATIENCE: u64 = 1_000_000;
const SILENCE: u64 = 1_000_000_000;
const DEATH: u64 = 30_000_000_000;

static UNBORN: State = State { epoch: AtomicU64::new(0), lock: AtomicU32::new(0), cursor: AtomicU32::new(0) };
static STATE: AtomicPtr<State> = AtomicPtr::new((&raw const UNBORN).cast_mut());

/// The session's file, mapped once and inherited.
static SESSION: AtomicPtr<SessionHeader> = AtomicPtr::new(ptr::null_mut());
static CLOCK: AtomicU32 = AtomicU32::new(0);
/// Libc's word that there is one thread only; a byte that says no, where libc has none, and for good once a second
/// thread has had a ring: libc may call the first one alone again, when it knows blocks and stamps of the others.
static ALONE: AtomicPtr<AtomicU8> = AtomicPtr::new((&raw const NEVER_ALONE).cast_mut());
static NEVER_ALONE: AtomicU8 = AtomicU8::new(0);
static RING_SLOTS: AtomicU32 = AtomicU32::new(0);
/// Forks that have begun.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Set once: this program is not one of those that the session is limited to. The children of its process that go on as
/// its copies are not either.
static LEFT_OUT: AtomicU32 = AtomicU32::new(0);
/// Set once: neither this process nor its children are recorded.
static FINISHED: AtomicU32 = AtomicU32::new(0);
/// The process's files. A forked child finds its parent's here, and takes them away.
static CHUNKS: [AtomicPtr<u8>; MAX_CHUNKS as usize] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CHUNKS as usize];

/// The state of this process.
#[inline(always)]
pub(crate) fn state() -> &'static State {
    // SAFETY: points to `UNBORN` or to a page that is never given back.
    unsafe { &*STATE.load(Relaxed) }
}

/// A record's stamp; `alone` where it is compared with no other thread's.
///
/// Reading the counter is the dearest part of a record, so a thread may give a few records the same stamp: all whose
/// blocks it was the last to touch, or any while it is the only one. It reads anew when the daemon has begun another pass, which
/// is all that the daemon's watermark asks for, and which limits the error to the time between two passes; and after a
/// fork, since a child has what came before it.
#[inline(always)]
pub(crate) fn stamp_of(thread: &Thread, alone: bool) -> u64 {
    if CLOCK.load(Relaxed) != Clock::Tsc as u32 {
        return monotonic();
    }
    // SAFETY: the thread has a ring, so the session is mapped, and it is never given back.
    let heartbeat = unsafe { &*SESSION.load(Relaxed) }.heartbeat.load(Relaxed);
    let beat = heartbeat.wrapping_add(FORKS.load(Relaxed));
    let left = thread.stamps_left.get();
    if alone && left != 0 && beat == thread.beat.get() {
        thread.stamps_left.set(left - 1);
        return thread.last_stamp.get();
    }
    let now = if self::alone() { x86_64::loose_ticks() } else { x86_64::ticks() };
    thread.beat.set(beat);
    thread.last_stamp.set(now);
    thread.stamps_left.set(STAMPS_SHARED);
    now
}

/// Whether a record of a block needs no order towards those of other threads.
#[inline(always)]
pub(crate) fn alone_with(thread: &Thread, block: u64) -> bool {
    alone() || touched::again(block, thread.number.get())
}

/// The stamp of a fork that begins now. What any thread does from here on gets a later one.
pub(crate) fn stamp_of_fork() -> u64 {
    FORKS.fetch_add(1, Ordering::SeqCst);
    stamp()
}

/// The time, in the session's clock.
#[inline(always)]
fn stamp() -> u64 {
    if CLOCK.load(Relaxed) != Clock::Tsc as u32 {
        return monotonic();
    }
    if alone() { x86_64::loose_ticks() } else { x86_64::ticks() }
}

/// Whether there is no other thread, and never was one that has been recorded.
#[inline(always)]
fn alone() -> bool {
    // SAFETY: a byte of this library, or libc's variable.
    unsafe { (*ALONE.load(Relaxed)).load(Relaxed) != 0 }
}

#[cold]
fn monotonic() -> u64 {
    #[cfg(not(test))]
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut [u64; 2]) -> i32;
    }
    #[cfg(not(test))]
    {
        let mut time = [0; 2];
        // SAFETY: writes two words. libc's function reads the kernel's page, or makes the call.
        unsafe { clock_gettime(1, &raw mut time) };
        time[0] * 1_000_000_000 + time[1]
    }
    #[cfg(test)]
    sys::now()
}

/// Whether this process is recorded, so that the programs it starts are to be, too.
pub(crate) fn recording() -> bool {
    FINISHED.load(Relaxed) == 0 && session().is_some_and(|session| session.active.load(Relaxed) != 0)
}

/// Runs when the process exits: by now it may have loaded libraries that its first mappings do not show.
#[cfg(not(test))]
extern "C" fn leave() {
    // A child that shares its parent's memory does not get here.
    if state().epoch.load(Relaxed) <= OFF {
        return;
    }
    if let Some(header) = header() {
        // SAFETY: the process's own file, mapped; nobody else writes its text once it has begun.
        unsafe { text::refresh(header, CHUNKS[0].load(Relaxed)) };
    }
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".fini_array")]
static LEAVE: extern "C" fn() = leave;

/// Runs when the program starts, if nothing has allocated before: it appears even if it never will.
#[cfg(not(test))]
extern "C" fn enter() {
    if state().epoch.load(Relaxed) == 0 {
        attach(x86_64::thread());
    }
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static ENTER: extern "C" fn() = enter;

fn session() -> Option<&'static SessionHeader> {
    // SAFETY: null, or a mapping that is never given back.
    unsafe { SESSION.load(Acquire).as_ref() }
}

fn header() -> Option<&'static ProcessHeader> {
    // SAFETY: null, or the process's own file, mapped until the process or its parent's copy of it ends.
    unsafe { CHUNKS[0].load(Acquire).cast::<ProcessHeader>().as_ref() }
}

/// Adds to one of the process's counters.
#[cold]
pub(crate) fn count(counter: Counter, amount: u64) {
    if let Some(header) = header() {
        header.counters[counter as usize].fetch_add(amount, Relaxed);
    }
}

/// Gives the thread a ring. `false` when it gets none, and the record is not made.
#[cold]
pub(crate) fn attach(thread: &Thread) -> bool {
    if state().epoch.load(Acquire) == OFF {
        return false;
    }
    // With signals blocked no handler can come in between, so that the lock is never taken twice by one thread.
    let mask = sys::block_signals();
    let attached = attach_quietly(thread);
    sys::restore_signals(mask);
    attached
}

fn attach_quietly(thread: &Thread) -> bool {
    if ptr::eq(state(), &raw const UNBORN) {
        let Some(page) = sys::map_forgetful_page() else { return false };
        let page = page.cast::<State>();
        let unborn = (&raw const UNBORN).cast_mut();
        if STATE.compare_exchange(unborn, page, Ordering::AcqRel, Acquire).is_err() {
            // SAFETY: nobody has seen this page.
            unsafe { sys::unmap(page.cast(), 4096) };
        }
    }
    let state = state();
    while state.lock.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
        sys::yield_now();
    }
    let begins = state.epoch.load(Relaxed) == 0;
    if begins {
        let epoch = if FINISHED.load(Relaxed) == 0 { begin(thread) } else { None };
        state.epoch.store(epoch.unwrap_or(OFF), Release);
    }
    let epoch = state.epoch.load(Relaxed);
    let attached = epoch != OFF && take_ring(thread, state);
    if attached {
        if begins {
            record::plain(thread, 8, Kind::Brk, segment::first() as u64);
        }
        thread.key.store(epoch + 1, Release);
    }
    state.lock.store(0, Release);
    attached
}

/// A path in the session's directory.
struct Path {
    bytes: [u8; 320],
    length: usize,
}

impl Path {
    fn new() -> Option<Self> {
        let own = resolve::own_path()?;
        let directory = own.iter().rposition(|&byte| byte == b'/')?;
        let mut path = Self { bytes: [0; 320], length: 0 };
        path.push(own.get(..=directory)?)?;
        path.push(DATA.as_bytes())?;
        path.push(b"/")?;
        Some(path)
    }

    fn push(&mut self, part: &[u8]) -> Option<()> {
        // One byte stays for the zero at the end.
        let end = self.length.checked_add(part.len()).filter(|&end| end < self.bytes.len())?;
        self.bytes.get_mut(self.length..end)?.copy_from_slice(part);
        self.length = end;
        Some(())
    }

    fn push_number(&mut self, value: u64, base: u64) -> Option<()> {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = value;
        loop {
            at -= 1;
            *digits.get_mut(at)? = *b"0123456789abcdef".get((rest % base) as usize)?;
            rest /= base;
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(at..)?)
    }

    fn with_zero(&self) -> &[u8] {
        self.bytes.get(..=self.length).unwrap_or(b"\0")
    }
}

/// The file number `chunk` of the process whose files `epoch` names.
fn chunk_path(pid: u32, epoch: u64, chunk: u32) -> Option<Path> {
    let mut path = Path::new()?;
    path.push_number(u64::from(pid), 10)?;
    path.push(b"-")?;
    path.push_number(epoch, 16)?;
    if chunk > 0 {
        path.push(b".")?;
        path.push_number(u64::from(chunk), 10)?;
    }
    Some(path)
}

fn open_session() -> Option<&'static SessionHeader> {
    if let Some(session) = session() {
        return Some(session);
    }
    let mut path = Path::new()?;
    path.push(SESSION_FILE.as_bytes())?;
    let file = sys::File::open(path.with_zero(), sys::flags::WRITE)?;
    let mapped = file.map(4096);
    file.close();
    let session = mapped?.cast::<SessionHeader>();
    SESSION.store(session, Release);
    // SAFETY: just mapped, and never given back.
    Some(unsafe { &*session })
}

/// The session's table of stacks, mapped.
fn map_stacks() -> Option<*mut u8> {
    let mut path = Path::new()?;
    path.push(STACKS_FILE.as_bytes())?;
    let file = sys::File::open(path.with_zero(), sys::flags::WRITE)?;
    let mapped = file.map(memfrag_common::stacks::BYTES);
    file.close();
    mapped
}

/// Makes the process's file. Returns the epoch.
fn begin(thread: &Thread) -> Option<u64> {
    let forked = !CHUNKS[0].load(Relaxed).is_null();
    if forked {
        forget_parent(thread);
    }
    let session = open_session()?;
    let usable = session.magic.load(Acquire) == MAGIC && session.version.load(Relaxed) == VERSION;
    if !usable || session.active.load(Relaxed) == 0 {
        return None;
    }
    // A forked child is called what its parent is.
    let comm = if forked { [0; 2] } else { text::comm() };
    if !forked && (LEFT_OUT.load(Relaxed) != 0 || !session.names().record(comm)) {
        LEFT_OUT.store(1, Relaxed);
        return None;
    }
    let slots = session.ring_slots.load(Relaxed);
    if !slots.is_power_of_two() || slots > 1 << 24 {
        return None;
    }
    RING_SLOTS.store(slots, Relaxed);
    CLOCK.store(session.clock.load(Relaxed), Relaxed);
    stacks::begin(session.stacks.load(Relaxed), map_stacks);
    let alone = x86_64::single_threaded();
    if !alone.is_null() {
        ALONE.store(alone.cast::<AtomicU8>().cast_mut(), Relaxed);
    }

    let born = stamp();
    // Never 0, OFF or the parent's.
    let epoch = x86_64::ticks() | 0x101;
    let pid = sys::pid();
    let base = make_chunk(pid, epoch, 0)?;
    CHUNKS[0].store(base, Release);
    let header = header()?;
    header.version.store(VERSION, Relaxed);
    header.pid.store(pid, Relaxed);
    header.ppid.store(sys::ppid(), Relaxed);
    let origin = if forked { Origin::Fork } else { Origin::Exec };
    header.origin.store(origin as u32, Relaxed);
    header.born.store(born, Relaxed);
    header.comm.iter().zip(comm).for_each(|(place, word)| place.store(word, Relaxed));
    // SAFETY: the file was just made, as long as `chunk_bytes` says, and nobody else knows it.
    unsafe { text::write(header, base, forked) };
    header.magic.store(MAGIC, Release);
    session.processes.fetch_add(1, Release);
    Some(epoch)
}

/// Takes the parent's files out of this forked child.
fn forget_parent(thread: &Thread) {
    // A child made by a signal handler that interrupted a hook may return into that hook, which still writes.
    let interrupted = thread.key.load(Relaxed) != 0 && !thread.held.get() && thread.ring.busy();
    let slots = RING_SLOTS.load(Relaxed);
    for (number, chunk) in (0..MAX_CHUNKS).zip(&CHUNKS) {
        let base = chunk.swap(ptr::null_mut(), Relaxed);
        if !base.is_null() && !interrupted {
            // SAFETY: this thread is the only one of its process, and no hook is at work in it.
            unsafe { sys::unmap(base, chunk_bytes(number, slots)) };
        }
    }
    touched::forget_parent(interrupted);
}

fn make_chunk(pid: u32, epoch: u64, chunk: u32) -> Option<*mut u8> {
    let bytes = chunk_bytes(chunk, RING_SLOTS.load(Relaxed));
    if !sys::file_size_allowed(bytes) {
        return None;
    }
    let path = chunk_path(pid, epoch, chunk)?;
    let file = sys::File::open(path.with_zero(), sys::flags::CREATE)?;
    let mapped = if file.truncate(bytes) { file.map(bytes) } else { None };
    file.close();
    mapped
}

/// The header and the slots of ring `index`, if its file is there.
fn ring(index: u32) -> Option<(*const RingHeader, *const Slot)> {
    let chunk = index / RINGS_PER_CHUNK;
    let base = CHUNKS.get(chunk as usize)?.load(Acquire);
    if base.is_null() {
        return None;
    }
    let offset = rings_offset(chunk) + (index % RINGS_PER_CHUNK) as usize * ring_bytes(RING_SLOTS.load(Relaxed));
    // SAFETY: inside the mapping, which is as long as `chunk_bytes` says.
    let header = unsafe { base.add(offset) };
    // SAFETY: as above.
    let slots = unsafe { header.add(RING_HEADER_BYTES) };
    Some((header.cast(), slots.cast()))
}

/// Finds a free ring, or one whose thread is gone, or makes a new one. The lock is held.
fn take_ring(thread: &Thread, state: &State) -> bool {
    let Some(process) = header() else { return false };
    let (pid, tid) = (process.pid.load(Relaxed), sys::tid());
    let rings = process.rings.load(Relaxed);
    let mut looked_up = 0;
    for _ in 0..rings {
        let index = state.cursor.fetch_add(1, Relaxed) % rings;
        let Some((header, slots)) = ring(index) else { continue };
        // SAFETY: a mapped ring.
        let owner = unsafe { &(*header).owner.0.owner };
        let old = owner.load(Acquire);
        if old != 0 && old != u64::from(tid) {
            // Asking after every owner would make starting a thread slower with each one there is.
            looked_up += 1;
            if looked_up > 8 {
                break;
            }
            if !sys::thread_gone(pid, old as u32) {
                continue;
            }
        }
        if owner.compare_exchange(old, u64::from(tid), Ordering::AcqRel, Relaxed).is_ok() {
            take(thread, index, (header, slots), tid, old as u32);
            return true;
        }
    }
    let chunk = rings / RINGS_PER_CHUNK;
    let Some(place) = CHUNKS.get(chunk as usize) else {
        count(Counter::ThreadMapFull, 1);
        return false;
    };
    if place.load(Relaxed).is_null() {
        let Some(base) = make_chunk(pid, state.epoch.load(Relaxed), chunk) else {
            count(Counter::ThreadMapFull, 1);
            return false;
        };
        place.store(base, Release);
    }
    let Some((header, slots)) = ring(rings) else { return false };
    // SAFETY: a mapped ring.
    let owner = unsafe { &(*header).owner.0 };
    owner.born.store(stamp(), Relaxed);
    owner.owner.store(u64::from(tid), Release);
    // Before the first stamp: a daemon that does not see the ring knows that nothing in it is older.
    process.rings.store(rings + 1, Release);
    take(thread, rings, (header, slots), tid, 0);
    true
}

/// Makes ring `index` the thread's, which was that of the thread `old`, or nobody's.
fn take(thread: &Thread, index: u32, (header, slots): (*const RingHeader, *const Slot), tid: u32, old: u32) {
    if old != 0 || self::header().is_none_or(|process| process.rings.load(Relaxed) != 1) {
        ALONE.store((&raw const NEVER_ALONE).cast_mut(), Release);
        touched::several_threads();
    }
    // SAFETY: the ring is mapped, has so many slots, and now is this thread's alone.
    unsafe { thread.ring.attach(header, slots, u64::from(RING_SLOTS.load(Relaxed))) };
    // SAFETY: a ring has a page-aligned place for this before its slots, all zero at first.
    unsafe { thread.stack.attach(header.cast::<u8>().wrapping_add(WALK_OFFSET).cast()) };
    thread.tid.set(tid);
    thread.number.set(index as u16 + 1);
    thread.held.set(false);
    thread.impatient.set(false);
    thread.stamps_left.set(0);
    // Signals are blocked, so any frame will do.
    if old != 0 {
        record::plain(thread, 8, Kind::ThreadExit, 0);
    }
    record::plain(thread, 8, Kind::ThreadStart, 0);
}

/// How a wait for room ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// There is room.
    Room,
    /// The daemon is too slow.
    InVain,
    /// The daemon is gone: nothing is recorded any more.
    Off,
}

/// Waits until the daemon has made room in the thread's ring: for much at once where it does, since each time to fall
/// asleep and to wake up costs as much as many records.
#[cold]
pub(crate) fn wait(thread: &Thread, needed: u64) -> Wait {
    count(Counter::Waited, 1);
    let Some(session) = session() else { return Wait::Off };
    let begin = sys::now();
    let plenty = u64::from(RING_SLOTS.load(Relaxed) / 8).max(needed);
    let mut pause = 100_000;
    loop {
        sys::sleep(pause);
        let room = thread.ring.refresh();
        if room >= plenty {
            return Wait::Room;
        }
        if session.active.load(Relaxed) == 0 {
            return finish();
        }
        let now = sys::now();
        let silence = now.saturating_sub(session.heartbeat.load(Relaxed));
        if silence > SILENCE {
            let gone = sys::process_gone(session.daemon.load(Relaxed));
            return if gone || silence > DEATH { finish() } else { Wait::InVain };
        }
        if now.saturating_sub(begin) > if thread.impatient.get() { IMPATIENCE } else { PATIENCE } {
            return if room >= needed { Wait::Room } else { Wait::InVain };
        }
        pause = (pause * 2).min(1_000_000);
    }
}

/// Ends the recording of this process and its children for good.
fn finish() -> Wait {
    FINISHED.store(1, Relaxed);
    if let Some(header) = header() {
        header.off.store(1, Relaxed);
    }
    state().epoch.store(OFF, Release);
    Wait::Off
}
