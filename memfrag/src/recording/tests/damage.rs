//! Files cut and flipped everywhere.

use super::super::{Reader, RecordingError};
use super::samples::{Numbers, program, read, record, record_in_chunks};
use memfrag_common::Event;
use std::fs;
use std::path::Path;

/// Where each chunk ends and how many events the file then has.
fn ends(path: &Path) -> Vec<(u64, u64)> {
    let reader = Reader::open(path).unwrap();
    let mut events = 0;
    reader
        .entries()
        .iter()
        .map(|entry| {
            if entry.header.kind == super::super::chunk::kind::EVENTS {
                events += u64::from(entry.header.items);
            }
            (entry.offset + entry.header.length(), events)
        })
        .collect()
}

fn check_cut(path: &Path, whole: &[u8], length: usize, ends: &[(u64, u64)], events: &[Event], header: usize) {
    fs::write(path, &whole[..length]).unwrap();
    match Reader::open(path) {
        Ok(reader) => {
            let expected = ends.iter().rev().find(|(end, _)| *end <= length as u64).map_or(0, |(_, events)| *events);
            let (found, missing) = read(&reader);
            assert_eq!(missing, 0, "cut at {length}");
            assert!(found == events[..expected as usize], "cut at {length}: {} of {expected}", found.len());
            assert_eq!(reader.damage(), super::super::Damage::default(), "cut at {length}");
        }
        Err(RecordingError::NotARecording { .. }) => assert_eq!(length, 0),
        Err(RecordingError::Header { problem, .. }) => {
            assert!(length < header);
            assert_eq!(problem, "cut short");
        }
        Err(other) => panic!("cut at {length}: {other}"),
    }
}

fn header_length(whole: &[u8]) -> usize {
    20 + u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize
}

#[test]
fn a_small_file_cut_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.mfrag");
    let events = program(300, 11);
    record_in_chunks(&path, &events, 60);
    let (whole, ends) = (fs::read(&path).unwrap(), ends(&path));
    assert_eq!(ends.last().unwrap().1, 300);
    let cut = dir.path().join("cut.mfrag");
    for length in 0..=whole.len() {
        check_cut(&cut, &whole, length, &ends, &events, header_length(&whole));
    }
}

#[test]
fn a_bigger_file_cut_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.mfrag");
    let events = program(100_000, 12);
    record_in_chunks(&path, &events, 9_000);
    let (whole, ends) = (fs::read(&path).unwrap(), ends(&path));
    let cut = dir.path().join("cut.mfrag");
    let mut numbers = Numbers(99);
    for _ in 0..200 {
        let length = numbers.next(whole.len() as u64) as usize;
        check_cut(&cut, &whole, length, &ends, &events, header_length(&whole));
    }
}

/// Whatever byte is hit, what is read is a part of what was written, in order, and what is missing is counted.
#[test]
fn a_flip_in_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.mfrag");
    let events = program(300, 13);
    record_in_chunks(&path, &events, 60);
    let whole = fs::read(&path).unwrap();
    let header = header_length(&whole);
    let flipped = dir.path().join("flipped.mfrag");
    let mut hurt = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&flipped, &bytes).unwrap();
        let Ok(reader) = Reader::open(&flipped) else {
            assert!(at < header, "a flip at {at} may not keep the file from opening");
            continue;
        };
        assert!(at >= header, "a flip at {at} in the header went unnoticed");
        let verified = reader.verify();
        let (found, missing) = read(&reader);
        assert_eq!(verified.events, found.len() as u64);
        let mut rest = events.iter();
        assert!(found.iter().all(|event| rest.any(|other| other == event)), "a flip at {at} made up events");
        // Only what is missing at the very end cannot be known, and with the index it is.
        assert!(
            found.len() as u64 + missing == 300 || verified.damage.chunks > 0,
            "a flip at {at} lost events silently"
        );
        assert!(found.len() >= 240, "a flip at {at} cost more than its chunk");
        hurt += u64::from(missing > 0);
    }
    assert!(hurt > 500, "{hurt}");
}

/// Damage in the middle: the events behind it are found, and the hole is reported in its place.
#[test]
fn a_hole_is_reported_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hole.mfrag");
    let events = program(300, 14);
    record_in_chunks(&path, &events, 100);
    let ends = ends(&path);
    for overwrite_header in [false, true] {
        let mut bytes = fs::read(&path).unwrap();
        let start = ends[0].0 as usize;
        let from = if overwrite_header { start } else { start + 100 };
        bytes[from..ends[1].0 as usize - 3].fill(0xaa);
        let hole = dir.path().join("holed.mfrag");
        fs::write(&hole, &bytes).unwrap();
        // With the trailer in place the index knows of the chunk; without, a scan has to step over it.
        for length in [bytes.len(), bytes.len() - 1] {
            fs::write(&hole, &bytes[..length]).unwrap();
            let reader = Reader::open(&hole).unwrap();
            assert!(reader.complete());
            let mut items = reader.items();
            assert!(matches!(items.next_item(), Some(super::super::Item::Events(some)) if some == &events[..100]));
            assert!(matches!(items.next_item(), Some(super::super::Item::Missing { events: 100 })));
            assert!(matches!(items.next_item(), Some(super::super::Item::Events(some)) if some == &events[200..]));
            let damage = items.damage();
            assert_eq!((damage.chunks, damage.events), (1, 100));
            assert_eq!(damage.bytes, ends[1].0 - ends[0].0);
        }
    }
}

#[test]
fn two_recordings_do_not_mix() {
    // The rest of an older, longer file behind a cut-off one must not come back to life.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("again.mfrag");
    record(&path, &program(5000, 15));
    let events = program(50, 16);
    record(&path, &events);
    assert_eq!(read(&Reader::open(&path).unwrap()), (events, 0));
}
