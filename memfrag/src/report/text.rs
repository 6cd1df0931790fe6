//! The report for the terminal.

mod blame;
mod ledger;
mod metrics;

pub use blame::render_blame;

use super::chart;
use super::model::{Frame, Process, Report, Site};
use super::page::{Page, Style, Tone, clean, shorten, wrap};
use super::policies::MOST_FORETOLD;
use super::units::{about, bytes, count, duration, plural};
use crate::heap::Anomalies;
use memfrag_common::loss::Counter;

/// Processes that are shown in full; the others get a line each.
pub const DETAILED: usize = 4;

/// Processes that get a line; the rest is counted.
const LISTED: usize = 24;

/// Call sites shown of a process.
const SITES: usize = 10;

/// Columns of a chart's left edge, the axis included.
const LABEL: usize = 14;

/// The report as text, with a line feed at its end.
pub fn render(report: &Report, style: Style) -> String {
    let mut page = Page::new(style);
    page.headline(report);
    let (shown, listed) = report.processes.split_at(report.processes.len().min(DETAILED));
    for process in shown {
        page.process(process, report);
    }
    page.list(listed);
    page.text
}

impl Page {
    fn headline(&mut self, report: &Report) {
        let (recording, events) = (&report.recording, &report.events);
        let title = if recording.file.is_empty() { "memfrag".to_owned() } else { clean(&recording.file) };
        let painted = self.style.paint(Tone::Heading, &title);
        self.line(&painted);
        let by = match recording.backend.as_str() {
            "ebpf" => "with eBPF probes",
            "preload" => "with the preload library",
            "" => "",
            other => &format!("by {other}"),
        };
        let processes = plural(report.processes.len() as u64, "process", "processes");
        self.field("Traced", None, &format!("{processes} for {} {by}", duration(recording.duration_ns)));
        if let Some(at) = recording.at_ns {
            self.field("Moment", None, &format!("the state {} after the trace began", duration(at)));
        }
        if !recording.file.is_empty() {
            let size = bytes(events.bytes_on_disk);
            let (tone, state) = if recording.complete {
                (None, format!("complete, {size}{}", per_event(events.bytes_on_disk, events.total)))
            } else {
                (Some(Tone::Warning), format!("cut short: it ends without its last part; {size} could be read"))
            };
            self.field("Recording", tone, &state);
        }
        let length = recording.at_ns.map_or(recording.duration_ns, |at| at.min(recording.duration_ns));
        let rate = if length > 0 {
            format!(" ({}/s)", about(events.total as f64 / (length as f64 / 1e9)))
        } else {
            String::new()
        };
        self.field(
            "Events",
            None,
            &format!(
                "{}{rate}: {}, {}, {}",
                count(events.total),
                plural(events.alloc, "allocation", "allocations"),
                plural(events.free, "free", "frees"),
                plural(events.realloc, "reallocation", "reallocations"),
            ),
        );
        if events.lost == 0 {
            self.field("Lost", Some(Tone::Good), "nothing");
        } else {
            let share = events.lost as f64 / (events.lost.saturating_add(events.total)) as f64 * 100.0;
            let text = format!(
                "{} ({share:.2} %): from the first gap on, blocks whose free was lost count as live, and blocks whose \
                 allocation was lost are missing",
                plural(events.lost, "event", "events")
            );
            self.field("Lost", Some(Tone::Warning), &text);
        }
        let mut name = "Counted";
        for counter in Counter::ALL {
            if let Some(&number) = report.counters.get(counter.name()) {
                self.field(name, None, &format!("{}: {}", counter.describe(), count(number)));
                name = "";
            }
        }
    }

    fn process(&mut self, process: &Process, report: &Report) {
        let rule = self.style.paint(Tone::Quiet, &"─".repeat(self.style.width()));
        self.line("");
        self.line(&rule);
        let name = self.style.paint(Tone::Heading, &clean(name(process)));
        let mut facts = vec![format!("pid {}", process.pid)];
        facts.push(plural(process.threads, "thread", "threads"));
        if let Some(allocator) = &process.allocator {
            facts.push(allocator.version.iter().fold(allocator.name.clone(), |name, version| name + " " + version));
        }
        facts.push(fate(process));
        self.line(&format!("{name}  {}", facts.join(" · ")));
        if !process.cmdline.is_empty() {
            let command = shorten(&process.cmdline.join(" "), self.style.width() - 2);
            let command = self.style.paint(Tone::Quiet, &command);
            self.line(&format!("  {command}"));
        }
        if !process.settings.is_empty() {
            self.field("Set", None, &shorten(&process.settings.join(" "), self.style.width() - 20));
        }
        let agreement = process.allocator.as_ref().and_then(|allocator| allocator.model_agreement);
        if let Some(share) = agreement {
            let tone = if share >= 0.999 { Tone::Good } else { Tone::Warning };
            let share = super::policies::percent(share);
            self.field("Model", Some(tone), &format!("{share} of the addresses that glibc gave were foretold"));
        } else if is_glibc(process) && report.events.total > MOST_FORETOLD {
            let text = "not asked, for the number of events: memfrag model tells how much of them it foretells";
            self.field("Model", None, text);
        }
        if let Some(owner) = process.shares_heap_of {
            self.line(&format!("  acted on the heap of its parent, process {owner}: its calls are counted there"));
            return;
        }
        self.summary(process);
        self.chart(process, report);
        if let Some(ledger) = &process.end.ledger {
            self.ledger(ledger, process.older_unknown);
            self.foretold(ledger);
        }
        self.metrics(process);
        if let Some(comparison) = &process.comparison {
            self.comparison(comparison);
        }
        self.functions(process);
        self.sites(process);
        if let Some(blame) = &process.blame {
            self.blame(blame);
        }
        self.warnings(process);
    }

    fn summary(&mut self, process: &Process) {
        self.line("");
        let head = self.style.paint(Tone::Quiet, &format!("  {:<12}{:>14}{:>14}", "", "blocks", "bytes"));
        self.line(&head);
        let mut row = |name: &str, blocks: u64, size: u64, note: &str| {
            self.line(&format!("  {name:<12}{:>14}{:>14}  {note}", count(blocks), bytes(size)));
        };
        let totals = &process.totals;
        if process.inherited.blocks > 0 {
            row("inherited", process.inherited.blocks, process.inherited.bytes, "from its parent at the fork");
        }
        let resized = match totals.reallocations {
            0 => String::new(),
            number => format!("+ {}", plural(number, "reallocation", "reallocations")),
        };
        row("allocated", totals.allocations, totals.requested_bytes, &resized);
        row("freed", totals.frees, totals.freed_bytes, "");
        if process.discarded_by_exec.blocks > 0 {
            let discarded = process.discarded_by_exec;
            row("discarded", discarded.blocks, discarded.bytes, "gone with the program that another one replaced");
        }
        let peak = &process.peak;
        row("peak", peak.live_blocks, peak.requested_bytes, &format!("at {}", duration(peak.at_ns)));
        let end = &process.end;
        let note = match (end.rss_bytes, end.metrics.overhead_ratio) {
            (Some(rss), Some(ratio)) => format!("RSS {}, {ratio:.2} × live", bytes(rss)),
            (Some(rss), None) => format!("RSS {}", bytes(rss)),
            _ => String::new(),
        };
        row("live at end", end.live_blocks, end.requested_bytes, &note);
        if process.older.blocks > 0 {
            row("+ older", process.older.blocks, process.older.bytes, "in use, allocated before the trace began");
        }
    }

    fn chart(&mut self, process: &Process, report: &Report) {
        let timeline = &process.timeline;
        let has_rss = timeline.rss_bytes.iter().any(Option::is_some);
        let is_flat = timeline.max_live_bytes.windows(2).all(|pair| pair[0] == pair[1]);
        if process.peak.requested_bytes == 0 || timeline.live_bytes.len() < 2 || (is_flat && !has_rss) {
            return;
        }
        let width = self.style.width() - LABEL - 1;
        let (rows, top) = chart::draw(&timeline.max_live_bytes, &timeline.rss_bytes, width);
        self.heading(if has_rss {
            "Memory over time   █ live   ░ resident"
        } else {
            "Memory over time   █ live"
        });
        for (number, row) in rows.iter().enumerate() {
            let label = match number {
                0 => bytes(top),
                n if n == chart::HEIGHT / 2 => bytes(top / 2),
                _ => String::new(),
            };
            let axis =
                self.style.paint(Tone::Quiet, &format!("{label:>12} {}", if label.is_empty() { '│' } else { '┤' }));
            self.line(&format!("{axis}{row}"));
        }
        let end = timeline.start_ns.saturating_add(timeline.step_ns.saturating_mul(timeline.live_bytes.len() as u64));
        let limit = process.exit.map_or(report.recording.duration_ns, |exit| exit.at_ns);
        let (from, to) = (duration(timeline.start_ns), duration(end.min(limit.max(timeline.start_ns))));
        let axis = self.style.paint(Tone::Quiet, &format!("{:>12} └{}", "0 B", "─".repeat(width)));
        self.line(&axis);
        let gap = width.saturating_sub(from.chars().count());
        let times = self.style.paint(Tone::Quiet, &format!("{:LABEL$}{from}{to:>gap$}", ""));
        self.line(&times);
    }

    fn functions(&mut self, process: &Process) {
        if process.functions.is_empty() {
            return;
        }
        self.heading("Functions");
        let head =
            self.style.paint(Tone::Quiet, &format!("  {:<20}{:>16}{:>10}{:>14}", "", "calls", "failed", "bytes"));
        self.line(&head);
        for function in &process.functions {
            let failed = if function.failed == 0 { "–".to_owned() } else { count(function.failed) };
            self.line(&format!(
                "  {:<20}{:>16}{failed:>10}{:>14}",
                function.name,
                count(function.calls),
                bytes(function.bytes)
            ));
        }
    }

    fn sites(&mut self, process: &Process) {
        let holding: Vec<&Site> = process.top_sites.iter().filter(|site| site.live_blocks > 0).take(SITES).collect();
        if holding.is_empty() {
            return;
        }
        self.heading("Call sites by what they hold at the end");
        let head = format!("  {:>10}{:>8}{:>13}{:>15}  {}", "live", "share", "blocks", "allocated", "call site");
        let head = self.style.paint(Tone::Quiet, &head);
        self.line(&head);
        for site in holding {
            let share = match process.end.requested_bytes {
                0 => 0.0,
                all => site.live_bytes as f64 / all as f64 * 100.0,
            };
            self.line(&format!(
                "  {:>10}{share:>6.1} %{:>13}{:>15}  {}",
                bytes(site.live_bytes),
                count(site.live_blocks),
                count(site.allocations),
                place(&site.site, self.style.width() - 50),
            ));
            if let Some(stack) = site.stacks.first() {
                self.frames(&stack.frames, stack.complete);
            }
        }
    }

    /// The frames above a call site in a few lines, the nearest first.
    fn frames(&mut self, frames: &[Frame], complete: bool) {
        const LINES: usize = 3;
        const INDENT: usize = 6;
        let Some((_, callers)) = frames.split_first() else { return };
        if callers.is_empty() {
            return;
        }
        let name = |frame: &Frame| clean(frame.function.as_deref().unwrap_or(&frame.site));
        let names: Vec<String> = callers.iter().map(|frame| format!("← {}", name(frame))).collect();
        let end = if complete { "" } else { " ← …" };
        let lines = wrap(&format!("{}{end}", names.join(" ")), self.style.width() - INDENT);
        for (number, line) in lines.iter().take(LINES).enumerate() {
            let more = if number + 1 == LINES && lines.len() > LINES { " …" } else { "" };
            let line = self.style.paint(Tone::Quiet, &format!("{line}{more}"));
            self.line(&format!("{:INDENT$}{line}", ""));
        }
    }

    fn warnings(&mut self, process: &Process) {
        let anomalies = Anomalies::default();
        let meanings = anomalies.iter().map(|(name, _, meaning)| (name, meaning));
        let mut warnings: Vec<String> = Vec::new();
        if let Some(at) = process.damaged_at_ns {
            let at = duration(at);
            warnings.push(format!("events are missing from {at} on: what is said of later moments may be off"));
        }
        for (name, meaning) in meanings {
            if let Some(&number) = process.anomalies.get(name) {
                warnings.push(format!("{meaning}: {}", count(number)));
            }
        }
        if warnings.is_empty() {
            return;
        }
        self.heading("Worth knowing");
        for warning in warnings {
            for (number, part) in wrap(&warning, self.style.width() - 4).iter().enumerate() {
                let mark = if number == 0 { "!" } else { " " };
                let part = self.style.paint(Tone::Warning, &format!("{mark} {part}"));
                self.line(&format!("  {part}"));
            }
        }
    }

    fn list(&mut self, processes: &[Process]) {
        if processes.is_empty() {
            return;
        }
        let rule = self.style.paint(Tone::Quiet, &"─".repeat(self.style.width()));
        self.line("");
        self.line(&rule);
        let head =
            format!("{:>9}  {:<18}{:>11}{:>11}{:>14}  {}", "pid", "others", "peak", "at end", "calls", "outcome");
        let head = self.style.paint(Tone::Quiet, &head);
        self.line(&head);
        for process in processes.iter().take(LISTED) {
            let calls: u64 = process.functions.iter().map(|function| function.calls).sum();
            let outcome = match process.exit.map(|exit| (exit.code, exit.signal)) {
                None => "runs".to_owned(),
                Some((_, Some(signal))) => format!("signal {signal}"),
                Some((Some(code), None)) => format!("exit {code}"),
                Some((None, None)) => "ended".to_owned(),
            };
            let mark = if process.anomalies.is_empty() { "" } else { " !" };
            self.line(&format!(
                "{:>9}  {:<18}{:>11}{:>11}{:>14}  {outcome}{mark}",
                process.pid,
                shorten(name(process), 17),
                bytes(process.peak.requested_bytes),
                bytes(process.end.requested_bytes),
                count(calls),
            ));
        }
        if let Some(more) = processes.len().checked_sub(LISTED).filter(|&more| more > 0) {
            self.line(&format!("{:>9}  and {}", "", plural(more as u64, "smaller one", "smaller ones")));
        }
    }
}

fn per_event(size: u64, events: u64) -> String {
    // The file's own parts would weigh more than a few events.
    if events < 1000 { String::new() } else { format!(" ({:.1} B an event)", size as f64 / events as f64) }
}

fn name(process: &Process) -> &str {
    if process.comm.is_empty() { "(unknown)" } else { &process.comm }
}

fn is_glibc(process: &Process) -> bool {
    process.allocator.as_ref().is_some_and(|allocator| allocator.name == "glibc" && allocator.version.is_some())
}

fn fate(process: &Process) -> String {
    match process.exit {
        None => "running at the end".to_owned(),
        Some(exit) => match (exit.code, exit.signal) {
            (_, Some(signal)) => format!("killed by signal {signal} at {}", duration(exit.at_ns)),
            (Some(0), _) => format!("exited at {}", duration(exit.at_ns)),
            (Some(code), _) => format!("exited with {code} at {}", duration(exit.at_ns)),
            _ => format!("ended at {}", duration(exit.at_ns)),
        },
    }
}

/// A call site in `room` columns. Where it is too long, the file that a function is in is left out first, then the name
/// is cut; the offset, which tells it from others, is kept.
fn place(site: &str, room: usize) -> String {
    let site = match site.split_once(" (") {
        Some((function, _)) if site.chars().count() > room && function.contains("+0x") => function,
        _ => site,
    };
    let (name, offset) = site.split_at(site.rfind("+0x").unwrap_or(site.len()));
    match room.checked_sub(offset.chars().count()) {
        Some(room) if room > 1 => shorten(name, room) + &clean(offset),
        _ => shorten(site, room),
    }
}

#[cfg(test)]
mod tests;
