//! One traced thread: stopped, looked at, made to run, let go.

use crate::glibc::restart_x86_64;
use crate::target::process::{self, ProcessError};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// Why a thread stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It was told to, or its process was stopped.
    Event,
    /// A signal is about to reach it.
    Signal(i32),
    /// It has ended.
    Gone,
}

/// A thread that this thread of memfrag traces. Dropping it lets it go on.
#[derive(Debug)]
pub(super) struct Tracee {
    pub(super) pid: u32,
    pub(super) tid: u32,
    memory: File,
    still: bool,
    /// A signal that it must get when it goes on, 0 for none.
    held: i32,
}

impl Tracee {
    /// Begins to trace a thread, which runs on.
    pub(super) fn seize(pid: u32, tid: u32) -> Result<Self, ProcessError> {
        let failed = |source| process::failed(pid, "the memory", source);
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).map_err(failed)?;
        request(libc::PTRACE_SEIZE, tid, 0, 0).map_err(|source| match source.raw_os_error() {
            Some(libc::ESRCH) => ProcessError::Exited { pid },
            Some(libc::EPERM) => {
                ProcessError::NotPermitted { pid, what: "the threads", owner: process::owner(pid).unwrap_or(0) }
            }
            _ => ProcessError::Io { pid, what: "the threads", source },
        })?;
        Ok(Self { pid, tid, memory, still: false, held: 0 })
    }

    /// Makes it stand still at a place where no signal is about to reach it. False when it does not until `deadline`.
    pub(super) fn rest(&mut self, deadline: Instant) -> Result<bool, ProcessError> {
        self.request(libc::PTRACE_INTERRUPT, 0, 0)?;
        loop {
            match self.wait(deadline)? {
                Some(Stop::Event) => return Ok(true),
                Some(Stop::Signal(signal)) => self.go_on(signal)?,
                Some(Stop::Gone) => return Err(ProcessError::Exited { pid: self.pid }),
                None => return Ok(false),
            }
        }
    }

    /// Waits until it stands still; `None` when it runs at `deadline`.
    pub(super) fn wait(&mut self, deadline: Instant) -> Result<Option<Stop>, ProcessError> {
        let mut pause = Duration::from_micros(10);
        loop {
            let mut status = 0;
            // SAFETY: a valid place for the status; the call waits for nothing.
            let found = unsafe { libc::waitpid(self.tid.cast_signed(), &raw mut status, libc::WNOHANG | libc::__WALL) };
            if found == self.tid.cast_signed() {
                if !libc::WIFSTOPPED(status) {
                    return Ok(Some(Stop::Gone));
                }
                self.still = true;
                let stop = if status >> 16 == libc::PTRACE_EVENT_STOP {
                    Stop::Event
                } else {
                    Stop::Signal(libc::WSTOPSIG(status))
                };
                return Ok(Some(stop));
            }
            if found < 0 {
                let source = io::Error::last_os_error();
                return match source.raw_os_error() {
                    Some(libc::ECHILD) => Ok(Some(Stop::Gone)),
                    Some(libc::EINTR) => continue,
                    _ => Err(ProcessError::Io { pid: self.pid, what: "the threads", source }),
                };
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    /// Lets it run, with a signal or 0.
    pub(super) fn go_on(&mut self, signal: i32) -> Result<(), ProcessError> {
        self.still = false;
        self.request(libc::PTRACE_CONT, 0, signal.cast_unsigned() as usize)
    }

    /// Tells it to stand still; [`Tracee::wait`] tells when it does.
    pub(super) fn interrupt(&self) -> Result<(), ProcessError> {
        self.request(libc::PTRACE_INTERRUPT, 0, 0)
    }

    /// Sends it a signal, as from outside.
    pub(super) fn send(&self, signal: i32) {
        // SAFETY: takes no pointers. The thread is traced, so its number is its own.
        unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.tid, signal) };
    }

    /// Its registers of one kind, into `buffer`; gives their bytes.
    pub(super) fn registers(&self, kind: usize, buffer: &mut [u8]) -> Result<usize, ProcessError> {
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        self.request(libc::PTRACE_GETREGSET, kind, &raw mut vector as usize)?;
        Ok(vector.iov_len)
    }

    /// Sets its registers of one kind.
    pub(super) fn set_registers(&self, kind: usize, bytes: &[u8]) -> Result<(), ProcessError> {
        // The kernel only reads them.
        let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        self.request(libc::PTRACE_SETREGSET, kind, &raw mut vector as usize)
    }

    /// The signals that it has blocked.
    pub(super) fn blocked(&self) -> Result<u64, ProcessError> {
        let mut mask = 0u64;
        self.request(PTRACE_GETSIGMASK, size_of::<u64>(), &raw mut mask as usize)?;
        Ok(mask)
    }

    /// Blocks these signals and no others.
    pub(super) fn block(&self, mask: u64) -> Result<(), ProcessError> {
        let mut mask = mask;
        self.request(PTRACE_SETSIGMASK, size_of::<u64>(), &raw mut mask as usize)
    }

    /// Where the kernel finds its restartable sequence; 0 when it has none, or the kernel does not tell.
    pub(super) fn sequence_area(&self) -> u64 {
        let mut answer = [0u64; 3];
        let size = size_of_val(&answer);
        let told = self.request(PTRACE_GET_RSEQ_CONFIGURATION, size, answer.as_mut_ptr() as usize);
        if told.is_ok() { answer[0] } else { 0 }
    }

    /// Reads its memory; gives how many bytes could be.
    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> usize {
        self.memory.read_at(buffer, address).unwrap_or(0)
    }

    /// A word of its memory.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read(address, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
    }

    /// Writes to its memory.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), ProcessError> {
        let failed = |source| process::failed(self.pid, "the memory", source);
        self.memory.write_all_at(bytes, address).map_err(failed)
    }

    /// Checks the outcome of a request; without its thread none succeeds.
    fn request(&self, what: libc::c_uint, address: usize, data: usize) -> Result<(), ProcessError> {
        request(what, self.tid, address, data).map_err(|source| match source.raw_os_error() {
            Some(libc::ESRCH) => ProcessError::Exited { pid: self.pid },
            _ => ProcessError::Io { pid: self.pid, what: "the threads", source },
        })
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if !self.still {
            // It can be let go only where it stands. Should it not stop, the kernel lets it go when the thread of
            // memfrag that traces it ends.
            let _ = self.request(libc::PTRACE_INTERRUPT, 0, 0);
            if let Ok(Some(Stop::Signal(signal))) = self.wait(Instant::now() + Duration::from_millis(100)) {
                self.held = signal;
            }
        }
        // When these fail, the thread has ended.
        let _ = restart_x86_64::take_up_again(self.pid, self.tid);
        let _ = self.request(libc::PTRACE_DETACH, 0, self.held.cast_unsigned() as usize);
    }
}

/// Linux 3.11.
const PTRACE_GETSIGMASK: libc::c_uint = 0x420a;
/// Linux 3.11.
const PTRACE_SETSIGMASK: libc::c_uint = 0x420b;
/// Linux 5.13.
const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;

fn request(what: libc::c_uint, tid: u32, address: usize, data: usize) -> io::Result<()> {
    let (address, data) = (address as *mut libc::c_void, data as *mut libc::c_void);
    // SAFETY: the requests that take places in this process get such as live through the call and have the room that
    // is told along with them; the others take numbers.
    let result = unsafe { libc::ptrace(what, tid.cast_signed(), address, data) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
