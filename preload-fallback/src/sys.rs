//! System calls, none of which touches `errno`.

use crate::x86_64::{number, syscall};
use core::ptr;

const EINTR: isize = -4;
const ESRCH: isize = -3;
const SIGABRT: usize = 6;
const RLIMIT_FSIZE: usize = 1;
const CLOCK_MONOTONIC: usize = 1;

/// `open` flags used here; all files are closed on exec.
pub(crate) mod flags {
    pub(crate) const READ: usize = 0o2_000_000;
    pub(crate) const WRITE: usize = 0o2_000_002;
    pub(crate) const CREATE: usize = 0o2_000_302;
}

/// A call whose arguments are all values.
fn plain(number: usize, a: usize, b: usize, c: usize) -> isize {
    // SAFETY: used only for calls that read and write no memory of ours.
    unsafe { syscall(number, a, b, c, 0, 0, 0) }
}

/// An open file.
#[derive(Clone, Copy)]
pub(crate) struct File(usize);

impl File {
    /// Opens `path`, which ends with a zero byte.
    pub(crate) fn open(path: &[u8], flags: usize) -> Option<Self> {
        if path.last() != Some(&0) {
            return None;
        }
        // SAFETY: the path ends with a zero byte.
        let fd = unsafe { syscall(number::OPEN, path.as_ptr() as usize, flags, 0o600, 0, 0, 0) };
        usize::try_from(fd).ok().map(Self)
    }

    /// Sets the length.
    pub(crate) fn truncate(self, bytes: usize) -> bool {
        plain(number::FTRUNCATE, self.0, bytes, 0) == 0
    }

    /// Reads up to `room` bytes to `at`; 0 at the end or on an error.
    ///
    /// # Safety
    ///
    /// There are `room` writable bytes at `at` that nobody else uses.
    pub(crate) unsafe fn read(self, at: *mut u8, room: usize) -> usize {
        loop {
            // SAFETY: as the caller promises.
            let got = unsafe { syscall(number::READ, self.0, at as usize, room, 0, 0, 0) };
            if got != EINTR {
                return usize::try_from(got).unwrap_or(0);
            }
        }
    }

    /// Maps the file's first `bytes`, shared.
    pub(crate) fn map(self, bytes: usize) -> Option<*mut u8> {
        map(bytes, 1, self.0)
    }

    /// Closes the file.
    pub(crate) fn close(self) {
        plain(number::CLOSE, self.0, 0, 0);
    }
}

fn map(bytes: usize, flags: usize, fd: usize) -> Option<*mut u8> {
    // SAFETY: a new mapping where the kernel chooses touches nothing that exists.
    let at = unsafe { syscall(number::MMAP, 0, bytes, 3, flags, fd, 0) };
    (!(-4095..=0).contains(&at)).then(|| ptr::with_exposed_provenance_mut(at.cast_unsigned()))
}

/// A page that a child of a fork finds zeroed, where the kernel can do that (4.14).
pub(crate) fn map_forgetful_page() -> Option<*mut u8> {
    let at = map(4096, 0x22, usize::MAX)?;
    // SAFETY: the page is ours and still unused.
    unsafe { syscall(number::MADVISE, at as usize, 4096, 18, 0, 0, 0) };
    Some(at)
}

/// Memory of this process's own, all zero.
pub(crate) fn map_private(bytes: usize) -> Option<*mut u8> {
    map(bytes, 0x22, usize::MAX)
}

/// Memory that a child of a fork shares, all zero.
pub(crate) fn map_shared(bytes: usize) -> Option<*mut u8> {
    map(bytes, 0x21, usize::MAX)
}

/// Takes a mapping away.
///
/// # Safety
///
/// Nobody uses it any more.
pub(crate) unsafe fn unmap(at: *mut u8, bytes: usize) {
    // SAFETY: as the caller promises.
    unsafe { syscall(number::MUNMAP, at as usize, bytes, 0, 0, 0, 0) };
}

pub(crate) fn pid() -> u32 {
    plain(number::GETPID, 0, 0, 0).cast_unsigned() as u32
}

pub(crate) fn ppid() -> u32 {
    plain(number::GETPPID, 0, 0, 0).cast_unsigned() as u32
}

pub(crate) fn tid() -> u32 {
    plain(number::GETTID, 0, 0, 0).cast_unsigned() as u32
}

/// Whether this process has no thread `tid`.
pub(crate) fn thread_gone(pid: u32, tid: u32) -> bool {
    plain(number::TGKILL, pid as usize, tid as usize, 0) == ESRCH
}

/// Whether there is no process `pid`.
pub(crate) fn process_gone(pid: u32) -> bool {
    plain(number::KILL, pid as usize, 0, 0) == ESRCH
}

/// Where the heap segment ends.
pub(crate) fn segment_end() -> usize {
    plain(number::BRK, 0, 0, 0).cast_unsigned()
}

pub(crate) fn yield_now() {
    plain(number::SCHED_YIELD, 0, 0, 0);
}

/// Sleeps for less than a second.
pub(crate) fn sleep(nanoseconds: u64) {
    let time = [0, nanoseconds.min(999_999_999)];
    // SAFETY: the kernel reads two words.
    unsafe { syscall(number::NANOSLEEP, time.as_ptr() as usize, 0, 0, 0, 0, 0) };
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub(crate) fn now() -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes two words.
    unsafe { syscall(number::CLOCK_GETTIME, CLOCK_MONOTONIC, time.as_mut_ptr() as usize, 0, 0, 0, 0) };
    time[0] * 1_000_000_000 + time[1]
}

/// Whether a file may have so many bytes. Asking costs less than the signal for trying.
pub(crate) fn file_size_allowed(bytes: usize) -> bool {
    let mut limit = [0u64; 2];
    // SAFETY: the kernel writes two words.
    let result = unsafe { syscall(number::GETRLIMIT, RLIMIT_FSIZE, limit.as_mut_ptr() as usize, 0, 0, 0, 0) };
    result == 0 && limit[0] >= bytes as u64
}

/// Whether the thread is on its alternate signal stack.
pub(crate) fn on_alternate_stack() -> bool {
    let mut stack = [0u64; 3];
    // SAFETY: the kernel writes three words.
    let result = unsafe { syscall(number::SIGALTSTACK, 0, stack.as_mut_ptr() as usize, 0, 0, 0, 0) };
    result == 0 && stack[1] & 1 != 0
}

/// Blocks every signal; gives back the mask to restore.
pub(crate) fn block_signals() -> u64 {
    let (all, mut old) = (u64::MAX, 0u64);
    // SAFETY: the kernel reads and writes a mask of eight bytes.
    unsafe {
        syscall(number::RT_SIGPROCMASK, 2, &raw const all as usize, &raw mut old as usize, 8, 0, 0);
    }
    old
}

/// Restores a mask of [`block_signals`].
pub(crate) fn restore_signals(mask: u64) {
    // SAFETY: the kernel reads a mask of eight bytes.
    unsafe { syscall(number::RT_SIGPROCMASK, 2, &raw const mask as usize, 0, 8, 0, 0) };
}

/// Where a symbolic link points: bytes written to `at`.
///
/// # Safety
///
/// There are `room` writable bytes at `at` that nobody else uses.
pub(crate) unsafe fn read_link(path: &[u8], at: *mut u8, room: usize) -> usize {
    if path.last() != Some(&0) {
        return 0;
    }
    // SAFETY: the path ends with a zero byte; the rest is the caller's promise.
    let got = unsafe { syscall(number::READLINK, path.as_ptr() as usize, at as usize, room, 0, 0, 0) };
    usize::try_from(got).unwrap_or(0)
}

/// Ends the process with a word on standard error.
pub(crate) fn abort(message: &[u8]) -> ! {
    // SAFETY: the kernel reads the message.
    unsafe { syscall(number::WRITE, 2, message.as_ptr() as usize, message.len(), 0, 0, 0) };
    plain(number::TGKILL, pid() as usize, tid() as usize, SIGABRT);
    loop {
        plain(number::EXIT_GROUP, 134, 0, 0);
    }
}
