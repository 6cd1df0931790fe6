//! What a checkpoint costs: bytes and time to save the state of heaps with many live blocks, and to restore it; and what
//! it spares: opening a recording at its end, and going from there to a moment where nobody has been, with and without.
//!
//! `MEMFRAG_BENCH_EVENTS` says how many events the recording has, 20 million unless it is set;
//! `MEMFRAG_BENCH_LIVE` how many blocks are live, 100,000 unless it is set.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a bench has nobody to report errors to")]
#![allow(clippy::print_stdout, reason = "bytes are a result, and criterion tells times")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memfrag::capture::Sink;
use memfrag::recording::{Header, Reader, Writer};
use memfrag::report::{RecordingMeta, ReportBuilder, checkpoint};
use memfrag::server::player::{Command, Player, State};
use memfrag::server::source::Source;
use memfrag_common::{Event, Function, Op};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// First all blocks are allocated, then one after the other is freed and allocated again, nine times in ten one of the
/// newest hundredth. Sizes, call sites and times are as mixed as in real programs.
fn perform(events: u64, live: u64, mut take: impl FnMut(&[Event])) {
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let mut batch = Vec::new();
    let mut pending = None;
    let mut time = 0;
    for at in 0..events {
        time += 50 + numbers.below(200);
        let addr = |slot: u64| 0x5555_0000_0010 + slot * 208;
        let slot = if at < live { Some(at) } else { pending.take() };
        let op = if let Some(slot) = slot {
            let size = 1 + numbers.below(200);
            let caller = 0x1000 + numbers.below(500) * 16;
            Op::Alloc { function: Function::Malloc, align_log2: 0, addr: addr(slot), size, site: caller, stack: 0 }
        } else {
            let bound = if numbers.below(10) > 0 { live / 100 } else { live };
            let slot = numbers.below(bound);
            pending = Some(slot);
            Op::Free { function: Function::Free, addr: addr(slot), size: 0, site: 0 }
        };
        batch.push(Event { time, pid: 100, tid: 100 + (at / 1000 % 8) as u32, op });
        if batch.len() == 8192 {
            take(&batch);
            batch.clear();
        }
    }
    take(&batch);
}

fn record(path: &Path, events: u64, live: u64, checkpoints: bool) {
    let mut writer = Writer::create(path, &Header::default()).unwrap();
    let ended = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        let making = checkpoints.then(|| {
            let (mut parts, mut out) = std::io::pipe().unwrap();
            let (ended, taker) = (&ended, writer.checkpoints());
            scope.spawn(move || taker.pass_on(&mut parts).unwrap());
            scope.spawn(move || checkpoint::make(File::open(path).unwrap(), path, ended, &mut out).unwrap())
        });
        perform(events, live, |events| writer.events(events));
        writer.flush();
        ended.store(true, Ordering::Relaxed);
        making.map(|making| making.join().unwrap())
    });
    let summary = writer.finish(u64::MAX >> 1, None).unwrap();
    println!("{} events in {} bytes, {made:?}", summary.events, summary.bytes);
}

fn arrive(player: &mut Player, wanted: State) {
    while player.status().state != wanted || player.status().behind {
        let begun = Instant::now();
        let _ = player.advance(Duration::ZERO, &mut || begun.elapsed() < Duration::from_millis(5));
    }
}

fn open(path: &Path) -> Player {
    let mut player = Player::new(Source::open(path).unwrap());
    arrive(&mut player, State::Ended);
    player
}

/// How long the first seek takes to each of seven moments, evenly spread, of a recording that was just opened; the mean.
fn seek(path: &Path, last: u64) -> Duration {
    let seek = |part| {
        let mut player = open(path);
        let begun = Instant::now();
        player.command(Command::Seek { at_ns: last / 8 * part }, Duration::ZERO);
        arrive(&mut player, State::Paused);
        begun.elapsed()
    };
    (1..8).map(seek).sum::<Duration>() / 7
}

fn checkpoints(c: &mut Criterion) {
    let (events, live) = (setting("MEMFRAG_BENCH_EVENTS", 20_000_000), setting("MEMFRAG_BENCH_LIVE", 100_000));
    let mut group = c.benchmark_group("checkpoint");
    group.sample_size(10);

    let mut builder = ReportBuilder::new(None);
    builder.count_lifetimes();
    perform(live * 2, live, |events| builder.events(events));
    let state = builder.save().unwrap();
    println!("{live} live blocks in {} bytes", state.len());
    group.throughput(Throughput::Elements(live));
    group.bench_function("save", |b| b.iter(|| builder.save().unwrap().len()));
    group.bench_function("load", |b| b.iter(|| ReportBuilder::load(&state).unwrap()));
    drop((builder, state));

    let dir = tempfile::tempdir().unwrap();
    let (with, without) = (dir.path().join("with.mfrag"), dir.path().join("without.mfrag"));
    record(&with, events, live, true);
    record(&without, events, live, false);
    group.throughput(Throughput::Elements(events));
    group.bench_function("open with", |b| b.iter(|| open(&with)));
    group.bench_function("open without", |b| b.iter(|| open(&without)));
    let reader = Reader::open(&with).unwrap();
    if let Some(last) = reader.checkpoints_before(u64::MAX, u64::MAX).next() {
        let restored = checkpoint::restore(&reader, &last).unwrap();
        let report = restored.report(RecordingMeta::default());
        println!("the last one is of event {}, {} before", last.mark().event(), report.events.total);
        let end = last.mark().latest();
        println!("a first seek takes {:?} with, {:?} without", seek(&with, end), seek(&without, end));
    }
    group.finish();
}

criterion_group!(benches, checkpoints);
criterion_main!(benches);
