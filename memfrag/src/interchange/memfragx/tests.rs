use super::*;
use crate::heap::Heaps;
use crate::report::ReportBuilder;
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;

fn import(text: &[u8]) -> Result<(ReportBuilder, Imported), ImportError> {
    let mut builder = ReportBuilder::new(None);
    let done = Import::new(text)?.run("log", &mut builder)?;
    Ok((builder, done))
}

fn live(heaps: &Heaps) -> Vec<(u64, u64)> {
    let heap = heaps.heap(&heaps.processes()[0]);
    heap.blocks().by_address().map(|block| (block.addr, block.size)).collect()
}

#[test]
fn rows_become_events() {
    let log = b"ts_ns,event,ptr,size,tid\n\
        1000,ALLOC,0x10,100,7\n1005,CALLOC,0x20,50,8\n1010,FREE,0x10,,7\n1020,FREE,(nil),,7\n\
        1030,REALLOC,0x20,70,8\n1040,REALLOC,0x30,5,7\n";
    let (builder, done) = import(log).expect("a log");
    assert_eq!(live(builder.heaps()), [(0x20, 70), (0x30, 5)]);
    let expected =
        Imported { rows: 6, events: 7, threads: 2, duration_ns: 40, null_frees: 1, moved: 1, ..Imported::default() };
    assert_eq!(done, expected);
    assert_eq!(builder.heaps().anomalies().iter().map(|(_, count, _)| count).sum::<u64>(), 0);
}

#[test]
fn a_free_that_stands_too_late_frees_the_block_before() {
    let log = b"ts_ns,event,ptr,size,tid\n1,ALLOC,0x10,100,1\n2,ALLOC,0x10,40,2\n3,FREE,0x10,,1\n4,FREE,0x10,,2\n5,ALLOC,0x10,9,1\n";
    let (builder, done) = import(log).expect("a log");
    assert_eq!((done.late_frees, live(builder.heaps())), (1, vec![(0x10, 9)]));
    assert_eq!(builder.heaps().anomalies().unmatched_frees, 0);
}

#[test]
fn columns_may_stand_otherwise() {
    let log = b"thread;Op;timestamp;bytes;address\r\n3;alloc;5;24;64\r\n3;free;4;;64\r\n";
    let (builder, done) = import(log).expect("a log");
    assert_eq!((done.rows, done.set_back, live(builder.heaps())), (2, 1, Vec::new()));
    let (_, done) = import(b"9,ALLOC,0x10,1,5\n10,FREE,0x10,,5\n").expect("a log without a head");
    assert_eq!(done.rows, 2);
}

#[test]
fn what_cannot_be_read_is_counted_and_named() {
    let endless = "x".repeat(10_000);
    let log = format!(
        "ts_ns,event,ptr,size,tid\n{endless}\n1,ALLOC,0x10,8,1\n1,ALLOC,0x20,,1\n\n1,EAT,0x20,8,1\n1,FREE,zz,,1"
    );
    let (builder, done) = import(log.as_bytes()).expect("a log");
    assert_eq!((done.rows, done.bad), (1, 4));
    assert_eq!(done.first_bad, Some((2, "it names no event that is known")));
    assert_eq!(live(builder.heaps()), [(0x10, 8)]);
}

#[test]
fn other_files_are_refused_by_name() {
    let error = |text: &[u8]| import(text).map(|_| ()).expect_err("no log").to_string();
    assert!(error(b"\x7fELF and so on").contains("ELF and so on"));
    assert!(error(b"").contains("no MemFragX log"));
    assert!(error(b"ts_ns,event,ptr,size,tid\nnothing\n").contains("1 lines"));
}

#[test]
fn sizes_of_freed_blocks_are_written() {
    let event = |time, op| Event { time, pid: 5, tid: 6, op };
    let alloc = |addr, size| Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 0, stack: 0 };
    let free = |addr| Op::Free { function: Function::Free, addr, size: 0, site: 0 };
    let begin = |old, size| Op::ReallocBegin { function: Function::Realloc, old, size, site: 0 };
    let end = |addr, size| Op::ReallocEnd { function: Function::Realloc, addr, size, site: 0, stack: 0 };
    let mut log = Vec::new();
    let mut export = Export::new(&mut log, 5, 1000).expect("in memory");
    export
        .events(&[
            event(1, alloc(0x10, 100)),
            event(2, begin(0x10, 300)),
            event(3, end(0x40, 300)),
            event(4, begin(0x40, 900)),
            event(5, end(0, 900)),
            event(6, free(0x99)),
            Event { pid: 1, ..event(7, alloc(0x70, 1)) },
            event(8, free(0x40)),
        ])
        .expect("in memory");
    let done = export.finish("a.csv".into()).expect("in memory");
    let rows = "ts_ns,event,ptr,size,tid\n1001,ALLOC,0x10,100,6\n1003,FREE,0x10,100,6\n1003,REALLOC,0x40,300,6\n\
                1006,FREE,0x99,,6\n1008,FREE,0x40,300,6\n";
    assert_eq!(String::from_utf8_lossy(&log), rows);
    let summary = Summary {
        trace_file: "a.csv".into(),
        records: 5,
        allocs: 2,
        frees: 3,
        threads: 1,
        total_alloc_bytes: 400,
        net_alloc_bytes: 0,
    };
    assert_eq!((done.summary, done.of_unknown_size), (summary, 1));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(head in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut log = if head { b"ts_ns,event,ptr,size,tid\n".to_vec() } else { Vec::new() };
        log.extend(bytes);
        let _ = import(&log);
    }

    #[test]
    fn almost_rows_are_survived(rows in prop::collection::vec("[0-9]{0,22},(ALLOC|FREE|REALLOC|CALLOC|X),(0x)?[0-9a-f]{0,17},[0-9]{0,21},[0-9]{0,11}", 0..60)) {
        let log = format!("ts_ns,event,ptr,size,tid\n{}", rows.join("\n"));
        if let Ok((_, done)) = import(log.as_bytes()) {
            prop_assert_eq!(done.rows + done.bad, rows.iter().filter(|row| !row.is_empty()).count() as u64);
        }
    }

    /// What is written is read as the same: blocks, sizes and threads.
    #[test]
    fn a_log_comes_back(calls in prop::collection::vec((0..20_u64, 1..500_u64, 0..4_u32), 1..200)) {
        let mut log = Vec::new();
        let mut export = Export::new(&mut log, 1, 1 << 60).expect("in memory");
        let mut taken = std::collections::BTreeMap::new();
        for (time, (slot, size, tid)) in (0_u64..).zip(calls) {
            let addr = 0x1000 + slot * 0x10;
            let op = if taken.remove(&addr).is_some() {
                Op::Free { function: Function::Free, addr, size: 0, site: 0 }
            } else {
                taken.insert(addr, size);
                Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 0, stack: 0 }
            };
            export.events(&[Event { time, pid: 1, tid: tid + 1, op }]).expect("in memory");
        }
        let done = export.finish(String::new()).expect("in memory");
        let (builder, back) = import(&log).expect("a log");
        prop_assert_eq!(live(builder.heaps()), taken.iter().map(|(addr, size)| (*addr, *size)).collect::<Vec<_>>());
        prop_assert_eq!((back.rows, back.threads), (done.summary.records, done.summary.threads));
        prop_assert_eq!(done.summary.net_alloc_bytes, taken.values().sum::<u64>().cast_signed());
        prop_assert_eq!((back.bad, back.late_frees, back.set_back), (0, 0, 0));
    }
}
