//! What the programs share with each other and with the loader.

use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use memfrag_common::config::{MAX_IN_FLIGHT, Scope};
use memfrag_common::loss::{COUNTERS, Counter};
use memfrag_common::names::{Limit, MOST_NAMES, Name, noted, words};
use memfrag_common::told::{Told, Walking};

/// All records, in causal order. The loader sets the size.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

/// The processes that are traced, by thread group id, with what is [noted] of each.
#[map]
pub static TRACED: HashMap<u32, u32> = HashMap::with_max_entries(1 << 15, 0);

/// The names that a trace is limited to.
#[map]
pub static NAMES: Array<Name> = Array::with_max_entries(MOST_NAMES as u32, 0);

/// Calls in flight of threads, each at the place of its id's lowest bits: the verifier makes such a look-up a few
/// instructions, where a hash table's is several calls.
#[map]
pub static PLACES: Array<Thread> = Array::with_max_entries(THREAD_PLACES, 0);

/// A power of two: threads that live at the same time seldom have ids so far apart.
const THREAD_PLACES: u32 = 1 << 12;

/// Calls in flight, by thread id, of threads whose place another one has.
#[map]
pub static THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(1 << 15, 0);

/// Counters by [`Counter`].
#[map]
pub static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS as u32, 0);

/// Records lost by process and not yet told in the ring.
#[map]
pub static LOST: HashMap<u32, u64> = HashMap::with_max_entries(1 << 15, 0);

/// The one element is the sum of [`LOST`]: while it is 0, nobody looks there.
#[map]
pub static LOST_UNTOLD: Array<u64> = Array::with_max_entries(1, 0);

/// The one element is 0 while probes are being put in and taken out: then some are there and others are not, and
/// what they would tell makes no sense. So a trace begins and ends in one moment for all of them.
#[map]
pub static RUNNING: Array<u32> = Array::with_max_entries(1, 0);

/// Set by the loader before the programs are loaded, so that the verifier drops the branches that are not taken.
#[unsafe(no_mangle)]
static SCOPE: u32 = Scope::Map as u32;

/// The tracer's own process.
#[unsafe(no_mangle)]
static SELF: u32 = 0;

/// A `memfrag_common::names::Limit`.
#[unsafe(no_mangle)]
static LIMIT: u32 = Limit::None as u32;

/// Offset of `group_dead` in the `sched_process_exit` tracepoint, 0 where this kernel has none.
#[unsafe(no_mangle)]
static GROUP_DEAD_OFFSET: u32 = 0;

/// A `memfrag_common::told::Walking`.
#[unsafe(no_mangle)]
static WALKING: u32 = Walking::Off as u32;

/// A place for a walk of a stack.
#[repr(C)]
pub struct Slot {
    /// Not 0 while a walk uses it.
    pub busy: u64,
    pub told: Told,
}

/// A call in flight.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    /// Stack pointer at the function's entry: where the return address lies.
    pub sp: u64,
    /// Bytes requested.
    pub size: u64,
    /// `posix_memalign`: where the result will be written.
    pub out: u64,
    /// A `memfrag_common::Function`.
    pub function: u8,
    /// Base-2 logarithm of the alignment.
    pub align_log2: u8,
    pub padding: [u8; 6],
}

/// Arguments of a system call that are remembered until its return.
pub const MAX_SYSCALL_ARGUMENTS: usize = 5;

/// The calls in flight of a thread, outermost first.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Thread {
    /// The thread's id; 0 where there is none. Only [`PLACES`] asks for it.
    owner: u64,
    pub depth: u32,
    /// Whether the thread has asked to end its process or itself, and with which wait status.
    pub exits: u32,
    pub exit_status: u32,
    pub padding: u32,
    /// The arguments of the system call that the thread is in.
    pub arguments: [u64; MAX_SYSCALL_ARGUMENTS],
    pub calls: [Call; MAX_IN_FLIGHT],
}

/// A thread without calls. In read-only memory, for it is too big for the stack of a BPF program.
#[unsafe(no_mangle)]
static IDLE: Thread = Thread {
    owner: 0,
    depth: 0,
    exits: 0,
    exit_status: 0,
    padding: 0,
    arguments: [0; MAX_SYSCALL_ARGUMENTS],
    calls: [Call { sp: 0, size: 0, out: 0, function: 0, align_log2: 0, padding: [0; 6] }; MAX_IN_FLIGHT],
};

#[inline(always)]
fn global(value: &u32) -> u32 {
    // SAFETY: a reference to a static; volatile because the loader changes the constant after compilation.
    unsafe { core::ptr::read_volatile(value) }
}

#[inline(always)]
pub fn group_dead_offset() -> u32 {
    global(&GROUP_DEAD_OFFSET)
}

/// What is done about stacks. A constant to the verifier, which drops what is not asked for.
#[inline(always)]
pub fn walking() -> u32 {
    global(&WALKING)
}

/// Of which processes it is asked whether they run what is to be recorded. A constant to the verifier.
#[inline(always)]
pub fn limit() -> u32 {
    global(&LIMIT)
}

/// The name of this process, if that is the one of its first thread.
#[inline(always)]
pub fn name() -> [u64; 2] {
    bpf_get_current_comm().map_or([0; 2], words)
}

/// Whether a name is one of those that the trace is limited to.
#[inline(always)]
pub fn is_wanted(name: [u64; 2]) -> bool {
    for index in 0..MOST_NAMES as u32 {
        // SAFETY: the element is valid while the program runs, and written before the trace begins.
        if NAMES.get(index).is_some_and(|wanted| wanted.matches(name)) {
            return true;
        }
    }
    false
}

/// Whether the trace has begun and not ended.
#[inline(always)]
pub fn is_running() -> bool {
    // SAFETY: the element exists; volatile because the daemon changes it.
    RUNNING.get_ptr(0).is_some_and(|running| unsafe { running.read_volatile() } != 0)
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTS.get_ptr_mut(counter as u32) {
        // SAFETY: the element is this CPU's own; an interrupt's increment in between would only miscount by one.
        unsafe { *value += 1 };
    }
}

/// Whether the process is traced, as far as the programs have to ask.
#[inline(always)]
pub fn is_traced(pid: u32) -> bool {
    let scope = global(&SCOPE);
    if scope == Scope::Link as u32 {
        // Only the process's own hits get here.
        return true;
    }
    is_known(pid)
}

/// Whether a process is the tracer.
#[inline(always)]
pub fn is_self(pid: u32) -> bool {
    pid == global(&SELF)
}

/// Whether the process is traced, for programs that see every process whatever the links' scope is.
#[inline(always)]
pub fn is_known(pid: u32) -> bool {
    if global(&SCOPE) == Scope::All as u32 {
        return !is_self(pid);
    }
    // SAFETY: the element stays valid while the program runs.
    TRACED.get_ptr(&pid).is_some_and(|noted| unsafe { *noted } & noted::LEFT_OUT == 0)
}

/// The calls in flight of a thread that is already known: no question whether it is traced.
#[inline(always)]
pub fn known_thread(tid: u32) -> Option<*mut Thread> {
    own_place(tid).or_else(|| THREADS.get_ptr_mut(&tid))
}

/// The thread's place, if the thread has it.
#[inline(always)]
fn own_place(tid: u32) -> Option<*mut Thread> {
    let place = PLACES.get_ptr_mut(tid % THREAD_PLACES)?;
    // SAFETY: the element exists; volatile because other threads may claim it meanwhile, though not for this one.
    (unsafe { (&raw const (*place).owner).read_volatile() } == u64::from(tid)).then_some(place)
}

/// Takes the thread's place, if nobody has it.
#[inline(always)]
fn claim_place(tid: u32) -> Option<*mut Thread> {
    let place = PLACES.get_ptr_mut(tid % THREAD_PLACES)?;
    // SAFETY: the element exists.
    let owner = unsafe { &raw mut (*place).owner };
    // SAFETY: as in `emit::add`.
    let (_, claimed) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(owner, 0, u64::from(tid))
    };
    if !claimed {
        return None;
    }
    // SAFETY: it is this thread's alone now.
    let thread = unsafe { &mut *place };
    thread.depth = 0;
    thread.exits = 0;
    thread.exit_status = 0;
    thread.arguments = [0; MAX_SYSCALL_ARGUMENTS];
    Some(place)
}

/// The thread has ended, or is no longer recorded.
#[inline(always)]
pub fn forget_thread(tid: u32) {
    if let Some(place) = own_place(tid) {
        // SAFETY: the place is this thread's until this store.
        unsafe { (&raw mut (*place).owner).write_volatile(0) };
    } else {
        let _ = THREADS.remove(&tid);
    }
}

/// The calls in flight of a traced thread; `None` for one that is not traced.
#[inline(always)]
pub fn thread(pid: u32, tid: u32) -> Option<*mut Thread> {
    if let Some(thread) = known_thread(tid) {
        return Some(thread);
    }
    if !is_traced(pid) {
        return None;
    }
    if let Some(thread) = claim_place(tid) {
        return Some(thread);
    }
    if THREADS.insert(&tid, &IDLE, 0).is_err() {
        count(Counter::ThreadMapFull);
        crate::emit::lose(pid);
        return None;
    }
    THREADS.get_ptr_mut(&tid)
}
