//! How fast recordings are written and read, and how large they become.
//!
//! The streams imitate a program with glibc's habits: blocks freed are taken again first, new ones lie side by side.
//! Set `MEMFRAG_BENCH_RECORDING` to a recording of a real program to measure with that one as well.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a bench has nobody to report errors to")]
#![allow(clippy::print_stdout, reason = "the size of the recordings is a result")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memfrag::capture::Sink;
use memfrag::recording::{Header, Item, Reader, Writer};
use memfrag_common::{Event, Function, Op};
use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;

struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// A program whose blocks mostly die young.
fn habitual(count: usize) -> Vec<Event> {
    let mut numbers = Numbers(42);
    let mut free: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut live: Vec<(u64, u64)> = Vec::new();
    let (mut time, mut top) = (0, 0x5555_5555_0000);
    (0..count)
        .map(|_| {
            time += 100 + numbers.next(200);
            let caller = 0x5555_0000_0000 + numbers.next(60) * 0x2c;
            let op = if live.len() < 1000 || numbers.next(1000) < 500 {
                let size = [24, 40, 56, 100, 200, 1000][numbers.next(6) as usize] + caller % 3 * 16;
                let room = (size + 8 + 15) & !15;
                let addr = free.get_mut(&room).and_then(Vec::pop).unwrap_or_else(|| {
                    top += room;
                    top - room
                });
                live.push((addr, room));
                Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: caller, stack: 0 }
            } else {
                let young = numbers.next(10) < 8;
                let at = live.len() - 1 - numbers.next(if young { 8 } else { live.len() as u64 }) as usize;
                let (addr, room) = live.remove(at);
                free.entry(room).or_default().push(addr);
                Op::Free { function: Function::Free, addr, size: 0, site: caller }
            };
            Event { time, pid: 1, tid: 1, op }
        })
        .collect()
}

/// No habits at all: any address, size and site, and the threads take turns.
fn random(count: usize) -> Vec<Event> {
    let mut numbers = Numbers(43);
    let mut live = Vec::new();
    let mut time = 0;
    (0..count)
        .map(|_| {
            time += 50 + numbers.next(300);
            let tid = numbers.next(64) as u32;
            let caller = 0x5555_0000_0000 + numbers.next(300) * 0x2c;
            let op = if live.len() < 20_000 || numbers.next(2) == 0 {
                let addr = 0x7f00_0000_0000 + numbers.next(1 << 26) * 16;
                live.push(addr);
                let size = numbers.next(4000);
                Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: caller, stack: 0 }
            } else {
                let addr = live.swap_remove(numbers.next(live.len() as u64) as usize);
                Op::Free { function: Function::Free, addr, size: 0, site: caller }
            };
            Event { time, pid: 1, tid, op }
        })
        .collect()
}

fn events_of(path: &Path) -> Vec<Event> {
    let reader = Reader::open(path).unwrap();
    let mut events = Vec::new();
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        if let Item::Events(some) = item {
            events.extend_from_slice(some);
        }
    }
    events
}

fn write(path: &Path, events: &[Event], behind: bool) -> u64 {
    let mut writer = Writer::create(path, &Header::default()).unwrap();
    writer.behind(behind);
    for events in events.chunks(512) {
        writer.events(events);
    }
    writer.finish(0, None).unwrap().bytes
}

fn recording(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bench.mfrag");
    let mut streams = vec![("habitual", habitual(1 << 20)), ("random", random(1 << 20))];
    if let Some(real) = std::env::var_os("MEMFRAG_BENCH_RECORDING") {
        streams.push(("real", events_of(Path::new(&real))));
    }
    for (name, events) in streams {
        let share = |bytes: u64| bytes as f64 / events.len() as f64;
        let in_haste = write(&path, &events, true);
        let bytes = write(&path, &events, false);
        println!("{name}: {:.3} bytes an event, {:.3} in haste", share(bytes), share(in_haste));
        let mut group = c.benchmark_group(format!("recording/{name}"));
        group.throughput(Throughput::Elements(events.len() as u64)).sample_size(10);
        let in_haste = dir.path().join("in-haste.mfrag");
        group.bench_function("write", |b| b.iter(|| write(&path, black_box(&events), false)));
        group.bench_function("write in haste", |b| b.iter(|| write(&in_haste, black_box(&events), true)));
        let reader = Reader::open(&path).unwrap();
        group.bench_function("read", |b| b.iter(|| black_box(reader.verify().events)));
        group.finish();
    }
}

criterion_group!(benches, recording);
criterion_main!(benches);
