//! System calls that a stop has interrupted, on x86-64.
//!
//! When a thread is made to stand still, the system call in which it waits ends. Most calls are then taken up again by
//! the kernel, unless a signal of the program's own has come. Some are not, `epoll_wait` among them: they tell the
//! program that they were interrupted, though nothing that it knows of has happened.

use std::io;

const EINTR: u64 = (-4i64).cast_unsigned();

/// Has a thread that stands still take up the system call again that its stop has interrupted, if the kernel would
/// not. A signal that waits for the thread interrupts the call rightly, and nothing is done.
pub(super) fn take_up_again(pid: u32, tid: u32) -> io::Result<()> {
    // SAFETY: a structure of numbers, of which zeros are valid ones.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETREGS, tid, &mut registers)?;
    let in_call = registers.orig_rax != u64::MAX;
    if in_call && registers.rax == EINTR && !signal_waits(pid, tid) {
        // As the kernel does it: the instruction has two bytes, and is run once more.
        registers.rax = registers.orig_rax;
        registers.rip -= 2;
        registers.orig_rax = u64::MAX;
        request(libc::PTRACE_SETREGS, tid, &mut registers)?;
    }
    Ok(())
}

/// Whether a signal waits for the thread that it has not blocked.
fn signal_waits(pid: u32, tid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
    let set = |name: &str| {
        let hex = text.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(hex.trim(), 16).ok()
    };
    let waiting = || Some((set("SigPnd:")? | set("ShdPnd:")?) & !set("SigBlk:")?);
    waiting().is_none_or(|waiting| waiting != 0)
}

fn request(what: libc::c_uint, tid: u32, registers: &mut libc::user_regs_struct) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: both requests that are made want the registers' place, and it has their form.
    let result = unsafe { libc::ptrace(what, tid.cast_signed(), none, std::ptr::from_mut(registers)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
