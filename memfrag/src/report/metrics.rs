//! The measures of fragmentation, by the names of the JSON document.

use crate::analysis::metrics::course::JohnstoneWilson;
use crate::analysis::metrics::{self, REQUEST_SHARES, occupancy};
use serde::Serialize;

/// Measures of fragmentation. Null is what could not be known; [`metrics`] has the formulas.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Metrics {
    /// Resident bytes over the bytes that were live when they were read; null without a reading or live blocks.
    pub overhead_ratio: Option<f64>,
    /// The part of the chunks that nobody asked for.
    pub internal_fragmentation: Option<f64>,
    /// Bytes of headers.
    pub header_bytes: Option<u64>,
    /// Bytes of padding.
    pub padding_bytes: Option<u64>,
    /// Bytes of padding of blocks that were mapped by themselves.
    pub mapped_padding_bytes: Option<u64>,
    /// Cached bytes over all that arenas hold.
    pub cached_ratio: Option<f64>,
    /// Free bytes in bins over all that arenas hold.
    pub external_ratio: Option<f64>,
    /// Bytes of top chunks over all that arenas hold.
    pub top_ratio: Option<f64>,
    /// Pages with live blocks by how full they are.
    pub page_occupancy: Occupancy,
    /// Pieces of 2 MiB with live blocks by how full they are.
    pub huge_page_occupancy: Occupancy,
    /// Resident pages by how full they were at the last look at the process's pages; null when there was none.
    pub resident_page_occupancy: Option<Occupancy>,
    /// Pieces of 2 MiB with resident pages by how full they were then.
    pub resident_huge_page_occupancy: Option<Occupancy>,
    /// The share of free bytes in chunks too small for the program's own requests.
    pub unusable_free_index: Option<[Unusable; 4]>,
    /// Growths of the heap segment for blocks that the free memory in it would have held; null where no growth was
    /// seen.
    pub avoidable_growth: Option<AvoidableGrowth>,
    /// `1 − largest free chunk / all free bytes`.
    pub free_fragmentation_index: Option<f64>,
    /// `1 − √(Σ f²) / Σ f` over free chunks.
    pub free_dispersion: Option<f64>,
    /// Johnstone and Wilson's four measures, in percent.
    #[serde(flatten)]
    pub johnstone_wilson: FourMeasures,
    /// The same with headers and alignment taken for live.
    pub johnstone_wilson_by_footprint: Option<FourMeasures>,
    /// By how much memory at its peak exceeded what was live then, in percent.
    pub realized_fragmentation: Option<f64>,
    /// By how much memory at the last reading exceeded what was live then, in percent.
    pub end_fragmentation: Option<f64>,
    /// Pages that an allocator that meshes could give back.
    pub meshable_pages: u64,
    /// Bytes of the live blocks packed one behind the other.
    pub compact_bound_bytes: u64,
    /// The most that these have been.
    pub compact_bound_peak_bytes: u64,
    /// The most that allocators can be made to need for such requests.
    pub worst_case_bound: WorstCase,
    /// Requested bytes over taken ones.
    pub padding_efficiency: Option<f64>,
    /// Mean share of a cache line that was requested.
    pub cache_line_utilization: Option<f64>,
    /// Blocks on more than one cache line.
    pub split_allocations: u64,
    /// Blocks on more cache lines than they need.
    pub needlessly_split_allocations: u64,
}

/// Pages by how full they are.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Occupancy {
    /// Without a live byte; null where it is not known which pages are the heap's.
    pub empty: Option<u64>,
    /// Less than a quarter full.
    pub pinned: u64,
    /// A quarter full or more.
    pub partial: u64,
    /// Full.
    pub full: u64,
}

/// How much of the free memory is too small for a request.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Unusable {
    /// The share of the program's requests that are no larger.
    pub request_share: f64,
    /// The request.
    pub request_bytes: u64,
    /// The share of free bytes in chunks too small for it.
    pub index: f64,
}

/// Growths of the heap segment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct AvoidableGrowth {
    /// All that were seen.
    pub growths: u64,
    /// Those for blocks that the free memory, taken together, would have held.
    pub count: u64,
    /// Bytes by which these made it grow.
    pub bytes: u64,
}

/// Johnstone and Wilson's measures, in percent over what is live.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct FourMeasures {
    /// Mean over time of the heap over live bytes.
    pub johnstone_wilson_1: Option<f64>,
    /// When most was live.
    pub johnstone_wilson_2: Option<f64>,
    /// When the heap was largest.
    pub johnstone_wilson_3: Option<f64>,
    /// The largest heap over the most that was live.
    pub johnstone_wilson_4: Option<f64>,
}

/// The most that allocators can be made to need.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct WorstCase {
    /// By first fit.
    pub first_fit_bytes: f64,
    /// By best fit, roughly.
    pub best_fit_bytes: f64,
}

impl Metrics {
    pub(super) fn new(metrics: &metrics::Metrics, overhead_ratio: Option<f64>) -> Self {
        Self {
            overhead_ratio,
            internal_fragmentation: metrics.internal_fragmentation,
            header_bytes: metrics.header_bytes,
            padding_bytes: metrics.padding_bytes,
            mapped_padding_bytes: metrics.mapped_padding_bytes,
            cached_ratio: metrics.cached_ratio,
            external_ratio: metrics.external_ratio,
            top_ratio: metrics.top_ratio,
            page_occupancy: occupancy(metrics.page_occupancy),
            huge_page_occupancy: occupancy(metrics.huge_page_occupancy),
            resident_page_occupancy: metrics.resident_page_occupancy.map(occupancy),
            resident_huge_page_occupancy: metrics.resident_huge_page_occupancy.map(occupancy),
            unusable_free_index: metrics.unusable_free_index.map(|indices| {
                let mut shares = REQUEST_SHARES.into_iter();
                indices.map(|(request_bytes, index)| Unusable {
                    request_share: shares.next().unwrap_or(1000) as f64 / 1000.0,
                    request_bytes,
                    index,
                })
            }),
            avoidable_growth: metrics.growths.map(|growths| AvoidableGrowth {
                growths: growths.count,
                count: growths.avoidable,
                bytes: growths.avoidable_bytes,
            }),
            free_fragmentation_index: metrics.free_fragmentation_index,
            free_dispersion: metrics.free_dispersion,
            johnstone_wilson: metrics.johnstone_wilson.map(four).unwrap_or_default(),
            johnstone_wilson_by_footprint: metrics.johnstone_wilson_by_footprint.map(four),
            realized_fragmentation: metrics.realized_fragmentation,
            end_fragmentation: metrics.end_fragmentation,
            meshable_pages: metrics.meshable_pages,
            compact_bound_bytes: metrics.compact_bound_bytes,
            compact_bound_peak_bytes: metrics.compact_bound_peak_bytes,
            worst_case_bound: WorstCase {
                first_fit_bytes: metrics.first_fit_worst_case_bytes,
                best_fit_bytes: metrics.best_fit_worst_case_bytes,
            },
            padding_efficiency: metrics.padding_efficiency,
            cache_line_utilization: metrics.cache_line_utilization,
            split_allocations: metrics.split_allocations,
            needlessly_split_allocations: metrics.needlessly_split_allocations,
        }
    }
}

fn occupancy(pages: occupancy::Occupancy) -> Occupancy {
    Occupancy { empty: pages.empty, pinned: pages.pinned, partial: pages.partial, full: pages.full }
}

fn four(measures: JohnstoneWilson) -> FourMeasures {
    FourMeasures {
        johnstone_wilson_1: Some(measures.mean),
        johnstone_wilson_2: Some(measures.at_most_live),
        johnstone_wilson_3: Some(measures.at_largest_heap),
        johnstone_wilson_4: Some(measures.largest_over_most),
    }
}
