//! Checkpoints beside events: found again, passed over when they are damaged, and never in the way of the events.

use super::super::chunk::{HEADER, kind};
use super::super::{Checkpoints, Cursor, Limit, Mark, Next, Reader, Writer};
use super::samples::{Numbers, header, program, read};
use crate::capture::Sink as _;
use memfrag_common::Event;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

/// A state that does not get much shorter.
fn state(bytes: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    (0..bytes).map(|_| numbers.next(200) as u8).collect()
}

/// Goes on to the next place between two chunks.
fn next_mark(reader: &Reader, cursor: &mut Cursor) -> Option<Mark> {
    loop {
        match cursor.next(reader, &Limit::default()) {
            Next::Item(_) => {
                if let Some(mark) = cursor.mark() {
                    return Some(mark);
                }
            }
            Next::Beyond | Next::End => return None,
        }
    }
}

fn write(checkpoints: &Checkpoints, reader: &Reader, mark: &Mark, state: &[u8]) {
    let mut parts = Vec::new();
    let bytes = reader.write_checkpoint(mark, state, &mut parts).unwrap();
    assert_eq!(bytes, Some(parts.len() as u64));
    checkpoints.pass_on(&mut &parts[..]).unwrap();
}

/// Records events in chunks of a hundred, with a checkpoint of the place behind each third one. Gives the marks and the
/// states.
fn record_with(path: &Path, events: &[Event], bytes: usize) -> Vec<(Mark, Vec<u8>)> {
    let mut writer = Writer::create(path, &header()).unwrap();
    writer.set_patience(Duration::MAX);
    let mut reader = Reader::follow(File::open(path).unwrap(), path).unwrap();
    let mut cursor = Cursor::new(&reader);
    let mut made = Vec::new();
    for (number, chunk) in events.chunks(100).enumerate() {
        writer.events(chunk);
        writer.flush();
        while cursor.event() < (number as u64 * 100) + chunk.len() as u64 {
            reader.refresh().unwrap();
            if let Some(mark) = next_mark(&reader, &mut cursor)
                && number % 3 == 2
            {
                let state = state(bytes, number as u64 + 1);
                write(&writer.checkpoints(), &reader, &mark, &state);
                made.push((mark, state));
            }
        }
    }
    let checkpoints = writer.checkpoints();
    writer.finish(u64::MAX >> 1, None).unwrap();
    // It has ended, and takes no more.
    let (last, state) = made.last().expect("there are some");
    write(&checkpoints, &reader, last, state);
    made
}

/// The events behind a place.
fn rest(reader: &Reader, mark: &Mark) -> Vec<Event> {
    let mut items = reader.items_from(mark, None);
    let mut events = Vec::new();
    while let Some(item) = items.next_item() {
        if let super::super::Item::Events(some) = item {
            events.extend_from_slice(some);
        }
    }
    events
}

#[test]
fn each_is_found_by_time_and_by_event() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    let events = program(2000, 5);
    // The last byte of the first part, and two parts more.
    for bytes in [1, 1000, 4 << 20, (8 << 20) + 1] {
        let made = record_with(&path, &events, bytes);
        let reader = Reader::open(&path).unwrap();
        assert!(reader.complete());
        assert_eq!(read(&reader), (events.clone(), 0), "the events are what they were");
        let all: Vec<_> = reader.checkpoints_before(u64::MAX, u64::MAX).collect();
        assert_eq!(all.len(), made.len());
        for (found, (mark, state)) in all.iter().rev().zip(&made) {
            assert_eq!((found.mark().event(), found.mark().latest()), (mark.event(), mark.latest()));
            assert!(reader.state(found).as_ref() == Some(state), "the state of {}", mark.event());
            assert!(rest(&reader, found.mark()) == events[mark.event() as usize..]);
            let last = |time, event| reader.checkpoints_before(time, event).next().map(|found| found.mark().event());
            assert_eq!(last(mark.latest(), u64::MAX), Some(mark.event()));
            assert_eq!(last(u64::MAX, mark.event()), Some(mark.event()));
            let before = made.iter().rev().find(|(other, _)| other.event() < mark.event());
            assert_eq!(last(mark.latest() - 1, u64::MAX), before.map(|(mark, _)| mark.event()));
            assert_eq!(last(u64::MAX, mark.event() - 1), before.map(|(mark, _)| mark.event()));
        }
        // Without its index the file is searched, and its chunks are the same.
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 30]).unwrap();
        let searched = Reader::open(&path).unwrap();
        assert!(!searched.complete() && searched.checkpoints_before(u64::MAX, u64::MAX).eq(all.into_iter()));
    }
}

#[test]
fn a_damaged_one_is_passed_over_and_costs_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    let events = program(600, 7);
    let made = record_with(&path, &events, 60);
    let whole = fs::read(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    let chunks = reader.entries().iter().filter(|entry| entry.header.kind == kind::CHECKPOINT);
    let ranges: Vec<_> = chunks.map(|entry| entry.offset..entry.offset + entry.header.length()).collect();
    assert_eq!((ranges.len(), made.len()), (2, 2));
    for at in ranges.iter().cloned().flatten() {
        for bit in [0, 7] {
            let mut damaged = whole.clone();
            damaged[at as usize] ^= 1 << bit;
            fs::write(&path, &damaged).unwrap();
            let reader = Reader::open(&path).unwrap();
            assert_eq!(read(&reader), (events.clone(), 0), "byte {at}");
            for found in reader.checkpoints_before(u64::MAX, u64::MAX) {
                let Some(state) = reader.state(&found) else { continue };
                let (mark, expected) = made.iter().find(|(mark, _)| mark.event() == found.mark().event()).unwrap();
                assert_eq!((found.mark().latest(), &state), (mark.latest(), expected), "byte {at}");
                assert!(rest(&reader, found.mark()) == events[mark.event() as usize..], "byte {at}");
            }
            let is_first = ranges[0].contains(&at);
            let good = reader.checkpoints_before(u64::MAX, u64::MAX).filter_map(|found| reader.state(&found)).count();
            // Reserved bytes of a header are none of its damage only where the checksum leaves them out: nowhere.
            let reads_header = at - ranges[usize::from(!is_first)].start < HEADER as u64;
            assert!(good == 1 || reads_header && good == 2, "byte {at}: {good}");
        }
    }
}

#[test]
fn one_that_was_not_written_whole_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    record_with(&path, &program(300, 9), (4 << 20) + 5);
    let whole = fs::read(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    let entries: Vec<_> = reader.entries().to_vec();
    let parts: Vec<_> = entries.iter().filter(|entry| entry.header.kind == kind::CHECKPOINT).collect();
    assert_eq!(parts.len(), 2);
    for cut in [parts[1].offset, parts[1].offset + 1, parts[1].offset + parts[1].header.length() - 1] {
        fs::write(&path, &whole[..cut as usize]).unwrap();
        let reader = Reader::open(&path).unwrap();
        assert_eq!(read(&reader).0.len(), 300);
        let found: Vec<_> = reader.checkpoints_before(u64::MAX, u64::MAX).collect();
        assert!(found.len() == 1 && reader.state(&found[0]).is_none());
    }
}

#[test]
fn only_parts_of_checkpoints_are_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    record_with(&path, &program(300, 11), 50);
    let whole = fs::read(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    let bytes = |wanted: u8| {
        let entry = reader.entries().iter().find(|entry| entry.header.kind == wanted).unwrap();
        whole[entry.offset as usize..(entry.offset + entry.header.length()) as usize].to_vec()
    };
    let checkpoints = Checkpoints::default();
    assert!(checkpoints.pass_on(&mut &bytes(kind::EVENTS)[..]).is_err());
    let part = bytes(kind::CHECKPOINT);
    for cut in 0..part.len() {
        let is_header = (1..HEADER).contains(&cut);
        assert_eq!(checkpoints.pass_on(&mut &part[..cut]).is_err(), is_header, "cut at {cut}");
    }
}
