//! Trim yield, release and shares against their definitions, taken page by page and owner by owner.

use super::heaps::{SITES, Sample, Sites, sample};
use crate::analysis::blame::{self, Blame, Owner};
use crate::analysis::census::{Census, Source};
use crate::analysis::{By, Key, Partition, ResidentPages};
use crate::glibc::layout::{ChunkKind, HEADER};
use crate::target::residency::PAGE;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What holds a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    Nobody,
    Allocator,
    Cached,
    Untracked,
    Site(u32),
}

/// One segment, spelled out.
pub(super) struct Strip {
    start: u64,
    end: u64,
    /// Ranges from `start` to `end` and who holds them.
    ranges: Vec<(u64, u64, Holder)>,
    /// Whether its last free range is left alone.
    keeps_top: bool,
}

pub(super) fn strips(sample: &Sample) -> Vec<Strip> {
    let site = |chunk: u64| {
        let at = sample.blocks.binary_search_by_key(&(chunk + HEADER), |block| block.addr).ok()?;
        Some(sample.blocks[at].origin.index() as u32)
    };
    let mut strips = Vec::new();
    for arena in &sample.layout.arenas {
        for segment in &arena.segments {
            let mut ranges = Vec::new();
            if segment.first > segment.range.start {
                ranges.push((segment.range.start, segment.first, Holder::Allocator));
            }
            for (address, chunk) in segment.iter() {
                let holder = match chunk.kind() {
                    ChunkKind::Used => site(address).map_or(Holder::Untracked, Holder::Site),
                    ChunkKind::Tcache => Holder::Cached,
                    ChunkKind::Fencepost | ChunkKind::TcacheTable => Holder::Allocator,
                    ChunkKind::Free | ChunkKind::Fastbin | ChunkKind::Top => Holder::Nobody,
                };
                ranges.push((address, address + chunk.bytes(), holder));
            }
            let ends_in_top = segment.chunks.last().is_some_and(|chunk| chunk.kind() == ChunkKind::Top);
            let (start, end) = (segment.range.start, segment.range.end);
            // What the break has moved beyond is out of reach.
            let cut_off = sample.residency.regions.iter().any(|region| region.range.contains(&end) && arena.is_main);
            strips.push(Strip { start, end, ranges, keeps_top: ends_in_top && (cut_off || !arena.is_main) });
        }
    }
    strips
}

/// The pages that trimming returns when the blocks of `gone` are freed, resident or not: free chunks are merged, and
/// each gives the pages from 48 bytes behind its start on.
pub(super) fn returned(strip: &Strip, gone: Option<Holder>) -> BTreeSet<u64> {
    let mut free: Vec<(u64, u64)> = Vec::new();
    for &(start, end, holder) in &strip.ranges {
        if holder == Holder::Nobody || Some(holder) == gone {
            match free.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => free.push((start, end)),
            }
        }
    }
    if strip.keeps_top && free.last().is_some_and(|last| last.1 == strip.end) {
        free.pop();
    }
    let mut pages = BTreeSet::new();
    for (start, end) in free {
        let first = (start + 0x30).next_multiple_of(PAGE);
        if end > first {
            pages.extend((0..(end - first) / PAGE).map(|page| first + page * PAGE));
        }
    }
    pages
}

/// The same by the rule for single pages: nothing held within the page and 48 bytes before it.
fn returned_by_window(strip: &Strip) -> BTreeSet<u64> {
    let held: Vec<_> = strip.ranges.iter().filter(|range| range.2 != Holder::Nobody).collect();
    let tops = if strip.keeps_top { held.last().map_or(strip.start, |last| last.1) } else { u64::MAX };
    let is_free = |page: u64| {
        page >= strip.start + 48
            && page + PAGE <= strip.end
            && page < tops
            && held.iter().all(|&&(start, end, _)| end + 48 <= page || start >= page + PAGE)
    };
    (strip.start..strip.end).step_by(PAGE as usize).filter(|&page| is_free(page)).collect()
}

struct Expected {
    trim_yield: u64,
    release: BTreeMap<Holder, i64>,
    stranded: BTreeMap<Holder, f64>,
    kept_tops: u64,
    stuck: u64,
    pages_by_owners: BTreeMap<usize, u64>,
}

fn expected(sample: &Sample, pages: &ResidentPages) -> Expected {
    let strips = strips(sample);
    let resident = |all: &BTreeSet<u64>| all.iter().filter(|&&page| pages.holds(page)).count() as u64 * PAGE;
    let mut release = BTreeMap::new();
    let mut stranded: BTreeMap<Holder, f64> = BTreeMap::new();
    let mut pages_by_owners = BTreeMap::new();
    let (mut trim_yield, mut kept_tops, mut stuck) = (0, 0, 0);
    for strip in &strips {
        let now = returned(strip, None);
        assert_eq!(now, returned_by_window(strip));
        trim_yield += resident(&now);
        let holders: BTreeSet<Holder> = strip.ranges.iter().map(|range| range.2).collect();
        for &holder in holders.iter().filter(|&&holder| holder != Holder::Nobody) {
            let without = returned(strip, Some(holder));
            *release.entry(holder).or_insert(0) += resident(&without).cast_signed() - resident(&now).cast_signed();
        }
        let held = strip.ranges.iter().rev().find(|range| range.2 != Holder::Nobody);
        let last_held = held.map_or(strip.start, |range| range.1);
        for page in (strip.start..strip.end).step_by(PAGE as usize) {
            if !pages.holds(page) || now.contains(&page) {
                continue;
            }
            let on_page = |range: &&(u64, u64, Holder)| range.0 < page + PAGE && range.1 > page;
            let free: u64 = strip
                .ranges
                .iter()
                .filter(|range| range.2 == Holder::Nobody)
                .filter(on_page)
                .map(|&(start, end, _)| end.min(page + PAGE) - start.max(page))
                .sum();
            stuck += free;
            let reach: Vec<Holder> = strip
                .ranges
                .iter()
                .filter(|range| range.2 != Holder::Nobody && range.0 < page + PAGE && range.1 + 48 > page)
                .map(|range| range.2)
                .collect();
            *pages_by_owners.entry(reach.iter().collect::<BTreeSet<_>>().len()).or_insert(0) += 1;
            if !reach.is_empty() {
                for &holder in &reach {
                    *stranded.entry(holder).or_default() += free as f64 / reach.len() as f64;
                }
            } else if strip.keeps_top && page + PAGE > last_held {
                kept_tops += free;
            } else {
                *stranded.entry(Holder::Allocator).or_default() += free as f64;
            }
        }
    }
    for mapped in &sample.layout.mapped {
        let block = sample.blocks.iter().find(|block| block.addr == mapped.address + HEADER);
        let holder = block.map_or(Holder::Untracked, |block| Holder::Site(block.origin.index() as u32));
        let bytes = pages.bytes_in(mapped.address..mapped.address + mapped.bytes);
        *release.entry(holder).or_insert(0) += bytes.cast_signed();
    }
    Expected { trim_yield, release, stranded, kept_tops, stuck, pages_by_owners }
}

fn holder(owner: &Owner) -> Holder {
    match owner {
        Owner::Allocator => Holder::Allocator,
        Owner::Cached => Holder::Cached,
        Owner::Untracked => Holder::Untracked,
        Owner::Key(Key::Site(site)) => Holder::Site(*site as u32),
        Owner::Key(key) => panic!("{key:?} in a partition by sites"),
    }
}

fn check(sample: &Sample) -> Result<Blame, TestCaseError> {
    let pages = ResidentPages::new(&sample.residency);
    let census = Census::new(&sample.layout, &sample.blocks, &sample.residency, Source::Walk);
    let partition = Partition::new(By::Site, &sample.blocks, 0, &Sites::new());
    let found = blame::blame(&census, &pages, &partition);
    let expected = expected(sample, &pages);
    prop_assert_eq!(found.trim_yield_bytes, expected.trim_yield);
    prop_assert_eq!(census.trim().bytes(), expected.trim_yield);
    prop_assert_eq!(found.kept_tops_bytes, expected.kept_tops);
    prop_assert_eq!(found.stuck_bytes, expected.stuck);
    let shared: u64 = found.shares.iter().map(|share| share.stranded_bytes).sum();
    prop_assert_eq!(shared + found.kept_tops_bytes, found.stuck_bytes, "shares add up");
    for (owners, &number) in found.pages_by_owners.iter().enumerate() {
        prop_assert_eq!(number, expected.pages_by_owners.get(&owners).copied().unwrap_or(0), "{} owners", owners);
    }
    let by_holder: BTreeMap<Holder, _> = found.shares.iter().map(|share| (holder(&share.owner), share)).collect();
    prop_assert_eq!(by_holder.len(), found.shares.len());
    let sites = (0..SITES).map(Holder::Site);
    for each in sites.chain([Holder::Allocator, Holder::Cached, Holder::Untracked]) {
        let (release, stranded) = by_holder.get(&each).map_or((0, 0), |s| (s.release_bytes, s.stranded_bytes));
        prop_assert_eq!(release, expected.release.get(&each).copied().unwrap_or(0), "{:?}", each);
        let shared = expected.stranded.get(&each).copied().unwrap_or(0.0);
        prop_assert!((stranded as f64 - shared).abs() < 1.5, "{:?}: {} for {}", each, stranded, shared);
    }
    Ok(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn equals_freeing_and_trimming(sample in sample()) {
        check(&sample)?;
    }
}

proptest! {
    /// The order's sums are what its members release together.
    #[test]
    fn an_order_adds_up(sample in sample()) {
        let pages = ResidentPages::new(&sample.residency);
        let census = Census::new(&sample.layout, &sample.blocks, &sample.residency, Source::Walk);
        let partition = Partition::new(By::Site, &sample.blocks, 0, &Sites::new());
        let before = blame::blame(&census, &pages, &partition);
        let mut gone = BTreeSet::new();
        let mut mapped = 0;
        for step in blame::order(&census, &pages, &partition, 3) {
            let Owner::Key(Key::Site(site)) = step.owner else { panic!("sites only: {step:?}") };
            gone.insert(site);
            let is_gone = |chunk: u64| {
                let block = sample.blocks.iter().find(|block| block.addr == chunk + HEADER);
                block.is_some_and(|block| gone.contains(&(block.origin.index() as u64)))
            };
            let mut freed = sample.clone();
            for segment in freed.layout.arenas.iter_mut().flat_map(|arena| &mut arena.segments) {
                let addresses: Vec<u64> = segment.iter().map(|(address, _)| address).collect();
                for (chunk, address) in segment.chunks.iter_mut().zip(addresses) {
                    if chunk.kind() == ChunkKind::Used && is_gone(address) {
                        *chunk = crate::glibc::layout::Chunk::new(chunk.bytes(), ChunkKind::Free);
                    }
                }
            }
            mapped = sample
                .layout
                .mapped
                .iter()
                .filter(|mapped| is_gone(mapped.address))
                .map(|mapped| pages.bytes_in(mapped.address..mapped.address + mapped.bytes))
                .sum::<u64>()
                .max(mapped);
            let now: u64 = strips(&freed)
                .iter()
                .flat_map(|strip| returned(strip, None))
                .filter(|&page| pages.holds(page))
                .count() as u64
                * PAGE;
            prop_assert_eq!(step.release_bytes, (now + mapped).cast_signed() - before.trim_yield_bytes.cast_signed());
        }
    }
}
