//! The few measures of fragmentation that a person needs, in words.

use crate::report::model::Process;
use crate::report::page::Page;
use crate::report::units::{bytes, count, plural};
use std::fmt::Write as _;

/// Pages with live blocks below which how they lie is of no interest.
const FEW_PAGES: u64 = 16;

impl Page {
    /// How the live blocks lie.
    pub(super) fn metrics(&mut self, process: &Process) {
        let metrics = &process.end.metrics;
        let pages = metrics.page_occupancy;
        let used = pages.pinned + pages.partial + pages.full;
        if used < FEW_PAGES {
            return;
        }
        self.heading("How the live blocks lie");
        let share = |pages: u64| pages as f64 / used as f64 * 100.0;
        let mut text = format!(
            "{} hold live blocks: {:.0} % of them full, {:.0} % in part, {:.0} % less than a quarter",
            count(used),
            share(pages.full),
            share(pages.partial),
            share(pages.pinned),
        );
        if let Some(empty) = metrics.resident_page_occupancy.and_then(|pages| pages.empty) {
            let empty = plural(empty, "resident page of the heap", "resident pages of the heap");
            let _ = write!(text, "; {empty} held none at the last look");
        }
        self.field("Pages", None, &text);
        let mut text = format!("one behind the other they would take {}", bytes(metrics.compact_bound_bytes));
        if let (Some(headers), Some(padding)) = (metrics.header_bytes, metrics.padding_bytes) {
            let padding = padding + metrics.mapped_padding_bytes.unwrap_or(0);
            let _ = write!(text, ", with {} of headers and {} of padding", bytes(headers), bytes(padding));
        }
        self.field("Packed", None, &text);
        // The request that one in a hundred exceeds: larger ones are mostly few and served from elsewhere.
        if let Some(unusable) = metrics.unusable_free_index.map(|indices| indices[2]) {
            let text = format!(
                "{:.0} % of the free memory in bins lies in pieces too small for {}, which {:.0} % of the requests do \
                 not exceed",
                unusable.index * 100.0,
                bytes(unusable.request_bytes),
                unusable.request_share * 100.0,
            );
            self.field("Free", None, &text);
        }
        let over_time = metrics.johnstone_wilson;
        if let (Some(mean), Some(largest)) = (over_time.johnstone_wilson_1, over_time.johnstone_wilson_3) {
            let text = format!(
                "anonymous memory was {:.2} × what was live on average, {:.2} × when it was largest",
                mean / 100.0 + 1.0,
                largest / 100.0 + 1.0,
            );
            self.field("Over time", None, &text);
        }
    }
}
