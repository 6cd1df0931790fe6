//! A recording that the server has.

use super::states::States;
use crate::recording::{Damage, Header, Reader, RecordingError};
use crate::report::Names;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is asked whether a recording that does not grow is still being written.
const ASK: Duration = Duration::from_millis(250);

/// A recording that the server has, which may grow.
///
/// All players of it share what is known of its chunks and the states that they kept on their way.
#[derive(Debug)]
pub struct Source {
    file: File,
    name: String,
    header: Header,
    names: Arc<Names>,
    known: Mutex<Known>,
    states: Mutex<States>,
}

#[derive(Debug)]
struct Known {
    reader: Arc<Reader>,
    /// When it was last found that the recording has grown, or is being written.
    alive: Instant,
    /// What players found that the reader alone does not see.
    damage: Damage,
    error: Option<String>,
}

/// A recording as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether it may grow.
    pub growing: bool,
    /// Whether it was ended in order.
    pub complete: bool,
    /// What is damaged, as far as it was read.
    pub damage: Damage,
    /// The latest time in it, in nanoseconds since the trace began.
    pub end_ns: u64,
    /// Events in it.
    pub events: u64,
    /// Bytes of it, those of an unfinished chunk at its end aside.
    pub bytes: u64,
    /// Why it can be read no further, if it cannot.
    pub error: Option<String>,
}

impl Source {
    /// Opens a recording by its path.
    ///
    /// # Errors
    /// When it cannot be opened, or is no recording.
    pub fn open(path: &Path) -> Result<Arc<Self>, RecordingError> {
        let error = |source| RecordingError::Io { action: "open", path: path.to_path_buf(), source };
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self::new(File::open(path).map_err(error)?, name)
    }

    /// Takes a recording that is open already. The name is for people alone.
    ///
    /// # Errors
    /// When it is no recording, or cannot be read.
    pub fn new(file: File, name: String) -> Result<Arc<Self>, RecordingError> {
        let path = Path::new(&name);
        let error = |source| RecordingError::Io { action: "open", path: path.to_path_buf(), source };
        let reader = Reader::follow(file.try_clone().map_err(error)?, path)?;
        let header = reader.header().clone();
        let damage = reader.damage();
        let names = Arc::new(Names::of(&reader));
        let known = Known { reader: Arc::new(reader), alive: Instant::now(), damage, error: None };
        Ok(Arc::new(Self { file, header, names, known: Mutex::new(known), states: Mutex::default(), name }))
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The names of functions in the files that its processes had mapped, and the stacks in it.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The recording as far as it goes now. Costs one system call when nothing has come.
    pub fn reader(&self) -> Arc<Reader> {
        let mut known = self.known();
        known.refresh();
        Arc::clone(&known.reader)
    }

    /// What there is to say about it now.
    pub fn facts(&self) -> Facts {
        let mut known = self.known();
        known.refresh();
        let reader = &known.reader;
        Facts {
            growing: !reader.is_settled(),
            complete: reader.complete(),
            damage: known.damage,
            end_ns: reader.last_time(),
            events: reader.events(),
            bytes: reader.whole_bytes(),
            error: known.error.clone(),
        }
    }

    /// Takes in what a player found damaged up to its place.
    pub(super) fn found(&self, damage: Damage) {
        let mut known = self.known();
        if (damage.chunks, damage.events) > (known.damage.chunks, known.damage.events) {
            known.damage = damage;
        }
    }

    /// The states that players kept.
    pub(super) fn states(&self) -> std::sync::MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn refresh(&mut self) {
        if let Err(error) = self.try_refresh() {
            self.error.get_or_insert(error.to_string());
        }
    }

    fn try_refresh(&mut self) -> Result<(), RecordingError> {
        // Whoever holds the reader keeps it as it is; only then is there a copy to make.
        if self.reader.has_grown()? {
            Arc::make_mut(&mut self.reader).refresh()?;
            self.alive = Instant::now();
        } else if !self.reader.is_settled() && self.alive.elapsed() >= ASK {
            if self.reader.is_being_written() {
                self.alive = Instant::now();
            } else {
                // What was written between the two looks still counts.
                let reader = Arc::make_mut(&mut self.reader);
                reader.refresh()?;
                reader.settle()?;
            }
        }
        Ok(())
    }
}
