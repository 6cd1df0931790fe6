//! The thread of a model.

use super::course::Course;
use super::figures::{self, Shown};
use crate::capture::idle;
use crate::model::{Models, Recipe};
use crate::recording::{Cursor, Item, Reader};
use crate::server::limits::{self, Place};
use crate::server::player::Extent;
use crate::server::queries::State;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long it works before it looks whether something else is wanted.
const SLICE: Duration = Duration::from_millis(50);
/// While it is behind it tells what it has so far this often, and at least so many times as long after it as telling took.
const TELL: Duration = Duration::from_millis(500);
const TIMES: u32 = 4;
/// The longest sleep.
const NAP: Duration = Duration::from_secs(1);

/// A place of the cursor.
#[derive(Debug)]
pub(super) struct Target {
    /// Which events are in what can be seen.
    pub(super) extent: Extent,
    /// The time there.
    pub(super) at_ns: u64,
    /// Events before it.
    pub(super) events: u64,
    /// What can be seen, and the recording.
    pub(super) state: State,
}

/// A thread that keeps a policy beside a heap. It ends by itself when this is dropped, and nobody waits for that.
#[derive(Debug)]
pub(super) struct Worker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    wake: Condvar,
    ends: AtomicBool,
    behind: AtomicBool,
    /// Events that it has gone through.
    events: AtomicU64,
}

/// What one gives the other.
#[derive(Debug, Default)]
struct Desk {
    target: Option<Target>,
    shown: Option<Shown>,
}

impl Worker {
    /// Begins to go through a recording. The place is given back when the thread has ended.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(super) fn begin(recipe: Recipe, reader: Arc<Reader>, place: Place) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            desk: Mutex::default(),
            wake: Condvar::new(),
            ends: AtomicBool::new(false),
            behind: AtomicBool::new(true),
            events: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        let run = move || {
            if !reader.is_settled() {
                // There is a program that runs, and a capture. Nobody waits for a lock in this thread's hands.
                idle::only_when_idle();
            }
            own.run(recipe, reader);
            drop(place);
        };
        std::thread::Builder::new().name("memfrag-model".to_owned()).spawn(run)?;
        Ok(Self(shared))
    }

    /// Whether it has not yet taken what it was given last.
    pub(super) fn is_busy(&self) -> bool {
        self.0.desk.try_lock().map_or(true, |desk| desk.target.is_some())
    }

    /// Whether it was behind when that could be seen last.
    pub(super) fn is_behind(&self) -> bool {
        self.0.behind.load(Ordering::Relaxed)
    }

    /// Events that it has gone through, between two chunks; what it has told may be of fewer.
    pub(super) fn events(&self) -> u64 {
        self.0.events.load(Ordering::Relaxed)
    }

    /// Gives it another place to go to; false when it cannot take it now.
    pub(super) fn give(&self, target: Target) -> bool {
        // The one who waits for it could be put aside just now.
        let Ok(mut desk) = self.0.desk.try_lock() else { return false };
        desk.target = Some(target);
        self.0.wake.notify_one();
        true
    }

    /// What it has come to since it was asked last.
    pub(super) fn news(&self) -> Option<Shown> {
        self.0.desk.try_lock().ok()?.shown.take()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::Relaxed);
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// The next place to go to. Waits for it if there is nothing else to do; `None` when all is over.
    fn next(&self, waits: bool) -> Option<Target> {
        let mut desk = self.desk();
        loop {
            let target = desk.target.take();
            if target.is_some() || !waits || self.ends() {
                return target;
            }
            desk = self.wake.wait_timeout(desk, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn tell(&self, shown: Shown) {
        self.behind.store(shown.behind_events > 0, Ordering::Relaxed);
        self.desk().shown = Some(shown);
    }

    fn run(&self, recipe: Recipe, reader: Arc<Reader>) {
        let Some(mut target) = self.next(true) else { return };
        if !self.learn(&recipe, &reader, &target) {
            return;
        }
        let pid = recipe.pid();
        let mut course = Course::new(recipe, &reader);
        drop(reader);
        let (mut told, mut took) = (Instant::now(), Duration::ZERO);
        while !self.ends() {
            let begun = Instant::now();
            let mut has_time = || begun.elapsed() < SLICE && !self.ends();
            let there = course.approach(&target.state.reader, target.extent, &mut has_time);
            self.events.store(course.event(), Ordering::Relaxed);
            if course.most_blocks() > limits::MODEL_BLOCKS {
                let problem = "the process has more blocks at once than there is room for in a model beside the page; \
                               memfrag model takes any number";
                return self.tell(Shown { problem: Some(problem.to_owned()), ..Shown::default() });
            }
            if there || told.elapsed() >= TELL.max(took * TIMES) {
                let begun = Instant::now();
                let see = |models: &Models, cursor: &Cursor| figures::shown(models, cursor, pid, &target, there);
                let shown =
                    if there { course.look(&target.state.reader, target.extent, see) } else { course.look_here(see) };
                self.tell(shown);
                (told, took) = (Instant::now(), begun.elapsed());
            }
            if let Some(next) = self.next(there) {
                target = next;
            }
        }
    }

    /// Learns how long blocks live, where the policy has to know that. False when it is not wanted any more.
    fn learn(&self, recipe: &Recipe, reader: &Reader, target: &Target) -> bool {
        let Some(learner) = recipe.learner() else { return true };
        let mut models = Models::new(learner);
        let mut items = reader.items();
        let (mut events, mut told) = (0, Instant::now());
        while let Some(item) = items.next_item() {
            match item {
                Item::Events(some) => {
                    models.apply_all(some);
                    events += some.len() as u64;
                }
                Item::Layout { time, pid, layout } => models.layout(time, pid, &layout),
                _ => {}
            }
            if self.ends() {
                return false;
            }
            if told.elapsed() >= TELL {
                // It goes through all of this first, and then through what the cursor has before it.
                let behind_events = reader.events().saturating_sub(events) + target.events;
                self.tell(Shown { learning: true, behind_events, ..Shown::default() });
                told = Instant::now();
            }
        }
        true
    }
}
