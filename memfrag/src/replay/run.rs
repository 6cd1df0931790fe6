//! The program run under an allocator, watched and limited.

use super::allocators::Allocator;
use super::cgroup::Group;
use super::survey::Kinds;
use serde::Deserialize;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The replay program, built when memfrag was.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/replay"));
/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The same program as source, for other C libraries.
const SOURCE: &str = include_str!("program/replay.c");

/// Whether blocks are written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Touch {
    /// As many pages of each block as were seen resident in the recorded program; all, where that is not known.
    #[default]
    Sampled,
    /// Every page of every block.
    All,
    /// None: what stays resident is the allocator's own doing.
    Nothing,
}

impl Touch {
    /// Its word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::All => "all",
            Self::Nothing => "none",
        }
    }
}

/// How a run is made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Manner {
    /// Whether blocks are written to.
    pub touch: Touch,
    /// How many times as fast as recorded; `None` for as fast as possible.
    pub pace: Option<f64>,
    /// Whether to call `malloc_trim(0)` at the end, and to read memory again.
    pub trim: bool,
}

/// What a run may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Resident bytes.
    pub memory: u64,
    /// Time.
    pub time: Duration,
}

/// What holds a run to its limit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// The kernel, by a control group of version 2.
    CgroupV2,
    /// The kernel, by a control group of version 1.
    CgroupV1,
    /// memfrag, which reads a hundred times a second how much is resident.
    Readings,
}

impl LimitedBy {
    /// Its word in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CgroupV2 => "cgroup_v2",
            Self::CgroupV1 => "cgroup_v1",
            Self::Readings => "readings",
        }
    }
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The limit of memory, in bytes.
    pub memory_limit: u64,
    /// What held it to that.
    pub limited_by: LimitedBy,
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
    /// Resident bytes by kind of mapping at the last reading of the recorded program's memory; at the end, where there is
    /// none.
    pub mappings: Sums,
    /// By how much anonymous resident memory had grown after `malloc_trim(0)`, where that was called.
    #[serde(default)]
    pub trimmed_bytes: Option<u64>,
    /// Resident bytes by kind of mapping then.
    #[serde(default)]
    pub trimmed_mappings: Option<Sums>,
    /// Memory at each reading of the recorded program's.
    pub points: Vec<Point>,
}

/// Resident bytes by kind of mapping, as the program tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are those of survey::Kinds")]
pub struct Sums {
    pub heap: u64,
    pub anonymous: u64,
    pub stack: u64,
    pub file: u64,
    pub other: u64,
}

impl From<Sums> for Kinds {
    fn from(it: Sums) -> Self {
        Self { heap: it.heap, anonymous: it.anonymous, stack: it.stack, file: it.file, other: it.other }
    }
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
        /// The most resident bytes that were seen, at least the limit where the kernel stopped it.
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
    manner: Manner,
    limits: Limits,
) -> io::Result<Ended> {
    let program = match &allocator.compiler {
        Some(compiler) => build(compiler)?,
        None => program()?,
    };
    let mut results = memory_file(c"memfrag-results")?;
    let mut said = memory_file(c"memfrag-said")?;
    let mut command = Command::new(own_path(&program));
    command.arg0("replay").args(["--touch", manner.touch.name()]);
    if let Some(factor) = manner.pace {
        command.arg("--pace").arg(factor.to_string());
    }
    // It is glibc's, and nothing to other allocators.
    let trims = manner.trim && allocator.library.is_none() && allocator.compiler.is_none();
    command.args(trims.then_some("--trim")).arg(data);
    command.stdin(Stdio::null()).stdout(results.try_clone()?).stderr(said.try_clone()?);
    for name in ["LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_CONF"] {
        command.env_remove(name);
    }
    if let Some(library) = &allocator.library {
        command.env("LD_PRELOAD", library);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let mut group = Group::new(limits.memory);
    let is_grouped = Arc::new(AtomicBool::new(group.is_some()));
    if let Some(group) = &group {
        enter(&mut command, group.entrance()?, Arc::clone(&is_grouped));
    }
    let mut begun = Instant::now();
    let mut child = match command.spawn() {
        Err(_) if group.is_some() => {
            // A group may be there into which nobody may move.
            is_grouped.store(false, Ordering::Relaxed);
            group = None;
            begun = Instant::now();
            command.spawn()?
        }
        spawned => spawned?,
    };
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
    let outcome = match stopped {
        Ok(outcome) => outcome,
        Err(status) if status.signal() == Some(libc::SIGKILL) && group.as_ref().is_some_and(|it| it.kills() > 0) => {
            // It was killed between two readings, at the limit.
            Outcome::MemoryLimit { reached: reached.max(limits.memory) }
        }
        Err(status) => outcome(status, reached, &text(&mut results)?, &text(&mut said)?),
    };
    let limited_by = group.as_ref().map_or(LimitedBy::Readings, Group::limited_by);
    Ok(Ended { outcome, memory_limit: limits.memory, limited_by })
}

/// Has a command be in a group from its first instruction on, as long as that is wanted when it is started.
fn enter(command: &mut Command, entrance: File, is_wanted: Arc<AtomicBool>) {
    let go = move || {
        if !is_wanted.load(Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: the descriptor is open for as long as the closure lives, and the text outlives the call.
        let written = unsafe { libc::write(entrance.as_raw_fd(), c"0".as_ptr().cast(), 1) };
        if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it reads a flag and makes one call of `write`, which may be made there, and touches no lock and no heap.
    unsafe { command.pre_exec(go) };
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

/// The program built by a compiler for another C library.
fn build(compiler: &Path) -> io::Result<File> {
    let directory = tempfile::tempdir()?;
    let (source, to) = (directory.path().join("replay.c"), directory.path().join("replay"));
    fs::write(&source, SOURCE)?;
    let built = Command::new(compiler).args(["-O2", "-static", "-pthread", "-o"]).args([&to, &source]).output()?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        let said = said.lines().next().unwrap_or("it said nothing").to_owned();
        return Err(io::Error::other(format!("{} cannot build the replay: {said}", compiler.display())));
    }
    File::open(&to)
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
