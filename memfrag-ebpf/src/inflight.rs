//! Which calls are events of their own.
//!
//! A thread can be in more than one allocator function at once: `realloc` calls or jumps to `malloc`, a signal
//! handler allocates while `malloc` is at work, and a `longjmp` leaves calls behind that never return. The stack
//! pointer at the entry tells these apart. With S the stack pointer of the innermost call in flight, a new entry at
//!
//! - **a higher address** than S means that the call in flight has gone (*stale*);
//! - **S itself** is a jump out of the call in flight, if the return address there is the kernel's trampoline of
//!   return probes (*tail call*, part of the outer call), else the call in flight has gone;
//! - **a lower address** is the allocator's own inner work when the return address lies in the allocator's code
//!   (*nested*, part of the outer call), else an event of its own, such as a signal handler's.
//!
//! No state ever waits for a return: whatever is left behind is put aside by the next call from further up the stack.

use crate::maps::{Call, Thread, count};
use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::bpf_probe_read_user;
use memfrag_common::config::{Cookie, MAX_IN_FLIGHT};
use memfrag_common::loss::Counter;

/// The registers of the traced program that the programs use. Read one by one and all at once: the verifier wants
/// each at its constant offset, which the compiler does not keep to when the choice of a register is its own.
pub struct Registers {
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rsp: u64,
    pub rip: u64,
}

impl Registers {
    #[inline(always)]
    pub fn read(regs: *const pt_regs) -> Self {
        macro_rules! register {
            ($name:ident) => {{
                // SAFETY: the kernel hands the program the registers of the traced one.
                let place = unsafe { &raw const (*regs).$name };
                // SAFETY: as above; volatile keeps the load where it is.
                unsafe { place.read_volatile() }
            }};
        }
        Self { rdi: register!(rdi), rsi: register!(rsi), rdx: register!(rdx), rsp: register!(rsp), rip: register!(rip) }
    }
}

/// The word on the traced program's stack, 0 when it cannot be read.
#[inline(always)]
pub fn read_word(address: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.unwrap_or(0)
}

/// Whether a return address is the kernel's trampoline, which is the start of a page. Code that called a function
/// can stand there too, but only with a chance of one in 4096, and only a stale call makes it matter.
#[inline(always)]
fn is_trampoline(return_address: u64) -> bool {
    return_address != 0 && return_address & 0xfff == 0
}

/// Takes the calls off that cannot be in flight any more when a call is entered at `sp`, and says whether the new
/// call is an event of its own.
#[inline(always)]
pub fn is_own_event(thread: &mut Thread, sp: u64, ip: u64, cookie: Cookie) -> bool {
    if thread.depth == 0 {
        return true;
    }
    judge(thread, sp, ip, cookie)
}

#[unsafe(no_mangle)]
#[inline(never)]
fn judge(thread: &mut Thread, sp: u64, ip: u64, cookie: Cookie) -> bool {
    let caller = read_word(sp);
    for _ in 0..MAX_IN_FLIGHT {
        let Some(inner) = innermost(thread) else { return true };
        let gone = if inner.sp == sp { !is_trampoline(caller) } else { inner.sp < sp || !is_trampoline(read_word(inner.sp)) };
        if !gone {
            break;
        }
        thread.depth -= 1;
        count(Counter::Stale);
    }
    let Some(inner) = innermost(thread) else { return true };
    if inner.sp == sp {
        count(Counter::TailCall);
        return false;
    }
    if cookie.is_own_code(ip, caller) {
        count(Counter::Nested);
        return false;
    }
    true
}

/// Remembers a call until it returns.
#[inline(always)]
pub fn enter(thread: &mut Thread, call: Call) {
    if thread.depth as usize >= MAX_IN_FLIGHT {
        for i in 1..MAX_IN_FLIGHT {
            thread.calls[i - 1] = thread.calls[i];
        }
        thread.depth = MAX_IN_FLIGHT as u32 - 1;
        count(Counter::Overflow);
    }
    let at = thread.depth as usize & (MAX_IN_FLIGHT - 1);
    thread.calls[at] = call;
    thread.depth = at as u32 + 1;
}

/// The call that returns to `sp`, which is one word above its entry's. `None` for the return of an inner call, and
/// of a call whose entry was not seen.
#[inline(always)]
pub fn leave(thread: &mut Thread, sp: u64, function: u8) -> Option<Call> {
    let entry_sp = sp - 8;
    for _ in 0..MAX_IN_FLIGHT {
        let Some(&call) = innermost(thread) else {
            count(Counter::NoEntry);
            return None;
        };
        if call.sp == entry_sp && call.function == function {
            thread.depth -= 1;
            return Some(call);
        }
        if call.sp >= entry_sp {
            return None;
        }
        thread.depth -= 1;
        count(Counter::Stale);
    }
    None
}

#[inline(always)]
fn innermost(thread: &Thread) -> Option<&Call> {
    let depth = thread.depth as usize;
    if depth == 0 || depth > MAX_IN_FLIGHT {
        return None;
    }
    Some(&thread.calls[(depth - 1) & (MAX_IN_FLIGHT - 1)])
}
