//! Notes come back whole, and between the events between which they were given.

use super::super::{Item, Reader, Writer};
use super::samples::{header, program};
use crate::capture::{Counters, Sink};
use crate::target::{Mapping, MemorySample, ProcessInfo};
use std::path::PathBuf;

fn process(pid: u32) -> ProcessInfo {
    ProcessInfo {
        time: u64::from(pid) * 1000,
        pid,
        ppid: 1,
        start_ticks: 77,
        comm: "worker".into(),
        exe: "/usr/bin/worker".into(),
        cmdline: vec!["worker".into(), String::new(), "--all".into()],
        settings: vec!["MALLOC_ARENA_MAX=1".into()],
    }
}

fn mappings() -> Vec<Mapping> {
    let mapping = |start: u64, path: &str, inode| Mapping {
        start,
        end: start + 0x2000,
        offset: 0x1000,
        executable: start.is_multiple_of(0x8000),
        path: PathBuf::from(path),
        inode,
    };
    vec![
        mapping(0x5555_0000_0000, "/usr/bin/worker", 5),
        mapping(0x5555_0000_8000, "/usr/bin/worker", 5),
        mapping(0x5555_0001_0000, "/usr/bin/worker", 6),
        mapping(0x1000, "/lib/libc.so.6 (deleted)", 9),
    ]
}

fn sample(pid: u32, time: u64) -> MemorySample {
    MemorySample { time, pid, rss: u64::MAX, rss_anon: 1, rss_file: 2, rss_shmem: 3, swap: 4, virtual_bytes: 5 }
}

#[test]
fn notes_keep_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("order.mfrag");
    let events = program(1000, 3);
    let counters: Counters = std::array::from_fn(|at| at as u64 * 1_000_000);
    let mut writer = Writer::create(&path, &header()).unwrap();
    writer.process(&process(100));
    writer.events(&events[..300]);
    writer.mappings(9_000, 100, &mappings());
    writer.flush();
    writer.memory(&sample(100, 10_000));
    writer.events(&events[300..301]);
    writer.counters(None, &counters);
    writer.events(&events[301..700]);
    writer.counters(Some(100), &counters);
    writer.process(&process(101));
    writer.flush();
    writer.events(&events[700..]);
    writer.memory(&sample(101, 999_999));
    writer.finish(1_000_000, Some(139)).unwrap();

    let reader = Reader::open(&path).unwrap();
    let mut items = reader.items();
    let mut story: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(item) = items.next_item() {
        let line = match item {
            Item::Events(some) => {
                assert_eq!(some, &events[at..at + some.len()]);
                at += some.len();
                format!("events to {at}")
            }
            Item::Process(found) => {
                assert_eq!(found, process(found.pid));
                format!("process {}", found.pid)
            }
            Item::Mappings { time, pid, mappings: found } => {
                assert_eq!(found, mappings());
                format!("mappings {time} {pid}")
            }
            Item::Memory(found) => {
                assert_eq!(found, sample(found.pid, found.time));
                format!("memory {}", found.pid)
            }
            Item::Counters { pid, counters: found, .. } => {
                assert_eq!(found, counters);
                format!("counters {pid:?}")
            }
            Item::Missing { events } => format!("missing {events}"),
            Item::Residency(found) => format!("residency {}", found.pid),
            Item::Layout { pid, .. } => format!("layout {pid}"),
            Item::End(end) => format!("end {} {:?} {} {}", end.time, end.status, end.events, end.not_recorded),
        };
        story.push(line);
    }
    assert_eq!(
        story,
        [
            "process 100",
            "events to 300",
            "mappings 9000 100",
            "memory 100",
            "events to 301",
            "counters None",
            "events to 700",
            "counters Some(100)",
            "process 101",
            "events to 1000",
            "memory 101",
            "end 1000000 Some(139) 1000 0",
        ]
    );
}

#[test]
fn a_window_keeps_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("window.mfrag");
    let mut writer = Writer::create(&path, &header()).unwrap();
    writer.process(&process(1));
    writer.memory(&sample(1, 2_000));
    writer.process(&process(5));
    writer.memory(&sample(5, 6_000));
    writer.finish(9_000, None).unwrap();
    let reader = Reader::open(&path).unwrap();
    let mut items = reader.items_between(2_001..5_000);
    assert!(matches!(items.next_item(), Some(Item::Process(process)) if process.pid == 1));
    assert!(items.next_item().is_none());
}

#[test]
fn what_waits_half_a_second_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("patience.mfrag");
    let events = program(10, 3);
    let mut writer = Writer::create(&path, &header()).unwrap();
    let written = |count| {
        // The writing thread needs its moment; what is not to come never comes.
        for _ in 0..1000 {
            if Reader::open(&path).unwrap().events() == count {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        false
    };
    writer.events(&events);
    writer.tick(events[9].time + 400_000_000);
    assert_eq!(Reader::open(&path).unwrap().events(), 0);
    writer.tick(events[9].time + 500_000_000);
    assert!(written(10));
    // Where nobody ticks, the events tell the time.
    let mut late = events.clone();
    for event in &mut late {
        event.time += 1_000_000_000;
    }
    writer.events(&late[..1]);
    late[1].time += 500_000_000;
    writer.events(&late[1..2]);
    assert!(written(12));
    let reader = Reader::open(&path).unwrap();
    assert!(!reader.complete());
    assert_eq!(reader.cut_bytes(), 0);
}
