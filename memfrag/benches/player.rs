//! How fast a recording is gone through the first time, and how long it takes then to stand at any moment of it.
//!
//! `MEMFRAG_BENCH_EVENTS` says how many events the recording has, 20 million unless it is set;
//! `MEMFRAG_BENCH_LIVE` how many blocks are live in it, 100,000 unless it is set.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a bench has nobody to report errors to")]
#![allow(clippy::print_stdout, reason = "the longest of all is a result, and criterion tells the mean")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memfrag::capture::Sink;
use memfrag::recording::{Header, Writer};
use memfrag::server::player::{Command, Player, State};
use memfrag::server::source::Source;
use memfrag_common::{Event, Function, Op};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// Blocks of 200 bytes: first all are allocated, then one after the other is freed and allocated again, nine times in
/// ten one of the newest hundredth.
fn record(path: &Path, events: u64, live: u64) {
    let mut writer = Writer::create(path, &Header::default()).unwrap();
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let mut batch = Vec::new();
    let mut pending = None;
    for at in 0..events {
        let alloc = |slot: u64| {
            let (function, addr) = (Function::Malloc, 0x5555_0000_0010 + slot * 208);
            Op::Alloc { function, align_log2: 0, addr, size: 200, site: 0x1000 + slot % 500 * 16, stack: 0 }
        };
        let op = match pending.take() {
            _ if at < live => alloc(at),
            Some(slot) => alloc(slot),
            None => {
                let bound = if numbers.below(10) > 0 { live / 100 } else { live };
                let slot = numbers.below(bound);
                pending = Some(slot);
                Op::Free { function: Function::Free, addr: 0x5555_0000_0010 + slot * 208, size: 0, site: 0 }
            }
        };
        batch.push(Event { time: at * 100, pid: 100, tid: 100, op });
        if batch.len() == 8192 {
            writer.events(&batch);
            batch.clear();
        }
    }
    writer.events(&batch);
    writer.finish(events * 100, None).unwrap();
}

fn arrive(player: &mut Player, state: State) {
    while player.status().state != state {
        let begun = Instant::now();
        let _ = player.advance(Duration::ZERO, &mut || begun.elapsed() < Duration::from_millis(5));
    }
}

fn players(c: &mut Criterion) {
    let (events, live) = (setting("MEMFRAG_BENCH_EVENTS", 20_000_000), setting("MEMFRAG_BENCH_LIVE", 100_000));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    record(&path, events, live);
    let mut group = c.benchmark_group("player");
    group.sample_size(10);
    group.throughput(Throughput::Elements(events));
    group.bench_function("first", |b| {
        b.iter(|| arrive(&mut Player::new(Source::open(&path).unwrap()), State::Ended));
    });
    let source = Source::open(&path).unwrap();
    let mut player = Player::new(Arc::clone(&source));
    arrive(&mut player, State::Ended);
    let mut numbers = Numbers(42);
    let mut longest = Duration::ZERO;
    group.throughput(Throughput::Elements(1));
    group.bench_function("seek", |b| {
        b.iter(|| {
            let begun = Instant::now();
            player.command(Command::Seek { at_ns: numbers.below(events * 100) }, Duration::ZERO);
            arrive(&mut player, State::Paused);
            longest = longest.max(begun.elapsed());
        });
    });
    group.bench_function("step back", |b| {
        b.iter(|| {
            player.command(Command::Step { events: -1 }, Duration::ZERO);
            arrive(&mut player, State::Paused);
        });
    });
    group.finish();
    println!("the longest seek took {longest:?}");
}

criterion_group!(benches, players);
criterion_main!(benches);
