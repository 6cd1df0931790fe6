//! Recordings of programs that are faster than the writer.

use super::super::encode::MAX_IN_HASTE;
use super::super::store::Store;
use super::super::{Reader, Summary, Writer};
use super::samples::{event, header, program, read, record};
use crate::capture::Sink;
use proptest::prelude::*;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_events_in_any_haste(
        events in prop::collection::vec(event(), 0..400),
        turns in prop::collection::vec(0..12u8, 400),
        usual in program_of(0..400),
    ) {
        for events in [events, usual] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("any.mfrag");
            let mut writer = Writer::create(&path, &header()).unwrap();
            for (event, turn) in events.iter().zip(&turns) {
                match turn {
                    0 => writer.behind(true),
                    1 => writer.behind(false),
                    2 => writer.flush(),
                    _ => {}
                }
                writer.events(std::slice::from_ref(event));
            }
            writer.finish(0, None).unwrap();
            let (read, missing) = read(&Reader::open(&path).unwrap());
            prop_assert_eq!(missing, 0);
            prop_assert_eq!(read, events);
        }
    }
}

/// Events that refer to each other, unlike those at random.
fn program_of(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<memfrag_common::Event>> {
    (count, 1..u64::MAX).prop_map(|(count, seed)| program(count, seed))
}

#[test]
fn haste_begins_at_once_and_ends_with_the_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("haste.mfrag");
    let events = program(5 * MAX_IN_HASTE + 100, 11);
    let mut writer = Writer::create(&path, &header()).unwrap();
    writer.events(&events[..MAX_IN_HASTE + 5]);
    // The chunk has more events than one in haste may have: it ends here.
    writer.behind(true);
    writer.events(&events[MAX_IN_HASTE + 5..3 * MAX_IN_HASTE]);
    writer.behind(false);
    writer.events(&events[3 * MAX_IN_HASTE..]);
    writer.finish(0, None).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(read(&reader), (events, 0));
    let chunks: Vec<usize> = reader.events_chunks().map(|chunk| chunk.events as usize).collect();
    assert_eq!(chunks, [MAX_IN_HASTE + 5, MAX_IN_HASTE, MAX_IN_HASTE, 2 * MAX_IN_HASTE + 95]);
}

/// A file that takes its time for each byte.
struct Slow {
    file: File,
    per_byte: Duration,
}

impl Store for Slow {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        std::thread::sleep(self.per_byte * bytes.len() as u32);
        self.file.append(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.cut(length)
    }
}

fn in_haste(path: &Path, per_byte: Duration, events: &[memfrag_common::Event]) -> Summary {
    let start = header().encode(path).unwrap();
    fs::write(path, &start).unwrap();
    let file = OpenOptions::new().append(true).open(path).unwrap();
    let mut writer = Writer::with_store(Box::new(Slow { file, per_byte }), path, start.len() as u64).unwrap();
    writer.behind(true);
    writer.events(events);
    writer.finish(0, None).unwrap()
}

#[test]
fn bytes_are_saved_where_writing_them_takes_longer() {
    let dir = tempfile::tempdir().unwrap();
    let events = program(20 * MAX_IN_HASTE, 12);
    let [fast, slow, usual] = ["fast", "slow", "usual"].map(|name| dir.path().join(name));
    let bytes = [
        in_haste(&fast, Duration::ZERO, &events).bytes,
        in_haste(&slow, Duration::from_nanos(20), &events).bytes,
        record(&usual, &events).bytes,
    ];
    for path in [fast, slow, usual] {
        assert!(read(&Reader::open(&path).unwrap()) == (events.clone(), 0), "{}", path.display());
    }
    let [fast, slow, usual] = bytes;
    assert!(
        usual < slow && slow + slow / 8 < fast,
        "{usual} bytes usually, {slow} on a slow disk, {fast} on a fast one"
    );
}
