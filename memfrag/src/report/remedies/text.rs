//! Remedies for the terminal.

use super::model::{Remedies, Remedy};
use crate::report::model::Ledger;
use crate::report::page::{Page, Style, Tone, clean, shorten, wrap};
use crate::report::units::{bytes, duration};

/// Below this much, in bytes, nothing is there to be gained.
const LITTLE: u64 = 1 << 20;

/// The document as text, with a line feed at its end.
pub fn render(found: &Remedies, style: Style) -> String {
    let mut page = Page::new(style);
    let name = if found.comm.is_empty() { "(unknown)" } else { &found.comm };
    let name = page.style.paint(Tone::Heading, &clean(name));
    page.line(&format!("{name}  pid {} · {}", found.pid, clean(&found.file)));
    let text = format!(
        "{} resident {} after the trace began, of which blocks in use had asked for {}",
        bytes(found.resident_bytes),
        duration(found.at_ns),
        bytes(found.requested_bytes)
    );
    page.field("Moment", None, &text);
    if let Some(agreement) = found.replay_agreement {
        let tone = if (0.95..=1.05).contains(&agreement) { Tone::Good } else { Tone::Warning };
        let text = format!("made again as they were, the calls take {:.1} % of what they took", agreement * 100.0);
        page.field("Replay", Some(tone), &text);
    }
    page.head(&format!("  {:<16}{:>12}{:>12}{:>10}  how", "would be", "foretold", "measured", "saves"));
    for remedy in &found.remedies {
        page.remedy(remedy, found.resident_bytes);
    }
    if found.replay_agreement.is_none() {
        page.line("");
        page.remark("nothing was measured: --run makes the calls again under each, in some seconds");
    }
    page.heading("What this does not tell");
    for limit in &found.limits {
        for (number, part) in wrap(limit, style.width() - 4).iter().enumerate() {
            let mark = if number == 0 { "·" } else { " " };
            let part = style.paint(Tone::Quiet, &format!("{mark} {part}"));
            page.line(&format!("  {part}"));
        }
    }
    page.text
}

impl Page {
    fn remedy(&mut self, remedy: &Remedy, resident: u64) {
        let size = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), bytes);
        let best = remedy.measured_bytes.or(remedy.predicted_bytes).filter(|_| remedy.kind != "none");
        let saves = best.map_or_else(String::new, |best| {
            let share = (resident as f64 - best as f64) / resident.max(1) as f64 * 100.0;
            let share = format!("{share:.0} %").replace('-', "−");
            if share == "−0 %" { "0 %".to_owned() } else { share }
        });
        let (predicted, measured) = (size(remedy.predicted_bytes), size(remedy.measured_bytes));
        let name = shorten(&remedy.name, 15);
        let how = shorten(&remedy.how, self.style.width().saturating_sub(54));
        self.line(&format!("  {name:<16}{predicted:>12}{measured:>12}{saves:>10}  {how}"));
        if let Some(reason) = &remedy.reason {
            let text = self.style.paint(Tone::Warning, &format!("    ! {}", clean(reason)));
            self.line(&text);
        }
    }

    /// What a ledger foretells, as a part of the report.
    pub(in crate::report) fn foretold(&mut self, ledger: &Ledger) {
        let remedies = super::foretold(ledger);
        let least = remedies.iter().filter_map(|remedy| remedy.predicted_bytes).min().unwrap_or(ledger.rss);
        if ledger.source == "unknown" || ledger.rss.saturating_sub(least) < LITTLE {
            return;
        }
        self.heading("What would be resident instead");
        for remedy in remedies.iter().filter(|remedy| remedy.kind != "none") {
            let Some(predicted) = remedy.predicted_bytes else { continue };
            let text = format!("  {:<28}{:>10}  {}", format!("after {}", remedy.name), bytes(predicted), remedy.how);
            self.line(&text);
        }
        self.remark(
            "memfrag remedies has settings of the allocator and other allocators beside these, and measures them",
        );
    }
}
