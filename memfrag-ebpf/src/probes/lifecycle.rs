//! Processes and threads: made, become another program, ended.

use crate::emit::{Wake, emit};
use crate::maps::{
    TRACED, forget_thread, group_dead_offset, is_known, is_self, is_wanted, known_thread, limit, name,
};
use crate::stacks::{forget_code, inherit_code, replace_code};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use memfrag_common::event::CLONE_THREAD;
use memfrag_common::names::{Limit, noted};
use memfrag_common::record::UNKNOWN_STATUS;
use memfrag_common::{Kind, Record};

/// Offsets in the tracepoint `task:task_newtask`, the same in every kernel that memfrag supports.
const NEWTASK_PID: usize = 8;
const NEWTASK_CLONE_FLAGS: usize = 32;

/// Runs in the maker's context, before the new task first runs: so a child is known before its first call.
#[tracepoint]
pub fn task_newtask(ctx: TracePointContext) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    // SAFETY: the helper checks the read; the offsets are the tracepoint's.
    let Ok(child) = (unsafe { ctx.read_at::<u32>(NEWTASK_PID) }) else { return 0 };
    // SAFETY: as above.
    let Ok(flags) = (unsafe { ctx.read_at::<u64>(NEWTASK_CLONE_FLAGS) }) else { return 0 };
    if flags & CLONE_THREAD != 0 {
        if is_known(pid) {
            emit(Record { pid, tid: child, kind: Kind::ThreadStart as u8, ..Record::default() }, Wake::No);
        }
        return 0;
    }
    if let Some(noted) = noted_of(pid)
        && noted & noted::FOLLOWED != 0
    {
        // A full table shows as a process without events; its fork is in the recording.
        let _ = TRACED.insert(&child, &noted, 0);
    }
    if !is_known(pid) {
        return 0;
    }
    inherit_code(pid, child);
    let record =
        Record { pid, tid, kind: Kind::Fork as u8, addr: u64::from(child), size: flags, ..Record::default() };
    emit(record, Wake::Yes);
    0
}

/// What is noted of a traced process.
#[inline(always)]
fn noted_of(pid: u32) -> Option<u32> {
    // SAFETY: the element stays valid while the program runs.
    TRACED.get_ptr(&pid).map(|noted| unsafe { *noted })
}

/// A process has become another program: from here on it is recorded if that has a name that is wanted. Of one that was
/// recorded and no longer is, everything is gone.
#[inline(always)]
fn choose(pid: u32, tid: u32, name: [u64; 2]) {
    let wanted = is_wanted(name);
    match noted_of(pid) {
        Some(noted) if wanted => {
            let _ = TRACED.insert(&pid, &(noted & !noted::LEFT_OUT), 0);
        }
        Some(noted) => {
            let _ = TRACED.insert(&pid, &(noted | noted::LEFT_OUT), 0);
            if noted & noted::LEFT_OUT == 0 {
                forget_thread(tid);
                forget_code(pid);
                let end = Record { pid, tid, kind: Kind::Exit as u8, addr: UNKNOWN_STATUS, ..Record::default() };
                emit(end, Wake::Yes);
            }
        }
        None if wanted && limit() == Limit::Machine as u32 && !is_self(pid) => {
            let _ = TRACED.insert(&pid, &noted::FOLLOWED, 0);
        }
        None => {}
    }
}

#[tracepoint]
pub fn sched_process_exec(_ctx: TracePointContext) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let name = name();
    if limit() != Limit::None as u32 {
        choose(pid, tid, name);
    }
    if !is_known(pid) {
        return 0;
    }
    if let Some(thread) = known_thread(tid) {
        // SAFETY: the map's element is this thread's, which runs this very program and nothing else.
        unsafe { (*thread).depth = 0 };
    }
    replace_code(pid);
    let [addr, size] = name;
    emit(Record { pid, tid, kind: Kind::Exec as u8, addr, size, ..Record::default() }, Wake::Yes);
    0
}

#[tracepoint]
pub fn sched_process_exit(ctx: TracePointContext) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let offset = group_dead_offset() as usize;
    // SAFETY: the helper checks the read; the loader took the offset from this kernel's own description.
    let is_last = offset != 0 && unsafe { ctx.read_at::<u8>(offset) } == Ok(1);
    if !is_known(pid) {
        if limit() != Limit::None as u32 && is_last {
            let _ = TRACED.remove(&pid);
        }
        return 0;
    }
    let mut status = UNKNOWN_STATUS;
    if let Some(thread) = known_thread(tid) {
        // SAFETY: the map's element is this thread's, which runs this very program and nothing else.
        let thread = unsafe { &*thread };
        if thread.exits != 0 {
            status = u64::from(thread.exit_status);
        }
        forget_thread(tid);
    }
    emit(Record { pid, tid, kind: Kind::ThreadExit as u8, ..Record::default() }, Wake::No);
    if is_last {
        let _ = TRACED.remove(&pid);
        forget_code(pid);
        emit(Record { pid, tid, kind: Kind::Exit as u8, addr: status, ..Record::default() }, Wake::Yes);
    }
    0
}
