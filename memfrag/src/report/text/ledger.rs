//! The ledger as lines with bars.

use crate::report::chart::bar;
use crate::report::ledger::MEMFRAGS;
use crate::report::model::Ledger;
use crate::report::page::{Page, Tone};
use crate::report::units::{bytes, duration, plural};

/// Columns before the bars.
const LEFT: usize = 46;

impl Page {
    /// Where the resident bytes go, each line with the part that stands above it left blank.
    pub(super) fn ledger(&mut self, ledger: &Ledger, older_unknown: bool) {
        self.heading(&format!("Where {} of resident memory go, seen at {}", bytes(ledger.rss), duration(ledger.at_ns)));
        let is_known = ledger.source != "unknown";
        let lines = [
            (if is_known { "free pages" } else { "pages without a block" }, ledger.free_pages, true),
            ("requested", ledger.requested, true),
            ("rounding", ledger.rounding, is_known),
            ("cached", ledger.cached, ledger.source == "walk"),
            (if is_known { "free inside pages" } else { "free, rounding, allocator's" }, ledger.free_in_pages, true),
            ("allocator's own", ledger.metadata, is_known),
            ("untracked", ledger.untracked, ledger.untracked > 0 || ledger.source == "walk"),
            ("not malloc", ledger.not_malloc - ledger.not_malloc_memfrag, true),
            (MEMFRAGS, ledger.not_malloc_memfrag, false),
        ];
        let width = self.style.width().saturating_sub(LEFT);
        let mut before = 0;
        for (name, size, shown) in lines {
            if shown || size > 0 {
                self.ledger_line(name, size, ledger.rss, &bar(before, size, ledger.rss, width));
            }
            before += size;
        }
        if ledger.unexplained != 0 {
            let size = ledger.unexplained.unsigned_abs();
            let name = if ledger.unexplained > 0 { "unexplained" } else { "counted too much" };
            self.ledger_line(name, size, ledger.rss, "");
        }
        let mut notes = Vec::new();
        if ledger.untouched > 0 {
            notes.push(format!("{} of the live blocks are not resident: never written to", bytes(ledger.untouched)));
        }
        if older_unknown {
            notes.push(
                "it ran before the trace: blocks from then are not known, and what they hold counts as free".to_owned(),
            );
        }
        if ledger.source == "blocks" {
            notes.push("without a walk of the heap, freed blocks in caches count as free".to_owned());
        }
        if ledger.contradicted_blocks > 0 {
            let blocks = plural(ledger.contradicted_blocks, "block", "blocks");
            notes.push(format!("the heap as it lies in memory contradicts {blocks}"));
        }
        for note in notes {
            self.remark(&note);
        }
    }

    fn ledger_line(&mut self, name: &str, size: u64, all: u64, bar: &str) {
        let share = if all == 0 { 0.0 } else { size as f64 / all as f64 * 100.0 };
        let bar = self.style.paint(Tone::Good, bar);
        self.line(&format!("  {name:<28}{:>10}{share:>5.0} %  {bar}", bytes(size)));
    }
}
