//! System calls that the server has no use for, and that whoever took it over would want first.
//!
//! It runs no programs, makes no processes, opens no new connections, and looks into nobody. The filter is inherited by
//! all threads and cannot be taken off.

use std::io;

/// Refused with `EPERM`.
const REFUSED: [libc::c_long; 36] = [
    // Programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_setns,
    libc::SYS_unshare,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // New sockets and connections: those that it listens on are there.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    // The kernel's wide doors.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_personality,
    libc::SYS_open_by_handle_at,
];

/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;
/// Numbers from here on are those of x32, another table.
const X32: u32 = 0x4000_0000;
/// Where the number, the architecture and the low half of the first argument lie in `seccomp_data`.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// The number as a filter sees it: all of them are small.
const fn number(call: libc::c_long) -> u32 {
    call.cast_unsigned() as u32
}

/// The filter's program: each test jumps over the verdict behind it.
fn program() -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let verdict = |verdict| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, verdict);
    let unless = |test: u32, value| instruction(libc::BPF_JMP | test | libc::BPF_K, 0, 1, value);
    let when = |test: u32, value| instruction(libc::BPF_JMP | test | libc::BPF_K, 1, 0, value);
    let error = |number: i32| verdict(libc::SECCOMP_RET_ERRNO | number.unsigned_abs());
    let mut program = vec![
        load(MACHINE),
        when(libc::BPF_JEQ, ARCHITECTURE),
        verdict(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        unless(libc::BPF_JGE, X32),
        error(libc::ENOSYS),
        // Its flags lie in memory, where a filter cannot look; without it, threads are made by clone.
        unless(libc::BPF_JEQ, number(libc::SYS_clone3)),
        error(libc::ENOSYS),
    ];
    for call in REFUSED {
        program.extend([unless(libc::BPF_JEQ, number(call)), error(libc::EPERM)]);
    }
    program.extend([
        when(libc::BPF_JEQ, number(libc::SYS_clone)),
        verdict(libc::SECCOMP_RET_ALLOW),
        load(FIRST_ARGUMENT),
        when(libc::BPF_JSET, libc::CLONE_THREAD.unsigned_abs()),
        error(libc::EPERM),
        verdict(libc::SECCOMP_RET_ALLOW),
    ]);
    program
}

/// Refuses these calls to this thread and those that it makes, from now on. New privileges must have been forgone.
///
/// # Errors
/// When the kernel does not take the filter.
pub(super) fn refuse() -> io::Result<()> {
    let mut program = program();
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads the program, which has the length that is given, and keeps nothing of it.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
