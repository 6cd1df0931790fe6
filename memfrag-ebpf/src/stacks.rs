//! The stack of a call, as far as it is to be recorded: walked here, told once, named by a number ever after.
//!
//! A walk follows frame pointers, or the rules that the daemon has found for the return addresses that it comes by.
//! Where it comes to one without a known rule, what lies on the stack from there on is copied: the daemon walks the rest
//! and has the rules for the next time. So copies are rare, and none of this can lose an event: of the ring, stacks
//! fill one half at most.

use crate::maps::{RECORDS, Slot, count, walking};
use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE};
use aya_ebpf::helpers::{bpf_probe_read_user, generated};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg};
use memfrag_common::loss::Counter;
use memfrag_common::told::{COPY, End, FRAMES, Header, NO_RULE, PAGE, PAGES, Place, RULES, STACKS, Walking};
use memfrag_common::unwind::{Memory, Registers, Rule, Step, step_packed};

/// The numbers of the stacks that were told, by the hash of their frames. With 2¹⁸ stacks and 64 bits, two share a hash
/// with a chance of one in 2²⁹. The loader makes it tiny where no stacks are asked for, as it does with all below.
#[map]
pub static TOLD: HashMap<u64, u32> = HashMap::with_max_entries(STACKS, 0);

/// How many numbers were handed out.
#[map]
pub static NUMBERS: Array<u64> = Array::with_max_entries(1, 0);

/// Packed rules.
#[map]
pub static WALK_RULES: LruHashMap<Place, u64> = LruHashMap::with_max_entries(RULES, 0);

/// What code a process has.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Space {
    pub number: u64,
    /// All files that were mapped as code since the program began lie here or above; 0 when its beginning was not seen.
    pub lowest: u64,
}

/// The spaces of processes, and how many numbers were handed out.
#[map]
pub static SPACES: HashMap<u32, Space> = HashMap::with_max_entries(1 << 15, 0);
#[map]
pub static SPACES_MADE: Array<u64> = Array::with_max_entries(1, 0);

/// Where walks put what they find. A program can be put aside for another one on the same CPU, so there are some.
#[map]
pub static SLOTS: PerCpuArray<Slot> = PerCpuArray::with_max_entries(SLOT_COUNT, 0);
const SLOT_COUNT: u32 = 4;

/// The rule where frame pointers are followed.
const FRAME_POINTER: u64 = match Rule::FRAME_POINTER.pack() {
    Some(rule) => rule,
    None => NO_RULE,
};

/// The traced program's memory.
struct User;

impl Memory for User {
    #[inline(always)]
    fn word(&self, address: u64) -> Option<u64> {
        if address & 7 != 0 {
            return None;
        }
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user(address as *const u64) }.ok()
    }
}

/// The name of the stack of a call that has returned to `at`; 0 when it cannot be told, which is counted.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn stack_number(pid: u32, tid: u32, at: &Registers) -> u32 {
    for index in 0..SLOT_COUNT {
        let Some(slot) = SLOTS.get_ptr_mut(index) else { break };
        // SAFETY: the element stays valid while the program runs, and is written by whoever has its mark alone.
        let slot = unsafe { &mut *slot };
        // SAFETY: an aligned word of a map's value.
        if unsafe { atomic_xchg::<u64, { AtomicOrdering::Relaxed }>(&raw mut slot.busy, 1) } != 0 {
            continue;
        }
        let number = walk(slot, pid, tid, *at);
        // SAFETY: as above.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::Relaxed }>(&raw mut slot.busy, 0) };
        if number == 0 {
            count(Counter::StackLost);
        }
        return number;
    }
    count(Counter::StackLost);
    0
}

#[inline(always)]
fn walk(slot: &mut Slot, pid: u32, tid: u32, mut at: Registers) -> u32 {
    let by_rules = walking() == Walking::Rules as u32;
    let space = if by_rules { space_of(pid) } else { 0 };
    let mut hash = 0;
    let mut end = End::Cut;
    let mut frames = 0;
    while frames < FRAMES {
        let rule = if by_rules {
            match WALK_RULES.get_ptr(&Place { pc: at.pc, space }) {
                // SAFETY: the element stays valid; the daemon writes rules whole.
                Some(rule) => unsafe { rule.read_volatile() },
                None => {
                    end = End::Unknown;
                    break;
                }
            }
        } else {
            FRAME_POINTER
        };
        slot.told.frames[frames] = at.pc;
        frames += 1;
        hash = mixed(hash, at.pc);
        match step_packed(rule, at, &User) {
            Step::Caller { registers, .. } => at = registers,
            Step::Outermost => {
                end = End::Outermost;
                break;
            }
            Step::Lost => break,
        }
    }
    let header =
        Header { number: COPY, frames: frames as u32, pid, tid, end: end as u32, pages: 0, space, at };
    if end == End::Unknown {
        return copy(slot, header);
    }
    if end == End::Cut {
        count(Counter::StackCut);
    }
    let hash = mixed(hash, end as u64);
    if let Some(number) = TOLD.get_ptr(&hash) {
        // SAFETY: the element stays valid, and is written once.
        return unsafe { *number };
    }
    tell(slot, header, hash)
}

/// The finaliser of MurmurHash3, over what came before and the next word.
#[inline(always)]
fn mixed(hash: u64, word: u64) -> u64 {
    let mixed = word ^ hash.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 33
}

/// Tells a stack that was found whole, then remembers that: so whoever knows its number comes behind it in the ring.
#[inline(always)]
fn tell(slot: &mut Slot, header: Header, hash: u64) -> u32 {
    let Some(numbers) = NUMBERS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the element exists; asked first, so that the count does not run away.
    if unsafe { numbers.read_volatile() } >= u64::from(STACKS) - 1 || !has_room() {
        return 0;
    }
    let number = next(numbers);
    if number >= u64::from(STACKS) {
        return 0;
    }
    let number = number as u32;
    slot.told.header = Header { number, ..header };
    let frames = header.frames as usize & (2 * FRAMES - 1);
    if frames > FRAMES || !output(slot, Header::SIZE + frames * 8, BPF_RB_NO_WAKEUP) {
        return 0;
    }
    // Another CPU may have told it too, under another number, which is as good.
    let _ = TOLD.insert(&hash, &number, u64::from(BPF_NOEXIST));
    number
}

/// Tells what was found of a stack, with a copy of the rest.
#[inline(always)]
fn copy(slot: &mut Slot, header: Header) -> u32 {
    if !has_room() {
        return 0;
    }
    let sp = header.at.sp;
    let within = (sp & (PAGE as u64 - 1)) as usize;
    let first = slot.told.pages.as_mut_ptr();
    // SAFETY: the bytes from `within` to the page's end lie in the buffer; the helper checks the other address.
    let read = unsafe {
        generated::bpf_probe_read_user(first.add(within).cast(), (PAGE - within) as u32, sp as *const _)
    };
    let mut pages = 0;
    if read == 0 {
        pages = 1;
        for page in 1..PAGES {
            let from = (sp - within as u64) + (page * PAGE) as u64;
            // SAFETY: a page of the buffer, and as above.
            let read = unsafe {
                generated::bpf_probe_read_user(first.add(page * PAGE).cast(), PAGE as u32, from as *const _)
            };
            if read != 0 {
                break;
            }
            pages += 1;
        }
    }
    slot.told.header = Header { pages, ..header };
    let told = output(slot, size_of::<memfrag_common::told::Told>(), BPF_RB_FORCE_WAKEUP);
    if told { COPY } else { 0 }
}

/// Whether less than half of the ring is filled: the rest is for events.
#[inline(always)]
fn has_room() -> bool {
    RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) * 2 < RECORDS.query(u64::from(BPF_RB_RING_SIZE))
}

#[inline(always)]
fn output(slot: &Slot, bytes: usize, wake: u32) -> bool {
    // SAFETY: no more than a told stack's bytes.
    let bytes = unsafe { core::slice::from_raw_parts((&raw const slot.told).cast::<u8>(), bytes) };
    RECORDS.output::<[u8]>(bytes, u64::from(wake)).is_ok()
}

/// The next number of a counter, from 1 on.
#[inline(always)]
fn next(counter: *mut u64) -> u64 {
    // SAFETY: a map's value is 8-byte aligned and stays valid while the program runs. Of relaxed additions LLVM 22 drops
    // the result.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(counter, 1) + 1 }
}

/// The number of what code the process has now, 0 when there is none to be had.
#[inline(always)]
fn space_of(pid: u32) -> u64 {
    if let Some(space) = SPACES.get_ptr(&pid) {
        // SAFETY: the element stays valid while the program runs.
        return unsafe { (*space).number };
    }
    begin_space(pid, 0, u64::from(BPF_NOEXIST))
}

/// Another thread may be first to begin a space: then this one's walk has its rules for itself.
#[inline(always)]
fn begin_space(pid: u32, lowest: u64, flags: u64) -> u64 {
    let Some(made) = SPACES_MADE.get_ptr_mut(0) else { return 0 };
    let number = next(made);
    let _ = SPACES.insert(&pid, &Space { number, lowest }, flags);
    number
}

/// The process has become another program.
#[inline(always)]
pub fn replace_code(pid: u32) {
    if walking() == Walking::Rules as u32 {
        begin_space(pid, u64::MAX, 0);
    }
}

/// A file was mapped as code. What is known holds on where no code can have been before: the kernel looks for room from
/// above, so that most libraries lie below all that came before them.
#[inline(always)]
pub fn add_code(pid: u32, start: u64, bytes: u64) {
    if walking() != Walking::Rules as u32 {
        return;
    }
    // Nobody knows anything yet.
    let Some(space) = SPACES.get_ptr_mut(&pid) else { return };
    let Some(made) = SPACES_MADE.get_ptr_mut(0) else { return };
    // SAFETY: the element stays valid while the program runs; each word is written whole.
    let space = unsafe { &mut *space };
    if start.wrapping_add(bytes) > space.lowest {
        space.number = next(made);
    }
    if start < space.lowest {
        space.lowest = start;
    }
}

/// The process has ended.
#[inline(always)]
pub fn forget_code(pid: u32) {
    if walking() == Walking::Rules as u32 {
        let _ = SPACES.remove(&pid);
    }
}

/// A new process has the code of the one that made it, until either changes its own; whoever had its id before is gone.
#[inline(always)]
pub fn inherit_code(pid: u32, child: u32) {
    if walking() != Walking::Rules as u32 {
        return;
    }
    match SPACES.get_ptr(&pid) {
        Some(space) => {
            // SAFETY: the element stays valid while the program runs. Without room the child learns by itself.
            let space = unsafe { *space };
            let _ = SPACES.insert(&child, &space, 0);
        }
        None => forget_code(child),
    }
}
