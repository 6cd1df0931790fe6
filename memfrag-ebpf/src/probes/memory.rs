//! The system calls that change a process's mappings, and those that end it, by the tracepoints at their entry and
//! return.
//!
//! What gives memory is reported at return, with the result; what takes it away at entry, before another thread can
//! be given the same addresses.

use crate::emit::{Wake, emit};
use crate::maps::{MAX_SYSCALL_ARGUMENTS, Thread, is_known, known_thread, thread};
use crate::stacks::add_code;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use memfrag_common::{Kind, Record};

/// Offsets in every `syscalls:sys_enter_*` and `syscalls:sys_exit_*` tracepoint.
const NUMBER: usize = 8;
const ARGUMENTS: usize = 16;
const RESULT: usize = 16;

/// System call numbers of x86-64.
mod number {
    pub(super) const MMAP: u32 = 9;
    pub(super) const MUNMAP: u32 = 11;
    pub(super) const BRK: u32 = 12;
    pub(super) const MREMAP: u32 = 25;
    pub(super) const MADVISE: u32 = 28;
    pub(super) const EXIT: u32 = 60;
    pub(super) const EXIT_GROUP: u32 = 231;
}

/// The largest value that a system call returns as a negative error number.
const MAX_ERRNO: u64 = 4095;

/// Executable mappings bring code, and with it call sites that the daemon wants to know soon.
const PROT_EXEC: u64 = 4;

#[inline(always)]
fn read(ctx: &TracePointContext, offset: usize) -> u64 {
    // SAFETY: the helper checks the read; the offsets are the tracepoint's.
    unsafe { ctx.read_at::<u64>(offset) }.unwrap_or(0)
}

/// The number of the system call, this task, and what is remembered of its thread; `None` if it is not traced.
#[inline(always)]
fn begin(ctx: &TracePointContext) -> Option<(u32, Record)> {
    let id = bpf_get_current_pid_tgid();
    let pid = (id >> 32) as u32;
    if !is_known(pid) {
        return None;
    }
    Some((read(ctx, NUMBER) as u32, Record { pid, tid: id as u32, ..Record::default() }))
}

#[inline(always)]
fn emit_range(mut record: Record, kind: Kind, addr: u64, size: u64) {
    record.kind = kind as u8;
    record.addr = addr;
    record.size = size;
    emit(record, Wake::No);
}

#[tracepoint]
pub fn sys_enter(ctx: TracePointContext) -> u32 {
    let Some((number, record)) = begin(&ctx) else { return 0 };
    let Some(state) = thread(record.pid, record.tid) else { return 0 };
    // SAFETY: the map's element is this thread's, which runs this very program and nothing else.
    let state: &mut Thread = unsafe { &mut *state };
    for i in 0..MAX_SYSCALL_ARGUMENTS {
        state.arguments[i] = read(&ctx, ARGUMENTS + 8 * i);
    }
    let (start, size) = (state.arguments[0], state.arguments[1]);
    if number == number::MUNMAP {
        emit_range(record, Kind::Munmap, start, size);
    } else if number == number::MREMAP {
        emit_range(record, Kind::MremapBegin, start, size);
    } else if number == number::EXIT_GROUP || number == number::EXIT {
        // As `waitpid` gives it.
        state.exit_status = (start as u32 & 0xff) << 8;
        state.exits = 1;
    }
    0
}

#[tracepoint]
pub fn sys_exit(ctx: TracePointContext) -> u32 {
    let Some((number, mut record)) = begin(&ctx) else { return 0 };
    let result = read(&ctx, RESULT);
    if number == number::BRK {
        emit_range(record, Kind::Brk, result, 0);
        return 0;
    }
    let Some(state) = known_thread(record.tid) else { return 0 };
    // SAFETY: the map's element is this thread's, which runs this very program and nothing else.
    let [start, size, third, flags, fd] = unsafe { (*state).arguments };
    let failed = result > u64::MAX - MAX_ERRNO;
    if number == number::MMAP && !failed {
        record.kind = Kind::Mmap as u8;
        record.addr = result;
        record.size = size;
        record.site = third & 0xffff_ffff | flags << 32;
        record.extra = fd as u32;
        let brings_code = third & PROT_EXEC != 0 && fd as i32 >= 0;
        if brings_code {
            add_code(record.pid, result, size);
        }
        emit(record, if brings_code { Wake::Yes } else { Wake::No });
    } else if number == number::MUNMAP && failed {
        emit_range(record, Kind::MunmapFailed, start, size);
    } else if number == number::MREMAP {
        emit_range(record, Kind::MremapEnd, if failed { 0 } else { result }, third);
    } else if number == number::MADVISE && !failed {
        record.extra = third as u32;
        emit_range(record, Kind::Madvise, start, size);
    }
    0
}
