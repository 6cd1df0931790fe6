//! A trim for the terminal.

use super::model::{Arena, TrimReport};
use crate::report::text::{Style, Tone, clean, wrap};
use crate::report::units::{bytes, count, duration, plural};

/// Arenas that get a line; the smaller ones are summed up.
const ARENAS: usize = 16;

/// The report as text, with a line feed at its end.
pub fn render(report: &TrimReport, style: Style) -> String {
    let mut page = Page { text: String::new(), style };
    page.headline(report);
    page.arenas(report);
    page.text
}

struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A named text, wrapped and hanging under its beginning.
    fn field(&mut self, name: &str, tone: Option<Tone>, text: &str) {
        const INDENT: usize = 13;
        for (number, part) in wrap(text, self.style.width() - INDENT).iter().enumerate() {
            let name = self.style.paint(Tone::Quiet, &format!("{:<11}", if number == 0 { name } else { "" }));
            let part = tone.map_or_else(|| part.clone(), |tone| self.style.paint(tone, part));
            self.line(&format!("  {name}{part}"));
        }
    }

    fn headline(&mut self, report: &TrimReport) {
        let name = if report.comm.is_empty() { "(unknown)" } else { &report.comm };
        let name = self.style.paint(Tone::Heading, &clean(name));
        let allocator = &report.allocator;
        self.line(&format!("{name}  pid {} · {} {}", report.pid, allocator.name, allocator.version));
        self.field("Heap", None, &format!("{} resident in the arenas", bytes(report.resident_bytes)));
        let predicted = bytes(report.predicted_bytes);
        self.field("Predicted", None, &format!("{predicted} would go back to the system by malloc_trim(0)"));
        let runs = plural(report.free_runs, "run", "runs");
        let stuck = bytes(report.stuck_free_bytes);
        self.field("Stuck", None, &format!("{stuck} are free and would stay, in {runs} between blocks in use"));
        if report.arenas.iter().any(|arena| arena.top_is_cut_off) {
            let text = "! the main arena's top stays: something other than malloc has moved the program break";
            self.field("", Some(Tone::Warning), text);
        }
        if let (Some(measured), Some(applied)) = (report.measured_bytes, &report.applied) {
            let (before, after) = (bytes(applied.anonymous_before_bytes), bytes(applied.anonymous_after_bytes));
            let difference = measured.abs_diff(report.predicted_bytes);
            let agrees = difference <= (report.predicted_bytes / 100).max(8192 * report.free_runs);
            let compared = match difference {
                0 => "as predicted".to_owned(),
                _ if measured < report.predicted_bytes => format!("{} less than predicted", bytes(difference)),
                _ => format!("{} more than predicted", bytes(difference)),
            };
            let tone = if agrees { Tone::Good } else { Tone::Warning };
            let text = format!(
                "{} went back, {compared}: {before} of anonymous memory before, {after} after",
                bytes(measured)
            );
            self.field("Measured", Some(tone), &text);
            let stood = duration(applied.stopped_ns);
            self.field("Applied", None, &format!("by thread {}, which stood still for {stood}", applied.tid));
        } else {
            self.field("Applied", None, "no; --apply does it");
        }
        for discrepancy in &report.walk.discrepancies {
            self.field("", Some(Tone::Warning), &format!("! the heap was read while it changed: {discrepancy}"));
        }
    }

    fn arenas(&mut self, report: &TrimReport) {
        let head = format!("  {:<15}{:>13}{:>13}{:>13}{:>11}", "arena", "resident", "predicted", "stuck", "free runs");
        let head = self.style.paint(Tone::Quiet, &head);
        self.line("");
        self.line(&head);
        let mut shown: Vec<&Arena> = report.arenas.iter().collect();
        shown.sort_by_key(|arena| (!arena.is_main, std::cmp::Reverse((arena.predicted_bytes, arena.resident_bytes))));
        let rest = shown.split_off(shown.len().min(ARENAS));
        for arena in shown {
            let name = if arena.is_main { "main".to_owned() } else { format!("{:#x}", arena.address) };
            self.row(&name, [arena.resident_bytes, arena.predicted_bytes, arena.stuck_free_bytes], arena.free_runs);
        }
        if !rest.is_empty() {
            let sum = |of: fn(&Arena) -> u64| rest.iter().map(|arena| of(arena)).sum();
            let sums = [
                sum(|arena| arena.resident_bytes),
                sum(|arena| arena.predicted_bytes),
                sum(|arena| arena.stuck_free_bytes),
            ];
            self.row(&format!("{} more", rest.len()), sums, sum(|arena| arena.free_runs));
        }
        if report.arenas.len() > 1 {
            let sums = [report.resident_bytes, report.predicted_bytes, report.stuck_free_bytes];
            self.row("all", sums, report.free_runs);
        }
    }

    fn row(&mut self, name: &str, cells: [u64; 3], runs: u64) {
        let cells = cells.map(|cell| format!("{:>13}", if cell == 0 { "–".to_owned() } else { bytes(cell) })).concat();
        self.line(&format!("  {name:<15}{cells}{:>11}", count(runs)));
    }
}
