//! Whose blocks keep free memory, as a table and in words.

use super::place;
use crate::report::blame::{Blame, Blamed};
use crate::report::page::{Page, Style, Tone, clean, wrap};
use crate::report::units::{bytes, count, duration, plural};

/// Owners in the report.
const FEW: usize = 5;

/// Owners in the text of their own.
const MANY: usize = 20;

/// Owners told about in words.
const TOLD: usize = 3;

/// The blame of a process as text, with a line feed at its end. `title` says which recording and process it is of.
pub fn render_blame(title: &str, blame: &Blame, style: Style) -> String {
    let mut page = Page::new(style);
    let painted = style.paint(Tone::Heading, &clean(title));
    page.line(&painted);
    page.blame_summary(blame);
    page.blame_table(blame, MANY);
    page.blame_words(blame);
    page.blame_order(blame);
    page.blame_owners(blame);
    page.heading("What this does not tell");
    for limit in &blame.limits {
        for (number, part) in wrap(limit, style.width() - 4).iter().enumerate() {
            let mark = if number == 0 { "·" } else { " " };
            let part = style.paint(Tone::Quiet, &format!("{mark} {part}"));
            page.line(&format!("  {part}"));
        }
    }
    page.text
}

impl Page {
    /// The blame as a part of the report.
    pub(super) fn blame(&mut self, blame: &Blame) {
        if !blame.sites.iter().any(|site| site.kind == "program" && site.release_bytes > 0) {
            return;
        }
        self.heading(if blame.source == "unknown" {
            "Call sites by the pages that would be empty without their blocks"
        } else {
            "Call sites by what trimming would return without their blocks"
        });
        self.blame_table(blame, FEW);
    }

    fn blame_summary(&mut self, blame: &Blame) {
        self.field("Moment", None, &format!("{} after the trace began", duration(blame.at_ns)));
        let (now, stuck) = (bytes(blame.trim_yield_bytes), bytes(blame.stuck_bytes));
        let text = if blame.source == "unknown" {
            format!("{now} are pages without a block; {stuck} more are free on pages with blocks")
        } else {
            format!("trimming would return {now} now and leave {stuck} of free memory resident")
        };
        self.field("Free", None, &text);
        if blame.kept_tops_bytes > 0 {
            let tops = bytes(blame.kept_tops_bytes);
            self.field("", None, &format!("of that, {tops} are the tops of arenas, which trimming never touches"));
        }
        self.line("");
    }

    fn blame_table(&mut self, blame: &Blame, most: usize) {
        let owner = match blame.by {
            "site" => "call site",
            "size" => "requested size",
            other => other,
        };
        let head =
            format!("  {:>10}{:>12}{:>11}{:>11}{:>9}  {owner}", "release", "stranded", "live", "blocks", "× live");
        let head = self.style.paint(Tone::Quiet, &head);
        self.line(&head);
        let room = self.style.width() - 58;
        for site in blame.sites.iter().take(most) {
            let amplification = site.pin_amplification.map_or_else(|| "–".to_owned(), amplification);
            let (live, blocks) = match site.live_blocks {
                0 => ("–".to_owned(), "–".to_owned()),
                blocks => (bytes(site.live_bytes), count(blocks)),
            };
            self.line(&format!(
                "  {:>10}{:>12}{live:>11}{blocks:>11}{amplification:>9}  {}",
                signed(site.release_bytes),
                bytes(site.stranded_bytes),
                place(&site.site, room),
            ));
        }
        if let Some(more) = blame.sites.len().checked_sub(most).filter(|&more| more > 0) {
            self.remark(&format!("and {}", plural(more as u64, "other", "others")));
        }
    }

    fn blame_words(&mut self, blame: &Blame) {
        let mut told: Vec<&Blamed> = blame.sites.iter().filter(|site| site.kind == "program").take(TOLD).collect();
        // Those without an effect of their own are of interest only where no other has one.
        if told.first().is_some_and(|site| site.release_bytes > 0) {
            told.retain(|site| site.release_bytes > 0);
        }
        if told.is_empty() {
            return;
        }
        self.heading("In words");
        for site in told {
            let text = words(site, blame.source == "unknown");
            for (number, part) in wrap(&text, self.style.width() - 4).iter().enumerate() {
                self.line(&format!("  {} {part}", if number == 0 { "·" } else { " " }));
            }
        }
    }

    fn blame_order(&mut self, blame: &Blame) {
        // What a step leaves to the top of an arena can outweigh what it releases: then the order ends before it.
        let rises = blame.order.windows(2).take_while(|pair| pair[1].release_bytes > pair[0].release_bytes).count();
        if rises == 0 {
            return;
        }
        self.heading("One after the other");
        for (number, step) in blame.order.iter().take(rises + 1).enumerate() {
            let joint = if number == 0 { " " } else { "+" };
            let room = self.style.width() - 20;
            self.line(&format!("  {joint} {:<room$}{:>12}", place(&step.site, room), signed(step.release_bytes)));
        }
        self.remark("what is released together; the order goes step by step and need not be the best");
    }

    fn blame_owners(&mut self, blame: &Blame) {
        let all: u64 = blame.pages_by_owners.iter().sum();
        if all == 0 {
            return;
        }
        let groups = [("none", 0..1), ("one", 1..2), ("two", 2..3), ("3 or 4", 3..5), ("more", 5..usize::MAX)];
        let text: Vec<String> = groups
            .into_iter()
            .filter_map(|(name, range)| {
                let pages: u64 =
                    blame.pages_by_owners.iter().enumerate().filter(|page| range.contains(&page.0)).map(|p| p.1).sum();
                (pages > 0).then(|| format!("{name} on {:.0} % ({})", pages as f64 / all as f64 * 100.0, count(pages)))
            })
            .collect();
        self.heading("Owners of a page that stays");
        self.line(&format!("  {}", text.join(" · ")));
    }
}

/// What one owner's numbers mean.
fn words(site: &Blamed, is_bound: bool) -> String {
    let name = clean(&site.site);
    let holds = format!("{name} holds {} in {}", bytes(site.live_bytes), plural(site.live_blocks, "block", "blocks"));
    let mut text = match u64::try_from(site.release_bytes) {
        Ok(release) if release > 0 => {
            let than = if release > site.live_bytes.saturating_mul(2) { "otherwise empty pages" } else { "pages" };
            let end = if is_bound {
                "an allocator that gives back every empty page would return them without these blocks".to_owned()
            } else {
                format!("freeing them and trimming would return {}", bytes(release))
            };
            format!("{holds} and keeps {} of {than} resident; {end}", bytes(release))
        }
        _ => format!(
            "{holds} and shares its pages with others: freeing it alone would return nothing. Its part of the free \
             memory on them is {}",
            bytes(site.stranded_bytes)
        ),
    };
    if site.joins_top_bytes > 0 {
        let more = bytes(site.joins_top_bytes);
        text.push_str("; ");
        text.push_str(&more);
        text.push_str(" more would join the top of an arena, which free returns once that exceeds the trim threshold");
    }
    text + "."
}

fn signed(size: i64) -> String {
    if size < 0 { format!("−{}", bytes(size.unsigned_abs())) } else { bytes(size.unsigned_abs()) }
}

fn amplification(times: f64) -> String {
    if times.abs() < 10.0 { format!("{times:.1}") } else { format!("{times:.0}") }
}
