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

    /// By what number clients name it.
    pub fn number(&self) -> usize {
        self.source
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
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

/// All of them, each at its number; where one was removed nothing comes again, so that a number means one recording.
#[derive(Debug)]
pub struct Sources {
    list: RwLock<Vec<Option<Held>>>,
    changed: watch::Sender<u64>,
}

impl Sources {
    /// With the one that the server was started with.
    pub fn new(first: Arc<Source>) -> Self {
        let first = Held { source: first, live: Mutex::default() };
        Self { list: RwLock::new(vec![Some(first)]), changed: watch::Sender::new(0) }
    }

    /// One of them.
    pub fn get(&self, number: usize) -> Option<Arc<Source>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.get(number)?.as_ref().map(|held| Arc::clone(&held.source))
    }

    /// The newest state of one of them, which all clients share that watch it live.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn stage(&self, number: usize) -> Option<io::Result<Arc<Stage>>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let held = list.get(number)?.as_ref()?;
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
        let held = list.iter().enumerate().filter_map(|(number, held)| Some((number, held.as_ref()?)));
        held.map(|(number, held)| About::new(number, &held.source)).collect()
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        has_room(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes one more, and returns its number; `None` when there are too many.
    ///
    /// # Errors
    /// When it is no recording.
    pub fn add(&self, file: File, name: String) -> Result<Option<usize>, RecordingError> {
        let source = Source::new(file, name)?;
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if !has_room(&list) {
            return Ok(None);
        }
        let number = list.len();
        list.push(Some(Held { source, live: Mutex::default() }));
        drop(list);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(Some(number))
    }

    /// Takes one away that was imported; whether there was one. Who still watches it is told, and goes elsewhere.
    pub fn remove(&self, number: usize) -> bool {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let removed = list.get_mut(number).filter(|_| number > 0).and_then(Option::take);
        drop(list);
        let was_there = removed.is_some();
        if was_there {
            self.changed.send_modify(|changes| *changes += 1);
        }
        was_there
    }

    /// Counts how often there were others.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn has_room(list: &[Option<Held>]) -> bool {
    list.iter().flatten().count() <= limits::IMPORTS
}
