//! A player that a thread moves, and that many watch.

use super::player::{Command, Player, Status};
use super::source::Source;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the player is held at once.
const SLICE: Duration = Duration::from_millis(5);
/// How long others are let go first.
const YIELD: Duration = Duration::from_millis(20);
/// A step of waiting for them.
const NAP: Duration = Duration::from_micros(50);
/// Stages that clients may have for themselves, all together.
const PRIVATE: usize = 8;

/// A player and the thread that moves it.
#[derive(Debug)]
pub struct Stage {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Its place among those of clients that travel.
    _private: Option<Place>,
}

#[derive(Debug)]
struct Shared {
    player: Mutex<Player>,
    begin: Instant,
    /// How many wait for the player, the thread aside.
    waiting: AtomicUsize,
    ends: AtomicBool,
    /// Whether a command came, for the thread that rests.
    told: Mutex<bool>,
    wake: Condvar,
    changes: watch::Sender<u64>,
}

impl Stage {
    /// Puts the newest state of a recording on, that many watch.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn open(source: Arc<Source>) -> io::Result<Arc<Self>> {
        Self::start(Player::new(source), None)
    }

    fn start(player: Player, private: Option<Place>) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            player: Mutex::new(player),
            begin: Instant::now(),
            waiting: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
            told: Mutex::new(false),
            wake: Condvar::new(),
            changes: watch::Sender::new(0),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("memfrag-player".to_owned()).spawn(move || own.run())?;
        Ok(Arc::new(Self { shared, thread: Some(thread), _private: private }))
    }

    /// Looks at the player, or takes from it. It stands still meanwhile, so this should be short.
    pub fn with<R>(&self, look: impl FnOnce(&mut Player) -> R) -> R {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let mut player = self.shared.player();
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        look(&mut player)
    }

    /// Tells the player what to do. It begins at once.
    pub fn command(&self, command: Command) {
        let now = self.shared.begin.elapsed();
        self.with(|player| player.command(command, now));
        self.shared.changed();
        self.shared.wake_up();
    }

    /// How the player is doing.
    pub fn status(&self) -> Status {
        self.with(|player| player.status())
    }

    /// A number that is another one whenever something that can be seen has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

/// The stages that clients have for themselves.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    taken: Arc<AtomicUsize>,
}

/// One of the places for clients that travel; given back when it is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stages {
    /// A stage for one client alone, that begins standing where another one is. `None` when there are too many.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn private(&self, from: &Stage) -> io::Result<Option<Arc<Stage>>> {
        let more = |taken| (taken < PRIVATE).then_some(taken + 1);
        if self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return Ok(None);
        }
        let place = Place(Arc::clone(&self.taken));
        let player = from.with(Player::fork);
        Stage::start(player, Some(place)).map(Some)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.shared.wake_up();
        if let Some(thread) = self.thread.take() {
            // One that has failed has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn player(&self) -> MutexGuard<'_, Player> {
        self.player.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn wake_up(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    fn run(&self) {
        while !self.ends.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let advanced = self.player().advance(self.begin.elapsed(), &mut || begun.elapsed() < SLICE);
            if advanced.changed {
                self.changed();
            }
            match advanced.rest {
                Some(Duration::ZERO) => self.let_others(),
                rest => self.rest(rest),
            }
        }
    }

    /// A lock goes to whoever asks first after it was given back, which would always be this thread.
    fn let_others(&self) {
        let since = Instant::now();
        while self.waiting.load(Ordering::Relaxed) > 0 && since.elapsed() < YIELD {
            std::thread::sleep(NAP);
        }
    }

    fn rest(&self, most: Option<Duration>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !*told {
            told = match most {
                Some(most) => self.wake.wait_timeout(told, most).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(told).unwrap_or_else(PoisonError::into_inner),
            };
        }
        *told = false;
    }
}

#[cfg(test)]
mod tests;
