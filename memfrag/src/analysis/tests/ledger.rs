//! The ledger against the heap painted page by page.

use super::blame::{returned, strips};
use super::heaps::{Sample, sample};
use crate::analysis::census::{Census, Source};
use crate::analysis::ledger::{Ledger, NotMalloc, Parts};
use crate::analysis::{ResidentPages, reconstruct};
use crate::glibc::layout::{ChunkKind, HEADER, Layout};
use crate::heap::{Block, OriginId};
use crate::target::residency::{PAGE, Region, RegionKind, Residency};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What a byte is.
type Line = fn(&mut Parts) -> &mut u64;

/// All owned ranges with what they are, in the order of precedence: the first that covers a byte counts.
fn paint(sample: &Sample) -> Vec<(u64, u64, Line)> {
    let mut ranges: Vec<(u64, u64, Line)> = Vec::new();
    let block_at = |chunk: u64| sample.blocks.iter().find(|block| block.addr == chunk + HEADER);
    let used = |ranges: &mut Vec<(u64, u64, Line)>, start: u64, end: u64, header: u64| match block_at(start) {
        Some(block) if block.origin != OriginId::UNSEEN => {
            let user = start + header;
            ranges.push((start, user, |parts| &mut parts.header));
            ranges.push((user, user + block.size, |parts| &mut parts.requested));
            ranges.push((user + block.size, end, |parts| &mut parts.padding));
        }
        _ => ranges.push((start, end, |parts| &mut parts.untracked)),
    };
    for segment in sample.layout.arenas.iter().flat_map(|arena| &arena.segments) {
        ranges.push((segment.range.start, segment.first, |parts| &mut parts.metadata));
        for (start, chunk) in segment.iter() {
            let end = start + chunk.bytes();
            match chunk.kind() {
                ChunkKind::Used => used(&mut ranges, start, end, 8),
                ChunkKind::Tcache => ranges.push((start, end, |parts| &mut parts.tcache)),
                ChunkKind::Fastbin => ranges.push((start, end, |parts| &mut parts.fastbin)),
                ChunkKind::Free => ranges.push((start, end, |parts| &mut parts.binned)),
                ChunkKind::Top => ranges.push((start, end, |parts| &mut parts.top)),
                ChunkKind::TcacheTable | ChunkKind::Fencepost => {
                    ranges.push((start, end, |parts| &mut parts.metadata));
                }
            }
        }
    }
    for mapped in &sample.layout.mapped {
        used(&mut ranges, mapped.address, mapped.address + mapped.bytes, 16);
    }
    ranges
}

fn trimmed(sample: &Sample) -> ResidentPages {
    let pages: BTreeSet<u64> = strips(sample).iter().flat_map(|strip| returned(strip, None)).collect();
    let resident = ResidentPages::new(&sample.residency);
    let runs = pages.into_iter().filter(|&page| resident.holds(page)).map(|page| page..page + PAGE);
    ResidentPages::from_runs(runs)
}

proptest! {
    #[test]
    fn equals_painting_every_page(sample in sample(), older in prop::collection::vec(any::<bool>(), 1..9)) {
        let mut sample = sample;
        for (at, block) in sample.blocks.iter_mut().enumerate() {
            // Requests shorter than their chunks, none of them by less than a chunk's unit.
            block.size -= (at as u64 % 16).min(block.size);
            if older[at % older.len()] && at % 3 == 0 {
                block.origin = OriginId::UNSEEN;
            }
        }
        let other = |number: u64, kind, resident_bytes| {
            let start = 0x1_0000 * number;
            Region { range: start..start + 0x1_0000, kind, resident_bytes, swapped_bytes: 0, resident: Vec::new() }
        };
        let buffer = Region {
            resident: std::iter::once(0x5_1000..0x5_3000).collect(),
            ..other(5, RegionKind::Anonymous, 0x2000)
        };
        let regions = [
            other(1, RegionKind::File, 0x3000),
            other(2, RegionKind::File, 0x4000),
            other(3, RegionKind::Stack, 0x1000),
            other(4, RegionKind::Other, 0x2000),
            buffer,
            other(6, RegionKind::Memfrag, 0x3000),
        ];
        sample.residency.regions.splice(0..0, regions);
        let pages = ResidentPages::new(&sample.residency);
        let trimmed = trimmed(&sample);
        let mut expected = Parts::default();
        let mut untouched: u64 = sample.blocks.iter().filter(|b| b.origin != OriginId::UNSEEN).map(|b| b.size).sum();
        for (start, end, line) in paint(&sample) {
            for page in (start & !(PAGE - 1)..end).step_by(PAGE as usize).filter(|&page| pages.holds(page)) {
                let bytes = end.min(page + PAGE) - start.max(page);
                *(if trimmed.holds(page) { &mut expected.free_pages } else { line(&mut expected) }) += bytes;
            }
        }
        untouched -= expected.requested;
        let census = Census::new(&sample.layout, &sample.blocks, &sample.residency, Source::Walk);
        let ledger = Ledger::new(&census, &sample.residency, None);
        prop_assert_eq!(ledger.malloc(), expected);
        prop_assert_eq!(ledger.untouched, untouched);
        let heap = sample.residency.regions.iter().find(|region| region.kind == RegionKind::Heap).expect("made so");
        let top = sample.layout.arenas[0].segments[0].range.end;
        let foreign = pages.bytes_in(top..heap.range.end);
        let anonymous = 0x2000 + foreign;
        let not_malloc = NotMalloc { files: 0x7000, stacks: 0x1000, anonymous, other: 0x2000, memfrag: 0x3000 };
        prop_assert_eq!(ledger.not_malloc, not_malloc);
        prop_assert_eq!(ledger.unexplained(), 0);
        prop_assert_eq!(ledger.rss, sample.residency.resident_bytes());
        let off = Ledger::new(&census, &sample.residency, Some(ledger.rss + 4096));
        prop_assert_eq!(off.unexplained(), 4096);
    }

    /// Whatever blocks and pages there are, with a layout made from them or none at all, all lines add up.
    #[test]
    fn any_blocks_add_up(
        blocks in prop::collection::btree_map(0..0x60_000_u64, 0..0x3000_u64, 0..60),
        present in prop::collection::vec(any::<bool>(), 0x60),
    ) {
        let blocks: Vec<Block> = blocks
            .into_iter()
            .map(|(offset, size)| Block { addr: 0x1000 + offset, size, time: 0, thread: 1, origin: OriginId::new(0) })
            .collect();
        let region = |start: u64, end: u64, kind| {
            let pages = (start..end).step_by(PAGE as usize).filter(|page| present[(page / PAGE) as usize % 0x60]);
            let resident: Vec<_> = pages.map(|page| page..page + PAGE).collect();
            let resident_bytes = resident.len() as u64 * PAGE;
            Region { range: start..end, kind, resident_bytes, swapped_bytes: 0, resident }
        };
        let regions = vec![
            region(0x1000, 0x2_0000, RegionKind::Heap),
            region(0x2_0000, 0x3_0000, RegionKind::Anonymous),
            region(0x4_0000, 0x5_0000, RegionKind::Anonymous),
        ];
        let residency = Residency { time: 0, pid: 1, regions };
        let layout: Layout = reconstruct::layout(&blocks, &residency);
        for census in [Census::new(&layout, &blocks, &residency, Source::Blocks), Census::bare(&blocks, &residency)] {
            let ledger = Ledger::new(&census, &residency, None);
            prop_assert_eq!(ledger.unexplained(), 0, "{:?}", ledger);
        }
    }
}
