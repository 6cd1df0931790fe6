//! `malloc_trim(0)`, called in a running process by one of its own threads.
//!
//! malloc is not made to be called from within itself: a signal handler that trims kills the program sooner or later.
//! So one thread is stopped at a place that is provably outside the allocator (`place`), while all others run on, so
//! that who holds a lock can give it back. The thread calls the function with its signals blocked, on its own stack
//! below what it uses, and is put back to where it was with every register as it was; a system call in which it
//! waited goes on waiting. Signals that come meanwhile wait until then.
//!
//! When the call does not end in time, because another thread keeps an arena's lock, it is given up: a thread that
//! waits for a lock of malloc's holds none itself, and has left nothing half changed.
//!
//! A process under a seccomp filter must be allowed `madvise`, `brk` and `futex`, as malloc itself needs them.

mod place;
mod tracee;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use crate::target::allocator::Allocator;
use crate::target::memory;
use crate::target::process::{self, ProcessError};
use place::{Code, Unfit};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracee::{Stop, Tracee};
use x86_64::Registers;

/// What a trim did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The thread that called `malloc_trim`.
    pub tid: u32,
    /// What it returned: whether any memory went back to the system.
    pub released: bool,
    /// Resident anonymous bytes of the process right before.
    pub before: u64,
    /// Resident anonymous bytes right after.
    pub after: u64,
    /// How long the thread stood still for it.
    pub elapsed: Duration,
}

impl Trimmed {
    /// Bytes that went back to the system, less what other threads came to use meanwhile.
    pub fn bytes(&self) -> u64 {
        self.before.saturating_sub(self.after)
    }
}

/// Why a process was not trimmed. It goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// It cannot be looked at, or has gone.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The file lacks the function.
    #[error("{path} of process {pid} shows no malloc_trim that could be called; the shared library of glibc does")]
    NoFunction {
        /// The process.
        pid: u32,
        /// The allocator's file.
        path: PathBuf,
    },
    /// Another program traces it, and only one can.
    #[error("process {pid} is traced by process {tracer} already; end that first")]
    Traced {
        /// The process.
        pid: u32,
        /// Who traces it.
        tracer: u32,
    },
    /// It protects its stacks from calls that are not in its code, or may make a few system calls only.
    #[error("process {pid} {what}, so that malloc_trim cannot be called in it from outside")]
    Guarded {
        /// The process.
        pid: u32,
        /// How.
        what: &'static str,
    },
    /// No thread stood where malloc may be called.
    #[error(
        "no thread of process {pid} was seen outside malloc for {waited:?}, in {looks} looks (the last one {why}); \
         nothing was changed; try again, or for longer with --timeout"
    )]
    NoPlace {
        /// The process.
        pid: u32,
        /// For how long it was tried.
        waited: Duration,
        /// How many threads were looked at, each as often as it was.
        looks: u64,
        /// What the last one did.
        why: &'static str,
    },
    /// Another thread keeps a lock.
    #[error(
        "malloc_trim waited for {waited:?} in process {pid} for an arena that another thread keeps locked, and was \
         called off; the process goes on as before; try again, or for longer with --timeout"
    )]
    Locked {
        /// The process.
        pid: u32,
        /// For how long.
        waited: Duration,
    },
}

/// Lets a thread of a process call `malloc_trim(0)` of its glibc, which is `allocator`.
///
/// `patience` is for how long a thread at a fit place is looked for, and then again how long the call may wait for
/// locks. The signals that end a program are kept from the calling thread meanwhile: a thread of another process must
/// not be left halfway.
///
/// # Errors
/// See [`TrimError`].
pub fn trim(pid: u32, allocator: &Allocator, patience: Duration) -> Result<Trimmed, TrimError> {
    guarded(pid)?;
    let quiet = Quiet::new();
    // The kernel knows a tracer by its thread, and lets go all that a thread traced when it ends.
    let result = std::thread::scope(|scope| {
        let tracer = std::thread::Builder::new().name("trim".to_owned());
        let handle = tracer.spawn_scoped(scope, || look_and_call(pid, allocator, patience));
        let failed = |source| ProcessError::Io { pid, what: "the threads", source };
        match handle.map_err(failed)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    drop(quiet);
    result
}

/// Refuses processes in which the call would go wrong.
fn guarded(pid: u32) -> Result<(), TrimError> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let guarded = |what| Err(TrimError::Guarded { pid, what });
    if value("x86_Thread_features:").is_some_and(|features| features.split(' ').any(|feature| feature == "shstk")) {
        return guarded("has a shadow stack (GLIBC_TUNABLES glibc.cpu.hwcaps=SHSTK)");
    }
    if value("Seccomp:") == Some("1") {
        return guarded("may only read and write (strict seccomp)");
    }
    let ignored = value("SigIgn:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    if ignored & bit(libc::SIGTRAP) != 0 {
        return guarded("ignores SIGTRAP");
    }
    Ok(())
}

/// A signal's place in a set.
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// How long a thread may take to stand still.
const STOP: Duration = Duration::from_millis(200);

fn look_and_call(pid: u32, allocator: &Allocator, patience: Duration) -> Result<Trimmed, TrimError> {
    let begun = Instant::now();
    let mut looks = 0;
    let mut why = "had ended";
    loop {
        let map = process::map(pid)?;
        let failed = |source| ProcessError::Io { pid, what: "the allocator's file", source };
        let code = Code::find(&map, allocator).map_err(failed)?;
        let code = code.ok_or_else(|| TrimError::NoFunction { pid, path: allocator.path.clone() })?;
        for tid in by_promise(pid)? {
            looks += 1;
            match attempt(pid, tid, &code, patience)? {
                Attempt::Trimmed(trimmed) => return Ok(trimmed),
                Attempt::Unfit(unfit) => why = unfit.reason(),
                Attempt::Gone => {}
            }
            if begun.elapsed() > patience {
                return Err(TrimError::NoPlace { pid, waited: patience, looks, why });
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The threads of a process, those first that wait in a system call.
fn by_promise(pid: u32) -> Result<Vec<u32>, ProcessError> {
    let mut threads = process::threads(pid)?;
    threads.sort_by_cached_key(|tid| {
        let call = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall"));
        (!call.is_ok_and(|call| call.starts_with(|c: char| c.is_ascii_digit())), *tid)
    });
    Ok(threads)
}

enum Attempt {
    Trimmed(Trimmed),
    Unfit(Unfit),
    Gone,
}

/// Stops one thread, and lets it call where it stands if that is a fit place.
fn attempt(pid: u32, tid: u32, code: &Code, patience: Duration) -> Result<Attempt, TrimError> {
    let begun = Instant::now();
    let mut tracee = match Tracee::seize(pid, tid) {
        Ok(tracee) => tracee,
        Err(error) => return refused(pid, tid, error),
    };
    if !tracee.rest(begun + STOP)? {
        return Ok(Attempt::Unfit(Unfit::Stuck));
    }
    let registers = Registers::read(&tracee)?;
    if let Err(unfit) = code.check(&tracee, &registers) {
        return Ok(Attempt::Unfit(unfit));
    }
    let before = memory::anonymous_bytes(pid)?;
    let mask = tracee.blocked()?;
    // What a fault in malloc_trim would raise stays open: blocked, it would change what the program does on it.
    let faults = [libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];
    tracee.block(!faults.into_iter().fold(0, |mask, signal| mask | bit(signal)))?;
    let mut late = Vec::new();
    let called = call_in(&mut tracee, &registers, code, patience, &mut late);
    let restored = registers.write(&tracee).and_then(|()| tracee.block(mask));
    let result = called?;
    restored?;
    let after = memory::anonymous_bytes(pid)?;
    for signal in late {
        tracee.send(signal);
    }
    drop(tracee);
    let Some(result) = result else { return Err(TrimError::Locked { pid, waited: patience }) };
    let elapsed = begun.elapsed();
    Ok(Attempt::Trimmed(Trimmed { tid, released: result as u32 != 0, before, after, elapsed }))
}

/// Whether memfrag has a thread of this number.
fn is_own_thread(tid: u64) -> bool {
    std::path::Path::new(&format!("/proc/self/task/{tid}")).exists()
}

/// What it means that a thread cannot be traced.
fn refused(pid: u32, tid: u32, error: ProcessError) -> Result<Attempt, TrimError> {
    let text = std::fs::read(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
    let tracer = process::field(&text, b"TracerPid:");
    // A thread that did not stand still before is let go only when it does.
    if tracer.is_some_and(is_own_thread) {
        return Ok(Attempt::Unfit(Unfit::Stuck));
    }
    match (error, tracer) {
        (_, Some(tracer)) if tracer != 0 => Err(TrimError::Traced { pid, tracer: tracer as u32 }),
        // A first thread that has ended cannot be traced, though others go on.
        (ProcessError::NotPermitted { .. }, _) if String::from_utf8_lossy(&text).contains("State:\tZ") => {
            Ok(Attempt::Gone)
        }
        (ProcessError::Exited { .. }, _) => Ok(Attempt::Gone),
        (error, _) => Err(error.into()),
    }
}

/// Calls `malloc_trim(0)` and puts `errno` back; `None` when it could not get a lock.
fn call_in(
    tracee: &mut Tracee,
    registers: &Registers,
    code: &Code,
    patience: Duration,
    late: &mut Vec<i32>,
) -> Result<Option<u64>, ProcessError> {
    let Some(place) = call(tracee, registers, code.errno, code.trap, patience, late)? else { return Ok(None) };
    let mut errno = [0; 4];
    let known = tracee.read(place, &mut errno) == errno.len();
    let result = call(tracee, registers, code.trim, code.trap, patience, late)?;
    if known {
        tracee.write(place, &errno)?;
    }
    Ok(result)
}

/// Makes a thread that stands still call `function(0)`, and gives what that returned. The thread then stands still
/// again, with its registers in disorder.
fn call(
    tracee: &mut Tracee,
    registers: &Registers,
    function: u64,
    trap: u64,
    patience: Duration,
    late: &mut Vec<i32>,
) -> Result<Option<u64>, ProcessError> {
    registers.enter(tracee, function, 0, trap)?;
    tracee.go_on(0)?;
    let mut deadline = Instant::now() + patience;
    let mut is_late = false;
    loop {
        match tracee.wait(deadline)? {
            Some(Stop::Signal(libc::SIGTRAP)) => {
                let progress = x86_64::progress(tracee)?;
                if progress.pc == trap + 1 {
                    return Ok(Some(progress.result));
                }
                late.push(libc::SIGTRAP);
                tracee.go_on(0)?;
            }
            // malloc has found the heap damaged, or fell over it: the program ends as it would have by itself.
            Some(Stop::Signal(
                signal @ (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGABRT),
            )) => tracee.go_on(signal)?,
            Some(Stop::Signal(signal)) => {
                late.push(signal);
                tracee.go_on(0)?;
            }
            Some(Stop::Event) => {
                if is_late && x86_64::progress(tracee)?.waits_for_lock {
                    return Ok(None);
                }
                tracee.go_on(0)?;
            }
            Some(Stop::Gone) => return Err(ProcessError::Exited { pid: tracee.pid }),
            None => {
                // Where it is tells whether it may be called off; if it is at work, it comes to an end.
                is_late = true;
                tracee.interrupt()?;
                deadline = Instant::now() + STOP;
            }
        }
    }
}

/// Keeps the signals that end a program from this thread, and those that it makes, until dropped.
struct Quiet {
    before: libc::sigset_t,
}

impl Quiet {
    fn new() -> Self {
        // SAFETY: a structure of numbers, of which zeros are valid ones.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        let mut before = set;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP] {
            // SAFETY: a valid set and a signal's number.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: two valid sets.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) };
        Self { before }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: a set that the kernel filled in; where the old one goes may be null.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}
