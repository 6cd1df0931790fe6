//! How long drawing the map of a large heap takes, and what it costs that somebody watches.
//!
//! The heap has ten million blocks on 1.3 million pages. A view is what fills a screen at one page a pixel; `busy` is
//! what a million events a second, all over the heap, leave for each of thirty frames.

#![allow(clippy::print_stdout, reason = "rates are results, and criterion has no place for them")]

use criterion::{BatchSize, BenchmarkId, Criterion};
use memfrag::analysis::regions::regions;
use memfrag::heap::{Footprint, Heap, Heaps};
use memfrag::server::tiles::{Canvas, Level, Mode, ViewRequest};
use memfrag::target::residency::{Region, RegionKind};
use memfrag::target::{ProcessInfo, Residency};
use memfrag_common::{Event, Function, Op};
use std::hint::black_box;
use std::time::{Duration, Instant};

const LIVE: u64 = 10_000_000;
const START: u64 = 0x5555_0000_0000;
/// Events between two frames.
const BUSY: u64 = 33_000;
/// Time enough for anything.
const AMPLE: Duration = Duration::from_mins(1);
/// What a server gives a frame.
const BUDGET: Duration = Duration::from_millis(10);

const MODES: [Mode; 7] = [Mode::Occupancy, Mode::Heat, Mode::Age, Mode::Resident, Mode::Site, Mode::Thread, Mode::Size];

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

/// Block `slot`: its address and requested size, 526 bytes a block with what glibc adds.
fn place(slot: u64) -> (u64, u64) {
    const SIZES: [u64; 8] = [24, 40, 104, 232, 488, 1000, 56, 2200];
    const ROUND: u64 = 32 + 48 + 112 + 240 + 496 + 1008 + 64 + 2208;
    let before: u64 = SIZES[..(slot % 8) as usize].iter().map(|size| size + 8).sum();
    (START + 0x10 + slot / 8 * ROUND + before, SIZES[(slot % 8) as usize])
}

fn alloc(time: u64, slot: u64) -> Event {
    let (addr, size) = place(slot);
    let hash = slot.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let caller = 0x5555_1000 + hash % 500 * 16;
    let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: caller, stack: 0 };
    Event { time, pid: 100, tid: 100 + (hash % 8) as u32, op }
}

fn free(time: u64, slot: u64) -> Event {
    Event { time, pid: 100, tid: 100, op: Op::Free { function: Function::Free, addr: place(slot).0, size: 0, site: 0 } }
}

/// Frees and allocations all over the heap that leave it as they found it.
fn churn(random: &mut Random, time: u64, events: u64) -> Vec<Event> {
    let mut slots: Vec<u64> = (0..events / 2).map(|_| random.below(LIVE)).collect();
    slots.sort_unstable();
    slots.dedup();
    let mut shuffled = slots.clone();
    for at in (1..shuffled.len()).rev() {
        shuffled.swap(at, random.below(at as u64 + 1) as usize);
    }
    shuffled.iter().flat_map(|&slot| [free(time, slot), alloc(time, slot)]).collect()
}

fn filled() -> Heaps {
    let mut heaps = Heaps::default();
    heaps.learn(&ProcessInfo { pid: 100, ..ProcessInfo::default() });
    heaps.set_footprint(0, Footprint::Glibc);
    let mut batch = Vec::with_capacity(8192);
    for slot in 0..LIVE {
        batch.push(alloc(slot * 100, slot));
        if batch.len() == 8192 || slot + 1 == LIVE {
            heaps.apply_all(&batch);
            batch.clear();
        }
    }
    heaps
}

fn heap(heaps: &Heaps) -> &Heap {
    heaps.heap(&heaps.processes()[0])
}

/// Nine pages in ten are resident.
fn look() -> Residency {
    let end = place(LIVE).0.next_multiple_of(4096);
    let runs = (START..end).step_by(0xa000).map(|run| run..(run + 0x9000).min(end)).collect();
    let region =
        Region { range: START..end, kind: RegionKind::Heap, resident_bytes: 0, swapped_bytes: 0, resident: runs };
    Residency { time: 1, pid: 100, regions: vec![region] }
}

/// The whole heap at a level, or 375 tiles of it.
fn view(mode: Mode, level: i8) -> ViewRequest {
    let level = Level::new(level).expect("a level");
    let tile = level.cell_bytes() * 4096;
    let (first, last) = (START / tile, place(LIVE).0 / tile);
    ViewRequest { view: 1, mode, level, tiles: vec![(first, (last - first + 1).min(375) as u32)] }
}

/// Asks for frames until all was sent; gives how many and the longest.
fn settle(canvas: &mut Canvas, heap: &Heap, look: &Residency, now: u64, budget: Duration) -> (u32, Duration) {
    let (mut frames, mut longest) = (0, Duration::ZERO);
    loop {
        let start = Instant::now();
        black_box(canvas.frame(heap, Some(look), now, budget));
        longest = longest.max(start.elapsed());
        frames += 1;
        if canvas.is_settled() {
            return (frames, longest);
        }
    }
}

/// Events a second, each batch taken at the best of several passes.
fn at_best(heaps: &mut Heaps, events: &[Event]) -> f64 {
    let mut best = vec![Duration::MAX; events.len().div_ceil(8192)];
    for _ in 0..8 {
        for (best, batch) in best.iter_mut().zip(events.chunks(8192)) {
            let start = Instant::now();
            heaps.apply_all(black_box(batch));
            *best = start.elapsed().min(*best);
        }
    }
    events.len() as f64 / best.iter().sum::<Duration>().as_secs_f64() / 1e6
}

fn watch(heaps: &mut Heaps, random: &mut Random) {
    let events = churn(random, LIVE * 100, 1_000_000);
    let before = heaps.memory_bytes();
    println!("not watched: {:.1} M events/s all over the heap", at_best(heaps, &events));
    let start = Instant::now();
    heaps.watch(0);
    println!("a watch begins within {:.0?}", start.elapsed());
    println!("watched: {:.1} M events/s, {} MiB more", at_best(heaps, &events), (heaps.memory_bytes() - before) >> 20);
    println!("{} pages in use", heap(heaps).pages().in_use());
}

fn draw(criterion: &mut Criterion, heaps: &mut Heaps, random: &mut Random) {
    let look = look();
    let now = LIVE * 100 + 1_000_000_000;
    let mut group = criterion.benchmark_group("tiles");
    group.sample_size(10);
    for level in [0, 6] {
        for mode in MODES {
            let id = format!("{}/{level}", mode.name());
            group.bench_function(BenchmarkId::new("whole view", &id), |bencher| {
                bencher.iter_batched_ref(
                    || {
                        let mut canvas = Canvas::new();
                        canvas.set_view(&view(mode, level)).expect("a view");
                        canvas
                    },
                    |canvas| settle(canvas, heap(heaps), &look, now, AMPLE),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    for (level, mode) in
        [(0, Mode::Occupancy), (0, Mode::Heat), (6, Mode::Occupancy), (0, Mode::Site), (-2, Mode::Site)]
    {
        let id = format!("{}/{level}", mode.name());
        let mut canvas = Canvas::new();
        canvas.set_view(&view(mode, level)).expect("a view");
        let (frames, longest) = settle(&mut canvas, heap(heaps), &look, now, BUDGET);
        println!("{id}: a new view in {frames} frames of at most {longest:.1?}");
        let mut time = now;
        let mut one = |what: &str, events: &mut dyn FnMut(u64) -> Vec<Event>| {
            let mut took: Vec<Duration> = Vec::new();
            for _ in 0..20 {
                time += 33_000_000;
                heaps.apply_all(&events(time));
                let start = Instant::now();
                black_box(canvas.frame(heap(heaps), Some(&look), time, BUDGET));
                took.push(start.elapsed());
                settle(&mut canvas, heap(heaps), &look, time, AMPLE);
            }
            took.sort_unstable();
            println!("{id}: a frame after {what}: {:.2?}, at most {:.2?}", took[10], took[19]);
        };
        one("events on 40 tiles", &mut |time| {
            let slots = (0..40).map(|tile| tile * (16 << 20) / 526 + random.below(20_000));
            slots.flat_map(|slot| [free(time, slot), alloc(time, slot)]).collect()
        });
        one("33,000 events all over", &mut |time| churn(random, time, BUSY));
    }
    group.bench_function("regions", |bencher| bencher.iter(|| regions(heap(heaps), Some(&look))));
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut heaps = filled();
    watch(&mut heaps, &mut random);
    draw(&mut criterion, &mut heaps, &mut random);
    criterion.final_summary();
}
