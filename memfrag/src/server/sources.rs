//! The recordings that the server has.

use super::limits;
use super::source::Source;
use super::stage::Stage;
use crate::recording::RecordingError;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use tokio::sync::watch;

/// What clients are told about a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct About {
    source: usize,
    name: String,
    backend: String,
    command: Vec<String>,
    host: String,
    kernel: String,
    began_unix_ns: u64,
    growing: bool,
    complete: bool,
    damage: AboutDamage,
    duration_ns: u64,
    events: u64,
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct AboutDamage {
    chunks: u64,
    bytes: u64,
    events: u64,
}

impl About {
    fn new(number: usize, source: &Source) -> Self {
        let (header, facts) = (source.header(), source.facts());
        Self {
            source: number,
            name: source.name().to_owned(),
            backend: header.backend.clone(),
            command: header.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            host: header.hostname.clone(),
            kernel: header.kernel.clone(),
            began_unix_ns: header.started_unix_ns,
            growing: facts.growing,
            complete: facts.complete,
            damage: AboutDamage { chunks: facts.damage.chunks, bytes: facts.damage.bytes, events: facts.damage.events },
            duration_ns: facts.end_ns,
            events: facts.events,
            error: facts.error,
        }
    }

    /// Whether more than its length has changed.
    pub fn differs(&self, before: &Self) -> bool {
        let still = Self { duration_ns: before.duration_ns, events: before.events, ..self.clone() };
        still != *before
    }
}

#[derive(Debug)]
struct Held {
    source: Arc<Source>,
    /// The newest state of it, while anybody watches.
    live: Mutex<Weak<Stage>>,
}

/// All of them. They only become more.
#[derive(Debug)]
pub struct Sources {
    list: RwLock<Vec<Held>>,
    changed: watch::Sender<u64>,
}

impl Sources {
    /// With the one that the server was started with.
    pub fn new(first: Arc<Source>) -> Self {
        let first = Held { source: first, live: Mutex::default() };
        Self { list: RwLock::new(vec![first]), changed: watch::Sender::new(0) }
    }

    /// One of them.
    pub fn get(&self, number: usize) -> Option<Arc<Source>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.get(number).map(|held| Arc::clone(&held.source))
    }

    /// The newest state of one of them, which all clients share that watch it live.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn stage(&self, number: usize) -> Option<io::Result<Arc<Stage>>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let held = list.get(number)?;
        let mut live = held.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = live.upgrade() {
            return Some(Ok(stage));
        }
        let stage = Stage::open(Arc::clone(&held.source));
        *live = stage.as_ref().map_or_else(|_| Weak::new(), Arc::downgrade);
        Some(stage)
    }

    /// What clients are told about all of them.
    pub fn about(&self) -> Vec<About> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().enumerate().map(|(number, held)| About::new(number, &held.source)).collect()
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.list.read().unwrap_or_else(PoisonError::into_inner).len() <= limits::IMPORTS
    }

    /// Takes one more, and returns its number; `None` when there are too many.
    ///
    /// # Errors
    /// When it is no recording.
    pub fn add(&self, file: File, name: String) -> Result<Option<usize>, RecordingError> {
        let source = Source::new(file, name)?;
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if list.len() > limits::IMPORTS {
            return Ok(None);
        }
        let number = list.len();
        list.push(Held { source, live: Mutex::default() });
        drop(list);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(Some(number))
    }

    /// Counts how often there were more.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
