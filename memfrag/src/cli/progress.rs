//! The line that says how a trace is doing, and how numbers are written for people.

use super::tally::Tally;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
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
            grouped(rate),
            grouped(tally.live()),
            bytes(tally.rss()),
            if tally.lost() == 0 { "none lost".to_owned() } else { format!("{} LOST", grouped(tally.lost())) },
        ));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A number in groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that fits.
pub(super) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
