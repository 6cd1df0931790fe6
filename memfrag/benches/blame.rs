//! How long it takes to rank all call sites of a heap, from its state to the ranking, and to fill its ledger.

use criterion::{BenchmarkId, Criterion, Throughput};
use memfrag::analysis::census::{Census, Source};
use memfrag::analysis::partition::Facts;
use memfrag::analysis::{By, Ledger, Partition, ResidentPages, blame, reconstruct};
use memfrag::glibc::Layout;
use memfrag::heap::{Block, Heap, Heaps, Origin, OriginId};
use memfrag::target::Residency;
use memfrag::target::residency::{Region, RegionKind};
use memfrag_common::{Event, Function, Op};
use std::hint::black_box;

const START: u64 = 0x5555_0000_0000;
const SITES: u64 = 500;

/// Blocks of 24 to 232 bytes, of which one in eight is gone; each of the call sites has its share everywhere.
fn filled(live: u64) -> (Heaps, Residency) {
    const SIZES: [u64; 8] = [24, 40, 24, 56, 104, 24, 232, 40];
    let mut heaps = Heaps::default();
    let mut at = START + 0x2a0;
    for number in 0..live * 8 / 7 {
        let size = SIZES[(number % 8) as usize];
        if number.wrapping_mul(0x9e37_79b9) >> 7 & 7 != 0 {
            let caller = 0x5555_1000 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % SITES * 16;
            let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr: at, size, site: caller, stack: 0 };
            heaps.apply(&Event { time: number, pid: 100, tid: 100, op });
        }
        at += size + 8;
    }
    let end = at.next_multiple_of(4096) + 0x2_0000;
    // Nine pages in ten are resident.
    let runs = (START..end).step_by(0xa000).map(|run| run..(run + 0x9000).min(end)).collect();
    let region =
        Region { range: START..end, kind: RegionKind::Heap, resident_bytes: 0, swapped_bytes: 0, resident: runs };
    (heaps, Residency { time: live, pid: 100, regions: vec![region] })
}

struct Origins<'a>(&'a Heap);

impl Facts for Origins<'_> {
    fn origin(&self, id: OriginId) -> Option<&Origin> {
        self.0.origin(id)
    }

    fn module(&self, _: u64) -> Option<String> {
        None
    }
}

fn ranked(heap: &Heap, blocks: &[Block], layout: &Layout, residency: &Residency) -> blame::Blame {
    let census = Census::new(layout, blocks, residency, Source::Blocks);
    let partition = Partition::new(By::Site, blocks, residency.time, &Origins(heap));
    blame::blame(&census, &ResidentPages::new(residency), &partition)
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("blame");
    for live in [100_000, 10_000_000] {
        let (mut heaps, residency) = filled(live);
        let snapshot = heaps.snapshot(100).expect("it runs");
        let heap = heaps.heap(&heaps.processes()[0]);
        let blocks = snapshot.sorted();
        let layout = reconstruct::layout(&blocks, &residency);
        let found = ranked(heap, &blocks, &layout, &residency);
        assert!(found.shares.len() as u64 >= SITES && found.stuck_bytes > 0, "{} owners", found.shares.len());
        group.sample_size(10).throughput(Throughput::Elements(blocks.len() as u64));
        group.bench_function(BenchmarkId::new("in-order", live), |bencher| {
            bencher.iter(|| black_box(snapshot.sorted()));
        });
        group.bench_function(BenchmarkId::new("layout", live), |bencher| {
            bencher.iter(|| black_box(reconstruct::layout(&blocks, &residency)));
        });
        group.bench_function(BenchmarkId::new("rank", live), |bencher| {
            bencher.iter(|| black_box(ranked(heap, &blocks, &layout, &residency)));
        });
        group.bench_function(BenchmarkId::new("ledger", live), |bencher| {
            bencher.iter(|| {
                black_box(Ledger::new(&Census::new(&layout, &blocks, &residency, Source::Blocks), &residency, None))
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
