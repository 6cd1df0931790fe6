//! Everything that depends on the processor: system calls, the thread's own memory, the time stamp counter, and the
//! entries of the hooks.

use crate::record::Thread;
use core::arch::{asm, global_asm};

/// Bytes set aside for [`Thread`] in every thread.
pub(crate) const THREAD_BYTES: usize = 256;

// The variable is of the initial-exec model: its place in a thread is fixed when the program is loaded, so reading it
// calls nothing and allocates nothing. The language has no stable way to declare one without `std`.
global_asm!(
    ".pushsection .tbss.memfrag_thread,\"awT\",@nobits",
    ".p2align 6",
    ".hidden memfrag_thread",
    ".globl memfrag_thread",
    ".type memfrag_thread,@object",
    ".size memfrag_thread,256",
    "memfrag_thread:",
    ".zero 256",
    ".popsection",
);

/// The calling thread's own state, all zero at first.
#[inline(always)]
pub(crate) fn thread() -> &'static Thread {
    let at: *const Thread;
    // SAFETY: reads the variable's offset and the thread pointer; both stand as long as the thread runs.
    unsafe {
        asm!(".hidden memfrag_thread", "mov {at}, qword ptr [rip + memfrag_thread@GOTTPOFF]", "add {at}, qword ptr fs:[0]",
             at = out(reg) at, options(pure, nomem, nostack));
    }
    // SAFETY: the variable is as large and aligned as `Thread` wants, and zero bytes are a valid `Thread`. The
    // reference does not leave the hook that asked for it, hence not the thread.
    unsafe { &*at }
}

/// A system call. The result is negative for an error, as the kernel gives it.
///
/// # Safety
///
/// What the call's own description asks for.
#[inline]
#[allow(clippy::many_single_char_names, reason = "a system call's arguments have no better names")]
pub(crate) unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    // SAFETY: the caller answers for the arguments; the registers that the kernel changes are named.
    unsafe {
        asm!("syscall", inlateout("rax") number.cast_signed() => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// The time stamp counter, read after every earlier load has its value: the stamp of a call stands behind the stamp
/// of whatever this call has seen of other threads. Stores of what follows cannot be seen before it is read.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads a counter. Deliberately without `nomem`: nothing may be moved across it.
    unsafe { asm!("lfence", "rdtsc", out("rax") low, out("rdx") high, options(nostack)) };
    high << 32 | low
}

/// The time stamp counter, read whenever it suits the processor: up to some hundred instructions early. Enough where
/// no other thread's stamps are to be compared with.
#[inline(always)]
pub(crate) fn loose_ticks() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: as in `ticks`.
    unsafe { asm!("rdtsc", out("rax") low, out("rdx") high, options(nostack)) };
    high << 32 | low
}

/// The thread pointer. Threads' libraries put what it points to at the upper end of the thread's stack; that of the main
/// thread lies elsewhere.
pub(crate) fn thread_pointer() -> u64 {
    let at: u64;
    // SAFETY: reads the thread pointer's own word, which holds itself.
    unsafe { asm!("mov {at}, qword ptr fs:[0]", at = out(reg) at, options(pure, readonly, nostack)) };
    at
}

/// glibc's word that the process has one thread only, null where the C library gives none.
pub(crate) fn single_threaded() -> *const u8 {
    let at: *const u8;
    // SAFETY: reads an entry of the global offset table, 0 where the symbol does not exist.
    unsafe {
        asm!(".weak __libc_single_threaded", "mov {at}, qword ptr [rip + __libc_single_threaded@GOTPCREL]",
             at = out(reg) at, options(pure, readonly, nostack));
    }
    at
}

/// What the dynamic linker tells debuggers, null if it exports nothing of the kind: glibc's `_r_debug`, or what
/// musl's `_dl_debug_addr` points to.
pub(crate) fn debug_state() -> *const u8 {
    let (glibc, musl): (*const u8, *const *const u8);
    // SAFETY: reads two entries of the global offset table, 0 where the symbol does not exist.
    unsafe {
        asm!(".weak _r_debug", ".weak _dl_debug_addr", "mov {0}, qword ptr [rip + _r_debug@GOTPCREL]",
             "mov {1}, qword ptr [rip + _dl_debug_addr@GOTPCREL]",
             out(reg) glibc, out(reg) musl, options(pure, readonly, nostack));
    }
    if !glibc.is_null() || musl.is_null() {
        return glibc;
    }
    // SAFETY: the symbol exists, and is a pointer.
    unsafe { *musl }
}

/// This library's dynamic section, by which it knows itself in the list of loaded objects.
pub(crate) fn own_dynamic() -> *const u8 {
    let at: *const u8;
    // SAFETY: an address, nothing is read.
    unsafe { asm!(".hidden _DYNAMIC", "lea {at}, [rip + _DYNAMIC]", at = out(reg) at, options(pure, nomem, nostack)) };
    at
}

/// Defines the symbol `$name` as an entry that hands its function one more argument, in the register `$register`:
/// the stack pointer at the entry, where the return address lies; and, where `$fp` names the register behind, the frame
/// pointer. The function then returns straight to the caller.
macro_rules! entry {
    ($($name:ident => $function:path, $register:literal $(, $fp:literal)?;)*) => {
        $(#[cfg(not(test))]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                concat!("mov ", $register, ", rsp"),
                $(concat!("mov ", $fp, ", rbp"),)?
                "jmp {function}",
                function = sym $function
            )
        })*
    };
}
pub(crate) use entry;

/// System call numbers.
pub(crate) mod number {
    pub(crate) const READ: usize = 0;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const OPEN: usize = 2;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const MUNMAP: usize = 11;
    pub(crate) const BRK: usize = 12;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const SCHED_YIELD: usize = 24;
    pub(crate) const MADVISE: usize = 28;
    pub(crate) const NANOSLEEP: usize = 35;
    pub(crate) const GETPID: usize = 39;
    pub(crate) const KILL: usize = 62;
    pub(crate) const FTRUNCATE: usize = 77;
    pub(crate) const UNLINK: usize = 87;
    pub(crate) const READLINK: usize = 89;
    pub(crate) const GETRLIMIT: usize = 97;
    pub(crate) const GETPPID: usize = 110;
    pub(crate) const SIGALTSTACK: usize = 131;
    pub(crate) const GETTID: usize = 186;
    pub(crate) const CLOCK_GETTIME: usize = 228;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const TGKILL: usize = 234;
}
