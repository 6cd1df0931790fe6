//! The file of version 1 that every later memfrag must read. It is never written anew: a later version gets its own.

use super::super::{Item, Reader, Writer};
use super::samples::{header, program};
use crate::capture::Sink;
use crate::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::{Event, Op};
use std::path::{Path, PathBuf};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recording/golden/version-1.bin");

fn events() -> Vec<Event> {
    let mut events = program(2000, 0x6d66_7261_6731);
    let last = events[1999].time;
    let other = [
        Op::Fork { child: 101, flags: 0x11 },
        Op::Exec,
        Op::Exit { status: Some(9) },
        Op::Exit { status: None },
        Op::ThreadStart,
        Op::ThreadExit,
        Op::Munmap { addr: 0x7f00_0000_0000, size: 4096 },
        Op::MunmapFailed { addr: 1, size: 2 },
        Op::MremapBegin { addr: 0x7f00_0000_1000, size: 4096 },
        Op::MremapEnd { addr: 0, size: 0 },
        Op::Brk { end: u64::MAX },
        Op::Madvise { addr: 0x7f00_0000_1000, size: 4096, advice: 4 },
        Op::Gap { lost: 12 },
    ];
    events.extend(other.map(|op| Event { time: last - 5, pid: 100, tid: 101, op }));
    events
}

fn process() -> ProcessInfo {
    ProcessInfo {
        time: 500,
        pid: 100,
        ppid: 1,
        start_ticks: 12,
        comm: "server".into(),
        exe: "/usr/bin/server".into(),
        cmdline: vec!["server".into(), "--port".into(), "0".into()],
        settings: Vec::new(),
    }
}

fn mapping() -> Mapping {
    Mapping {
        start: 0x5555_5555_0000,
        end: 0x5555_5555_8000,
        offset: 0x1000,
        executable: true,
        path: PathBuf::from("/usr/bin/server"),
        inode: 77,
    }
}

fn memory() -> MemorySample {
    MemorySample { time: 700, pid: 100, rss: 6, rss_anon: 5, rss_file: 4, rss_shmem: 3, swap: 2, virtual_bytes: 1 }
}

#[test]
fn version_1_reads_back() {
    let reader = Reader::open(Path::new(GOLDEN)).unwrap();
    assert!(reader.complete());
    assert_eq!(reader.header(), &header());
    let (mut found, mut notes) = (Vec::new(), 0);
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        notes += 1;
        match item {
            Item::Events(some) => {
                found.extend_from_slice(some);
                notes -= 1;
            }
            Item::Process(found) => assert_eq!(found, process()),
            Item::Mappings { time, pid, mappings } => assert_eq!((time, pid, mappings), (600, 100, vec![mapping()])),
            Item::Memory(found) => assert_eq!(found, memory()),
            Item::Counters { pid, counters, .. } => {
                assert_eq!(pid, Some(100));
                assert_eq!(counters[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
            }
            Item::End(end) => assert_eq!((end.time, end.status, end.events), (900_000, Some(256), 2013)),
            Item::Missing { .. } => panic!("nothing is missing"),
            Item::Residency(_) | Item::Layout { .. } => panic!("the file was written without them"),
        }
    }
    assert_eq!(notes, 5);
    assert_eq!(found, events());
}

/// Wrote the golden file, once.
#[test]
#[ignore = "would replace the golden file of version 1"]
fn write_version_1() {
    assert!(!Path::new(GOLDEN).exists(), "the golden file is there; it must not change");
    let mut writer = Writer::create(Path::new(GOLDEN), &header()).unwrap();
    let events = events();
    writer.process(&process());
    writer.mappings(600, 100, &[mapping()]);
    writer.events(&events[..1500]);
    writer.memory(&memory());
    writer.flush();
    writer.events(&events[1500..]);
    writer.counters(Some(100), &std::array::from_fn(|at| at as u64 + 1));
    writer.finish(900_000, Some(256)).unwrap();
}
