//! Stages with threads and clocks of their own.

use super::super::player::State;
use super::*;
use crate::capture::Sink;
use crate::recording::{Header, Writer};
use memfrag_common::{Event, Function, Op};
use std::path::Path;

fn record(path: &Path, events: u64) -> Writer {
    let mut writer = Writer::create(path, &Header::default()).unwrap();
    writer.set_patience(Duration::ZERO);
    add(&mut writer, 0..events);
    writer
}

fn add(writer: &mut Writer, numbers: std::ops::Range<u64>) {
    for at in numbers {
        let op =
            Op::Alloc { function: Function::Malloc, align_log2: 0, addr: 16 + at * 32, size: 8, site: 1, stack: 0 };
        writer.events(&[Event { time: at * 1000, pid: 1, tid: 1, op }]);
    }
    writer.flush();
}

/// Waits until a stage is as wanted.
fn wait(stage: &Stage, wanted: impl Fn(&Status) -> bool) -> Status {
    let begun = Instant::now();
    loop {
        let status = stage.status();
        if wanted(&status) {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain: {status:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn one_is_live_for_all_and_another_travels() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    let mut writer = record(&path, 1000);
    let live = Stage::open(Source::open(&path).unwrap()).unwrap();
    wait(&live, |status| status.events == 1000);
    let stages = Stages::default();
    let private = stages.private(&live).unwrap().unwrap();
    private.command(Command::Seek { at_ns: 499_000 });
    let there = wait(&private, |status| status.state == State::Paused);
    assert_eq!((there.at_ns, there.events), (499_000, 500));
    let mut changes = live.changes();
    changes.mark_unchanged();
    add(&mut writer, 1000..1200);
    let status = wait(&live, |status| status.events == 1200);
    assert_eq!((status.state, status.at_ns), (State::Live, 1_199_000));
    // It is told right after it can be seen.
    wait(&live, |_| changes.has_changed().unwrap());
    assert_eq!(private.status(), Status { end_ns: 1_199_000, ..there }, "nobody moves another's place");
    private.command(Command::Stop);
    wait(&private, |status| status.state == State::Live && status.events == 1200);
    writer.finish(2_000_000, None).unwrap();
    for stage in [&live, &private] {
        assert_eq!(wait(stage, |status| status.state == State::Ended).at_ns, 2_000_000);
    }
}

#[test]
fn only_so_many_travel() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    record(&path, 10).finish(10_000, None).unwrap();
    let live = Stage::open(Source::open(&path).unwrap()).unwrap();
    let stages = Stages::default();
    let mut private: Vec<Arc<Stage>> = (0..PRIVATE).map(|_| stages.private(&live).unwrap().unwrap()).collect();
    assert!(stages.private(&live).unwrap().is_none());
    private.pop();
    assert!(stages.private(&live).unwrap().is_some());
}

/// However busy the player is, nobody waits for it longer than a few slices.
#[test]
fn nobody_waits_long() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    let mut writer = Writer::create(&path, &Header::default()).unwrap();
    writer.set_patience(Duration::MAX);
    for at in 0..1_000_000_u64 {
        let function = Function::Malloc;
        let op = Op::Alloc { function, align_log2: 0, addr: 16 + at % 5000 * 32, size: 8, site: 1, stack: 0 };
        writer.events(&[Event { time: at * 1000, pid: 1, tid: 1, op }]);
    }
    writer.finish(1_000_000_000, None).unwrap();
    let stage = Stage::open(Source::open(&path).unwrap()).unwrap();
    let (mut looks, mut longest) = (0, Duration::ZERO);
    while stage.status().state != State::Ended {
        let begun = Instant::now();
        stage.with(|player| player.at_ns());
        longest = longest.max(begun.elapsed());
        looks += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    // Debug builds on busy machines are slow; one that kept the player to itself would let nobody in at all.
    assert!(looks > 5, "{looks} looks, the longest {longest:?}");
    assert_eq!(stage.status().events, 1_000_000);
}
