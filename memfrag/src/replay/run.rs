//! The program run under an allocator, watched and limited.

use super::allocators::Allocator;
use serde::Deserialize;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The replay program, built when memfrag was.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/replay"));
/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Whether blocks are written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Touch {
    /// Every page of every block.
    #[default]
    All,
    /// None: what stays resident is the allocator's own doing.
    Nothing,
}

/// What a run may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Resident bytes.
    pub memory: u64,
    /// Time.
    pub time: Duration,
}

/// Memory at a moment at which the recorded program's memory was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Point {
    /// The reading's number.
    pub reading: u32,
    /// By how much anonymous resident memory had grown.
    pub bytes: u64,
    /// Minor page faults until then.
    pub minor_faults: u64,
    /// Nanoseconds since the run began.
    pub nanoseconds: u64,
}

/// What the program tells of a run that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Run {
    /// Calls made.
    pub calls: u64,
    /// Calls that the data has.
    pub planned_calls: u64,
    /// Allocations that failed.
    pub failed_calls: u64,
    /// How long it took.
    pub nanoseconds: u64,
    /// By how much anonymous resident memory had grown at most.
    pub peak_bytes: u64,
    /// By how much it had grown at the end.
    pub final_bytes: u64,
    /// Minor page faults.
    pub minor_faults: u64,
    /// Memory at each reading of the recorded program's.
    pub points: Vec<Point>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All calls were made.
    Completed(Run),
    /// All calls were made, but allocations failed.
    OutOfMemory(Run),
    /// It was stopped for the memory that it took.
    MemoryLimit {
        /// The most resident bytes that were seen.
        reached: u64,
    },
    /// It was stopped for the time that it took.
    TimeLimit {
        /// The most resident bytes that were seen.
        reached: u64,
    },
    /// A signal ended it.
    Crashed {
        /// The signal's number.
        signal: i32,
        /// The most resident bytes that were seen.
        reached: u64,
    },
    /// It could not do its work.
    Failed(String),
}

/// Runs a replay's data under an allocator, with further variables in its environment.
///
/// # Errors
/// When the program cannot be started.
pub fn run(
    data: &Path,
    allocator: &Allocator,
    environment: &[(OsString, OsString)],
    touch: Touch,
    limits: Limits,
) -> io::Result<Outcome> {
    let (program, mut results) = (program()?, memory_file(c"memfrag-results")?);
    let mut said = memory_file(c"memfrag-said")?;
    let mut command = Command::new(own_path(&program));
    command.arg0("replay").args(["--touch", if touch == Touch::All { "all" } else { "none" }]).arg(data);
    command.stdin(Stdio::null()).stdout(results.try_clone()?).stderr(said.try_clone()?);
    for name in ["LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_CONF"] {
        command.env_remove(name);
    }
    if let Some(library) = &allocator.library {
        command.env("LD_PRELOAD", library);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let mut reached = 0;
    let stopped = loop {
        if let Some(status) = child.try_wait()? {
            break Err(status);
        }
        let resident = resident(child.id());
        reached = reached.max(resident);
        let over = resident > limits.memory;
        if over || begun.elapsed() > limits.time {
            child.kill()?;
            child.wait()?;
            break Ok(if over { Outcome::MemoryLimit { reached } } else { Outcome::TimeLimit { reached } });
        }
        std::thread::sleep(LOOK);
    };
    match stopped {
        Ok(outcome) => Ok(outcome),
        Err(status) => Ok(outcome(status, reached, &text(&mut results)?, &text(&mut said)?)),
    }
}

fn outcome(status: ExitStatus, reached: u64, results: &str, said: &str) -> Outcome {
    if let Some(signal) = status.signal() {
        return Outcome::Crashed { signal, reached };
    }
    let first = |text: &str| text.trim().lines().next().unwrap_or("it said nothing").to_owned();
    // The loader only warns when it cannot load the library, and libc's malloc would serve in its stead.
    if said.contains("cannot be preloaded") {
        return Outcome::Failed(first(said));
    }
    match (serde_json::from_str::<Run>(results), status.code()) {
        (Ok(run), Some(0)) => Outcome::Completed(run),
        (Ok(run), Some(2)) => Outcome::OutOfMemory(run),
        _ => Outcome::Failed(format!("{} ({status})", first(said))),
    }
}

/// The program as a file that can be executed: one that is open for writing anywhere cannot.
fn program() -> io::Result<File> {
    let mut file = memory_file(c"memfrag-replay")?;
    file.write_all(PROGRAM)?;
    File::open(own_path(&file))
}

/// The path by which a child opens a file of ours.
fn own_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()))
}

fn memory_file(name: &std::ffi::CStr) -> io::Result<File> {
    // SAFETY: the name is a C string that outlives the call.
    let descriptor = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was opened just now, so it is nobody else's.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// What was written to a file that the child had as well, from its start.
fn text(file: &mut File) -> io::Result<String> {
    /// No result is longer: a hundred bytes for each reading.
    const MOST: u64 = 256 << 20;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Resident bytes of a process, 0 when it has ended.
fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
