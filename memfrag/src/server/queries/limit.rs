//! How long an answer may take.

use super::QueryError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long an answer may take, and whether anybody still waits for it.
#[derive(Clone, Debug)]
pub struct Limit {
    until: Instant,
    seconds: u64,
    cancelled: Arc<AtomicBool>,
}

impl Limit {
    /// So long from now.
    pub fn new(most: Duration) -> Self {
        Self { until: Instant::now() + most, seconds: most.as_secs(), cancelled: Arc::default() }
    }

    /// Ends the work on the answer soon; any thread may say so.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether there is time left and anybody waits.
    pub fn has_time(&self) -> bool {
        self.check().is_ok()
    }

    /// To be called every now and then.
    ///
    /// # Errors
    /// When the time is over, or nobody waits.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.cancelled.load(Ordering::Relaxed) {
            Err(QueryError::Cancelled)
        } else if Instant::now() >= self.until {
            Err(QueryError::TooLong { seconds: self.seconds })
        } else {
            Ok(())
        }
    }

    /// The same for a loop: looks at the clock every few thousand turns.
    pub(super) fn turns(&self) -> Turns<'_> {
        Turns { limit: self, left: Turns::EACH }
    }
}

/// Counts the turns of a loop.
#[derive(Debug)]
pub(super) struct Turns<'a> {
    limit: &'a Limit,
    left: u32,
}

impl Turns<'_> {
    const EACH: u32 = 1 << 14;

    /// To be called at every turn.
    #[inline]
    pub(super) fn turn(&mut self) -> Result<(), QueryError> {
        self.left -= 1;
        if self.left == 0 {
            self.left = Self::EACH;
            return self.limit.check();
        }
        Ok(())
    }
}
