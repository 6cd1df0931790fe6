//! A process's heap under allocation policies. Field names are those of the JSON document; they are added to, never
//! renamed within a version. Sizes are bytes.

use crate::analysis::Spread;
use crate::analysis::spread::fragmentation;
use crate::heap::{Footprint, Heap};
use crate::model::{self, Choice, ModelHeap, Policy};
use crate::target::Residency;
use serde::Serialize;

/// A report asks models up to so many events: that takes a reading of its own, about a second for each five million, and
/// three times as long where policies are compared.
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
    /// The version of its glibc; null for another allocator, or where it is not known: then only policies are asked that
    /// are not glibc's.
    pub glibc: Option<String>,
    /// What its environment told the allocator, in words `NAME=VALUE`; all policies but `default` act so as well.
    pub settings: Vec<String>,
    /// Why none of glibc's policies was asked, where all were asked for; else null.
    pub left_out: Option<String>,
    /// Live blocks at the end.
    pub live_blocks: u64,
    /// Events lost in the capture, that the policies know nothing of.
    pub lost_events: u64,
    /// Frees and reallocations of blocks that no event had told of.
    pub unknown_blocks: u64,
    /// The heap itself.
    pub real: Real,
    /// The policies, in the order in which they were asked for.
    pub policies: Vec<Outcome>,
}

/// A heap beside what policies would have made of it.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The heap itself.
    pub real: Real,
    /// The policies.
    pub policies: Vec<Outcome>,
}

/// The heap that the recording tells of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Real {
    /// What moment this is of, in nanoseconds since the trace began.
    pub at_ns: u64,
    /// Live blocks, those that are older than the trace included.
    pub live_blocks: u64,
    /// Requested by them; of those that are older than the trace, what they can hold.
    pub requested_bytes: u64,
    /// Taken by them, headers and rounding included.
    pub taken_bytes: u64,
    /// The address ranges in which the heap lies: mappings in which blocks begin, and the heap segment.
    pub footprint_bytes: u64,
    /// What of these was resident at the last look; null where there was none.
    pub resident_bytes: Option<u64>,
    /// When that was; null where the mappings are not known either, and the ranges are those of the blocks.
    pub resident_at_ns: Option<u64>,
    /// The pages into which live blocks reach.
    pub resident_bound_bytes: u64,
    /// Share of what blocks take that nobody asked for; null without blocks, and where headers and rounding of the allocator
    /// are not known.
    pub internal_fragmentation: Option<f64>,
    /// Share of the footprint that no block takes; null without one.
    pub external_fragmentation: Option<f64>,
    /// What of the footprint no block takes.
    pub free_bytes: u64,
    /// The ranges that make it up.
    pub holes: u64,
    /// The largest of them.
    pub largest_hole_bytes: u64,
    /// Requests that could not be served.
    pub failed: u64,
    /// Times that the heap segment grew; null where the capture does not see that.
    pub growths: Option<u64>,
    /// Those of them for a request that the free bytes, taken together, would have held.
    pub avoidable_growths: Option<u64>,
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
    /// The pages into which live blocks reach.
    pub resident_bound_bytes: u64,
    /// Share of what blocks take that nobody asked for; null without blocks.
    pub internal_fragmentation: Option<f64>,
    /// Share of the footprint that no block takes; null without one, or where blocks share memory and take more.
    pub external_fragmentation: Option<f64>,
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
    pub fn new(
        file: String,
        pid: u32,
        comm: String,
        glibc: Option<String>,
        settings: Vec<String>,
        real: Real,
        heap: &ModelHeap,
    ) -> Self {
        let oddities = heap.oddities();
        Self {
            format: "memfrag-model",
            version: 1,
            file,
            pid,
            comm,
            glibc,
            settings,
            left_out: None,
            live_blocks: heap.live_blocks(),
            lost_events: oddities.lost_events,
            unknown_blocks: oddities.unknown_blocks,
            real,
            policies: outcomes(heap),
        }
    }
}

/// What came of each policy of a heap.
pub fn outcomes(heap: &ModelHeap) -> Vec<Outcome> {
    heap.policies().iter().map(|policy| Outcome::new(heap, policy.as_ref())).collect()
}

impl Real {
    /// A heap at a moment, with the last look at its pages. Takes time by the number of blocks.
    pub fn new(heap: &Heap, look: Option<&Residency>, at_ns: u64) -> Self {
        Self::of(&Spread::of(heap, look), heap, look, at_ns)
    }

    /// The same, of which is known how it lies.
    pub fn of(spread: &Spread, heap: &Heap, look: Option<&Residency>, at_ns: u64) -> Self {
        let (free, taken, footprint) = (spread.free(), spread.taken(), spread.footprint());
        let requested = heap.live().bytes.saturating_add(heap.older_amount().bytes);
        let growths = Some(heap.growths()).filter(|growths| growths.count > 0);
        let knows_headers = heap.pages().footprint() != Footprint::Requested;
        Self {
            at_ns,
            live_blocks: spread.places().len() as u64,
            requested_bytes: requested,
            taken_bytes: taken,
            footprint_bytes: footprint,
            resident_bytes: look.map(|look| spread.resident(look)),
            resident_at_ns: look.map(|look| look.time),
            resident_bound_bytes: spread.resident_bound(),
            internal_fragmentation: fragmentation(requested, taken).filter(|_| knows_headers),
            external_fragmentation: fragmentation(taken, footprint),
            free_bytes: free.bytes,
            holes: free.holes,
            largest_hole_bytes: free.largest_hole,
            failed: heap.functions().iter().map(|(_, totals)| totals.failed).sum(),
            growths: growths.map(|growths| growths.count),
            avoidable_growths: growths.map(|growths| growths.avoidable),
        }
    }
}

impl Outcome {
    /// What came of a policy of a heap until now. Takes time by the number of blocks.
    pub fn new(heap: &ModelHeap, policy: &dyn Policy) -> Self {
        Self::of(policy, &heap.spread(policy))
    }

    /// The same, where it is known how the policy has the heap lie.
    pub fn of(policy: &dyn Policy, spread: &Spread) -> Self {
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
            resident_bound_bytes: spread.resident_bound(),
            internal_fragmentation: fragmentation(contents.requested, contents.taken),
            external_fragmentation: fragmentation(contents.taken, footprint.now),
            mallinfo: policy.mallinfo().map(MallInfo::from),
        }
    }
}
