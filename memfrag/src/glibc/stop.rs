//! Stopping a process for a moment.

use super::restart_x86_64;
use crate::target::process::{self, ProcessError, Stat};
use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// How long threads may take to stop. One that waits for a disk or for a child of `vfork` cannot.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why a process could not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Another program traces it, and only one can.
    #[error("process {pid} is traced by process {tracer} already; end that first, or read it without stopping it")]
    Traced {
        /// The process.
        pid: u32,
        /// Who traces it.
        tracer: u32,
    },
    /// A thread did not stop in time.
    #[error("thread {tid} of process {pid} does not stop: it waits in the kernel for something that no signal ends")]
    Stuck {
        /// The process.
        pid: u32,
        /// The thread.
        tid: u32,
    },
    /// It is gone, or may not be stopped.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// A process all of whose threads stand still, until this is dropped.
///
/// It must be dropped by the thread that made it. Should that thread end without doing so, or memfrag be killed, the
/// kernel lets the process go on.
#[derive(Debug)]
pub struct Stopped {
    pid: u32,
    threads: Vec<Thread>,
    since: Instant,
    by_signal: bool,
    /// The kernel knows a tracer by its thread.
    not_send: PhantomData<*const ()>,
}

/// A thread that is traced.
#[derive(Debug)]
struct Thread {
    tid: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was told to stop.
    Asked,
    /// It stands still; a signal that was on its way to it must be given when it goes on, 0 for none.
    Still(i32),
    /// It has ended.
    Gone,
}

impl Stopped {
    /// Stops all threads of a process.
    ///
    /// The process does not see it: system calls that wait go on waiting, no signal arrives, its parent is not told.
    ///
    /// # Errors
    /// See [`StopError`]. The process then runs as before.
    pub fn new(pid: u32) -> Result<Self, StopError> {
        let stat = Stat::read(pid)?;
        if stat.is_kernel_thread() {
            return Err(ProcessError::Kernel { pid, comm: stat.comm }.into());
        }
        let mut stopped = Self {
            pid,
            threads: Vec::new(),
            since: Instant::now(),
            by_signal: stat.state == b'T',
            not_send: PhantomData,
        };
        let deadline = stopped.since + PATIENCE;
        // A thread that runs may make another one; when a look finds none that is new, all stand still.
        while stopped.seize_new()? {
            stopped.wait(deadline)?;
        }
        if stopped.threads.iter().all(|thread| thread.state == State::Gone) {
            return Err(ProcessError::Exited { pid }.into());
        }
        Ok(stopped)
    }

    /// How long it has stood still so far.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether a signal had stopped it before.
    pub const fn was_stopped(&self) -> bool {
        self.by_signal
    }

    /// Traces the threads that are not yet, and tells them to stop. Whether there were any.
    fn seize_new(&mut self) -> Result<bool, StopError> {
        let mut any = false;
        for tid in process::threads(self.pid)? {
            if self.threads.iter().any(|thread| thread.tid == tid) {
                continue;
            }
            if let Err(error) = ptrace(libc::PTRACE_SEIZE, tid, 0) {
                // A thread that has ended meanwhile is none to stop; one that is a zombie cannot be traced.
                match error.raw_os_error() {
                    Some(libc::ESRCH) => continue,
                    _ if has_ended(self.pid, tid) => continue,
                    _ => return Err(self.refused(tid, error)),
                }
            }
            let asked = ptrace(libc::PTRACE_INTERRUPT, tid, 0);
            self.threads.push(Thread { tid, state: if asked.is_ok() { State::Asked } else { State::Gone } });
            any = true;
        }
        Ok(any)
    }

    fn refused(&self, tid: u32, source: io::Error) -> StopError {
        let pid = self.pid;
        match tracer(pid, tid) {
            Some(tracer) => StopError::Traced { pid, tracer },
            None if source.raw_os_error() == Some(libc::EPERM) => {
                ProcessError::NotPermitted { pid, what: "the heap", owner: process::owner(pid).unwrap_or(0) }.into()
            }
            None => ProcessError::Io { pid, what: "the threads", source }.into(),
        }
    }

    /// Waits until all threads that were told to stand still do.
    fn wait(&mut self, deadline: Instant) -> Result<(), StopError> {
        let mut pause = Duration::from_micros(20);
        loop {
            for thread in self.threads.iter_mut().filter(|thread| thread.state == State::Asked) {
                thread.state = look(self.pid, thread.tid);
            }
            let Some(thread) = self.threads.iter().find(|thread| thread.state == State::Asked) else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(StopError::Stuck { pid: self.pid, tid: thread.tid });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for thread in &self.threads {
            if thread.state == State::Asked {
                // It can be let go only where it stands.
                let _ = ptrace(libc::PTRACE_INTERRUPT, thread.tid, 0);
            }
            let signal = match thread.state {
                State::Still(signal) => signal,
                State::Asked => match look_for_a_while(self.pid, thread.tid) {
                    State::Still(signal) => signal,
                    _ => continue,
                },
                State::Gone => continue,
            };
            // When these fail, the thread has been killed.
            let _ = restart_x86_64::take_up_again(self.pid, thread.tid);
            let _ = ptrace(libc::PTRACE_DETACH, thread.tid, signal);
        }
    }
}

fn look_for_a_while(pid: u32, tid: u32) -> State {
    for _ in 0..50 {
        match look(pid, tid) {
            State::Asked => std::thread::sleep(Duration::from_millis(2)),
            state => return state,
        }
    }
    State::Asked
}

/// What has become of a thread that was told to stop.
fn look(pid: u32, tid: u32) -> State {
    // The end of the process itself is for its parent to learn, which may be memfrag, elsewhere.
    let ends = if tid == pid { 0 } else { libc::WEXITED };
    // SAFETY: a structure of numbers, of which zeros are valid ones.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid place for the result; the call waits for nothing.
    let result =
        unsafe { libc::waitid(libc::P_PID, tid, &raw mut info, ends | libc::WSTOPPED | libc::WNOHANG | libc::__WALL) };
    if result != 0 {
        return if has_ended(pid, tid) || io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) {
            State::Gone
        } else {
            State::Asked
        };
    }
    if info.si_signo == 0 {
        return if has_ended(pid, tid) { State::Gone } else { State::Asked };
    }
    if info.si_code != libc::CLD_TRAPPED && info.si_code != libc::CLD_STOPPED {
        return State::Gone;
    }
    // SAFETY: for a child that stopped, the kernel filled in the fields of a child.
    let status = unsafe { info.si_status() };
    // The stop that was asked for is an event, whose number stands above the signal. Without an event a signal was
    // on its way, and is held until the thread goes on.
    State::Still(if status >> 8 == 0 { status } else { 0 })
}

/// Whether a thread has ended, waited for or not.
fn has_ended(pid: u32, tid: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/task/{tid}/stat"));
    stat.ok().and_then(|text| Stat::parse(&text)).is_none_or(|stat| stat.has_ended())
}

/// The process that traces a thread.
fn tracer(pid: u32, tid: u32) -> Option<u32> {
    let field = |path: String, name: &str| -> Option<u32> {
        let status = std::fs::read_to_string(path).ok()?;
        status.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
    };
    let tracer = field(format!("/proc/{pid}/task/{tid}/status"), "TracerPid:").filter(|&tracer| tracer != 0)?;
    // It is one thread of it that traces.
    Some(field(format!("/proc/{tracer}/status"), "Tgid:").unwrap_or(tracer))
}

fn ptrace(request: libc::c_uint, tid: u32, data: i32) -> io::Result<()> {
    let data = data.cast_unsigned() as usize as *mut libc::c_void;
    // SAFETY: the requests used take no address, and as data no pointer but a number.
    let result = unsafe { libc::ptrace(request, tid.cast_signed(), std::ptr::null_mut::<libc::c_void>(), data) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
