//! A recording made into a replay's data, or into a directory that stands alone.

use super::choose::{Candidate, candidates};
use super::data::DataFile;
use super::plan::{Apart, Planned, Planner};
use crate::model::{Models, Policy};
use crate::recording::{Item, Reader, RecordingError};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PROGRAM: &str = include_str!("program/replay.c");
const MAKEFILE: &str = include_str!("program/Makefile");
const README: &str = include_str!("program/README.md");

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

/// Makes the calls of one process of a recording into a replay's data in the empty file `data`, which messages call
/// `path`: those of `pid`, or of the process that made most. `progress` is told how many events were read.
///
/// # Errors
/// When the recording cannot be read or has no such calls, or the file cannot take them.
pub fn prepare(
    recording: &Path,
    pid: Option<u32>,
    data: File,
    path: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(Candidate, Planned), ReplayError> {
    let reader = Reader::open(recording)?;
    let chosen = choose(recording, pid, &candidates(&reader))?;
    let planner = Planner::new(chosen.pid, DataFile::new(data));
    // How many programs the process has begun, as the heaps are made for them.
    let begun = Arc::new(AtomicU64::new(0));
    let mut models = Models::new({
        let (planner, begun, pid, execs) = (planner.clone(), Arc::clone(&begun), chosen.pid, chosen.execs);
        Box::new(move |of| -> Vec<Box<dyn Policy>> {
            let is_it = of == pid && begun.fetch_add(1, Relaxed) == execs;
            vec![if is_it { Box::new(planner.clone()) } else { Box::new(Apart) }]
        })
    });
    let mut items = reader.items();
    let mut read = 0;
    while let Some(item) = items.next_item() {
        match item {
            Item::Events(events) => {
                models.apply_all(events);
                read += events.len() as u64;
                progress(read);
            }
            Item::Layout { time, pid, layout } => models.layout(time, pid, &layout),
            Item::Memory(sample) if sample.pid == chosen.pid && begun.load(Relaxed) <= chosen.execs + 1 => {
                planner.sample(&sample);
            }
            _ => {}
        }
    }
    drop(models);
    let failed = |source| ReplayError::Write { path: path.to_path_buf(), source };
    let (result, data) = planner.finish().ok_or_else(|| failed(io::Error::other("the plan is still in use")))?;
    data.finish(&result).map_err(failed)?;
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

/// Makes a recording into a directory that stands alone: a C program, its data, how to build and run it.
///
/// # Errors
/// As [`prepare`]; when the directory or a file in it cannot be made.
pub fn emit(
    recording: &Path,
    pid: Option<u32>,
    directory: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(Candidate, Planned), ReplayError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ReplayError::Write { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    for (name, text) in [("replay.c", PROGRAM), ("Makefile", MAKEFILE), ("README.md", README)] {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(failed(&path))?;
    }
    let path = directory.join("replay.data");
    let data = File::create(&path).map_err(failed(&path))?;
    prepare(recording, pid, data, &path, progress)
}
