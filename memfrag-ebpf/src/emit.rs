//! Records into the ring, and what happens when it is full.

use crate::maps::{LOST, LOST_UNTOLD, RECORDS, count};
use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg};
use memfrag_common::loss::Counter;
use memfrag_common::{Kind, Record};

/// Whether the daemon should be woken. It looks by itself every few milliseconds, and a wake-up costs the traced
/// program a microsecond, so only rare records that want a quick look at `/proc` ask for one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    No,
    Yes,
}

/// Writes a record of this moment; when there is no room, counts it as lost.
#[inline(always)]
pub fn emit(mut record: Record, wake: Wake) {
    tell_losses(record.pid, record.tid);
    // SAFETY: the helper has no requirements.
    record.time = unsafe { bpf_ktime_get_ns() };
    if !put(record, wake) {
        count(Counter::Dropped);
        lose(record.pid);
    }
}

#[inline(always)]
fn put(record: Record, wake: Wake) -> bool {
    let Some(mut room) = RECORDS.reserve::<Record>(0) else { return false };
    room.write(record);
    room.submit(u64::from(match wake {
        Wake::No => BPF_RB_NO_WAKEUP,
        Wake::Yes => BPF_RB_FORCE_WAKEUP,
    }));
    true
}

/// Notes that an event of the process is missing from the ring.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn lose(pid: u32) {
    if LOST.get_ptr_mut(&pid).is_none() {
        // Another CPU may be first, which is as good.
        let _ = LOST.insert(&pid, &0, u64::from(BPF_NOEXIST));
    }
    // With the table full, the per-CPU counters still hold the truth.
    let Some(lost) = LOST.get_ptr_mut(&pid) else { return };
    add(lost, 1);
    if let Some(untold) = LOST_UNTOLD.get_ptr_mut(0) {
        add(untold, 1);
    }
}

/// Adds to a map's value atomically, wrapping.
#[inline(always)]
fn add(value: *mut u64, increment: u64) {
    // SAFETY: map values are 8-byte aligned and stay valid while the program runs. The BPF target has these atomic
    // instructions (since kernel 5.12), but the standard library does not offer them for it.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, increment) };
}

/// Puts a gap before the process's next record, where events of it were lost.
#[inline(always)]
fn tell_losses(pid: u32, tid: u32) {
    let Some(untold) = LOST_UNTOLD.get_ptr_mut(0) else { return };
    // SAFETY: the element exists and is aligned; a stale value only delays the gap by one record.
    if unsafe { untold.read_volatile() } != 0 {
        tell_gap(pid, tid, untold);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn tell_gap(pid: u32, tid: u32, untold: *mut u64) {
    let Some(lost) = LOST.get_ptr_mut(&pid) else { return };
    // SAFETY: as in `add`.
    let number = unsafe { atomic_xchg::<u64, { AtomicOrdering::Relaxed }>(lost, 0) };
    if number == 0 {
        return;
    }
    // SAFETY: the helper has no requirements.
    let time = unsafe { bpf_ktime_get_ns() };
    if put(Record { time, pid, tid, kind: Kind::Gap as u8, size: number, ..Record::default() }, Wake::No) {
        add(untold, number.wrapping_neg());
    } else {
        add(lost, number);
    }
}
