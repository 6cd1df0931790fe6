//! What `/proc` tells about a process.

use std::path::PathBuf;

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
