//! A trim for the terminal.

use super::model::{Arena, TrimReport};
use crate::report::page::{Page, Style, Tone, clean};
use crate::report::units::{bytes, count, duration, plural};

/// Arenas that get a line; the smaller ones are summed up.
const ARENAS: usize = 16;

/// The report as text, with a line feed at its end.
pub fn render(report: &TrimReport, style: Style) -> String {
    let mut page = Page::new(style);
    headline(&mut page, report);
    arenas(&mut page, report);
    page.text
}

fn headline(page: &mut Page, report: &TrimReport) {
    let name = if report.comm.is_empty() { "(unknown)" } else { &report.comm };
    let name = page.style.paint(Tone::Heading, &clean(name));
    let allocator = &report.allocator;
    page.line(&format!("{name}  pid {} · {} {}", report.pid, allocator.name, allocator.version));
    page.field("Heap", None, &format!("{} resident in the arenas", bytes(report.resident_bytes)));
    let predicted = bytes(report.predicted_bytes);
    page.field("Predicted", None, &format!("{predicted} would go back to the system by malloc_trim(0)"));
    let runs = plural(report.free_runs, "run", "runs");
    let stuck = bytes(report.stuck_free_bytes);
    page.field("Stuck", None, &format!("{stuck} are free and would stay, in {runs} between blocks in use"));
    if report.arenas.iter().any(|arena| arena.top_is_cut_off) {
        let text = "! the main arena's top stays: something other than malloc has moved the program break";
        page.field("", Some(Tone::Warning), text);
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
        let text =
            format!("{} went back, {compared}: {before} of anonymous memory before, {after} after", bytes(measured));
        page.field("Measured", Some(tone), &text);
        let stood = duration(applied.stopped_ns);
        page.field("Applied", None, &format!("by thread {}, which stood still for {stood}", applied.tid));
    } else {
        page.field("Applied", None, "no; --apply does it");
    }
    for discrepancy in &report.walk.discrepancies {
        page.field("", Some(Tone::Warning), &format!("! the heap was read while it changed: {discrepancy}"));
    }
}

fn arenas(page: &mut Page, report: &TrimReport) {
    let head = format!("  {:<15}{:>13}{:>13}{:>13}{:>11}", "arena", "resident", "predicted", "stuck", "free runs");
    let head = page.style.paint(Tone::Quiet, &head);
    page.line("");
    page.line(&head);
    let mut shown: Vec<&Arena> = report.arenas.iter().collect();
    shown.sort_by_key(|arena| (!arena.is_main, std::cmp::Reverse((arena.predicted_bytes, arena.resident_bytes))));
    let rest = shown.split_off(shown.len().min(ARENAS));
    for arena in shown {
        let name = if arena.is_main { "main".to_owned() } else { format!("{:#x}", arena.address) };
        row(page, &name, [arena.resident_bytes, arena.predicted_bytes, arena.stuck_free_bytes], arena.free_runs);
    }
    if !rest.is_empty() {
        let sum = |of: fn(&Arena) -> u64| rest.iter().map(|arena| of(arena)).sum();
        let sums = [
            sum(|arena| arena.resident_bytes),
            sum(|arena| arena.predicted_bytes),
            sum(|arena| arena.stuck_free_bytes),
        ];
        row(page, &format!("{} more", rest.len()), sums, sum(|arena| arena.free_runs));
    }
    if report.arenas.len() > 1 {
        let sums = [report.resident_bytes, report.predicted_bytes, report.stuck_free_bytes];
        row(page, "all", sums, report.free_runs);
    }
}

fn row(page: &mut Page, name: &str, cells: [u64; 3], runs: u64) {
    let cells = cells.map(|cell| format!("{:>13}", if cell == 0 { "–".to_owned() } else { bytes(cell) })).concat();
    page.line(&format!("  {name:<15}{cells}{:>11}", count(runs)));
}
