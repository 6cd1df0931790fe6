//! What blocks cost in an arena, beside the system's allocator; and events a second of the models, at 100,000 live blocks
//! of 16 to 500 bytes.
//!
//! `random` replaces any block with equal chance, `young` nine times in ten one of the newest hundredth.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use memfrag::arena::{Arena, FreeList};
use memfrag::glibc::Version;
use memfrag::model::{BlockId, CHOICES, Caller, Choice, Lifetimes, ModelHeap, Policy, Request, Setting};
use memfrag_common::{Event, Function, Op};
use std::alloc::{GlobalAlloc as _, Layout, System};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

/// Live blocks.
const LIVE: u64 = 100_000;
/// Blocks that are replaced each time.
const REPLACED: u64 = 250_000;

/// A small generator of numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }

    fn size(&mut self) -> u64 {
        16 + self.below(16) * self.below(32)
    }
}

/// Which slot gets a block of which size instead of its own.
fn replacements(young: bool) -> Vec<(u64, u64)> {
    let mut random = Random(0x1234_5678_9abc_def1);
    let of =
        |random: &mut Random| if young && random.below(10) > 0 { random.below(LIVE / 100) } else { random.below(LIVE) };
    (0..REPLACED).map(|_| (of(&mut random), random.size())).collect()
}

/// Anything that gives out blocks by a handle.
trait Heap {
    type Block: Copy;
    fn allocate(&mut self, size: u64) -> Self::Block;
    fn free(&mut self, block: Self::Block, size: u64);
}

fn measure<H: Heap>(criterion: &mut Criterion, name: &str, mut heap: H) {
    let mut group = criterion.benchmark_group("arena");
    group.throughput(Throughput::Elements(REPLACED * 2));
    group.sample_size(10);
    let mut random = Random(7);
    let mut slots: Vec<(H::Block, u64)> = Vec::new();
    for _ in 0..LIVE {
        let size = random.size();
        slots.push((heap.allocate(size), size));
    }
    for (kind, young) in [("random", false), ("young", true)] {
        let replacements = replacements(young);
        group.bench_function(BenchmarkId::new(name, kind), |bencher| {
            bencher.iter(|| {
                for &(slot, size) in black_box(&replacements) {
                    let (block, before) = slots[slot as usize];
                    heap.free(block, before);
                    slots[slot as usize] = (heap.allocate(size), size);
                }
            });
        });
    }
    for (block, size) in slots {
        heap.free(block, size);
    }
    group.finish();
}

struct Plain(FreeList);

impl Heap for Plain {
    type Block = u64;

    fn allocate(&mut self, size: u64) -> u64 {
        self.0.allocate(size, 16).expect("there is room")
    }

    fn free(&mut self, block: u64, size: u64) {
        self.0.release(block, size).expect("it is live");
    }
}

struct InArena(Arena);

impl Heap for InArena {
    type Block = NonNull<u8>;

    fn allocate(&mut self, size: u64) -> NonNull<u8> {
        self.0.allocate(size as usize, 16, "").expect("there is room").cast()
    }

    fn free(&mut self, block: NonNull<u8>, _: u64) {
        // SAFETY: nobody uses the block any more.
        unsafe { self.0.deallocate(block) }.expect("it is live");
    }
}

struct OfTheSystem;

impl OfTheSystem {
    fn layout(size: u64) -> Layout {
        Layout::from_size_align(size as usize, 16).expect("a small size")
    }
}

impl Heap for OfTheSystem {
    type Block = *mut u8;

    fn allocate(&mut self, size: u64) -> *mut u8 {
        // SAFETY: sizes are above 0.
        unsafe { System.alloc(Self::layout(size)) }
    }

    fn free(&mut self, block: *mut u8, size: u64) {
        // SAFETY: allocated with this layout, and nobody uses it any more.
        unsafe { System.dealloc(block, Self::layout(size)) };
    }
}

/// The events of replacing blocks, after those that fill the heap: addresses are those that glibc 2.36 gives.
fn events(young: bool) -> (Vec<Event>, Vec<Event>) {
    let mut glibc = Choice::find("default").and_then(|choice| choice.make(&setting())).expect("known");
    let caller = Caller { thread: 1, ..Caller::default() };
    let event = |op| Event { time: 0, pid: 1, tid: 1, op };
    let function = Function::Malloc;
    let mut addrs = vec![0; LIVE as usize];
    let allocate = |glibc: &mut dyn Policy, addrs: &mut [u64], slot: u64, size: u64| {
        let request = Request { size, align_log2: 0, function };
        let addr = glibc.allocate(&caller, BlockId(slot as u32), &request, 0).expect("served");
        addrs[slot as usize] = addr;
        event(Op::Alloc { function, align_log2: 0, addr, size, site: 0, stack: 0 })
    };
    let mut random = Random(7);
    let filled = (0..LIVE).map(|slot| allocate(glibc.as_mut(), &mut addrs, slot, random.size())).collect();
    let mut replaced = Vec::new();
    for (slot, size) in replacements(young) {
        let addr = addrs[slot as usize];
        glibc.free(&caller, BlockId(slot as u32));
        replaced.push(event(Op::Free { function: Function::Free, addr, size: 0, site: 0 }));
        replaced.push(allocate(glibc.as_mut(), &mut addrs, slot, size));
    }
    (filled, replaced)
}

fn setting() -> Setting {
    Setting {
        version: Version { major: 2, minor: 36 },
        arena_max: 8,
        environment: Vec::new(),
        lifetimes: Lifetimes::default(),
    }
}

fn models(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("model");
    group.sample_size(10);
    for (kind, young) in [("random", false), ("young", true)] {
        let (filled, replaced) = events(young);
        group.throughput(Throughput::Elements(replaced.len() as u64));
        // The settings of glibc take as long as its default.
        for choice in CHOICES.iter().filter(|choice| choice.environment.is_none()) {
            let mut heap = ModelHeap::new(vec![choice.make(&setting()).expect("known")]);
            heap.apply_all(&filled);
            group.bench_function(BenchmarkId::new(choice.name, kind), |bencher| {
                let run = |mut heap: ModelHeap| {
                    heap.apply_all(black_box(&replaced));
                    heap
                };
                bencher.iter_batched(|| heap.fork(), run, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    measure(&mut criterion, "free-list", Plain(FreeList::new(0..1 << 32)));
    measure(&mut criterion, "arena", InArena(Arena::new(128 << 20).expect("memory")));
    let watched = Arena::new(128 << 20).expect("memory");
    let seen = Arc::new(Mutex::new(Vec::new()));
    watched.observe(Some(Box::new(move |event| {
        // As long as a recorder would keep them.
        let mut seen = seen.lock().expect("alone");
        if seen.len() == 4096 {
            seen.clear();
        }
        seen.push(*event);
    })));
    measure(&mut criterion, "arena, watched", InArena(watched));
    measure(&mut criterion, "system", OfTheSystem);
    models(&mut criterion);
    criterion.final_summary();
}
