//! Wherever a player was before, what it shows of a time is what a report at that time is made of.

use super::*;
use crate::capture::Sink;
use crate::recording::{Header, Writer};
use crate::report::{RecordingMeta, json};
use crate::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

const SECOND: u64 = 1_000_000_000;

/// What happens next in a program.
#[derive(Clone, Debug)]
enum Step {
    Alloc(u32, u64, u64),
    Free(u32, u64),
    Resize(u32, u64, u64),
    Fork,
    Exec(u32),
    Memory(u64),
    Mappings,
    /// The chunk ends here.
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let tid = || 0..3_u32;
    let at = || 0..40_u64;
    prop_oneof![
        20 => (tid(), at(), 1..5000_u64).prop_map(|(tid, at, size)| Step::Alloc(tid, at, size)),
        16 => (tid(), at()).prop_map(|(tid, at)| Step::Free(tid, at)),
        4 => (tid(), at(), 0..3000_u64).prop_map(|(tid, at, size)| Step::Resize(tid, at, size)),
        1 => Just(Step::Fork),
        1 => tid().prop_map(Step::Exec),
        2 => (1..1000_u64).prop_map(Step::Memory),
        1 => Just(Step::Mappings),
        3 => Just(Step::Flush),
    ]
}

/// Steps with the time since the one before, which may be negative: clocks of different processors do not agree.
fn program() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let wait = prop_oneof![6 => 0..200_000_000_i64, 2 => Just(0), 2 => -150_000_000..0_i64];
    prop::collection::vec((wait, step()), 1..200)
}

fn header() -> Header {
    Header { backend: "ebpf".into(), page_size: 4096, ..Header::default() }
}

fn address(at: u64) -> u64 {
    0x5500_0000_0000 + at * 4096 * 7 + 16
}

/// Gives the program to a sink; `flush` ends a chunk.
fn perform<S: Sink>(program: &[(i64, Step)], sink: &mut S, flush: &mut dyn FnMut(&mut S)) -> u64 {
    let (mut time, mut last, mut pid, mut children) = (SECOND, 0, 100, 0);
    sink.process(&ProcessInfo { pid, comm: "prog".into(), ..ProcessInfo::default() });
    for (wait, step) in program {
        time = time.saturating_add_signed(*wait);
        last = last.max(time);
        let mut events = |tid: u32, ops: &[Op]| {
            sink.events(&ops.iter().map(|&op| Event { time, pid, tid: pid + tid, op }).collect::<Vec<_>>());
        };
        match *step {
            Step::Alloc(tid, at, size) => {
                let function = Function::Malloc;
                let caller = 0x1000 + at;
                events(tid, &[Op::Alloc { function, align_log2: 0, addr: address(at), size, site: caller, stack: 0 }]);
            }
            Step::Free(tid, at) => {
                events(tid, &[Op::Free { function: Function::Free, addr: address(at), size: 0, site: 0 }]);
            }
            Step::Resize(tid, at, size) => {
                let (function, caller) = (Function::Realloc, 0x2000);
                events(tid, &[Op::ReallocBegin { function, old: address(at), size, site: caller }]);
                let addr = address(at + size % 2);
                events(tid, &[Op::ReallocEnd { function, addr, size, site: caller, stack: 0 }]);
            }
            Step::Fork => {
                children += 1;
                events(0, &[Op::Fork { child: 100 + children * 10, flags: 17 }]);
                pid = if children % 2 == 0 { 100 } else { 100 + children * 10 };
            }
            Step::Exec(tid) => events(tid, &[Op::Exec]),
            Step::Memory(rss) => {
                sink.memory(&MemorySample { time, pid, rss, rss_anon: rss, ..MemorySample::default() });
            }
            Step::Mappings => {
                let mapping =
                    Mapping { start: 0x1000, end: 0x2000, path: "/x".into(), executable: true, ..Mapping::default() };
                sink.mappings(time, pid, &[mapping]);
            }
            Step::Flush => flush(sink),
        }
    }
    last
}

/// Adds a checkpoint of every third place between two chunks.
fn make_checkpoints(path: &Path, program: &[(i64, Step)], writer: &mut Writer) {
    let mut all = ReportBuilder::new(None);
    perform(program, &mut all, &mut |_| {});
    writer.flush();
    let mut reader = Reader::follow(File::open(path).unwrap(), path).unwrap();
    while reader.events() < all.event_count() {
        std::thread::sleep(Duration::from_micros(50));
        reader.refresh().unwrap();
    }
    let mut place = Place::new(&reader, Arc::new(crate::report::Names::of(&reader)));
    let mut marks = 0;
    let mut keep = |mark: &Mark, builder: &mut ReportBuilder| {
        marks += 1;
        if marks % 3 == 0 {
            let state = builder.save().expect("it can be saved");
            let mut parts = Vec::new();
            reader.write_checkpoint(mark, &state, &mut parts).unwrap().expect("it is small");
            writer.checkpoints().pass_on(&mut &parts[..]).unwrap();
        }
    };
    while place.run(&reader, &Limit::default(), &mut || true, &mut keep) != Ran::End {}
}

fn record(path: &Path, program: &[(i64, Step)]) {
    record_with(path, program, make_checkpoints);
}

fn record_with(path: &Path, program: &[(i64, Step)], checkpoints: impl Fn(&Path, &[(i64, Step)], &mut Writer)) {
    let mut writer = Writer::create(path, &header()).unwrap();
    writer.set_patience(Duration::MAX);
    let end = perform(program, &mut writer, &mut Writer::flush);
    checkpoints(path, program, &mut writer);
    writer.finish(end, Some(0)).unwrap();
}

/// Everything that a report tells, and every live block.
fn told(builder: &mut ReportBuilder, duration_ns: u64) -> (Value, Vec<crate::heap::Block>) {
    let builder = builder.share();
    let heaps = builder.heaps();
    let blocks = heaps.processes().iter().flat_map(|process| heaps.heap(process).blocks().sorted()).collect();
    let mut bytes = Vec::new();
    json::write(&builder.report(RecordingMeta { duration_ns, ..RecordingMeta::default() }), &mut bytes).unwrap();
    let mut report: Value = serde_json::from_slice(&bytes).unwrap();
    // Only one of the two was told beforehand where to end.
    report["recording"]["at_ns"] = Value::Null;
    (report, blocks)
}

fn expected(program: &[(i64, Step)], time: u64) -> (Value, Vec<crate::heap::Block>) {
    let mut builder = ReportBuilder::new(Some(time));
    perform(program, &mut builder, &mut |_| {});
    told(&mut builder, time)
}

/// Goes on until there is nothing to do. Stops in between for as long as `pieces` says, which must not matter.
fn settle(player: &mut Player, now: Duration, pieces: u32) {
    for _ in 0..100_000 {
        let mut left = pieces;
        let advanced = player.advance(now, &mut || {
            left = left.saturating_sub(1);
            left > 0
        });
        if player.coming.is_some() {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        if advanced.rest != Some(Duration::ZERO) {
            return;
        }
    }
    panic!("never ends: {:?}", player.status());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_time_is_shown_as_a_report_on_it(
        program in program(),
        seeks in prop::collection::vec((0..1000_u64, 0..4_u8, 1..50_i64), 1..12),
        pieces in 1..5_u32,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mfrag");
        record(&path, &program);
        let source = Source::open(&path).unwrap();
        let mut player = Player::new(Arc::clone(&source));
        let end = source.facts().end_ns;
        for (share, before, events) in seeks {
            // Whatever it did before must not be seen.
            match before {
                0 => settle(&mut player, Duration::ZERO, pieces),
                1 => player.command(Command::Step { events: 25 - events }, Duration::ZERO),
                2 => player.command(Command::Play { speed: 0.0 }, Duration::ZERO),
                _ => {
                    player.command(Command::Step { events: 25 - events }, Duration::ZERO);
                    settle(&mut player, Duration::ZERO, pieces);
                }
            }
            let at_ns = end / 1000 * share;
            player.command(Command::Seek { at_ns }, Duration::ZERO);
            settle(&mut player, Duration::ZERO, pieces);
            prop_assert_eq!(player.status().state, State::Paused);
            prop_assert_eq!(player.at_ns(), at_ns);
            let (report, blocks) = told(player.builder_mut(), at_ns);
            let (expected_report, expected_blocks) = expected(&program, at_ns);
            prop_assert_eq!(blocks, expected_blocks);
            prop_assert_eq!(report, expected_report);
        }
        player.command(Command::Stop, Duration::ZERO);
        settle(&mut player, Duration::ZERO, pieces);
        prop_assert_eq!(player.status().state, State::Ended);
        prop_assert_eq!(told(player.builder_mut(), end), expected(&program, end));
    }

    #[test]
    fn steps_lead_to_the_same_places_from_anywhere(
        program in program(),
        steps in prop::collection::vec(-60..60_i64, 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mfrag");
        record(&path, &program);
        let source = Source::open(&path).unwrap();
        let all = source.reader().events();
        let mut player = Player::new(Arc::clone(&source));
        settle(&mut player, Duration::ZERO, 9);
        let mut event = all;
        for step in steps {
            event = event.saturating_add_signed(step).min(all);
            player.command(Command::Step { events: step }, Duration::ZERO);
            settle(&mut player, Duration::ZERO, 9);
            prop_assert_eq!(player.status().events, event);
            prop_assert_eq!(player.builder().event_count(), event);
            let mut fresh = Player::new(Arc::clone(&Source::open(&path).unwrap()));
            fresh.command(Command::Step { events: event.cast_signed() }, Duration::ZERO);
            settle(&mut fresh, Duration::ZERO, 9);
            prop_assert_eq!(told(player.builder_mut(), 0), told(fresh.builder_mut(), 0));
        }
    }

    #[test]
    fn steps_in_a_row_add_up(program in program(), steps in prop::collection::vec(-60..60_i64, 1..8)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mfrag");
        record(&path, &program);
        let source = Source::open(&path).unwrap();
        let all = source.reader().events();
        let mut player = Player::new(Arc::clone(&source));
        settle(&mut player, Duration::ZERO, 9);
        let mut event = all;
        for step in steps {
            event = event.saturating_add_signed(step).min(all);
            player.command(Command::Step { events: step }, Duration::ZERO);
        }
        settle(&mut player, Duration::ZERO, 9);
        prop_assert_eq!(player.status().events, event);
    }

    /// A recording that grows while somebody stands in it: what comes late and belongs before is taken in.
    #[test]
    fn what_comes_late_is_seen_where_it_belongs(program in program(), cut in 0..1000_usize, share in 0..1000_u64) {
        let dir = tempfile::tempdir().unwrap();
        let (path, growing) = (dir.path().join("a.mfrag"), dir.path().join("b.mfrag"));
        record(&path, &program);
        let whole = std::fs::read(&path).unwrap();
        let header = 20 + u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
        let cut = header + (whole.len() - header) * cut / 1000;
        std::fs::write(&growing, &whole[..cut]).unwrap();
        let source = Source::new(File::open(&growing).unwrap(), "b".into()).unwrap();
        let mut player = Player::new(Arc::clone(&source));
        settle(&mut player, Duration::ZERO, 9);
        let at_ns = source.facts().end_ns / 1000 * share;
        player.command(Command::Seek { at_ns }, Duration::ZERO);
        settle(&mut player, Duration::ZERO, 9);
        OpenOptions::new().append(true).open(&growing).unwrap().write_all(&whole[cut..]).unwrap();
        settle(&mut player, Duration::ZERO, 9);
        prop_assert_eq!(told(player.builder_mut(), at_ns), expected(&program, at_ns));
    }
}

/// A second in which something happens every millisecond.
fn steady(path: &Path) {
    record(path, &steady_program());
}

fn steady_program() -> Vec<(i64, Step)> {
    (0..1000).map(|at| (1_000_000, if at % 2 == 0 { Step::Alloc(0, at % 40, 8) } else { Step::Flush })).collect()
}

#[test]
fn the_end_is_reached_from_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    steady(&path);
    let source = Source::open(&path).unwrap();
    let last = source.reader().checkpoints_before(u64::MAX, u64::MAX).next().expect("there are some").mark().event();
    assert!((400..500).contains(&last), "{last}");
    let mut player = Player::new(Arc::clone(&source));
    while player.coming.is_some() {
        // No time for anything but to look whether it has come.
        let mut looks = 0;
        let _ = player.advance(Duration::ZERO, &mut || std::mem::replace(&mut looks, 1) == 0);
    }
    assert!((last..last + 3).contains(&player.builder().event_count()), "{}", player.builder().event_count());
    settle(&mut player, Duration::ZERO, 9);
    assert_eq!((player.status().state, player.builder().event_count()), (State::Ended, 500));
    // Far before the states that this player kept.
    player.command(Command::Step { events: -250 }, Duration::ZERO);
    assert!(player.coming.is_some());
    settle(&mut player, Duration::ZERO, 9);
    assert_eq!(player.builder().event_count(), 250);
}

#[test]
fn at_four_times_the_speed_it_takes_a_quarter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    steady(&path);
    let source = Source::open(&path).unwrap();
    let end = source.facts().end_ns;
    for (speed, millis) in [(0.25, 4000), (1.0, 1000), (4.0, 250), (64.0, 16)] {
        let mut player = Player::new(Arc::clone(&source));
        player.command(Command::Seek { at_ns: SECOND }, Duration::ZERO);
        settle(&mut player, Duration::ZERO, 99);
        player.command(Command::Play { speed }, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut shown = 0;
        while player.status().state == State::Playing {
            let rest = player.advance(now, &mut || true).rest.unwrap();
            assert!(player.at_ns() >= shown && player.builder().event_count() <= 500);
            shown = player.at_ns();
            assert!(shown == end || shown == SECOND + now.mul_f64(speed).as_nanos() as u64);
            now += rest;
        }
        assert_eq!(player.status().state, State::Ended);
        assert!(now.as_millis().abs_diff(millis) <= 32, "{speed}: {now:?}");
        assert_eq!(player.builder().event_count(), 500);
    }
}

#[test]
fn who_cannot_keep_pace_says_so_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    steady(&path);
    let source = Source::open(&path).unwrap();
    let mut player = Player::new(Arc::clone(&source));
    player.command(Command::Seek { at_ns: SECOND }, Duration::ZERO);
    settle(&mut player, Duration::ZERO, 99);
    player.command(Command::Play { speed: 64.0 }, Duration::ZERO);
    // Each piece takes a second.
    let mut now = Duration::ZERO;
    let mut last = 0;
    let mut was_behind = false;
    while player.status().state == State::Playing {
        now += Duration::from_secs(1);
        let _ = player.advance(now, &mut || false);
        was_behind |= player.status().behind;
        assert!(player.builder().event_count() <= last + 1, "one piece at a time");
        last = player.builder().event_count();
    }
    assert!(was_behind && !player.status().behind);
    assert_eq!(last, 500);
}

#[test]
fn an_event_astray_does_not_hold_the_others_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    let mut program: Vec<(i64, Step)> = Vec::new();
    for at in 0..400 {
        let astray = at == 50;
        program.push((10_000_000 + if astray { 1 << 50 } else { 0 }, Step::Alloc(0, at % 40, 8)));
        program.push((if astray { -(1 << 50) } else { 0 }, Step::Flush));
    }
    record(&path, &program);
    let mut player = Player::new(Source::open(&path).unwrap());
    player.command(Command::Seek { at_ns: SECOND }, Duration::ZERO);
    settle(&mut player, Duration::ZERO, 99);
    player.command(Command::Play { speed: 1.0 }, Duration::ZERO);
    for millis in (0..3500).step_by(16) {
        let _ = player.advance(Duration::from_millis(millis), &mut || true);
    }
    // It held them up for a second, and no longer.
    assert!((340..350).contains(&player.builder().event_count()), "{}", player.builder().event_count());
    player.command(Command::Seek { at_ns: 3 * SECOND }, Duration::ZERO);
    settle(&mut player, Duration::ZERO, 99);
    assert_eq!(told(player.builder_mut(), 3 * SECOND), expected(&program, 3 * SECOND));
}

#[test]
fn a_recording_is_followed_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    let mut writer = Writer::create(&path, &header()).unwrap();
    writer.set_patience(Duration::from_millis(50));
    let source = Source::open(&path).unwrap();
    let mut player = Player::new(Arc::clone(&source));
    let op = |addr| Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size: 8, site: 1, stack: 0 };
    for at in 1..=20_u64 {
        let time = at * 200_000_000;
        writer.events(&[Event { time, pid: 1, tid: 1, op: op(at * 16) }]);
        writer.tick(time + 40_000_000);
        assert_eq!(player.builder().event_count(), at - 1, "it has not waited long enough");
        writer.tick(time + 50_000_000);
        let begun = std::time::Instant::now();
        while player.builder().event_count() < at {
            settle(&mut player, Duration::ZERO, 9);
            assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain");
        }
        assert_eq!((player.status().state, player.at_ns()), (State::Live, time));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(source.facts().growing, "its writer lives");
    let mut fork = player.fork();
    settle(&mut fork, Duration::ZERO, 9);
    assert_eq!((fork.status().state, fork.builder().event_count()), (State::Paused, 20));
    writer.finish(10 * SECOND, None).unwrap();
    settle(&mut player, Duration::ZERO, 9);
    assert_eq!((player.status().state, player.at_ns()), (State::Ended, 10 * SECOND));
    assert_eq!(fork.status().end_ns, 10 * SECOND);
}

#[test]
fn a_writer_that_died_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    record_with(&path, &steady_program(), |_, _, _| {});
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let source = Source::open(&path).unwrap();
    let mut player = Player::new(Arc::clone(&source));
    settle(&mut player, Duration::ZERO, 9);
    std::thread::sleep(Duration::from_millis(300));
    let facts = source.facts();
    assert!(!facts.growing && !facts.complete && facts.error.is_none());
    settle(&mut player, Duration::ZERO, 9);
    assert_eq!(player.status().state, State::Ended);
    assert!((200..300).contains(&player.builder().event_count()));
}
