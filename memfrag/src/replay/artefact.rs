//! A recording made into a replay's data, or into a directory that stands alone.

use super::choose::{Candidate, candidates};
use super::compact::{self, Compact};
use super::data::DataFile;
use super::follow::{Following, Look};
use super::plan::{Planned, Planner};
use super::survey::Survey;
use crate::recording::{Reader, RecordingError};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The language of a program that stands alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// C.
    #[default]
    C,
    /// Rust.
    Rust,
}

impl Language {
    /// What is written beside the data: names and contents.
    const fn files(self) -> [(&'static str, &'static str); 3] {
        match self {
            Self::C => [
                ("replay.c", include_str!("program/replay.c")),
                ("Makefile", include_str!("program/Makefile")),
                ("README.md", include_str!("program/README.md")),
            ],
            Self::Rust => [
                ("replay.rs", include_str!("program/replay.rs")),
                ("Makefile", include_str!("program/rust/Makefile")),
                ("README.md", include_str!("program/rust/README.md")),
            ],
        }
    }
}

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The recording cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// No process of the recording called the allocator, or not the one that was asked for.
    #[error("{} has no allocator calls of {}; {}", path.display(), wanted, present)]
    Nothing {
        /// The recording.
        path: PathBuf,
        /// Which process was wanted.
        wanted: String,
        /// Which there are.
        present: String,
    },
    /// The process began as a copy of another one.
    #[error(
        "process {pid} began as a copy of process {parent}, with its heap, and has not run a program of its own since; \
         replay process {parent} with --pid {parent}"
    )]
    Copied {
        /// The process.
        pid: u32,
        /// Whose copy it was.
        parent: u32,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What of a recording is replayed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The process; `None` for the one that made most calls.
    pub pid: Option<u32>,
    /// The calls until this moment, in nanoseconds since the trace began; `None` for all.
    pub until: Option<u64>,
    /// Not what was called, but what is live then.
    pub compact: Option<Compact>,
}

/// Makes the calls of one process of a recording into a replay's data in the empty file `data`, which messages call
/// `path`. `progress` is told how many events were read; where the recording tells which pages were resident, it is read
/// twice.
///
/// # Errors
/// When the recording cannot be read or has no such calls, or the file cannot take them.
pub fn prepare(
    recording: &Path,
    wanted: &Wanted,
    data: File,
    path: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(Candidate, Planned), ReplayError> {
    let reader = Reader::open(recording)?;
    let chosen = choose(recording, wanted.pid, &candidates(&reader))?;
    let failed = |source| ReplayError::Write { path: path.to_path_buf(), source };
    let mut following = Following { reader: &reader, chosen: &chosen, until: wanted.until, progress };
    let (touched, live) = if chosen.looks > 0 || wanted.compact.is_some() {
        let survey = Survey::default();
        following.follow(&survey, |look| {
            if let Look::Pages(pages) = look {
                survey.look(pages);
            }
        });
        survey.finish()
    } else {
        Default::default()
    };
    let kinds = touched.kinds;
    let mut file = DataFile::new(data);
    let (result, file) = if let Some(compact) = wanted.compact {
        let planned = compact::plan(live, &touched, compact, &mut file);
        (planned, file)
    } else {
        drop(live);
        let planner = Planner::new(chosen.pid, touched, file);
        let last = following.follow(&planner, |look| {
            if let Look::Memory(sample) = look {
                planner.sample(sample);
            }
        });
        planner.end(last);
        planner.finish().ok_or_else(|| failed(io::Error::other("the plan is still in use")))?
    };
    let result = Planned { kinds, ..result };
    file.finish(&result).map_err(failed)?;
    Ok((chosen, result))
}

fn choose(recording: &Path, pid: Option<u32>, all: &[Candidate]) -> Result<Candidate, ReplayError> {
    let mut wanted = all.iter().filter(|candidate| pid.is_none_or(|pid| candidate.pid == pid));
    let own = wanted.clone().find(|candidate| candidate.copied_from.is_none());
    if let Some(own) = own {
        return Ok(own.clone());
    }
    if let Some((copy, parent)) = wanted.next().and_then(|copy| Some((copy, copy.copied_from?))) {
        return Err(ReplayError::Copied { pid: copy.pid, parent });
    }
    let names: Vec<String> = all.iter().take(8).map(|it| format!("{} ({})", it.pid, it.comm)).collect();
    Err(ReplayError::Nothing {
        path: recording.to_path_buf(),
        wanted: pid.map_or_else(|| "any process".to_owned(), |pid| format!("process {pid}")),
        present: if names.is_empty() {
            "record a program that allocates".to_owned()
        } else {
            format!("it has those of {}", names.join(", "))
        },
    })
}

/// Makes a recording into a directory that stands alone: a program, its data, how to build and run it.
///
/// # Errors
/// As [`prepare`]; when the directory or a file in it cannot be made.
pub fn emit(
    recording: &Path,
    wanted: &Wanted,
    language: Language,
    directory: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(Candidate, Planned), ReplayError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ReplayError::Write { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    for (name, text) in language.files() {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(failed(&path))?;
    }
    let path = directory.join("replay.data");
    let data = File::create(&path).map_err(failed(&path))?;
    prepare(recording, wanted, data, &path, progress)
}
