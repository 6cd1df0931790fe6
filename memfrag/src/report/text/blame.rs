//! Whose blocks keep free memory, as a table and in words.

use super::place;
use crate::report::blame::{Blame, Blamed};
use crate::report::page::{Page, Style, Tone, clean, wrap};
use crate::report::units::{bytes, count, duration, plural};
use std::cmp::Reverse;

/// Owners in the report.
const FEW: usize = 5;

/// Owners in the text of their own.
const MANY: usize = 20;

/// Owners told about in words: so many, or fewer when they account for [`ENOUGH`] of what is stuck.
const TOLD: usize = 3;

/// The share of the stuck bytes after which nobody else is named.
const ENOUGH: f64 = 0.8;

/// The share below which an owner is not worth a sentence.
const LITTLE: f64 = 0.05;

/// Stuck bytes below which it does not matter whose blocks lie among them.
const STUCK: u64 = 1 << 16;

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
            self.frames(&site.frames, site.complete == Some(true));
        }
        if let Some(more) = blame.sites.len().checked_sub(most).filter(|&more| more > 0) {
            self.remark(&format!("and {}", plural(more as u64, "other", "others")));
        }
    }

    fn blame_words(&mut self, blame: &Blame) {
        let told = told(blame);
        if told.is_empty() {
            return;
        }
        self.heading("In words");
        for site in told {
            let text = words(site, blame);
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

/// Who is told about: those around whose blocks most of the memory lies that trimming leaves. Where that is next to
/// nothing, those whose blocks hold most pages.
fn told(blame: &Blame) -> Vec<&Blamed> {
    let mut owners: Vec<&Blamed> = blame.sites.iter().filter(|site| site.kind == "program").collect();
    if blame.stuck_bytes < STUCK {
        owners.retain(|site| site.release_bytes > 0);
        owners.truncate(TOLD);
        return owners;
    }
    owners.sort_by_key(|site| Reverse(site.stranded_bytes));
    let share = |site: &Blamed| site.stranded_bytes as f64 / blame.stuck_bytes as f64;
    let mut before = 0.0;
    owners
        .into_iter()
        .take(TOLD)
        .take_while(|site| {
            let named = before < ENOUGH && share(site) >= LITTLE;
            before += share(site);
            named
        })
        .collect()
}

/// What one owner's numbers mean.
fn words(site: &Blamed, blame: &Blame) -> String {
    let is_bound = blame.source == "unknown";
    let (name, live) = (clean(&site.site), bytes(site.live_bytes));
    let blocks = plural(site.live_blocks, "block", "blocks");
    let release = u64::try_from(site.release_bytes).unwrap_or(0);
    if blame.stuck_bytes < STUCK {
        let end = if is_bound { "empty without them" } else { "returned if they were freed and the heap trimmed" };
        return format!("{name} holds {live} in {blocks}; {} would be {end}.", bytes(release));
    }
    let around = format!(
        "{name}: {} of the {} of free memory that {} lie around its {blocks} ({live})",
        bytes(site.stranded_bytes),
        bytes(blame.stuck_bytes),
        if is_bound { "shares its pages with blocks" } else { "trimming leaves" },
    );
    let tops = bytes(site.joins_top_bytes);
    // Alone they would return next to nothing of what lies free around them.
    if release < site.stranded_bytes / 4 {
        if site.joins_top_bytes > site.stranded_bytes / 2 {
            return format!(
                "{around}; freed, {tops} would join the tops of arenas, which trimming never touches, but free gives \
                 back where one exceeds the trim threshold."
            );
        }
        let alone = if release > 0 { bytes(release) } else { "nothing".to_owned() };
        return format!("{around}; freeing them alone would return {alone}: others' blocks lie on the same pages.");
    }
    let gain = if is_bound {
        format!("without them {} of pages would be empty", bytes(release))
    } else {
        format!("freeing them and trimming would return {}", bytes(release))
    };
    let times = release as f64 / site.live_bytes.max(1) as f64;
    let times = if times < 2.0 { String::new() } else { format!(", {} times what they hold", amplification(times)) };
    let more = if site.joins_top_bytes == 0 {
        String::new()
    } else {
        format!("; {tops} more would join the top of an arena, which free returns once that exceeds the trim threshold")
    };
    format!("{around}; {gain}{times}{more}.")
}

fn signed(size: i64) -> String {
    if size < 0 { format!("−{}", bytes(size.unsigned_abs())) } else { bytes(size.unsigned_abs()) }
}

fn amplification(times: f64) -> String {
    if times.abs() < 10.0 { format!("{times:.1}") } else { format!("{times:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(site: &str, live_bytes: u64, stranded_bytes: u64, release_bytes: i64) -> Blamed {
        Blamed {
            site: site.to_owned(),
            kind: "program",
            function: None,
            file: None,
            line: None,
            address: None,
            module: None,
            offset: None,
            stack: 0,
            frames: Vec::new(),
            complete: None,
            live_bytes,
            live_blocks: live_bytes / 512,
            stranded_bytes,
            release_bytes,
            joins_top_bytes: 0,
            pin_amplification: None,
        }
    }

    fn blame(stuck_bytes: u64, sites: Vec<Blamed>) -> Blame {
        Blame {
            by: "site",
            at_ns: 0,
            source: "blocks",
            trim_yield_bytes: 0,
            stuck_bytes,
            kept_tops_bytes: 0,
            pages_by_owners: Vec::new(),
            elsewhere_blocks: 0,
            sites,
            order: Vec::new(),
            limits: Vec::new(),
        }
    }

    const MIB: u64 = 1 << 20;

    /// The text below the heading, its lines joined.
    fn in_words(blame: &Blame) -> Vec<String> {
        told(blame).into_iter().map(|site| words(site, blame)).collect()
    }

    #[test]
    fn who_strands_most_is_named_though_another_releases_more() {
        let dense = owner("dense", 40 * MIB, 0, 40 << 20);
        let sparse = owner("sparse", MIB, 9 * MIB, 10 << 20);
        let shared = owner("shared", MIB, MIB, 0);
        assert_eq!(
            in_words(&blame(10 * MIB, vec![dense, sparse, shared])),
            ["sparse: 9.0 MiB of the 10.0 MiB of free memory that trimming leaves lie around its 2,048 blocks \
              (1.0 MiB); freeing them and trimming would return 10.0 MiB, 10 times what they hold."]
        );
    }

    #[test]
    fn owners_that_share_their_pages_return_nothing_alone() {
        let owners = ["a", "b", "c", "d"].map(|name| owner(name, MIB, 2 * MIB, 0));
        let told = in_words(&blame(10 * MIB, owners.to_vec()));
        assert_eq!(told.len(), 3);
        assert!(told[0].ends_with("freeing them alone would return nothing: others' blocks lie on the same pages."));
    }

    #[test]
    fn owners_of_little_are_left_out() {
        let owners = vec![owner("a", MIB, MIB, 1 << 20), owner("b", MIB, MIB / 4, 1 << 20)];
        assert_eq!(in_words(&blame(10 * MIB, owners)).len(), 1);
    }

    #[test]
    fn where_next_to_nothing_is_stuck_those_who_hold_most_pages_are_named() {
        let owners = vec![owner("a", MIB, 100, 1 << 20), owner("b", MIB, 1000, 0)];
        assert_eq!(
            in_words(&blame(1100, owners)),
            ["a holds 1.0 MiB in 2,048 blocks; 1.0 MiB would be returned if they were freed and the heap trimmed."]
        );
    }
}
