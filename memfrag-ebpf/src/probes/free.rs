//! Everything that frees a block: reported at entry, before another thread can get it.

use crate::emit::{Wake, emit};
use crate::inflight::{Registers, is_own_event, read_word};
use crate::log::tell;
use crate::maps::{count, is_running, thread};
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_attach_cookie, bpf_get_current_pid_tgid};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use memfrag_common::config::Cookie;
use memfrag_common::loss::Counter;
use memfrag_common::{Function, Kind, Record};

#[uprobe]
pub fn free_entry(ctx: ProbeContext) -> u32 {
    let regs = Registers::read(ctx.regs);
    if !is_running() || regs.rdi == 0 {
        // Freeing nothing is no event, and most probe points are not even reached by it.
        return 0;
    }
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let Some(thread) = thread(pid, tid) else { return 0 };
    // SAFETY: the map's element is this thread's, which runs this very program and nothing else.
    let thread = unsafe { &mut *thread };
    // SAFETY: the context is the program's own.
    let cookie = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    if !is_own_event(thread, regs.rsp, regs.rip, cookie) {
        return 0;
    }
    let site = read_word(regs.rsp);
    if cookie.frees_by_itself && cookie.is_own_code(regs.rip, site) {
        count(Counter::Nested);
        tell!(&ctx, "thread {}: free of {:x} by the allocator itself", tid, regs.rdi);
        return 0;
    }
    let function = cookie.function;
    let size = if function == Function::FreeSized as u8 || function == Function::Sdallocx as u8 {
        regs.rsi
    } else if function == Function::FreeAlignedSized as u8 {
        regs.rdx
    } else {
        0
    };
    let record = Record {
        time: 0,
        addr: regs.rdi,
        size,
        site,
        pid,
        tid,
        kind: Kind::Free as u8,
        function,
        align_log2: 0,
        reserved: 0,
        extra: 0,
    };
    emit(record, Wake::No);
    0
}
