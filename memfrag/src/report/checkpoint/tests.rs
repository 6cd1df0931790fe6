//! Checkpoints of a recording that is being written.

use super::*;
use crate::capture::Sink as _;
use crate::recording::{Header, Writer};
use crate::report::{RecordingMeta, json};
use memfrag_common::{Event, Function, Op};
use std::sync::Arc;

/// Allocations and frees of a few thousand blocks.
fn events(from: u64, count: u64) -> Vec<Event> {
    let event = |at: u64| {
        let addr = 0x5500_0000_0000 + (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 5000 * 64;
        let op = if at.is_multiple_of(3) {
            Op::Free { function: Function::Free, addr, size: 0, site: 0 }
        } else {
            Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size: 8 + at % 50, site: at % 7, stack: 0 }
        };
        Event { time: at * 100, pid: 7, tid: 7 + (at % 2) as u32, op }
    };
    (from..from + count).map(event).collect()
}

fn report(builder: &ReportBuilder) -> String {
    let mut out = Vec::new();
    json::write(&builder.report(RecordingMeta::default()), &mut out).expect("written");
    String::from_utf8(out).expect("JSON")
}

#[test]
fn they_are_made_beside_the_recording_and_tell_what_it_tells() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mfrag");
    let mut writer = Writer::create(&path, &Header::default()).expect("created");
    let read = File::open(&path).expect("it is there");
    let ended = Arc::new(AtomicBool::new(false));
    let (mut parts, mut out) = io::pipe().expect("a pipe");
    let checkpoints = writer.checkpoints();
    let passing = std::thread::spawn(move || checkpoints.pass_on(&mut parts));
    let making = std::thread::spawn({
        let (path, ended) = (path.clone(), Arc::clone(&ended));
        move || Work { spacing: 100_000, spared: 20_000, ..Work::new(&ended, &mut out) }.run(read, &path)
    });
    for batch in 0..100 {
        writer.events(&events(batch * 8000, 8000));
    }
    writer.flush();
    let mut reader = Reader::follow(File::open(&path).expect("it is there"), &path).expect("a recording");
    while reader.events() < 800_000 {
        reader.refresh().expect("read");
        std::thread::yield_now();
    }
    ended.store(true, Ordering::Relaxed);
    let made = making.join().expect("it has ended").expect("nothing failed");
    passing.join().expect("it has ended").expect("all were passed on");
    let summary = writer.finish(80_000_000, None).expect("written");
    let reader = Reader::open(&path).expect("whole");
    let found: Vec<Checkpoint> = reader.checkpoints_before(u64::MAX, u64::MAX).collect();
    assert_eq!(found.len() as u64, made.checkpoints);
    assert!(made.bytes * 8 < summary.bytes, "{made:?} of {summary:?}");
    let places: Vec<u64> = found.iter().rev().map(|checkpoint| checkpoint.mark().event()).collect();
    assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 20_000), "{places:?}");
    for checkpoint in &found {
        let mut fresh = ReportBuilder::new(None);
        fresh.events(&events(0, checkpoint.mark().event()));
        let restored = restore(&reader, checkpoint).expect("it is whole");
        assert_eq!(report(&restored), report(&fresh), "at event {}", checkpoint.mark().event());
    }
    let (mark, _) = last_before(&reader, u64::MAX, 600_000).expect("there is one");
    assert!(mark.event() <= 600_000);
}
