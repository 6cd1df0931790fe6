//! How much of everything a client may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// WebSocket clients at once.
pub const CLIENTS: usize = 8;
/// TCP connections at once, idle ones included.
pub const CONNECTIONS: usize = 64;
/// Upgrades to a WebSocket that may come at once; see [`UPGRADE_EVERY`].
pub const UPGRADE_BURST: u32 = 12;
/// In the long run no more than one upgrade in this time.
pub const UPGRADE_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a message from a client.
pub const INBOUND: usize = 64 << 10;
/// Bytes that wait in a WebSocket for the network. It must be above the library's 128 KiB of buffering.
pub const WRITE_BUFFER: usize = 4 << 20;
/// A message that takes longer to send ends the connection.
pub const SEND: Duration = Duration::from_secs(5);
/// The line and headers of a request must be there after this long.
pub const HEADERS: Duration = Duration::from_secs(10);
/// Bytes of a request's line and headers.
pub const HEADER_BYTES: usize = 16 << 10;
/// Headers of a request.
pub const HEADER_COUNT: usize = 64;
/// Queries of a client at once.
pub const QUERIES: usize = 4;
/// A query must be answered after this long.
pub const QUERY: Duration = Duration::from_secs(10);
/// Models beside heaps at once, of all clients together: each takes about as much memory as the blocks that it places
/// take to be known.
pub const MODELS: usize = 4;
/// A model of a heap that had more blocks than this at once is given up.
pub const MODEL_BLOCKS: u64 = 8 << 20;
/// Bytes of the states of a model that are kept to go back to.
pub const MODEL_KEPT: u64 = 256 << 20;
/// Recordings that can be imported while the server runs.
pub const IMPORTS: usize = 8;
/// Imports at once.
pub const IMPORTS_AT_ONCE: usize = 2;
/// Redacted copies that are made at once.
pub const COPIES_AT_ONCE: usize = 1;
/// Bytes of an imported recording, unless the user says otherwise.
pub const IMPORT_BYTES: u64 = 4 << 30;
/// An import of which nothing comes for so long is given up.
pub const IMPORT_IDLE: Duration = Duration::from_secs(30);

/// A number of places that are given out and come back.
#[derive(Clone, Debug)]
pub struct Places {
    taken: Arc<AtomicUsize>,
    all: usize,
}

/// A place that is held until this is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Places {
    /// So many.
    pub fn new(all: usize) -> Self {
        Self { taken: Arc::default(), all }
    }

    /// One of them, unless all are taken.
    pub fn take(&self) -> Option<Place> {
        let more = |taken: usize| (taken < self.all).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Place(Arc::clone(&self.taken)))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Lets something happen so often in the long run, and some times at once.
#[derive(Debug)]
pub struct Rate {
    every: Duration,
    burst: u32,
    /// When the account would be full again.
    full_at: Option<Instant>,
}

impl Rate {
    /// Once in `every`, `burst` times at once.
    pub const fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, full_at: None }
    }

    /// Whether it may happen now; if so, it counts.
    pub fn allows(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + self.every;
        let allowed = full_at - now <= self.every * self.burst;
        if allowed {
            self.full_at = Some(full_at);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let places = Places::new(2);
        let first = places.take().unwrap();
        let second = places.take().unwrap();
        assert!(places.take().is_none());
        drop(first);
        let third = places.take().unwrap();
        assert!(places.take().is_none());
        drop((second, third));
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn a_rate_allows_a_burst_and_then_one_at_a_time() {
        let begin = Instant::now();
        let mut rate = Rate::new(Duration::from_secs(1), 3);
        assert!((0..3).all(|_| rate.allows(begin)));
        assert!(!rate.allows(begin));
        assert!(!rate.allows(begin + Duration::from_millis(900)));
        assert!(rate.allows(begin + Duration::from_millis(1100)));
        assert!(!rate.allows(begin + Duration::from_millis(1200)));
        let later = begin + Duration::from_mins(1);
        assert!((0..3).all(|_| rate.allows(later)));
        assert!(!rate.allows(later));
    }

    #[test]
    fn in_the_long_run_it_is_the_rate() {
        let begin = Instant::now();
        let mut rate = Rate::new(Duration::from_secs(1), UPGRADE_BURST);
        let asked = (0..100_000).map(|ms| begin + Duration::from_millis(ms));
        let allowed = asked.filter(|&now| rate.allows(now)).count();
        assert!((100..=100 + UPGRADE_BURST as usize).contains(&allowed), "{allowed} in 100 s");
    }
}
