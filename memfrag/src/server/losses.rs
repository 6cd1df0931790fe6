//! What a client is told about events that are lost while it watches.

use super::protocol::{Outbound, State, Status, Urgency};
use std::time::Duration;
use tokio::time::Instant;

/// Losses that come faster are told together.
const EVERY: Duration = Duration::from_secs(10);

/// The losses that a client knows of.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The recording, and how many events of it were lost when the client was told last.
    known: Option<(usize, u64)>,
    told: Option<Instant>,
}

impl Losses {
    /// A notice, if events have been lost at the newest state since the one before. What was lost before the client
    /// came is in its status, and so is what it passes by when it travels.
    pub(super) fn notice(&mut self, status: &Status, now: Instant) -> Option<Outbound> {
        if status.state != State::Live || status.progress < 1.0 {
            // On the way to the newest state others' losses pass by.
            self.known = None;
            return None;
        }
        let known = self.known.filter(|&(source, _)| source == status.source).map(|(_, lost)| lost);
        let Some(known) = known else {
            self.known = Some((status.source, status.lost));
            return None;
        };
        if status.lost <= known || self.told.is_some_and(|told| now < told + EVERY) {
            return None;
        }
        self.known = Some((status.source, status.lost));
        self.told = Some(now);
        let (lost, are) = match status.lost - known {
            1 => ("one event".to_owned(), "was"),
            lost => (format!("{lost} events"), "were"),
        };
        let text = format!(
            "{lost} {are} lost, noticed at {:.1} s: blocks may be shown that are gone, or be missing",
            Duration::from_nanos(status.at_ns).as_secs_f64()
        );
        Some(Outbound::Notice { level: Urgency::Warning, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(source: usize, state: State, progress: f64, lost: u64) -> Status {
        Status {
            source,
            pid: 1,
            at_ns: 1_500_000_000,
            end_ns: 2_000_000_000,
            state,
            speed: 1.0,
            behind: false,
            events: 1,
            events_per_s: 1,
            lost,
            older_blocks: 0,
            older_bytes: 0,
            live_blocks: 0,
            live_bytes: 0,
            taken_bytes: 0,
            peak_bytes: 0,
            rss_bytes: None,
            hz: 0.0,
            hz_wanted: 0.0,
            clients: 1,
            progress,
        }
    }

    #[test]
    fn only_what_is_lost_while_one_watches_is_told_and_not_too_often() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut losses = Losses::default();
        let mut tell = |source, state, progress, lost, seconds| {
            let told = losses.notice(&status(source, state, progress, lost), at(seconds));
            told.map(|told| match told {
                Outbound::Notice { level: Urgency::Warning, text } => text,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(tell(0, State::Live, 0.5, 3, 0), None, "still reading");
        assert_eq!(tell(0, State::Live, 1.0, 9, 1), None, "lost before");
        assert_eq!(tell(0, State::Live, 1.0, 9, 2), None);
        let text = tell(0, State::Live, 1.0, 10, 3).expect("one is lost");
        assert!(text.starts_with("one event was lost, noticed at 1.5 s"), "{text}");
        assert_eq!(tell(0, State::Live, 1.0, 20, 5), None, "told a moment ago");
        assert!(tell(0, State::Live, 1.0, 30, 13).expect("told together").starts_with("20 events were lost"));
        assert_eq!(tell(0, State::Paused, 1.0, 5, 30), None, "travelled");
        assert_eq!(tell(0, State::Live, 1.0, 40, 31), None, "came back");
        assert_eq!(tell(1, State::Live, 1.0, 99, 50), None, "another recording");
        assert!(tell(1, State::Live, 1.0, 100, 51).is_some());
    }
}
