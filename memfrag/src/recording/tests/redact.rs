//! Copies that may leave the machine.

use super::super::redact::{END, RANDOM};
use super::super::{Item, Reader, Redactor, Writer};
use super::samples::{event, header, program, read};
use crate::capture::{Counters, Sink};
use crate::glibc::layout::HEAP_MAX;
use crate::glibc::{Arena, Chunk, ChunkKind, Layout, MappedChunk, Segment};
use crate::target::residency::{Region, RegionKind};
use crate::target::{Mapping, ProcessInfo, Residency};
use memfrag_common::stacks::Frame;
use memfrag_common::{Event, Op};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::path::Path;

/// Everything that may be secret in the recordings here has this in it.
const SECRET: &str = "hunter2";

fn redacted(from: &Path) -> Reader {
    let to = from.with_extension("copy");
    let file = std::fs::File::create_new(&to).unwrap();
    Redactor::new().unwrap().write(&Reader::open(from).unwrap(), file, &to).unwrap();
    Reader::open(&to).unwrap()
}

/// By how much the copy's addresses are lower, if that is the same for all that are moved.
#[track_caller]
fn moved(pairs: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    let mut moves = Vec::new();
    for (before, after) in pairs {
        if (RANDOM..END).contains(&before) {
            moves.push(before - after);
        } else {
            assert_eq!(before, after);
        }
    }
    moves.dedup();
    assert_eq!(moves.len(), 1, "{moves:x?}");
    moves[0]
}

/// The addresses that an event names.
fn addresses(event: &Event) -> [u64; 2] {
    match event.op {
        Op::Alloc { addr, site, .. }
        | Op::Free { addr, site, .. }
        | Op::ReallocBegin { old: addr, site, .. }
        | Op::ReallocEnd { addr, site, .. } => [addr, site],
        Op::Brk { end } => [end, 0],
        Op::Mmap { addr, .. }
        | Op::Munmap { addr, .. }
        | Op::MunmapFailed { addr, .. }
        | Op::MremapBegin { addr, .. }
        | Op::MremapEnd { addr, .. }
        | Op::Madvise { addr, .. } => [addr, 0],
        _ => [0; 2],
    }
}

/// The event with these addresses.
fn at(mut event: Event, [first, second]: [u64; 2]) -> Event {
    match &mut event.op {
        Op::Alloc { addr, site, .. }
        | Op::Free { addr, site, .. }
        | Op::ReallocBegin { old: addr, site, .. }
        | Op::ReallocEnd { addr, site, .. } => (*addr, *site) = (first, second),
        Op::Brk { end: addr }
        | Op::Mmap { addr, .. }
        | Op::Munmap { addr, .. }
        | Op::MunmapFailed { addr, .. }
        | Op::MremapBegin { addr, .. }
        | Op::MremapEnd { addr, .. }
        | Op::Madvise { addr, .. } => *addr = first,
        _ => {}
    }
    event
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn events_differ_in_their_addresses_alone(events in prop::collection::vec((event(), RANDOM..END), 1..200)) {
        // Addresses of the generator are low; every second one lies where the system chooses.
        let events: Vec<Event> = events.into_iter().enumerate().map(|(n, (event, high))| {
            if n % 2 == 0 { at(event, [high, high ^ 0xfff]) } else { event }
        }).collect();
        let mut redactor = Redactor::new().unwrap();
        let copy = redactor.events(&events).to_vec();
        let pairs = || events.iter().zip(&copy).flat_map(|(a, b)| addresses(a).into_iter().zip(addresses(b)));
        if pairs().any(|(before, _)| (RANDOM..END).contains(&before)) {
            let by = moved(pairs());
            prop_assert!(by > 0 && by.is_multiple_of(HEAP_MAX) && by < 1 << 40, "{:x}", by);
        }
        for (before, after) in events.iter().zip(copy) {
            prop_assert_eq!(at(after, addresses(before)), *before);
        }
    }
}

/// A recording of everything that there is, with a secret wherever words can stand.
fn everything(path: &Path, events: &[Event]) {
    let secret = |text: &str| format!("{text}-{SECRET}");
    let mut header = header();
    header.hostname = secret("host");
    header.command = vec![secret("server").into(), "--password".into(), SECRET.into()];
    let mut writer = Writer::create(path, &header).unwrap();
    writer.stacks(&[
        Frame { number: 1, parent: 0, address: 0 },
        Frame { number: 2, parent: 1, address: 0x7f12_3456_7890 },
        Frame { number: 7, parent: 2, address: 0x5612_3456_7abc },
    ]);
    for comm in ["server", "worker", "server"] {
        writer.process(&ProcessInfo {
            time: 1,
            pid: 100,
            comm: secret(comm),
            exe: format!("/home/{SECRET}/server").into(),
            cmdline: vec![secret("server"), SECRET.to_owned()],
            settings: vec!["MALLOC_ARENA_MAX=2".to_owned(), format!("MALLOC_CONF=prof_prefix:/tmp/{SECRET}")],
            ..ProcessInfo::default()
        });
    }
    let mapping = |start: u64, path: &str, inode| Mapping {
        start,
        end: start + 0x2000,
        path: path.into(),
        inode,
        executable: true,
        offset: 0x1000,
    };
    writer.mappings(
        2,
        100,
        &[
            mapping(0x40_0000, &format!("/home/{SECRET}/server"), 77),
            mapping(0x7f00_0000_1000, &format!("/home/{SECRET}/lib/libown.so.1"), 78),
            mapping(0x7f00_0000_3000, &format!("/home/{SECRET}/lib/libown.so.1"), 78),
            mapping(0x7f00_0010_0000, "/usr/lib/x86_64-linux-gnu/libc.so.6", 79),
            mapping(0x7f00_0020_0000, &format!("/usr/lib/{SECRET}/plugin"), 80),
            mapping(0x7fff_ffff_e000, "[stack]", 0),
        ],
    );
    writer.events(events);
    let runs = vec![0x5555_5555_9000..0x5555_5555_b000, 0x5555_5555_c000..0x5555_5555_d000];
    let region = Region {
        range: 0x5555_5555_9000..0x5555_5557_a000,
        kind: RegionKind::Heap,
        resident_bytes: 0x3000,
        swapped_bytes: 0,
        resident: runs,
    };
    writer.residency(&Residency { time: 3, pid: 100, regions: vec![region] });
    let segment = Segment {
        range: 0x7f40_0000_0000..0x7f40_0002_1000,
        first: 0x7f40_0000_0030,
        chunks: vec![Chunk::new(0x20fd0, ChunkKind::Top)],
    };
    let arena = Arena {
        address: 0x7f40_0000_0030,
        is_main: false,
        system_bytes: 0x21000,
        max_system_bytes: 0x21000,
        segments: vec![segment],
    };
    let mapped = vec![MappedChunk { address: 0x7f50_0000_0000, bytes: 0x20_0000 }];
    writer.layout(4, 100, &Layout { arenas: vec![arena], mapped });
    writer.counters(Some(100), &Counters::default());
    writer.finish(5, Some(0)).unwrap();
}

#[test]
fn nothing_tells_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    let events = program(5000, 3);
    everything(&path, &events);
    let copy = redacted(&path);
    assert!(copy.complete());
    let (copied, missing) = read(&copy);
    assert_eq!((copied.len(), missing), (events.len(), 0));
    let by = moved(events.iter().zip(&copied).flat_map(|(a, b)| addresses(a).into_iter().zip(addresses(b))));

    // Packed or not, the secret stands nowhere: neither in the notes as they are read, nor in what is left unread.
    let mut words = format!("{:?}", copy.header());
    let (mut paths, mut items) = (Vec::new(), copy.items());
    while let Some(item) = items.next_item() {
        match item {
            Item::Events(_) => {}
            Item::Process(process) => {
                assert_eq!(process.settings, ["MALLOC_ARENA_MAX=2", "MALLOC_CONF=redacted"]);
                paths.push(process.exe.clone());
                write!(words, "{process:?}").unwrap();
            }
            Item::Mappings { mappings, .. } => {
                assert_eq!(mappings[0].start, 0x40_0000, "it lies where the program wants it");
                assert_eq!(mappings[3].start, 0x7f00_0010_0000 - by);
                assert_eq!((mappings[5].start, mappings[5].end), (0x7fff_ffff_e000 - by, END - by));
                assert_eq!(mappings.iter().map(|one| one.inode).collect::<Vec<_>>(), [0, 0, 0, 79, 0, 0]);
                paths.extend(mappings.iter().map(|one| one.path.clone()));
                write!(words, "{mappings:?}").unwrap();
            }
            Item::Residency(residency) => {
                let region = &residency.regions[0];
                assert_eq!(region.range, 0x5555_5555_9000 - by..0x5555_5557_a000 - by);
                assert_eq!(region.resident[1], 0x5555_5555_c000 - by..0x5555_5555_d000 - by);
            }
            Item::Layout { layout, .. } => {
                let arena = &layout.arenas[0];
                assert_eq!((arena.address, layout.mapped[0].address), (0x7f40_0000_0030 - by, 0x7f50_0000_0000 - by));
                assert_eq!(arena.segments[0].range, 0x7f40_0000_0000 - by..0x7f40_0002_1000 - by);
                assert_eq!(arena.segments[0].first, 0x7f40_0000_0030 - by);
                assert_eq!(arena.segments[0].range.start % HEAP_MAX, 0, "arenas are found by their alignment");
            }
            other => write!(words, "{other:?}").unwrap(),
        }
    }
    assert!(!words.contains(SECRET), "{words}");
    assert!(words.contains("program-2"), "{words}");
    // The same file is the same file, and the program is among the mapped ones.
    let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    let (own, library) = ("/redacted/file-1", "/redacted/file-2");
    let libc = "/usr/lib/x86_64-linux-gnu/libc.so.6";
    assert_eq!(paths, [own, own, own, own, library, library, libc, "/redacted/file-3", "[stack]"]);
    let stacks = super::super::Stacks::of(&copy);
    assert_eq!(stacks.get(7), (vec![0x5612_3456_7abc - by, 0x7f12_3456_7890 - by], false));
}

#[test]
fn what_was_lost_stays_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    let events = program(4000, 3);
    super::samples::record_in_chunks(&path, &events, 1000);
    let chunks: Vec<_> = Reader::open(&path).unwrap().events_chunks().collect();
    // One damaged in the midst, and the end cut off.
    let mut bytes = std::fs::read(&path).unwrap();
    let start = bytes.len();
    let second = Reader::open(&path).unwrap().offset_of(1) as usize;
    bytes[second + 100] ^= 0x55;
    bytes.truncate(start - 200);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(chunks.len(), 4);
    let copy = redacted(&path);
    assert!(!copy.complete(), "what was cut short seems whole");
    assert!(copy.end().is_none());
    let (copied, missing) = read(&copy);
    assert_eq!((copied.len(), missing), (3001, 0));
    assert_eq!(copied[1000].op, Op::Gap { lost: 1000 });
}

#[test]
fn a_full_disk_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    everything(&path, &program(5000, 3));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = Redactor::new().unwrap().write(&Reader::open(&path).unwrap(), full, Path::new("x")).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
}
