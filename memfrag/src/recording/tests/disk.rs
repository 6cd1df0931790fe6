//! Disks that fill up.

use super::super::store::Store;
use super::super::{Item, Mark, Reader, Status, Writer};
use super::samples::{header, program, read};
use crate::capture::Sink;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// A file on a disk with only so much room.
struct Small {
    file: File,
    room: u64,
    length: u64,
}

impl Store for Small {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fits = (self.room - self.length).min(bytes.len() as u64);
        self.file.append(&bytes[..fits as usize])?;
        self.length += fits;
        if fits < bytes.len() as u64 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.length = length;
        self.file.cut(length)
    }
}

fn small(path: &Path, room: u64) -> Writer {
    let start = header().encode(path).unwrap();
    fs::write(path, &start).unwrap();
    let file = OpenOptions::new().append(true).open(path).unwrap();
    let length = start.len() as u64;
    Writer::with_store(Box::new(Small { file, room: room.max(length), length }), path, length).unwrap()
}

#[test]
fn a_checkpoint_that_does_not_fit_leaves_its_room_to_the_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.mfrag");
    let events = program(600, 33);
    let record = |room: u64, parts: &[u8]| {
        let mut writer = small(&path, room);
        writer.events(&events[..300]);
        writer.flush();
        writer.checkpoints().pass_on(&mut &parts[..]).unwrap();
        writer.events(&events[300..]);
        writer.finish(5, None).unwrap()
    };
    let without = record(u64::MAX, &[]).bytes;
    let mut parts: Vec<u8> = Vec::new();
    let reader = Reader::open(&path).unwrap();
    // Two parts, the second of them short.
    let state: Vec<u8> = (0..(4_u32 << 20) + 5000).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let bytes = reader.write_checkpoint(&Mark::new(300, 1 << 40), &state, &mut parts).unwrap().unwrap();
    let mut kept = 0;
    for room in (without - 200..without + bytes + 200).step_by(997).chain([without, without + bytes]) {
        let summary = record(room, &parts);
        let reader = Reader::open(&path).unwrap();
        assert_eq!((reader.damage(), reader.cut_bytes()), Default::default(), "{room}");
        assert!(room < without || summary.events >= 300 && summary.bytes <= room, "{room}");
        assert!(read(&reader).0 == events[..summary.events as usize], "{room}");
        let found = reader.checkpoints_before(u64::MAX, u64::MAX).filter_map(|found| reader.state(&found)).count();
        assert_eq!(summary.checkpoints.count, found as u64, "{room}");
        kept += found;
    }
    assert!(kept > 0);
}

#[test]
fn wherever_the_disk_ends_the_file_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.mfrag");
    let events = program(600, 31);
    let mut stopped = 0;
    for room in (0..12_000).step_by(97) {
        let mut writer = small(&path, room);
        for events in events.chunks(100) {
            writer.events(events);
            writer.flush();
        }
        let summary = writer.finish(5, None).unwrap();
        assert_eq!(summary.events + summary.not_recorded, 600);
        assert_eq!(summary.bytes, fs::metadata(&path).unwrap().len());
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.complete(), summary.complete);
        assert_eq!((reader.damage(), reader.cut_bytes()), Default::default());
        let (found, missing) = read(&reader);
        assert_eq!(missing, 0);
        assert!(found == events[..summary.events as usize]);
        if summary.not_recorded > 0 {
            stopped += 1;
            let why = summary.stopped.unwrap();
            assert!(why.contains("full.mfrag") && why.contains("free some space"), "{why}");
            if summary.complete {
                let mut items = reader.items();
                let mut end = None;
                while let Some(item) = items.next_item() {
                    if let Item::End(found) = item {
                        end = Some(found);
                    }
                }
                let end = end.unwrap();
                assert_eq!((end.events, end.not_recorded), (summary.events, summary.not_recorded));
                assert!(!end.stopped.is_empty());
            }
        }
    }
    assert!(stopped > 10, "{stopped}");
}

#[test]
fn after_the_failure_everything_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.mfrag");
    let events = program(100, 32);
    let mut writer = small(&path, 0);
    writer.events(&events);
    writer.flush();
    let stopped = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        writer.status() != Status::Recording
    });
    assert!(stopped);
    writer.events(&events);
    writer.tick(u64::MAX);
    assert!(matches!(writer.status(), Status::Stopped { not_recorded: 200, .. }), "{:?}", writer.status());
    let summary = writer.finish(5, None).unwrap();
    assert_eq!((summary.events, summary.not_recorded, summary.complete), (0, 200, false));
}
