//! Whole pages as they are printed.

use super::{Style, render};
use crate::capture::Sink;
use crate::report::build::{RecordingMeta, ReportBuilder};
use crate::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::loss::{COUNTERS, Counter};
use memfrag_common::{Event, Function, Op};

const MS: u64 = 1_000_000;

fn alloc(time: u64, pid: u32, addr: u64, size: u64, site: u64) -> Event {
    let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site, stack: 0 };
    Event { time, pid, tid: pid, op }
}

fn free(time: u64, pid: u32, addr: u64) -> Event {
    Event { time, pid, tid: pid, op: Op::Free { function: Function::Free, addr, size: 0, site: 0 } }
}

/// A server that fills up, drops most of it, and keeps its resident memory.
fn server(builder: &mut ReportBuilder) {
    builder.process(&ProcessInfo {
        pid: 4711,
        ppid: 1,
        comm: "redis-server".to_owned(),
        exe: "/usr/bin/redis-server".into(),
        cmdline: ["redis-server", "--port", "7777"].map(str::to_owned).to_vec(),
        ..ProcessInfo::default()
    });
    let map = |start, path: &str| Mapping { start, end: start + 0x10_0000, path: path.into(), ..Mapping::default() };
    builder.mappings(0, 4711, &[map(0x40_0000, "/usr/bin/redis-server"), map(0x7f00_0000, "/usr/lib/libc.so.6")]);
    for n in 0..1000_u64 {
        let site = if n % 10 == 0 { 0x40_1234 } else { 0x40_5678 };
        builder.events(&[alloc(n * 2 * MS, 4711, 0x1_0000 + n * 65536, 60_000, site)]);
        builder.memory(&MemorySample { time: n * 2 * MS, pid: 4711, rss: n * 65536, ..MemorySample::default() });
    }
    for n in (0..1000).filter(|n| n % 10 != 0) {
        builder.events(&[free((2000 + n) * MS, 4711, 0x1_0000 + n * 65536)]);
    }
    let (time, pid, tid, function, site) = (3100 * MS, 4711, 4712, Function::Realloc, 0x7f00_0042);
    let old = 0x1_0000;
    builder.events(&[
        Event { time, pid, tid, op: Op::ReallocBegin { function, old, size: 1 << 20, site } },
        Event { time, pid, tid, op: Op::ReallocEnd { function, addr: 1 << 30, size: 1 << 20, site, stack: 0 } },
        Event { time, pid, tid, op: Op::ReallocBegin { function, old: 1 << 30, size: 1 << 60, site } },
        Event { time, pid, tid, op: Op::ReallocEnd { function, addr: 0, size: 1 << 60, site, stack: 0 } },
    ]);
    builder.memory(&MemorySample { time: 3200 * MS, pid: 4711, rss: 63 << 20, ..MemorySample::default() });
}

fn meta() -> RecordingMeta {
    RecordingMeta {
        file: "server.mfrag".to_owned(),
        duration_ns: 3500 * MS,
        backend: "ebpf".to_owned(),
        complete: true,
        bytes_on_disk: 7000,
    }
}

#[track_caller]
fn check(builder: ReportBuilder, meta: RecordingMeta, expected: &str) {
    let page = render(&builder.finish(meta), Style { color: false, width: 80 });
    assert!(page.lines().all(|line| line.chars().count() <= 80), "a line is too long:\n{page}");
    assert!(page == expected, "\n{page}");
}

#[test]
fn a_server_that_keeps_its_memory() {
    let mut builder = ReportBuilder::new(None);
    server(&mut builder);
    check(builder, meta(), "");
}

#[test]
fn a_damaged_recording_of_many_processes() {
    let mut builder = ReportBuilder::new(None);
    let mut counters = [0; COUNTERS];
    counters[Counter::Dropped as usize] = 50;
    builder.counters(None, &counters);
    builder.missing(7);
    for pid in 100..108 {
        let comm = format!("worker-{pid}-with-a-long-name");
        builder.process(&ProcessInfo { pid, comm, ..ProcessInfo::default() });
        builder.events(&[alloc(MS, pid, 64, u64::from(pid), 1), free(2 * MS, pid, 8)]);
    }
    let status = |status| Op::Exit { status };
    builder.events(&[
        Event { time: 3 * MS, pid: 101, tid: 101, op: Op::Gap { lost: 40 } },
        Event { time: 4 * MS, pid: 100, tid: 100, op: status(Some(0)) },
        Event { time: 5 * MS, pid: 101, tid: 101, op: status(Some(9)) },
        Event { time: 6 * MS, pid: 102, tid: 102, op: status(Some(256)) },
        Event { time: 7 * MS, pid: 103, tid: 103, op: status(None) },
        Event { time: 8 * MS, pid: 107, tid: 107, op: Op::Fork { child: 200, flags: 0x4111 } },
        Event { time: 8 * MS, pid: 107, tid: 107, op: Op::Fork { child: 201, flags: 17 } },
    ]);
    check(builder, RecordingMeta { complete: false, backend: "preload".to_owned(), ..meta() }, "");
}

#[test]
fn nothing_at_all() {
    check(ReportBuilder::new(None), RecordingMeta::default(), "");
}
