//! A process's heap under allocation policies. Field names are those of the JSON document; they are added to, never
//! renamed within a version. Sizes are bytes.

use super::page::{Page, Style, Tone, clean, shorten};
use super::units::{bytes, count, plural};
use crate::model::{self, Choice, ModelHeap, Policy};
use serde::Serialize;

/// A report asks glibc's model for its agreement up to so many events: that takes a reading of its own, about a second for
/// each five million.
pub const MOST_FORETOLD: u64 = 8_000_000;

/// What the policies made of the events.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// Always `memfrag-model`.
    pub format: &'static str,
    /// Version of the field names.
    pub version: u32,
    /// The recording.
    pub file: String,
    /// Process id.
    pub pid: u32,
    /// The kernel's short name of the process.
    pub comm: String,
    /// The version of its glibc.
    pub glibc: String,
    /// What its environment told the allocator, in words `NAME=VALUE`; all policies but `default` act so as well.
    pub settings: Vec<String>,
    /// Live blocks at the end.
    pub live_blocks: u64,
    /// Events lost in the capture, that the policies know nothing of.
    pub lost_events: u64,
    /// Frees and reallocations of blocks that no event had told of.
    pub unknown_blocks: u64,
    /// The policies, in the order in which they were asked for.
    pub policies: Vec<Outcome>,
}

/// What came of one policy.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub policy: String,
    /// What it is, in some words.
    pub about: &'static str,
    /// What to set in the environment for the real allocator to act so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<&'static str>,
    /// The most that was obtained from the system at once.
    pub peak_footprint_bytes: u64,
    /// When, in nanoseconds since the trace began.
    pub peak_at_ns: u64,
    /// What was held at the end.
    pub final_footprint_bytes: u64,
    /// Share of the placements at the address that the real allocator gave; absent where none is foretold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Blocks placed.
    pub placements: u64,
    /// Those at the address that the real allocator gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_placements: Option<u64>,
    /// Requests that could not be served.
    pub failed: u64,
    /// Times that memory was obtained from the system.
    pub growths: u64,
    /// Those of them for a request that the free bytes, taken together, would have held.
    pub avoidable_growths: u64,
    /// Events that cannot be, by what the policy knows.
    pub impossible_events: u64,
    /// Requested by live blocks at the end.
    pub requested_bytes: u64,
    /// Taken by them.
    pub taken_bytes: u64,
    /// Free within the footprint at the end.
    pub free_bytes: u64,
    /// Free ranges; places of a size class each by itself.
    pub holes: u64,
    /// The largest of them.
    pub largest_hole_bytes: u64,
    /// What `mallinfo2` would tell at the end, where the policy is glibc's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mallinfo: Option<MallInfo>,
}

/// Fields of `mallinfo2`, by their names.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MallInfo {
    /// Bytes that arenas have obtained from the system.
    pub arena: u64,
    /// Free chunks outside fastbins and caches, tops included.
    pub ordblks: u64,
    /// Chunks in fastbins.
    pub smblks: u64,
    /// Mapped chunks.
    pub hblks: u64,
    /// Their bytes.
    pub hblkhd: u64,
    /// Bytes in fastbins.
    pub fsmblks: u64,
    /// Bytes neither in use nor in a thread's cache.
    pub fordblks: u64,
    /// Bytes of the main arena's top.
    pub keepcost: u64,
}

impl From<model::MallInfo> for MallInfo {
    fn from(info: model::MallInfo) -> Self {
        let model::MallInfo { arena, ordblks, smblks, hblks, hblkhd, fsmblks, fordblks, keepcost } = info;
        Self { arena, ordblks, smblks, hblks, hblkhd, fsmblks, fordblks, keepcost }
    }
}

impl Document {
    /// What the policies of a heap made of it.
    pub fn new(file: String, pid: u32, comm: String, glibc: String, settings: Vec<String>, heap: &ModelHeap) -> Self {
        let oddities = heap.oddities();
        Self {
            format: "memfrag-model",
            version: 1,
            file,
            pid,
            comm,
            glibc,
            settings,
            live_blocks: heap.live_blocks(),
            lost_events: oddities.lost_events,
            unknown_blocks: oddities.unknown_blocks,
            policies: heap.policies().iter().map(|policy| Outcome::new(policy.as_ref())).collect(),
        }
    }
}

impl Outcome {
    /// What came of a policy until now.
    pub fn new(policy: &dyn Policy) -> Self {
        let (footprint, counts, contents) = (policy.footprint(), policy.counts(), policy.contents());
        let exact = counts.exact.filter(|_| counts.placements > 0);
        let choice = Choice::find(policy.name());
        Self {
            policy: policy.name().to_owned(),
            about: choice.map_or("", |choice| choice.about),
            environment: choice.and_then(|choice| choice.environment),
            peak_footprint_bytes: footprint.peak,
            peak_at_ns: footprint.peak_time,
            final_footprint_bytes: footprint.now,
            agreement: exact.map(|exact| exact as f64 / counts.placements as f64),
            placements: counts.placements,
            exact_placements: exact,
            failed: counts.failed,
            growths: counts.growths,
            avoidable_growths: counts.avoidable_growths,
            impossible_events: counts.impossible,
            requested_bytes: contents.requested,
            taken_bytes: contents.taken,
            free_bytes: contents.free,
            holes: contents.holes,
            largest_hole_bytes: contents.largest_hole,
            mallinfo: policy.mallinfo().map(MallInfo::from),
        }
    }
}

/// The document as text, with a line feed at its end.
pub fn render(document: &Document, style: Style) -> String {
    let mut page = Page::new(style);
    let name = if document.comm.is_empty() { "(unknown)" } else { &document.comm };
    let name = page.style.paint(Tone::Heading, &clean(name));
    let mut facts = vec![format!("pid {}", document.pid), format!("glibc {}", document.glibc)];
    facts.extend(document.settings.iter().map(|word| clean(word)));
    page.line(&format!("{name}  {}", facts.join(" · ")));
    for outcome in &document.policies {
        if let (Some(share), Some(exact)) = (outcome.agreement, outcome.exact_placements) {
            let tone = if share >= 0.999 { Tone::Good } else { Tone::Warning };
            let placed = plural(outcome.placements, "address", "addresses");
            page.field("Agreement", Some(tone), &format!("{} of {placed} foretold, {}", count(exact), percent(share)));
        }
    }
    if document.lost_events > 0 {
        let lost = plural(document.lost_events, "event was", "events were");
        page.field(
            "",
            Some(Tone::Warning),
            &format!("! {lost} lost: from there on blocks are where they should not be"),
        );
    }
    let head =
        format!("  {:<14}{:>12}{:>12}{:>12}  {}", "policy", "peak", "at the end", "free", "what to set, or what it is");
    let head = page.style.paint(Tone::Quiet, &head);
    page.line("");
    page.line(&head);
    for outcome in &document.policies {
        let cells = [outcome.peak_footprint_bytes, outcome.final_footprint_bytes, outcome.free_bytes];
        let cells = cells.map(|cell| format!("{:>12}", bytes(cell))).concat();
        let about = shorten(outcome.environment.unwrap_or(outcome.about), page.style.width().saturating_sub(54));
        page.line(format!("  {:<14}{cells}  {about}", outcome.policy).trim_end());
    }
    page.text
}

/// A share, so that only all of it reads as 100 %.
pub fn percent(share: f64) -> String {
    if share >= 1.0 { "100 %".to_owned() } else { format!("{:.3} %", (share * 100_000.0).floor() / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_is_a_hundred_percent() {
        assert_eq!([percent(1.0), percent(0.999_999_9), percent(0.5)], ["100 %", "99.999 %", "50.000 %"]);
    }
}
