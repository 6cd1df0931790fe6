//! The line that says how a trace is doing.

use super::tally::Tally;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use memfrag::report::units::{bytes, count};
use std::time::Duration;

/// Time between two lines.
const REFRESH: Duration = Duration::from_millis(250);

/// A line on the terminal; nothing where stderr is none.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    last: Option<(Duration, u64)>,
}

impl Progress {
    pub(super) fn new(wanted: bool) -> Self {
        let target = if wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { bar, last: None }
    }

    /// Shows what the tally says, if the last line is old enough.
    pub(super) fn show(&mut self, tally: &Tally, elapsed: Duration) {
        if self.bar.is_hidden() {
            return;
        }
        let (since, before) = self.last.unwrap_or_default();
        let passed = elapsed.saturating_sub(since);
        if self.last.is_some() && passed < REFRESH {
            return;
        }
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = (tally.events() - before).saturating_mul(1000) / passed;
        self.last = Some((elapsed, tally.events()));
        self.bar.set_message(format!(
            "{:>5.0} s   {:>11} events/s   {:>11} live blocks   {:>10} resident   {}",
            elapsed.as_secs_f64(),
            count(rate),
            count(tally.live()),
            bytes(tally.rss()),
            if tally.lost() == 0 { "none lost".to_owned() } else { format!("{} LOST", count(tally.lost())) },
        ));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
