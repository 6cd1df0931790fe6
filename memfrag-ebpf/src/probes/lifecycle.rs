//! Processes and threads: made, become another program, ended.

use crate::emit::{Wake, emit};
use crate::maps::{THREADS, TRACED, group_dead_offset, is_known, known_thread};
use crate::stacks::{forget_code, inherit_code, replace_code};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use memfrag_common::record::UNKNOWN_STATUS;
use memfrag_common::{Kind, Record};

const CLONE_THREAD: u64 = 0x0001_0000;

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
    if !is_known(pid) {
        return 0;
    }
    if flags & CLONE_THREAD != 0 {
        emit(Record { pid, tid: child, kind: Kind::ThreadStart as u8, ..Record::default() }, Wake::No);
        return 0;
    }
    if let Some(follow) = TRACED.get_ptr(&pid) {
        // SAFETY: the element stays valid while the program runs.
        let follow = unsafe { *follow };
        if follow != 0 {
            // A full table shows as a process without events; its fork is in the recording.
            let _ = TRACED.insert(&child, &follow, 0);
        }
    }
    inherit_code(pid, child);
    let record =
        Record { pid, tid, kind: Kind::Fork as u8, addr: u64::from(child), size: flags, ..Record::default() };
    emit(record, Wake::Yes);
    0
}

#[tracepoint]
pub fn sched_process_exec(_ctx: TracePointContext) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    if !is_known(pid) {
        return 0;
    }
    if let Some(thread) = known_thread(tid) {
        // SAFETY: the map's element is this thread's, which runs this very program and nothing else.
        unsafe { (*thread).depth = 0 };
    }
    replace_code(pid);
    emit(Record { pid, tid, kind: Kind::Exec as u8, ..Record::default() }, Wake::Yes);
    0
}

#[tracepoint]
pub fn sched_process_exit(ctx: TracePointContext) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    if !is_known(pid) {
        return 0;
    }
    let mut status = UNKNOWN_STATUS;
    if let Some(thread) = known_thread(tid) {
        // SAFETY: the map's element is this thread's, which runs this very program and nothing else.
        let thread = unsafe { &*thread };
        if thread.exits != 0 {
            status = u64::from(thread.exit_status);
        }
        let _ = THREADS.remove(&tid);
    }
    emit(Record { pid, tid, kind: Kind::ThreadExit as u8, ..Record::default() }, Wake::No);
    let offset = group_dead_offset() as usize;
    if offset == 0 {
        return 0;
    }
    // SAFETY: the helper checks the read; the loader took the offset from this kernel's own description.
    if let Ok(1) = unsafe { ctx.read_at::<u8>(offset) } {
        let _ = TRACED.remove(&pid);
        forget_code(pid);
        emit(Record { pid, tid, kind: Kind::Exit as u8, addr: status, ..Record::default() }, Wake::Yes);
    }
    0
}
