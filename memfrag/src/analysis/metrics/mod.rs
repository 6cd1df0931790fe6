//! Measures of fragmentation.
//!
//! A measure is `None` where what it needs is missing or where it has no meaning: nothing is ever guessed.
//!
//! | module | measures |
//! |---|---|
//! | [`ratios`] | of two sums: internal, overhead, realized, at the end |
//! | [`occupancy`] | how full pages are, at 4 KiB and 2 MiB |
//! | [`free`] | how free memory is cut up: unusable-free index, fragmentation index, dispersion |
//! | [`course`] | heap against live data over the recording: Johnstone and Wilson's four, realized, at the end |
//! | [`survey`] | one pass over the blocks: headers, padding, cache lines |
//! | [`mesh`] | pages that could share memory |
//! | [`bounds`] | the least and the most that any allocator could need |

pub mod bounds;
pub mod course;
pub mod free;
pub mod mesh;
pub mod occupancy;
pub mod ratios;
pub mod survey;

use crate::analysis::ResidentPages;
use crate::glibc::{ChunkKind, Layout};
use crate::heap::{Block, Footprint, Growths, Heap, Pages};
use course::JohnstoneWilson;
use free::FreeChunks;
use occupancy::{Occupancy, Scope};
use std::ops::Range;
use survey::Survey;

/// The shares of the program's requests, in thousandths, that are no larger than those for which the unusable-free
/// index is told.
pub const REQUEST_SHARES: [u64; 4] = [500, 900, 990, 1000];

/// All measures of a heap at a moment.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Part of the chunks of live blocks that nobody asked for; blocks mapped by themselves aside. glibc only.
    pub internal_fragmentation: Option<f64>,
    /// Bytes of those blocks' headers. glibc only.
    pub header_bytes: Option<u64>,
    /// Bytes of padding behind live blocks, those mapped by themselves aside. glibc only.
    pub padding_bytes: Option<u64>,
    /// Bytes by which blocks mapped by themselves are rounded to whole pages. glibc only.
    pub mapped_padding_bytes: Option<u64>,
    /// Bytes in threads' caches and fastbins over bytes that arenas obtained. Needs a layout.
    pub cached_ratio: Option<f64>,
    /// Bytes of binned chunks over bytes that arenas obtained. Needs a layout.
    pub external_ratio: Option<f64>,
    /// Bytes of top chunks over bytes that arenas obtained. Needs a layout.
    pub top_ratio: Option<f64>,
    /// Pages with live blocks by how full they are.
    pub page_occupancy: Occupancy,
    /// Pieces of 2 MiB with live blocks by how full they are.
    pub huge_page_occupancy: Occupancy,
    /// Resident pages by how full they were when they were looked at.
    pub resident_page_occupancy: Option<Occupancy>,
    /// Pieces of 2 MiB with resident pages by how full they were then.
    pub resident_huge_page_occupancy: Option<Occupancy>,
    /// Requested size and unusable-free index for each of [`REQUEST_SHARES`]. Needs a layout.
    pub unusable_free_index: Option<[(u64, f64); 4]>,
    /// Growths of the heap segment. Needs events of it, which only some backends see.
    pub growths: Option<Growths>,
    /// `1 − largest free chunk / all free bytes`. Needs a layout.
    pub free_fragmentation_index: Option<f64>,
    /// `1 − √(Σ f²) / Σ f` over free chunks. Needs a layout.
    pub free_dispersion: Option<f64>,
    /// By requested bytes. Needs readings of the process's memory.
    pub johnstone_wilson: Option<JohnstoneWilson>,
    /// Without headers and alignment. Needs readings.
    pub johnstone_wilson_by_footprint: Option<JohnstoneWilson>,
    /// By how much memory at its peak exceeded what was live then, in percent. Needs readings.
    pub realized_fragmentation: Option<f64>,
    /// By how much memory at the last reading exceeded what was live then, in percent.
    pub end_fragmentation: Option<f64>,
    /// Pages that an allocator that meshes could give back.
    pub meshable_pages: u64,
    /// Bytes of the live blocks packed one behind the other: no allocator needs less now.
    pub compact_bound_bytes: u64,
    /// The most that these have been: no allocator needs less for the whole recording.
    pub compact_bound_peak_bytes: u64,
    /// The most that first fit can need for such requests, in bytes.
    pub first_fit_worst_case_bytes: f64,
    /// About what best fit can be made to need for such requests, in bytes.
    pub best_fit_worst_case_bytes: f64,
    /// Requested bytes over taken ones. glibc only.
    pub padding_efficiency: Option<f64>,
    /// Mean share of a cache line that was requested, over the lines that have any.
    pub cache_line_utilization: Option<f64>,
    /// Blocks on more than one cache line.
    pub split_allocations: u64,
    /// Blocks on more cache lines than they need.
    pub needlessly_split_allocations: u64,
}

/// What was seen of a process at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The blocks in use then, in order of their addresses.
    pub blocks: &'a [Block],
    /// How the heap lay in memory, where that is known.
    pub layout: Option<&'a Layout>,
    /// The pages that were resident.
    pub resident: &'a ResidentPages,
}

impl Metrics {
    /// The measures of a heap as it is now. Those that need a layout or resident pages are of the moment when these
    /// were seen last, if they were. Takes a pass over the live blocks, and one over those of that moment.
    pub fn of(heap: &Heap, look: Option<Look<'_>>) -> Self {
        let (pages, peak) = (heap.pages(), heap.peak());
        let layout = look.and_then(|look| look.layout);
        let survey = Survey::of(heap.blocks().by_address(), pages.footprint());
        let glibc = pages.footprint() == Footprint::Glibc;
        let ranges = layout.map(held);
        let scope = Scope { heap: ranges.as_deref(), resident: look.map(|look| look.resident) };
        let then = look.map(|look| Pages::of(pages.footprint(), look.blocks.iter().copied()));
        let free = layout.map(FreeChunks::of).unwrap_or_default();
        let of_arenas = |kinds: &[ChunkKind]| {
            let layout = layout?;
            let system: u64 = layout.arenas.iter().map(|arena| arena.system_bytes).sum();
            let bytes: u64 = layout.arenas.iter().flat_map(|a| kinds.iter().map(|&kind| a.bytes_of(kind))).sum();
            (system > 0).then(|| bytes as f64 / system as f64)
        };
        Self {
            internal_fragmentation: ratios::internal_fragmentation(survey.requested, survey.taken).filter(|_| glibc),
            header_bytes: glibc.then(|| survey.header_bytes()),
            padding_bytes: glibc.then(|| survey.padding_bytes()),
            mapped_padding_bytes: glibc.then(|| survey.mapped_padding_bytes()),
            cached_ratio: of_arenas(&[ChunkKind::Tcache, ChunkKind::Fastbin]),
            external_ratio: of_arenas(&[ChunkKind::Free]),
            top_ratio: of_arenas(&[ChunkKind::Top]),
            page_occupancy: occupancy::of_pages(pages, Scope::default()),
            huge_page_occupancy: occupancy::of_huge_pages(pages, Scope::default()),
            resident_page_occupancy: then.as_ref().map(|then| occupancy::of_pages(then, scope)),
            resident_huge_page_occupancy: then.as_ref().map(|then| occupancy::of_huge_pages(then, scope)),
            unusable_free_index: unusable(heap, &free),
            growths: Some(heap.growths()).filter(|growths| growths.count > 0),
            free_fragmentation_index: free.fragmentation_index(),
            free_dispersion: free.dispersion(),
            johnstone_wilson: JohnstoneWilson::by_request(heap.readings()),
            johnstone_wilson_by_footprint: JohnstoneWilson::by_footprint(heap.readings()).filter(|_| glibc),
            realized_fragmentation: course::realized_fragmentation(heap.readings()),
            end_fragmentation: course::end_fragmentation(heap.readings()),
            meshable_pages: survey.spans.meshable_pages(),
            compact_bound_bytes: pages.bytes(),
            compact_bound_peak_bytes: pages.peak_bytes(),
            first_fit_worst_case_bytes: bounds::first_fit_worst_case(peak.live.bytes, heap.requests().largest()),
            best_fit_worst_case_bytes: bounds::best_fit_worst_case(peak.live.bytes, heap.requests().largest()),
            padding_efficiency: survey.padding_efficiency().filter(|_| glibc),
            cache_line_utilization: survey.line_utilization(),
            split_allocations: survey.split,
            needlessly_split_allocations: survey.needlessly_split,
        }
    }
}

/// The memory that glibc holds, upwards.
fn held(layout: &Layout) -> Vec<Range<u64>> {
    let segments = layout.arenas.iter().flat_map(|arena| &arena.segments).map(|segment| segment.range.clone());
    let mapped = layout.mapped.iter().map(|chunk| chunk.address..chunk.address.saturating_add(chunk.bytes));
    let mut ranges: Vec<Range<u64>> = segments.chain(mapped).filter(|range| !range.is_empty()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    ranges
}

fn unusable(heap: &Heap, free: &FreeChunks) -> Option<[(u64, f64); 4]> {
    let mut indices = [(0, 0.0); 4];
    for (index, share) in indices.iter_mut().zip(REQUEST_SHARES) {
        let size = heap.requests().quantile(share)?;
        *index = (size, free.unusable_index(size)?);
    }
    Some(indices)
}

#[cfg(test)]
mod tests;
