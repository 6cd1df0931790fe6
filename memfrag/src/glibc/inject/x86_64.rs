//! What a call in another process's thread needs to know of the processor: x86-64.

use super::tracee::Tracee;
use crate::target::process::ProcessError;

/// `NT_PRSTATUS`: the general registers.
const GENERAL: usize = 1;
/// `NT_X86_XSTATE`: the state of the vector units and whatever else the processor has.
const EXTENDED: usize = 0x202;
/// More than any processor's extended state has; tiles of matrices make it 11 KiB.
const EXTENDED_MAX: usize = 256 << 10;

/// Positions of the general registers (`struct user_regs_struct`).
const RAX: usize = 10;
const RCX: usize = 11;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;
const RIP: usize = 16;
const EFLAGS: usize = 18;
const RSP: usize = 19;
const COUNT: usize = 27;

/// Bytes below the stack pointer that belong to the running function.
const RED_ZONE: u64 = 128;
/// Bytes of stack that a call may take.
pub(super) const STACK: u64 = 16 << 10;
/// The flags of single steps and of string instructions that go downwards; no function expects them to be set.
const TRAP_AND_DIRECTION: u64 = 1 << 8 | 1 << 10;

/// An instruction that traps (`int3`).
pub(super) const TRAP: u8 = 0xcc;
/// What a signal handler returns to, in the C libraries (`mov $15, %rax; syscall`) and in Go (`mov $15, %eax; syscall`).
const SIGNAL_RETURNS: [&[u8]; 2] = [&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05], &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05]];
/// Bytes of code that tell a signal handler's return.
pub(super) const SIGNAL_RETURN: usize = 9;

const ERESTARTSYS: u64 = (-512i64).cast_unsigned();
const NO_CALL: u64 = u64::MAX;

/// System calls that malloc makes with its state half changed, or after which nothing is as it was: brk, mmap, munmap,
/// mprotect, madvise, mremap; `rt_sigreturn`; fork, vfork, clone, clone3, execve, exit, `exit_group`.
const UNSAFE_CALLS: [u64; 14] = [9, 10, 11, 12, 15, 25, 28, 56, 57, 58, 59, 60, 231, 435];
const FUTEX: u64 = 202;
/// System calls in which programs wait, and which malloc's code cannot be in, save through functions that are not in
/// [`place`](super::place)'s list of harmless ones: read, poll, readv, select, pause, nanosleep, accept, recvfrom,
/// recvmsg, wait4, flock, `rt_sigtimedwait`, `rt_sigsuspend`, `restart_syscall`, `clock_nanosleep`, `epoll_wait`,
/// waitid, pselect6, ppoll, `epoll_pwait`, accept4, `io_uring_enter`, `epoll_pwait2`.
const WAITS: [u64; 23] =
    [0, 7, 19, 23, 34, 35, 43, 45, 47, 61, 73, 128, 130, 219, 230, 232, 247, 270, 271, 281, 288, 426, 441];

/// What a thread waits for in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing, or something that is not known.
    None,
    /// A lock, or what locks are made of.
    Lock,
    /// Input, a time, a child, a signal.
    Event,
}

/// All registers of a thread that stands still.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    general: [u64; COUNT],
    extended: Vec<u8>,
}

impl Registers {
    /// Reads them.
    pub(super) fn read(tracee: &Tracee) -> Result<Self, ProcessError> {
        let general = general(tracee)?;
        let mut extended = vec![0; EXTENDED_MAX];
        let size = tracee.registers(EXTENDED, &mut extended)?;
        extended.truncate(size);
        Ok(Self { general, extended })
    }

    /// Sets them.
    pub(super) fn write(&self, tracee: &Tracee) -> Result<(), ProcessError> {
        tracee.set_registers(EXTENDED, &self.extended)?;
        set_general(tracee, &self.general)
    }

    /// The instruction that comes next.
    pub(super) fn pc(&self) -> u64 {
        self.general[RIP]
    }

    /// The stack pointer.
    pub(super) fn sp(&self) -> u64 {
        self.general[RSP]
    }

    /// Whether the thread is in a system call that malloc may make with its state half changed.
    pub(super) fn in_unsafe_call(&self) -> bool {
        UNSAFE_CALLS.contains(&self.general[ORIG_RAX])
    }

    /// In what kind of wait the thread is.
    pub(super) fn wait(&self) -> Wait {
        match self.general[ORIG_RAX] {
            FUTEX => Wait::Lock,
            call if WAITS.contains(&call) => Wait::Event,
            _ => Wait::None,
        }
    }

    /// Whether the thread is in a system call, or runs code of its own.
    pub(super) fn in_call(&self) -> bool {
        self.general[ORIG_RAX] != NO_CALL
    }

    /// Makes the thread call `function(argument)` and return to `return_to`.
    pub(super) fn enter(
        &self,
        tracee: &Tracee,
        function: u64,
        argument: u64,
        return_to: u64,
    ) -> Result<(), ProcessError> {
        // As behind a call instruction: the stack is aligned but for the return address.
        let stack = (self.sp().wrapping_sub(RED_ZONE) & !15).wrapping_sub(8);
        tracee.write(stack, &return_to.to_le_bytes())?;
        let mut general = self.general;
        general[RSP] = stack;
        general[RIP] = function;
        general[RDI] = argument;
        general[RAX] = 0;
        general[RCX] = 0;
        general[EFLAGS] &= !TRAP_AND_DIRECTION;
        // No system call is to be taken up again from here.
        general[ORIG_RAX] = NO_CALL;
        set_general(tracee, &general)
    }
}

/// Where a thread is that was made to call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// The instruction that comes next.
    pub(super) pc: u64,
    /// What the function returned, if it did.
    pub(super) result: u64,
    /// Whether it waits for a lock, and has not been woken: the wake-up is another one's still.
    pub(super) waits_for_lock: bool,
}

/// Looks where a thread is.
pub(super) fn progress(tracee: &Tracee) -> Result<Progress, ProcessError> {
    let general = general(tracee)?;
    let waits_for_lock = general[ORIG_RAX] == FUTEX && general[RAX] == ERESTARTSYS;
    Ok(Progress { pc: general[RIP], result: general[RAX], waits_for_lock })
}

/// Whether a signal handler returns to this code.
pub(super) fn is_signal_return(code: &[u8]) -> bool {
    SIGNAL_RETURNS.iter().any(|instructions| code.starts_with(instructions))
}

/// Whether the instruction in the middle of this code, [`SIGNAL_RETURN`] bytes behind its beginning, belongs to a signal
/// handler's return.
pub(super) fn in_signal_return(code: &[u8; 2 * SIGNAL_RETURN]) -> bool {
    // It is the first instruction or the system call, which has two bytes.
    let middle = SIGNAL_RETURN;
    let at_call = |instructions: &&[u8]| code[..middle + 2].ends_with(instructions);
    is_signal_return(&code[middle..]) || SIGNAL_RETURNS.iter().any(at_call)
}

/// Whether a call instruction ends where these bytes do.
pub(super) fn ends_with_call(before: [u8; 8]) -> bool {
    // call rel32
    if before[3] == 0xe8 {
        return true;
    }
    // call through a register or memory: ff /2, of two to seven bytes
    (2..=7).any(|size| before[8 - size] == 0xff && before[8 - size + 1] >> 3 & 7 == 2)
}

/// Where the call instruction leads to that ends where these bytes do, if it names that itself. `behind` is the address
/// behind it.
pub(super) fn call_target(before: [u8; 8], behind: u64) -> Option<u64> {
    let [.., a, b, c, d] = before;
    let through_register = (2..=7).any(|size| before[8 - size] == 0xff && before[8 - size + 1] >> 3 & 7 == 2);
    let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
    (before[3] == 0xe8 && !through_register).then(|| behind.wrapping_add_signed(distance))
}

fn general(tracee: &Tracee) -> Result<[u64; COUNT], ProcessError> {
    let mut bytes = [0; COUNT * 8];
    tracee.registers(GENERAL, &mut bytes)?;
    let mut general = [0; COUNT];
    for (register, bytes) in general.iter_mut().zip(bytes.as_chunks().0) {
        *register = u64::from_le_bytes(*bytes);
    }
    Ok(general)
}

fn set_general(tracee: &Tracee, general: &[u64; COUNT]) -> Result<(), ProcessError> {
    let mut bytes = [0; COUNT * 8];
    for (register, bytes) in general.iter().zip(bytes.as_chunks_mut().0) {
        *bytes = register.to_le_bytes();
    }
    tracee.set_registers(GENERAL, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_handlers_return_is_known_from_both_instructions() {
        for instructions in SIGNAL_RETURNS {
            for (before, found) in [(0, true), (instructions.len() - 2, true), (1, false), (instructions.len(), false)]
            {
                let mut code = [0x90; 2 * SIGNAL_RETURN];
                let start = SIGNAL_RETURN - before;
                for (byte, instruction) in code[start..].iter_mut().zip(instructions) {
                    *byte = *instruction;
                }
                assert_eq!(in_signal_return(&code), found, "{before} of {instructions:x?}");
            }
        }
    }

    #[test]
    fn calls_are_known_by_their_end() {
        assert!(ends_with_call([0, 0, 0, 0xe8, 1, 2, 3, 4]));
        // call *%rax, call *8(%rbx), call *0x1000(%rip)
        assert!(ends_with_call([0, 0, 0, 0, 0, 0, 0xff, 0xd0]));
        assert!(ends_with_call([0, 0, 0, 0, 0, 0xff, 0x53, 8]));
        assert!(ends_with_call([0, 0, 0xff, 0x15, 0, 0x10, 0, 0]));
        // jmp *%rax, push (%rax), plain code
        assert!(!ends_with_call([0, 0, 0, 0, 0, 0, 0xff, 0xe0]));
        assert!(!ends_with_call([0, 0, 0, 0, 0, 0, 0xff, 0x30]));
        assert!(!ends_with_call([0x90; 8]));
        assert_eq!(call_target([0, 0, 0, 0xe8, 0x10, 0, 0, 0], 0x1000), Some(0x1010));
        assert_eq!(call_target([0, 0, 0, 0xe8, 0xf0, 0xff, 0xff, 0xff], 0x1000), Some(0xff0));
        assert_eq!(call_target([0, 0, 0, 0xe8, 0, 0, 0xff, 0xd0], 0x1000), None);
    }
}
