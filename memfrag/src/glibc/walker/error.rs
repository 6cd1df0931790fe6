//! Why a heap cannot be walked.

use crate::glibc::memory::Unreadable;
use crate::glibc::stop::StopError;
use crate::glibc::version::Version;
use crate::glibc::walk::Damage;
use crate::target::AllocatorKind;
use crate::target::process::{self, ProcessError, Stat};
use std::path::PathBuf;
use thiserror::Error;

/// Why a heap cannot be walked.
#[derive(Debug, Error)]
pub enum WalkError {
    /// The process cannot be looked at.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Another allocator serves the program.
    #[error(
        "process {pid} takes its memory from {kind}{version}, not from glibc's malloc: its heap has another form, \
         which memfrag cannot walk; `memfrag trace --pid {pid}` records its calls all the same",
        version = .version.as_ref().map(|version| format!(" {version}")).unwrap_or_default()
    )]
    OtherAllocator {
        /// The process.
        pid: u32,
        /// The allocator.
        kind: AllocatorKind,
        /// Its version, where it is known.
        version: Option<String>,
    },
    /// No allocator was found.
    #[error(
        "process {pid} has no allocator that memfrag knows: neither its program nor a library of it defines malloc"
    )]
    NoAllocator {
        /// The process.
        pid: u32,
    },
    /// The layout of the version is not known.
    #[error(
        "process {pid} uses glibc {version}, whose heap memfrag does not know (it knows {} to {}); `memfrag trace \
         --pid {pid}` records its calls all the same",
        Version::OLDEST,
        Version::NEWEST
    )]
    UnknownVersion {
        /// The process.
        pid: u32,
        /// What the file says.
        version: String,
    },
    /// Something that every heap has was not found.
    #[error(
        "{what} of glibc {version} in process {pid} {}; either {file} differs from the releases of that version, or \
         the process has not allocated anything yet",
        if *.places == 0 { "was not found".to_owned() } else { format!("could be at {places} places") }
    )]
    NotFound {
        /// The process.
        pid: u32,
        /// What was looked for.
        what: &'static str,
        /// In how many places it could be.
        places: usize,
        /// The version.
        version: Version,
        /// The file with the allocator.
        file: PathBuf,
    },
    /// The chunks do not follow each other.
    #[error("{damage}; read {attempts} times")]
    Damaged {
        /// Where, and what is wrong.
        damage: Damage,
        /// How often the heap was read.
        attempts: u32,
    },
    /// Memory could not be read.
    #[error("cannot read the heap of process {pid}: {source}")]
    Unreadable {
        /// The process.
        pid: u32,
        /// The place, and what the system said.
        source: Unreadable,
    },
    /// The process could not be stopped.
    #[error(transparent)]
    Stop(StopError),
}

impl From<StopError> for WalkError {
    fn from(error: StopError) -> Self {
        match error {
            StopError::Process(error) => Self::Process(error),
            other => Self::Stop(other),
        }
    }
}

/// The error to tell: that the process has ended meanwhile, where that is the reason.
pub(super) fn explain(pid: u32, error: WalkError) -> WalkError {
    match (&error, Stat::read(pid)) {
        (WalkError::Process(_), _) => error,
        (_, Ok(stat)) if !stat.has_ended() => error,
        _ => ProcessError::Exited { pid }.into(),
    }
}

/// Whether the last faults are all the same: then it is no change that was seen halfway. With the pauses between them,
/// a thread that waited for a processor in the middle of a change has had a fifth of a second to end it.
pub(super) fn repeats(faults: &[String]) -> bool {
    const SAME: usize = 8;
    faults.len() >= SAME && faults[faults.len() - SAME..].windows(2).all(|pair| pair[0] == pair[1])
}

pub(super) fn unreadable(pid: u32, source: Unreadable) -> WalkError {
    match source.source.raw_os_error() {
        Some(libc::ESRCH) => ProcessError::Exited { pid }.into(),
        Some(libc::EPERM | libc::EACCES) => {
            ProcessError::NotPermitted { pid, what: "the heap", owner: process::owner(pid).unwrap_or(0) }.into()
        }
        _ => WalkError::Unreadable { pid, source },
    }
}
