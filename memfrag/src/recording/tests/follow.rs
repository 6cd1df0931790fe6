//! A follower sees what a reader sees that opens the file at the end, however it came about.

use super::super::{Cursor, Damage, Item, Limit, Next, Reader, Writer};
use super::samples::{header, program, record_in_chunks};
use crate::capture::Sink;
use crate::target::MemorySample;
use memfrag_common::Event;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

/// What was handed out, in order: events, and all else by name.
#[derive(Debug, Default, PartialEq)]
struct Told {
    events: Vec<Event>,
    rest: Vec<(usize, String)>,
    /// Events missing, by those before them.
    missing: BTreeMap<usize, u64>,
}

impl Told {
    fn add(&mut self, item: &Item<'_>) {
        match item {
            Item::Events(events) => self.events.extend_from_slice(events),
            Item::Missing { events } => *self.missing.entry(self.events.len()).or_default() += events,
            other => self.rest.push((self.events.len(), format!("{other:?}"))),
        }
    }

    fn read_on(&mut self, cursor: &mut Cursor, reader: &Reader) {
        while let Next::Item(item) = cursor.next(reader, &Limit::default()) {
            self.add(&item);
        }
    }

    /// Without the order of what came between the same two events: which damaged chunks stood there, and where among the
    /// notes, is known from the index alone, which a follower does not have.
    fn in_any_order(mut self) -> Self {
        self.rest.sort();
        self
    }

    fn whole(path: &Path) -> (Self, Damage, u64, bool) {
        let reader = Reader::open(path).unwrap();
        let mut told = Self::default();
        let mut items = reader.items();
        while let Some(item) = items.next_item() {
            told.add(&item);
        }
        let damage = items.damage();
        (told.in_any_order(), damage, reader.cut_bytes(), reader.complete())
    }
}

/// A recording with notes between its events.
fn sample(path: &Path, seed: u64) {
    let mut writer = Writer::create(path, &header()).unwrap();
    for (at, events) in program(240, seed).chunks(20).enumerate() {
        let time = events[0].time;
        writer.memory(&MemorySample { time, pid: 100, rss: at as u64, ..MemorySample::default() });
        writer.events(&events[..10]);
        if at % 3 == 0 {
            // Without the flush it comes before events that are not written yet.
            writer.flush();
        }
        writer.events(&events[10..]);
        writer.counters(Some(100), &std::array::from_fn(|counter| counter as u64));
        if at % 2 == 0 {
            writer.flush();
        }
    }
    writer.finish(1 << 40, None).unwrap();
}

fn header_length(whole: &[u8]) -> usize {
    20 + u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize
}

/// Writes `whole` to a file in pieces and follows it.
fn follow(path: &Path, whole: &[u8], pieces: &[usize]) -> (Told, Damage, u64, bool) {
    let mut at = header_length(whole).min(whole.len());
    fs::write(path, &whole[..at]).unwrap();
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    let mut reader = Reader::follow(File::open(path).unwrap(), path).unwrap();
    let (mut told, mut cursor) = (Told::default(), Cursor::new(&reader));
    for piece in pieces.iter().copied().chain([usize::MAX]) {
        let next = at.saturating_add(piece).min(whole.len());
        file.write_all(&whole[at..next]).unwrap();
        let known = reader.chunk_count();
        assert_eq!(reader.has_grown().unwrap(), next > at);
        if !reader.refresh().unwrap() {
            assert_eq!(reader.chunk_count(), known);
        }
        assert!(!reader.refresh().unwrap(), "nothing has come");
        at = next;
        told.read_on(&mut cursor, &reader);
    }
    reader.settle().unwrap();
    told.read_on(&mut cursor, &reader);
    // Stretches that the reader finds on opening a follower finds later.
    let found = cursor.damage();
    let stretches = reader.damage();
    let damage = Damage {
        chunks: found.chunks + stretches.chunks,
        bytes: found.bytes + stretches.bytes,
        events: found.events + stretches.events,
    };
    (told.in_any_order(), damage, reader.cut_bytes(), reader.complete())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_follower_sees_what_a_reader_sees(
        seed in 1..u64::MAX,
        pieces in prop::collection::vec(prop_oneof![1..64_usize, 1..600_usize, 500..5000_usize], 0..60),
        cut in prop::option::of(0..1000_usize),
        flips in prop::collection::vec((0..1000_usize, 1..=255_u8), 0..4),
        hole in prop::option::of((0..1000_usize, 1..300_usize)),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (path, grown) = (dir.path().join("whole.mfrag"), dir.path().join("grown.mfrag"));
        sample(&path, seed);
        let mut whole = fs::read(&path).unwrap();
        let first = header_length(&whole);
        let flipped = !flips.is_empty();
        for (at, bits) in flips {
            let place = first + (whole.len() - first - 1) * at / 1000;
            whole[place] ^= bits;
        }
        if let Some((at, length)) = hole {
            let start = first + (whole.len() - first - 1) * at / 1000;
            whole.drain(start..(start + length).min(whole.len()));
        }
        if let Some(cut) = cut {
            whole.truncate(first + (whole.len() - first) * cut / 1000);
        }
        fs::write(&path, &whole).unwrap();
        // The index tells of events in damaged chunks what the file itself does not.
        let expected = if flipped { follow(&dir.path().join("at_once.mfrag"), &whole, &[]) } else { Told::whole(&path) };
        prop_assert_eq!(follow(&grown, &whole, &pieces), expected);
    }

    #[test]
    fn any_bytes_are_followed_to_their_end(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        magics in prop::collection::vec(0..2000_usize, 0..6),
        pieces in prop::collection::vec(1..200_usize, 0..20),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (path, grown) = (dir.path().join("whole.mfrag"), dir.path().join("grown.mfrag"));
        record_in_chunks(&path, &program(30, 5), 10);
        let mut whole = fs::read(&path).unwrap();
        whole.truncate(header_length(&whole));
        let start = whole.len();
        whole.extend(bytes);
        for at in magics {
            let place = (start + at).min(whole.len());
            whole.splice(place..place, *b"\xf6MFchunk");
        }
        fs::write(&path, &whole).unwrap();
        let expected = Told::whole(&path);
        prop_assert_eq!(follow(&grown, &whole, &pieces), expected);
    }

    /// From any place a cursor goes on as the one that was there, and a limit leaves out what is later.
    #[test]
    fn places_and_limits(seed in 1..u64::MAX, at_once in 1..50_usize, stop in 0..240_u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mfrag");
        sample(&path, seed);
        let reader = Reader::open(&path).unwrap();
        let (expected, ..) = Told::whole(&path);
        let mut told = Told::default();
        let mut cursor = Cursor::new(&reader);
        let limit = Limit { event: stop, at_once, ..Limit::default() };
        while let Next::Item(item) = cursor.next(&reader, &limit) {
            told.add(&item);
        }
        prop_assert_eq!(told.events.len() as u64, stop);
        prop_assert_eq!(cursor.event(), stop);
        let mut copy = cursor.clone();
        let marked = cursor.mark().map(|mark| (Cursor::at(&mark), told.events.len()));
        if let Some((mut again, before)) = marked {
            let mut rest = Told::default();
            rest.read_on(&mut again, &reader);
            prop_assert_eq!(&rest.events, &expected.events[before..]);
        }
        told.read_on(&mut copy, &reader);
        prop_assert_eq!(&told, &expected);
        // By time.
        let time = expected.events[stop as usize].time;
        let mut early = Told::default();
        let mut cursor = Cursor::new(&reader);
        while let Next::Item(item) = cursor.next(&reader, &Limit { time, ..Limit::default() }) {
            early.add(&item);
        }
        prop_assert!(early.events.iter().all(|event| event.time <= time));
        let next = expected.events.get(early.events.len());
        prop_assert!(next.is_none_or(|next| next.time > time) || early.rest.len() < expected.rest.len());
        prop_assert!(cursor.latest() <= time);
    }
}

/// What is found quickly is what going over all chunks finds.
#[test]
fn chunks_are_found_by_time_and_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    let mut events = program(3000, 9);
    // Every so often one comes late.
    for at in (0..events.len()).step_by(37) {
        events[at].time = events[at].time.saturating_sub(20_000);
    }
    record_in_chunks(&path, &events, 4);
    let reader = Reader::open(&path).unwrap();
    let headers: Vec<_> = reader.entries().iter().map(|entry| entry.header).collect();
    assert!(headers.len() > 700);
    let last = reader.last_time();
    for time in (0..=50).map(|part| last / 50 * part).chain([0, last, u64::MAX]) {
        let early = |header: &super::super::chunk::ChunkHeader| header.first_time <= time;
        assert_eq!(reader.end_of(time), headers.iter().rposition(early).map_or(0, |at| at + 1));
        let start = headers.iter().position(|header| header.last_time > time);
        assert_eq!(reader.start_of(time), start.unwrap_or(headers.len()));
    }
    for event in [0, 3, 4, 1000, 1003, 2999, 3000] {
        assert_eq!(headers[reader.chunk_of(event)].first_event, event / 4 * 4);
    }
    assert_eq!((reader.last_event(), reader.event_at(last)), (3000, 3000));
    // All of it lies within a thousandth of a second.
    assert_eq!(reader.rate_at(headers.len(), last), 3000);
    assert_eq!(reader.rate_at(headers.len(), u64::MAX), 0);
}

/// The disk was full in the middle of a chunk, which the writer cut off again.
#[test]
fn what_was_cut_off_again_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    record_in_chunks(&path, &program(200, 3), 20);
    let whole = fs::read(&path).unwrap();
    let ends: Vec<u64> = {
        let reader = Reader::open(&path).unwrap();
        reader.entries().iter().map(|entry| entry.offset + entry.header.length()).collect()
    };
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(ends[6] + 100).unwrap();
    let mut reader = Reader::follow(File::open(&path).unwrap(), &path).unwrap();
    let (mut told, mut cursor) = (Told::default(), Cursor::new(&reader));
    told.read_on(&mut cursor, &reader);
    assert_eq!((reader.chunk_count(), reader.cut_bytes()), (7, 0));
    file.set_len(ends[4]).unwrap();
    reader.refresh().unwrap();
    assert_eq!((reader.chunk_count(), reader.events()), (5, 100));
    // Another writer would not do this, but nothing may break.
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&whole[ends[4] as usize..]).unwrap();
    reader.refresh().unwrap();
    assert_eq!((reader.events(), reader.complete(), reader.damage()), (200, true, Damage::default()));
}
