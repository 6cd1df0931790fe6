//! Everything that returns a block: reported at return, when the block exists. Reallocations are reported at entry
//! as well, since from there on another thread may get the old block.

use crate::emit::{Wake, emit};
use crate::inflight::{Registers, enter, is_own_event, leave, read_word};
use crate::log::tell;
use crate::maps::{Call, is_running, known_thread, thread, walking};
use crate::stacks::stack_number;
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_attach_cookie, bpf_get_current_pid_tgid};
use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use memfrag_common::config::Cookie;
use memfrag_common::told::Walking;
use memfrag_common::unwind;
use memfrag_common::{Function, Kind, Record};

/// What a call asks for, read from the argument registers.
struct Request {
    size: u64,
    align_log2: u8,
    out: u64,
    old: u64,
}

#[inline(always)]
fn request(function: u8, regs: &Registers) -> Request {
    let mut request = Request { size: regs.rdi, align_log2: 0, out: 0, old: 0 };
    if function == Function::Calloc as u8 {
        request.size = product(regs.rdi, regs.rsi);
    } else if function == Function::Realloc as u8 || function == Function::Rallocx as u8 {
        request.size = regs.rsi;
        request.old = regs.rdi;
    } else if function == Function::Reallocarray as u8 {
        request.size = product(regs.rsi, regs.rdx);
        request.old = regs.rdi;
    } else if function == Function::Memalign as u8 || function == Function::AlignedAlloc as u8 {
        request.size = regs.rsi;
        request.align_log2 = log2(regs.rdi);
    } else if function == Function::PosixMemalign as u8 {
        request.size = regs.rdx;
        request.align_log2 = log2(regs.rsi);
        request.out = regs.rdi;
    }
    request
}

/// A product as the record shows it: one that overflows is the largest number, and the call fails. By halves, since
/// BPF has no wide multiplication.
#[inline(always)]
fn product(count: u64, size: u64) -> u64 {
    const LOW: u64 = 0xffff_ffff;
    let low = (count & LOW) * (size & LOW);
    let (count_high, size_high) = (count >> 32, size >> 32);
    if count_high | size_high == 0 {
        return low;
    }
    if count_high != 0 && size_high != 0 {
        return u64::MAX;
    }
    let cross = count_high * (size & LOW) + (count & LOW) * size_high;
    let sum = low.wrapping_add(cross << 32);
    if cross >> 32 != 0 || sum < low { u64::MAX } else { sum }
}

/// The position of the highest bit: alignments are powers of two where they are valid.
#[inline(always)]
fn log2(alignment: u64) -> u8 {
    let mut rest = alignment;
    let mut log = 0;
    let mut step = 32;
    // Six halvings, unrolled: BPF has no instruction that counts leading zeros.
    for _ in 0..6 {
        if rest >> step != 0 {
            rest >>= step;
            log += step as u8;
        }
        step /= 2;
    }
    log
}

#[inline(always)]
fn is_realloc(function: u8) -> bool {
    function == Function::Realloc as u8 || function == Function::Reallocarray as u8 || function == Function::Rallocx as u8
}

#[uprobe]
pub fn allocation_entry(ctx: ProbeContext) -> u32 {
    if !is_running() {
        return 0;
    }
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let Some(thread) = thread(pid, tid) else { return 0 };
    // SAFETY: the map's element is this thread's, which runs this very program and nothing else.
    let thread = unsafe { &mut *thread };
    let regs = Registers::read(ctx.regs);
    // SAFETY: the context is the program's own.
    let cookie = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    if !is_own_event(thread, regs.rsp, regs.rip, cookie) {
        tell!(&ctx, "thread {}: call of function {} at sp {:x} is inner work", tid, cookie.function, regs.rsp);
        return 0;
    }
    let function = cookie.function;
    let request = request(function, &regs);
    if is_realloc(function) {
        let record = Record {
            pid,
            tid,
            kind: Kind::ReallocBegin as u8,
            function,
            addr: request.old,
            size: request.size,
            site: read_word(regs.rsp),
            ..Record::default()
        };
        emit(record, Wake::No);
    }
    let Request { size, align_log2, out, .. } = request;
    enter(thread, Call { sp: regs.rsp, size, out, function, align_log2, padding: [0; 6] });
    0
}

#[uretprobe]
pub fn allocation_return(ctx: RetProbeContext) -> u32 {
    if !is_running() {
        return 0;
    }
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let Some(thread) = known_thread(tid) else { return 0 };
    // SAFETY: the map's element is this thread's, which runs this very program and nothing else.
    let thread = unsafe { &mut *thread };
    // SAFETY: the kernel hands the registers of the traced program to the program.
    let regs = unsafe { &*ctx.regs };
    // SAFETY: the context is the program's own.
    let function = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }).function;
    let Some(call) = leave(thread, regs.rsp, function) else {
        tell!(&ctx, "thread {}: return of function {} to sp {:x} is no event", tid, function, regs.rsp);
        return 0;
    };
    let mut addr = regs.rax;
    if function == Function::PosixMemalign as u8 {
        // The result is an error number; the block is where the caller wanted it.
        addr = if addr as u32 == 0 { read_word(call.out) } else { 0 };
    }
    let mut stack = 0;
    if walking() != Walking::Off as u32 {
        // What a call returns to is where the walk begins: the caller's registers are in place again.
        stack = stack_number(pid, tid, &unwind::Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp });
    }
    let record = Record {
        time: 0,
        addr,
        size: call.size,
        // At a return probe the instruction pointer is the return address: the caller.
        site: regs.rip,
        pid,
        tid,
        kind: if is_realloc(function) { Kind::ReallocEnd as u8 } else { Kind::Alloc as u8 },
        function,
        align_log2: call.align_log2,
        reserved: 0,
        extra: stack,
    };
    emit(record, Wake::No);
    0
}
