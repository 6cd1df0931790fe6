//! Two states for the terminal.

use super::model::{Between, ComparedSite, Comparison, Side};
use crate::report::ledger::MEMFRAGS;
use crate::report::model::{Amount, Ledger};
use crate::report::page::{Page, Style, Tone, clean, shorten};
use crate::report::units::{bytes, count, duration, plural};

/// Call sites in the table.
const SITES: usize = 20;

/// A line of the ledger.
type Line = (&'static str, fn(&Ledger) -> u64);

/// The comparison as text, with a line feed at its end.
pub fn render(comparison: &Comparison, style: Style) -> String {
    let mut page = Page::new(style);
    let (a, b) = (&comparison.a, &comparison.b);
    page.field("A", None, &title(a));
    page.field("B", None, &title(b));
    page.head(&row("", ["A", "B", "B − A"].map(str::to_owned)));
    let (first, second) = (&a.process.end, &b.process.end);
    page.sizes("resident", first.rss_bytes, second.rss_bytes);
    page.sizes("live", Some(first.requested_bytes), Some(second.requested_bytes));
    page.counts("live blocks", first.live_blocks, second.live_blocks);
    page.sizes("packed", Some(first.metrics.compact_bound_bytes), Some(second.metrics.compact_bound_bytes));
    if let (Some(first), Some(second)) = (&first.ledger, &second.ledger) {
        page.ledgers(first, second);
    }
    page.measures(a, b);
    if let Some(between) = &comparison.between {
        page.between(between);
    }
    page.changed_sites(&comparison.sites);
    page.text
}

fn title(side: &Side) -> String {
    let process = &side.process;
    let name = if process.comm.is_empty() { "(unknown)" } else { &process.comm };
    let allocator = process.allocator.as_ref().map_or_else(String::new, |allocator| {
        let version = allocator.version.as_deref().map_or_else(String::new, |version| format!(" {version}"));
        format!(" · {}{version}", allocator.name)
    });
    let (file, at) = (clean(&side.file), duration(side.at_ns));
    format!("{file} at {at}: {} · pid {}{allocator}", clean(name), process.pid)
}

fn row(name: &str, cells: [String; 3]) -> String {
    let [a, b, difference] = cells;
    format!("  {name:<30}{a:>13}{b:>13}{difference:>13}")
}

/// By how many bytes `b` is more than `a`, with its sign.
fn difference(a: u64, b: u64) -> String {
    match a.abs_diff(b) {
        0 => "0 B".to_owned(),
        more if b > a => format!("+{}", bytes(more)),
        less => format!("−{}", bytes(less)),
    }
}

impl Page {
    fn sizes(&mut self, name: &str, a: Option<u64>, b: Option<u64>) {
        let text = |size: Option<u64>| size.map_or_else(|| "–".to_owned(), bytes);
        let more = a.zip(b).map_or_else(String::new, |(a, b)| difference(a, b));
        self.line(&row(name, [text(a), text(b), more]));
    }

    fn counts(&mut self, name: &str, a: u64, b: u64) {
        let sign = if b > a { "+" } else { "−" };
        let more = if a == b { "0".to_owned() } else { format!("{sign}{}", count(a.abs_diff(b))) };
        self.line(&row(name, [count(a), count(b), more]));
    }

    /// Where the resident bytes go, line by line as in the report.
    fn ledgers(&mut self, a: &Ledger, b: &Ledger) {
        self.heading(&format!("Where resident memory goes, seen at {} and {}", duration(a.at_ns), duration(b.at_ns)));
        let known = a.source != "unknown" && b.source != "unknown";
        let lines: [Line; 9] = [
            (if known { "free pages" } else { "pages without a block" }, |it| it.free_pages),
            ("requested", |it| it.requested),
            ("rounding", |it| it.rounding),
            ("cached", |it| it.cached),
            (if known { "free inside pages" } else { "free, rounding, allocator's" }, |it| it.free_in_pages),
            ("allocator's own", |it| it.metadata),
            ("untracked", |it| it.untracked),
            ("not malloc", |it| it.not_malloc - it.not_malloc_memfrag),
            (MEMFRAGS, |it| it.not_malloc_memfrag),
        ];
        for (name, of) in lines {
            if of(a) > 0 || of(b) > 0 {
                self.sizes(name, Some(of(a)), Some(of(b)));
            }
        }
        if a.source != b.source {
            let text = format!("the layouts are known by {} in A and by {} in B", by(a), by(b));
            self.field("", Some(Tone::Warning), &format!("! {text}: free, cached and untracked are not the same"));
        }
    }

    fn measures(&mut self, a: &Side, b: &Side) {
        let (first, second) = (&a.process.end.metrics, &b.process.end.metrics);
        let pinned = |it: &crate::report::metrics::Metrics| {
            let pages = it.page_occupancy;
            let used = pages.pinned + pages.partial + pages.full;
            (used > 0).then(|| pages.pinned as f64 / used as f64 * 100.0)
        };
        let percent = |share: f64| share * 100.0;
        let lines = [
            ("resident over live", first.overhead_ratio, second.overhead_ratio, " ×", 2),
            ("pages under a quarter full", pinned(first), pinned(second), " %", 0),
            (
                "padding and headers in chunks",
                first.internal_fragmentation.map(percent),
                second.internal_fragmentation.map(percent),
                " %",
                1,
            ),
            ("free bytes in bins", first.external_ratio.map(percent), second.external_ratio.map(percent), " %", 1),
        ];
        self.heading("How the live blocks lie");
        for (name, a, b, unit, digits) in lines {
            if a.is_none() && b.is_none() {
                continue;
            }
            let text = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |it| format!("{it:.digits$}{unit}"));
            let more =
                a.zip(b).map_or_else(String::new, |(a, b)| format!("{:+.digits$}{unit}", b - a).replace('-', "−"));
            self.line(&row(name, [text(a), text(b), more]));
        }
    }

    /// What became of blocks between the two.
    fn between(&mut self, between: &Between) {
        self.heading("Between A and B");
        let lines = [
            ("grown", between.grown, "allocated between, and live at B"),
            ("freed", between.freed, "live at A, and not at B"),
            ("survived", between.survivors, "live at both"),
            ("temporary", between.temporary, "allocated between, and freed before B"),
        ];
        for (name, Amount { blocks, bytes: size }, words) in lines {
            let words = self.style.paint(Tone::Quiet, words);
            self.line(&format!("  {name:<11}{:>12} in {:<19}{words}", bytes(size), plural(blocks, "block", "blocks")));
        }
    }

    fn changed_sites(&mut self, sites: &[ComparedSite]) {
        let changed: Vec<&ComparedSite> =
            sites.iter().filter(|site| (site.a_bytes, site.a_blocks) != (site.b_bytes, site.b_blocks)).collect();
        self.heading("Call sites by what they hold more or less");
        if changed.is_empty() {
            self.line("  none holds more or less");
            return;
        }
        let survived = changed.iter().any(|site| site.between.is_some());
        let last = if survived { "survived" } else { "" };
        self.head(&format!("  {:>11}{:>11}{:>12}{last:>11}  call site", "A", "B", "B − A"));
        let room = self.style.width() - 49;
        for site in changed.iter().take(SITES) {
            let survivors = site.between.map_or_else(String::new, |between| bytes(between.survivors.bytes));
            let (a, b, more) = (bytes(site.a_bytes), bytes(site.b_bytes), difference(site.a_bytes, site.b_bytes));
            let name = shorten(&site.site, room);
            self.line(&format!("  {a:>11}{b:>11}{more:>12}{survivors:>11}  {name}"));
        }
        if let Some(more @ 1..) = changed.len().checked_sub(SITES) {
            let more = plural(more as u64, "call site", "call sites");
            let text = self.style.paint(Tone::Quiet, &format!("  and {more} more; --json tells all"));
            self.line(&text);
        }
    }
}

fn by(ledger: &Ledger) -> &'static str {
    match ledger.source {
        "walk" => "a walk of the heap",
        "blocks" => "the live blocks",
        _ => "nothing but pages",
    }
}
