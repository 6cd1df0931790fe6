//! What goes in comes out.

use super::super::chunk::{HEADER, MAX_EVENTS};
use super::super::{Reader, Status, Writer};
use super::samples::{event, header, program, read, record};
use crate::capture::Sink;
use memfrag_common::{Event, Function, Kind, Op};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_events(events in prop::collection::vec(event(), 0..400), cuts in prop::collection::vec(any::<bool>(), 400)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("any.mfrag");
        let mut writer = Writer::create(&path, &header()).unwrap();
        for (event, cut) in events.iter().zip(&cuts) {
            writer.events(std::slice::from_ref(event));
            // Now and then a chunk ends.
            if *cut && event.tid == 3 {
                writer.flush();
            }
        }
        let summary = writer.finish(0, None).unwrap();
        prop_assert_eq!(summary.events, events.len() as u64);
        let reader = Reader::open(&path).unwrap();
        prop_assert!(reader.complete());
        let (read, missing) = read(&reader);
        prop_assert_eq!(missing, 0);
        prop_assert_eq!(read, events);
    }
}

#[test]
fn a_program_over_several_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program.mfrag");
    let events = program(3 * MAX_EVENTS + 17, 5);
    let summary = record(&path, &events);
    assert_eq!(summary.events, events.len() as u64);
    assert_eq!(summary.bytes, std::fs::metadata(&path).unwrap().len());
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.header(), &header());
    assert_eq!(reader.events(), events.len() as u64);
    assert_eq!(reader.events_chunks().count(), 4);
    assert_eq!(read(&reader), (events.clone(), 0));
    // Random choices throughout: real programs take less than half of this.
    assert!(summary.bytes < 5 * events.len() as u64, "{} bytes for {} events", summary.bytes, events.len());

    // A chunk tells about its events without being unpacked.
    let mut at = 0;
    for chunk in reader.events_chunks() {
        let expected = &events[at..at + chunk.events as usize];
        assert_eq!(chunk.first_event, at as u64);
        assert_eq!(chunk.first_time, expected[0].time);
        assert_eq!(chunk.last_time, expected[expected.len() - 1].time);
        let summary = reader.summary(&chunk).unwrap();
        assert_eq!(summary.processes, [(100, chunk.events)]);
        let frees = expected.iter().filter(|event| matches!(event.op, Op::Free { .. })).count() as u32;
        assert!(summary.kinds.contains(&(Kind::Free, frees)));
        assert!(chunk.bytes > HEADER as u64);
        at += chunk.events as usize;
    }
}

/// Every table of a chunk as full as it can be: each event of a thread, a site, a size and an address of its own.
#[test]
fn the_fullest_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.mfrag");
    let events: Vec<_> = (0..MAX_EVENTS as u64 + 5)
        .map(|at| {
            let odd = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Event {
                time: odd,
                pid: odd as u32,
                tid: (odd >> 32) as u32,
                op: Op::Alloc {
                    function: Function::PosixMemalign,
                    align_log2: at as u8,
                    addr: odd.rotate_left(7),
                    size: odd.rotate_left(23),
                    site: odd.rotate_left(40),
                    stack: odd as u32,
                },
            }
        })
        .collect();
    record(&path, &events);
    let reader = Reader::open(&path).unwrap();
    assert!(read(&reader) == (events, 0));
    assert_eq!(reader.verify().damage, super::super::Damage::default());
}

#[test]
fn an_empty_recording() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.mfrag");
    let writer = Writer::create(&path, &header()).unwrap();
    assert_eq!(writer.status(), Status::Recording);
    writer.finish(12, None).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert!(reader.complete());
    assert_eq!((reader.events(), reader.last_time()), (0, 12));
}

#[test]
fn times_select_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("times.mfrag");
    let mut events = program(3 * MAX_EVENTS, 9);
    // Processes do not take turns nicely.
    for pair in events.chunks_exact_mut(7) {
        pair.swap(0, 5);
    }
    record(&path, &events);
    let reader = Reader::open(&path).unwrap();
    let last = reader.last_time();
    for (start, end) in [(0, u64::MAX), (last / 2, last / 2 + 5000), (last, last + 1), (5, 5), (last / 3, last)] {
        let expected: Vec<_> = events.iter().filter(|event| (start..end).contains(&event.time)).copied().collect();
        let mut found = Vec::new();
        let mut items = reader.items_between(start..end);
        while let Some(item) = items.next_item() {
            match item {
                super::super::Item::Events(some) => found.extend_from_slice(some),
                super::super::Item::Missing { .. } => panic!("nothing is missing"),
                _ => {}
            }
        }
        assert!(found == expected, "{start}..{end}: {} events, not {}", found.len(), expected.len());
    }
}
