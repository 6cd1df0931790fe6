//! How fast heaps are rebuilt from events, pages included, and what a live block costs in memory.
//!
//! `random` frees any block with equal chance, which no program does but which shows the worst of the caches;
//! `young` frees nine times in ten one of the newest hundredth, as most programs do.

#![allow(clippy::print_stdout, reason = "memory per block is a result, and criterion has no place for it")]

use criterion::{BenchmarkId, Criterion, Throughput};
use memfrag::heap::{Footprint, Heaps};
use memfrag::target::ProcessInfo;
use memfrag_common::{Event, Function, Op};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Events that are applied at once.
const BATCH: usize = 8192;

/// A small generator of numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }
}

/// Block `slot` of a heap of mixed sizes, 16 to 240 bytes, laid out without gaps: its address and requested size.
fn place(slot: u64) -> (u64, u64) {
    const SIZES: [u64; 8] = [24, 40, 24, 56, 104, 24, 232, 40];
    const ROUND: u64 = 32 + 48 + 32 + 64 + 112 + 32 + 240 + 48;
    let before: u64 = SIZES[..(slot % 8) as usize].iter().map(|size| size + 8).sum();
    (0x5555_0000_0010 + slot / 8 * ROUND + before, SIZES[(slot % 8) as usize])
}

fn alloc(time: u64, slot: u64) -> Event {
    let (addr, size) = place(slot);
    let caller = 0x5555_1000 + (slot.wrapping_mul(0x9e37_79b9) >> 8) % 500 * 16;
    let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: caller, stack: 0 };
    Event { time, pid: 100, tid: 100, op }
}

fn free(time: u64, slot: u64) -> Event {
    Event { time, pid: 100, tid: 100, op: Op::Free { function: Function::Free, addr: place(slot).0, size: 0, site: 0 } }
}

/// Frees and allocations that leave all `live` slots as they found them, so that they can be run again and again.
fn churn(live: u64, pairs: u64, young: bool) -> Vec<Event> {
    const WINDOW: usize = 64;
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut freed = std::collections::VecDeque::new();
    let mut events = Vec::with_capacity(pairs as usize * 2);
    for time in 0..pairs {
        let slot = loop {
            let slot = if young && random.below(10) > 0 { random.below(live / 100) } else { random.below(live) };
            if !freed.contains(&slot) {
                break slot;
            }
        };
        events.push(free(time * 100, slot));
        freed.push_back(slot);
        if freed.len() > WINDOW {
            events.push(alloc(time * 100, freed.pop_front().expect("not empty")));
        }
    }
    events.extend(freed.into_iter().map(|slot| alloc(pairs * 100, slot)));
    events
}

fn filled(live: u64) -> Heaps {
    let mut heaps = Heaps::default();
    heaps.learn(&ProcessInfo { pid: 100, ..ProcessInfo::default() });
    heaps.set_footprint(0, Footprint::Glibc);
    let mut batch = Vec::with_capacity(BATCH);
    for slot in 0..live {
        batch.push(alloc(slot, slot));
        if batch.len() == BATCH || slot + 1 == live {
            heaps.apply_all(&batch);
            batch.clear();
        }
    }
    heaps
}

/// Events a second, each batch taken at the best of several passes: what the machine does while nothing else runs.
fn at_best(heaps: &mut Heaps, events: &[Event]) -> f64 {
    let mut best = vec![Duration::MAX; events.len().div_ceil(BATCH)];
    for _ in 0..20 {
        for (best, batch) in best.iter_mut().zip(events.chunks(BATCH)) {
            let start = Instant::now();
            heaps.apply_all(black_box(batch));
            *best = start.elapsed().min(*best);
        }
    }
    events.len() as f64 / best.iter().sum::<Duration>().as_secs_f64()
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("heap/apply");
    for live in [100_000, 10_000_000] {
        let mut heaps = filled(live);
        let bytes = heaps.memory_bytes() as f64 / live as f64;
        println!("{live} live blocks: {bytes:.1} B of memory a block, pages included");
        for (name, young) in [("random", false), ("young", true)] {
            let events = churn(live, 500_000, young);
            group.throughput(Throughput::Elements(events.len() as u64));
            group.sample_size(10);
            group.bench_function(BenchmarkId::new(name, live), |bencher| {
                bencher.iter(|| heaps.apply_all(black_box(&events)));
            });
            println!("{live} live blocks, {name}: {:.1} M events/s at best", at_best(&mut heaps, &events) / 1e6);
        }
        let blocks = heaps.heap(&heaps.processes()[0]).blocks();
        let (start, mut last) = (Instant::now(), 0);
        for block in blocks.by_address() {
            assert!(block.addr > last, "in order");
            last = block.addr;
        }
        println!("{live} live blocks: read in order of their addresses in {:.0?}", start.elapsed());
        assert_eq!(heaps.heap(&heaps.processes()[0]).live().blocks, live, "the churn left nothing behind");
    }
    group.finish();
}

fn fork(criterion: &mut Criterion) {
    let mut heaps = filled(10_000_000);
    let mut child = 1000;
    criterion.bench_function("heap/fork/10000000", |bencher| {
        bencher.iter(|| {
            child += 1;
            heaps.apply(&Event { time: 1 << 40, pid: 100, tid: 100, op: Op::Fork { child, flags: 17 } });
            // The child lets go of what it inherited; it would be kept for ever otherwise.
            heaps.apply(&Event { time: 1 << 40, pid: child, tid: child, op: Op::Exec });
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    apply(&mut criterion);
    fork(&mut criterion);
    criterion.final_summary();
}
