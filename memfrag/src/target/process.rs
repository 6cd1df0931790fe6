//! What `/proc` tells about a process.

use super::maps::{self, MapLine};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The most bytes of an environment that are read.
const MOST_ENVIRONMENT: u64 = 1 << 20;

/// Who a process is, as far as it could be learned before it was gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Nanoseconds since the trace began at which this was learned; a process that calls `exec` gets a new entry.
    pub time: u64,
    /// Process id.
    pub pid: u32,
    /// Parent's process id, 0 when unknown.
    pub ppid: u32,
    /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`), 0 when unknown: with the id it names a
    /// process for good, although ids are used again.
    pub start_ticks: u64,
    /// The kernel's short name of the process.
    pub comm: String,
    /// The program's file; empty when unknown.
    pub exe: PathBuf,
    /// The command line's words; empty when unknown.
    pub cmdline: Vec<String>,
    /// What its environment tells allocators, in words `NAME=VALUE`; empty also when unknown.
    pub settings: Vec<String>,
}

/// One file-backed mapping of a process, enough to turn a call site into a place in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// The address behind the last one.
    pub end: u64,
    /// Offset in the file of the first address.
    pub offset: u64,
    /// Whether its code may run.
    pub executable: bool,
    /// The file as `/proc/PID/maps` names it.
    pub path: PathBuf,
    /// The file's inode.
    pub inode: u64,
}

/// Why a process cannot be looked at or traced.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// No process has the id.
    #[error("there is no process {pid}; `ps -e` lists those that run")]
    NotFound {
        /// The id asked for.
        pid: u32,
    },
    /// The id is that of a thread which is not its process's first.
    #[error("{tid} is a thread of process {pid}; give the process: --pid {pid}")]
    Thread {
        /// The id asked for.
        tid: u32,
        /// The process that it belongs to.
        pid: u32,
    },
    /// The process ended while it was looked at.
    #[error("process {pid} has exited meanwhile")]
    Exited {
        /// Its id.
        pid: u32,
    },
    /// The kernel runs it; there is no program.
    #[error("process {pid} ({comm}) is a kernel thread and has no heap; choose a program's process")]
    Kernel {
        /// Its id.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// The user may not look at it.
    #[error(
        "no permission for {what} of process {pid}, which belongs to user {owner}; run memfrag as that user or with \
         sudo (it needs CAP_SYS_PTRACE)"
    )]
    NotPermitted {
        /// Its id.
        pid: u32,
        /// What was to be read.
        what: &'static str,
        /// The process's user id, or the owner's of its directory in `/proc`.
        owner: u32,
    },
    /// It is a 32-bit program.
    #[error("process {pid} runs a 32-bit program ({exe}); memfrag traces 64-bit programs only")]
    ThirtyTwoBit {
        /// Its id.
        pid: u32,
        /// Its file.
        exe: PathBuf,
    },
    /// Its allocator is in it, and cannot be found.
    #[error(
        "process {pid} runs {exe}, which is linked statically and stripped of its symbols, so its allocator cannot be \
         found: not traceable; run a build with its symbols, or watch its memory mappings only"
    )]
    StaticWithoutSymbols {
        /// Its id.
        pid: u32,
        /// Its file.
        exe: PathBuf,
    },
    /// Something else failed.
    #[error("cannot read {what} of process {pid}: {source}")]
    Io {
        /// Its id.
        pid: u32,
        /// What was to be read.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The fields of `/proc/PID/stat` that memfrag uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The kernel's short name of the process.
    pub comm: String,
    /// One letter: `R` running, `S` sleeping, `Z` ended and not yet waited for, `X` dead, and others.
    pub state: u8,
    /// The parent's process id.
    pub ppid: u32,
    /// The kernel's flags of the task (`PF_*`).
    pub flags: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// `PF_KTHREAD`: the task belongs to the kernel.
    const KERNEL_THREAD: u32 = 0x0020_0000;

    /// Reads the line; `None` when it is not of the format. The name may hold blanks and brackets of its own.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        let rest = str::from_utf8(text.get(close + 1..)?).ok()?;
        // Field 3, the state, comes first here.
        let fields: Vec<&str> = rest.split_ascii_whitespace().take(20).collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            comm,
            state: *field(3)?.as_bytes().first()?,
            ppid: field(4)?.parse().ok()?,
            flags: field(9)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
        })
    }

    /// Reads the line of a process.
    ///
    /// # Errors
    /// [`ProcessError::NotFound`] when there is none.
    pub fn read(pid: u32) -> Result<Self, ProcessError> {
        let text = fs::read(directory(pid).join("stat")).map_err(|source| failed(pid, "the state", source))?;
        Self::parse(&text).ok_or_else(|| ProcessError::Io {
            pid,
            what: "the state",
            source: io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has an unknown format"),
        })
    }

    /// Whether the task belongs to the kernel.
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & Self::KERNEL_THREAD != 0
    }

    /// Whether the process has ended, though its entry is still there.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

fn directory(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// The error for a file of the process that could not be read.
pub(crate) fn failed(pid: u32, what: &'static str, source: io::Error) -> ProcessError {
    match source.kind() {
        io::ErrorKind::NotFound if !directory(pid).exists() => ProcessError::NotFound { pid },
        io::ErrorKind::NotFound => ProcessError::Exited { pid },
        io::ErrorKind::PermissionDenied => ProcessError::NotPermitted { pid, what, owner: owner(pid).unwrap_or(0) },
        _ if source.raw_os_error() == Some(libc::ESRCH) => ProcessError::Exited { pid },
        _ => ProcessError::Io { pid, what, source },
    }
}

/// As [`failed`], for a process that was there before: it has gone, not never been.
fn gone(error: ProcessError) -> ProcessError {
    match error {
        ProcessError::NotFound { pid } => ProcessError::Exited { pid },
        other => other,
    }
}

/// The user id to which a process belongs; `None` when it has gone.
///
/// A program that may not be traced (set-user-id, say) shows as belonging to root.
pub fn owner(pid: u32) -> Option<u32> {
    fs::metadata(directory(pid)).ok().map(|metadata| metadata.uid())
}

/// The ids of a process's threads, in no particular order.
///
/// # Errors
/// When the process has gone.
pub fn threads(pid: u32) -> Result<Vec<u32>, ProcessError> {
    let tasks = fs::read_dir(directory(pid).join("task")).map_err(|source| failed(pid, "the threads", source))?;
    Ok(tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect())
}

/// The ids of all processes, kernel threads among them.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn all() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Whether the process that had this id when it started at `start_ticks` still runs.
pub fn is_alive(pid: u32, start_ticks: u64) -> bool {
    Stat::read(pid).is_ok_and(|stat| stat.start_ticks == start_ticks && !stat.has_ended())
}

/// The lines of a process's map.
///
/// # Errors
/// When the process has gone or may not be looked at.
pub fn map(pid: u32) -> Result<Vec<MapLine>, ProcessError> {
    Ok(maps::parse(&map_text(pid)?).0)
}

fn map_text(pid: u32) -> Result<Vec<u8>, ProcessError> {
    fs::read(directory(pid).join("maps")).map_err(|source| failed(pid, "the memory map", source))
}

/// The files that a process has mapped.
///
/// # Errors
/// When the process has gone or may not be looked at.
pub fn files(pid: u32) -> Result<Vec<Mapping>, ProcessError> {
    Ok(maps::files(&map_text(pid)?))
}

impl ProcessInfo {
    /// Reads who a process is. The program's file and the command line stay empty where they may not be read.
    ///
    /// # Errors
    /// [`ProcessError::NotFound`], [`ProcessError::Thread`], or [`ProcessError::Exited`] while it was read.
    pub fn read(pid: u32, time: u64) -> Result<Self, ProcessError> {
        let stat = Stat::read(pid)?;
        if let Some(leader) = leader(pid)
            && leader != pid
        {
            return Err(ProcessError::Thread { tid: pid, pid: leader });
        }
        let exe = fs::read_link(directory(pid).join("exe")).unwrap_or_default();
        let words = fs::read(directory(pid).join("cmdline")).unwrap_or_default();
        let cmdline = self::words(&words);
        let settings = settings(pid);
        // The id may have gone to another process between two of the files.
        let after = Stat::read(pid).map_err(gone)?;
        if after.start_ticks != stat.start_ticks {
            return Err(ProcessError::Exited { pid });
        }
        Ok(Self {
            time,
            pid,
            ppid: after.ppid,
            start_ticks: after.start_ticks,
            comm: after.comm,
            exe,
            cmdline,
            settings,
        })
    }
}

/// The words of a command line that zero bytes separate, as in `/proc/PID/cmdline`.
pub fn words(bytes: &[u8]) -> Vec<String> {
    match bytes.strip_suffix(b"\0").unwrap_or(bytes) {
        [] => Vec::new(),
        words => words.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
    }
}

/// What the environment that a process began with tells allocators; empty where it may not be read.
pub fn settings(pid: u32) -> Vec<String> {
    let mut environment = Vec::new();
    if let Ok(file) = fs::File::open(directory(pid).join("environ")) {
        // What was read before an error is as good as any.
        let _ = file.take(MOST_ENVIRONMENT).read_to_end(&mut environment);
    }
    allocator_settings(&environment)
}

/// The words `NAME=VALUE` of an environment, separated by zero bytes, that allocators take their settings from: glibc's
/// `MALLOC_*` and `GLIBC_TUNABLES`, and those of jemalloc, mimalloc and tcmalloc. Nobody else's are kept.
///
/// When a program begins, glibc's loader puts zero bytes between the tunables that it knows, where colons were.
fn allocator_settings(environment: &[u8]) -> Vec<String> {
    const TUNABLES: &str = "GLIBC_TUNABLES=";
    const PREFIXES: [&str; 4] = ["MALLOC_", "MIMALLOC_", "TCMALLOC_", "JE_MALLOC_"];
    let mut settings: Vec<String> = Vec::new();
    let mut in_tunables = false;
    for word in environment.split(|&byte| byte == 0) {
        let word = String::from_utf8_lossy(word);
        in_tunables = word.starts_with(TUNABLES) || in_tunables && word.starts_with("glibc.");
        match settings.last_mut() {
            Some(tunables) if in_tunables && !word.starts_with(TUNABLES) => {
                tunables.push(':');
                tunables.push_str(&word);
            }
            _ if in_tunables || word.contains('=') && PREFIXES.iter().any(|prefix| word.starts_with(prefix)) => {
                settings.push(word.into_owned());
            }
            _ => {}
        }
    }
    settings
}

/// The process that a thread belongs to, from its status.
fn leader(pid: u32) -> Option<u32> {
    let status = fs::read(directory(pid).join("status")).ok()?;
    field(&status, b"Tgid:").and_then(|value| u32::try_from(value).ok())
}

/// The number behind a name at the beginning of a line.
pub(crate) fn field(text: &[u8], name: &[u8]) -> Option<u64> {
    let rest = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    str::from_utf8(rest).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Checks that a process can be traced as far as its kind goes: it is there, a program, and one of 64 bits.
///
/// # Errors
/// Says which of these it is not, or that it may not be looked at.
pub fn check(pid: u32) -> Result<(), ProcessError> {
    let stat = Stat::read(pid)?;
    if stat.is_kernel_thread() {
        return Err(ProcessError::Kernel { pid, comm: stat.comm });
    }
    if stat.has_ended() {
        return Err(ProcessError::Exited { pid });
    }
    let link = directory(pid).join("exe");
    let mut head = [0; 5];
    let file = fs::File::open(&link).map_err(|source| failed(pid, "the program", source))?;
    io::Read::read_exact(&mut &file, &mut head).map_err(|source| failed(pid, "the program", source))?;
    // A class of 1 in the ELF identification.
    if head[..4] == *b"\x7fELF" && head[4] == 1 {
        return Err(ProcessError::ThirtyTwoBit { pid, exe: fs::read_link(&link).unwrap_or_default() });
    }
    Ok(())
}

/// The value of a variable in the environment that a process was started with; `None` when it is not set or may not
/// be read.
pub fn environment(pid: u32, name: &str) -> Option<std::ffi::OsString> {
    let text = fs::read(directory(pid).join("environ")).ok()?;
    variable(&text, name).map(|value| OsStr::from_bytes(value).to_owned())
}

fn variable<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut entries = text.split(|&byte| byte == 0);
    entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The path by which a process's own program can be opened, even after it was deleted.
pub fn program(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("exe")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    #[test]
    fn only_what_allocators_read_is_kept_of_an_environment() {
        let environment = b"HOME=/x\0MALLOC_ARENA_MAX=2\0TOKEN=MALLOC_\0GLIBC_TUNABLES=a.b=1:c.d=2\0MIMALLOC_VERBOSE=1\0MALLOC_\0\xff";
        let kept = ["MALLOC_ARENA_MAX=2", "GLIBC_TUNABLES=a.b=1:c.d=2", "MIMALLOC_VERBOSE=1"];
        assert_eq!(allocator_settings(environment), kept);
        assert_eq!(allocator_settings(b""), Vec::<String>::new());
        let cut =
            b"GLIBC_TUNABLES=glibc.malloc.arena_max=1\0glibc.malloc.top_pad=2\0A=glibc.\0glibc.x=1\0MALLOC_TOP_PAD_=3";
        assert_eq!(
            allocator_settings(cut),
            ["GLIBC_TUNABLES=glibc.malloc.arena_max=1:glibc.malloc.top_pad=2", "MALLOC_TOP_PAD_=3"]
        );
        let mut child = Command::new("sleep");
        let mut child = child.env_clear().env("MALLOC_TOP_PAD_", "7").arg("9").spawn().expect("it is there");
        // Until the program has begun, the environment is still this process's.
        let found = (0..200).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            Some(settings(child.id())).filter(|found| !found.is_empty())
        });
        child.kill().expect("it runs");
        child.wait().expect("it has ended");
        assert_eq!(found, Some(vec!["MALLOC_TOP_PAD_=7".to_owned()]));
    }

    #[test]
    fn the_own_process_is_read() {
        let pid = std::process::id();
        let info = ProcessInfo::read(pid, 17).expect("it runs");
        assert_eq!((info.time, info.pid), (17, pid));
        assert_eq!(info.exe, std::env::current_exe().expect("it has a path"));
        assert_eq!(info.cmdline, std::env::args().collect::<Vec<_>>());
        assert_eq!(info.ppid, std::os::unix::process::parent_id());
        assert!(is_alive(pid, info.start_ticks));
        assert!(!is_alive(pid, info.start_ticks + 1));
        assert!(threads(pid).expect("it runs").contains(&pid));
        assert!(all().expect("procfs is mounted").contains(&pid));
        check(pid).expect("it can be traced");
    }

    #[test]
    fn command_lines_keep_empty_words() {
        assert_eq!(words(b"a\0\0b\0"), ["a", "", "b"]);
        assert!(words(b"").is_empty());
    }

    #[test]
    fn names_with_brackets_and_blanks_are_read() {
        let fields = "R 2 3 4 5 6 64 7 8 9 10 11 12 13 14 15 16 17 18 99 20";
        let stat = Stat::parse(format!("12 (a) b (c) {fields}").as_bytes()).expect("the format");
        assert_eq!(stat, Stat { comm: "a) b (c".into(), state: b'R', ppid: 2, flags: 64, start_ticks: 99 });
        assert!(!stat.is_kernel_thread() && !stat.has_ended());
        assert_eq!(Stat::parse(b"12 (a) R 2 3"), None);
        assert_eq!(Stat::parse(b"12 )a( R"), None);
    }

    #[test]
    fn what_cannot_be_traced_is_named() {
        // Ids are below 2^22.
        let error = ProcessInfo::read(1 << 30, 0).expect_err("no such id");
        assert!(matches!(error, ProcessError::NotFound { pid } if pid == 1 << 30), "{error}");
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().expect("true is installed");
        let pid = child.id();
        // Until it is waited for, an ended process keeps its entry.
        while !Stat::read(pid).expect("it is not waited for").has_ended() {
            std::thread::yield_now();
        }
        assert!(matches!(check(pid), Err(ProcessError::Exited { .. })));
        child.wait().expect("it has ended");
        assert!(matches!(Stat::read(2), Err(ProcessError::NotFound { .. }) | Ok(_)));
        if let Ok(stat) = Stat::read(2)
            && stat.comm == "kthreadd"
        {
            assert!(matches!(check(2), Err(ProcessError::Kernel { pid: 2, .. })));
        } else {
            eprintln!("skipped: no kernel thread is visible here");
        }
    }

    #[test]
    fn a_thread_is_not_taken_for_a_process() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let name = fs::read_link("/proc/thread-self").expect("procfs is mounted");
            let tid: u32 = name.file_name().and_then(OsStr::to_str).and_then(|tid| tid.parse().ok()).expect("an id");
            sender.send(tid).expect("the test waits");
            let _ = ended.recv();
        });
        let tid = receiver.recv().expect("the thread tells");
        let error = ProcessInfo::read(tid, 0).expect_err("a thread");
        let own = std::process::id();
        assert!(matches!(error, ProcessError::Thread { pid, .. } if pid == own), "{error}");
        drop(end);
        thread.join().expect("it ended well");
    }

    #[test]
    fn variables_are_found_whole() {
        let text = b"LD_PRELOADED=no\0LD_PRELOAD=a.so:b.so\0X=";
        assert_eq!(variable(text, "LD_PRELOAD"), Some(&b"a.so:b.so"[..]));
        assert_eq!(variable(text, "X"), Some(&b""[..]));
        assert_eq!(variable(text, "Y"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            Stat::parse(&text);
            field(&text, b"a");
            variable(&text, "A");
        }
    }
}
