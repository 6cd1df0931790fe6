//! What can go wrong with a recording.

use std::io;
use std::path::PathBuf;

/// Why a recording could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The system refused an operation on the file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file begins with something else.
    #[error(
        "{} is not a memfrag recording: it begins with {found}; \
         recordings are files that `memfrag trace` has written, with names in .mfrag", path.display()
    )]
    NotARecording {
        /// The file.
        path: PathBuf,
        /// Its first bytes, for people.
        found: String,
    },
    /// The file was written by a later memfrag in a way that this one does not know.
    #[error(
        "{} has recording format {version}, and this memfrag reads formats up to {supported}; \
         open it with a newer memfrag", path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The file's version.
        version: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// The header is cut short or damaged, and without it nothing can be read.
    #[error("the header of {} is {problem}; nothing can be read from it", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file could not take all that was to be written.
    #[error("{reason}")]
    Stopped {
        /// What happened and what to do.
        reason: String,
    },
    /// The header that was to be written does not fit the format.
    #[error("the header of {} would need {length} bytes, and the format allows {limit}; shorten the command line", path.display())]
    HeaderTooLong {
        /// The file.
        path: PathBuf,
        /// Bytes needed.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}
