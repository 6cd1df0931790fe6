//! Whole pages as they are printed.

use super::{Style, place, render};
use crate::capture::Sink;
use crate::report::build::{RecordingMeta, ReportBuilder};
use crate::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::loss::{COUNTERS, Counter};
use memfrag_common::{Event, Function, Op};

const MS: u64 = 1_000_000;

fn alloc(time: u64, pid: u32, addr: u64, size: u64, caller: u64) -> Event {
    let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: caller, stack: 0 };
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
    let map = |start, path: &str| Mapping {
        start,
        end: start + 0x10_0000,
        path: path.into(),
        executable: true,
        ..Mapping::default()
    };
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
    check(
        builder,
        meta(),
        "\
server.mfrag
  Traced     1 process for 3.50 s with eBPF probes
  Recording  complete, 6.8 KiB (3.7 B an event)
  Events     1,904 (544/s): 1,000 allocations, 900 frees, 2 reallocations
  Lost       nothing

────────────────────────────────────────────────────────────────────────────────
redis-server  pid 4711 · 2 threads · glibc · running at the end
  redis-server --port 7777

                      blocks         bytes
  allocated            1,000      58.2 MiB  + 1 reallocation
  freed                  900      51.6 MiB
  peak                 1,000      57.2 MiB  at 2.00 s
  live at end            100       6.7 MiB  RSS 63.0 MiB, 9.45 × live

  Memory over time   █ live   ░ resident
    63.0 MiB ┤                                 ░▁▂▄▄▂░░░░░░░░░░░░░░░░░░░░░░░░░░
             │                           ▁▂▃▄▅▇███████▅▄▁░░░░░░░░░░░░░░░░░░░░░░
             │                    ▁▂▃▄▅▆█████████████████▇▅▃▁░░░░░░░░░░░░░░░░░░
    31.5 MiB ┤              ▂▃▄▅▆▇███████████████████████████▇▅▂▁░░░░░░░░░░░░░░
             │       ▁▃▄▅▆▇██████████████████████████████████████▆▄▂░░░░░░░░░░░
             │▁▂▄▄▆▇█████████████████████████████████████████████████▆▄▅▅▅▅▅▅▅▅
         0 B └─────────────────────────────────────────────────────────────────
              0 s                                                        3.50 s

  How the live blocks lie
  Pages      1,841 hold live blocks: 89 % of them full, 5 % in part, 5 % less
             than a quarter
  Packed     one behind the other they would take 6.7 MiB, with 800 B of headers
             and 800 B of padding

  Functions
                                 calls    failed         bytes
  malloc                         1,000         –      57.2 MiB
  realloc                            2         1       1.0 MiB
  free                             900         –      51.5 MiB

  Call sites by what they hold at the end
        live   share       blocks      allocated  call site
     5.7 MiB  85.0 %           99            100  redis-server+0x1234
     1.0 MiB  15.0 %            1              1  libc.so.6+0x42
",
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a whole page")]
fn a_damaged_recording_of_many_processes() {
    let mut builder = ReportBuilder::new(None);
    let mut counters = [0; COUNTERS];
    counters[Counter::Dropped as usize] = 50;
    counters[Counter::Waited as usize] = 3;
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
    check(
        builder,
        RecordingMeta { complete: false, backend: "preload".to_owned(), ..meta() },
        "\
server.mfrag
  Traced     10 processes for 3.50 s with the preload library
  Recording  cut short: it ends without its last part; 6.8 KiB could be read
  Events     23 (7/s): 8 allocations, 8 frees, 0 reallocations
  Lost       57 events (71.25 %): from the first gap on, blocks whose free was
             lost count as live, and blocks whose allocation was lost are
             missing
  Counted    records that found no room in the ring: 50
             times that the program waited for room in its ring: 3

────────────────────────────────────────────────────────────────────────────────
worker-107-with-a-long-name  pid 107 · 1 thread · running at the end

                      blocks         bytes
  allocated                1         107 B
  freed                    1           0 B
  peak                     1         107 B  at 1.0 ms
  live at end              1         107 B

  Functions
                                 calls    failed         bytes
  malloc                             1         –         107 B
  free                               1         –           0 B

  Call sites by what they hold at the end
        live   share       blocks      allocated  call site
       107 B 100.0 %            1              1  0x1

  Worth knowing
  ! freed blocks that were allocated before the trace began, or whose allocation
    was lost: 1

────────────────────────────────────────────────────────────────────────────────
worker-107-with-a-long-name  pid 201 · 1 thread · running at the end

                      blocks         bytes
  inherited                1         107 B  from its parent at the fork
  allocated                0           0 B
  freed                    0           0 B
  peak                     1         107 B  at 8.0 ms
  live at end              1         107 B

  Call sites by what they hold at the end
        live   share       blocks      allocated  call site
       107 B 100.0 %            1              0  0x1

────────────────────────────────────────────────────────────────────────────────
worker-106-with-a-long-name  pid 106 · 1 thread · running at the end

                      blocks         bytes
  allocated                1         106 B
  freed                    1           0 B
  peak                     1         106 B  at 1.0 ms
  live at end              1         106 B

  Functions
                                 calls    failed         bytes
  malloc                             1         –         106 B
  free                               1         –           0 B

  Call sites by what they hold at the end
        live   share       blocks      allocated  call site
       106 B 100.0 %            1              1  0x1

  Worth knowing
  ! freed blocks that were allocated before the trace began, or whose allocation
    was lost: 1

────────────────────────────────────────────────────────────────────────────────
worker-105-with-a-long-name  pid 105 · 1 thread · running at the end

                      blocks         bytes
  allocated                1         105 B
  freed                    1           0 B
  peak                     1         105 B  at 1.0 ms
  live at end              1         105 B

  Functions
                                 calls    failed         bytes
  malloc                             1         –         105 B
  free                               1         –           0 B

  Call sites by what they hold at the end
        live   share       blocks      allocated  call site
       105 B 100.0 %            1              1  0x1

  Worth knowing
  ! freed blocks that were allocated before the trace began, or whose allocation
    was lost: 1

────────────────────────────────────────────────────────────────────────────────
      pid  others                   peak     at end         calls  outcome
      104  worker-104-with-…       104 B      104 B             2  runs !
      103  worker-103-with-…       103 B      103 B             2  ended !
      102  worker-102-with-…       102 B      102 B             2  exit 1 !
      101  worker-101-with-…       101 B      101 B             2  signal 9 !
      100  worker-100-with-…       100 B      100 B             2  exit 0 !
      200  worker-107-with-…         0 B        0 B             0  runs
",
    );
}

#[test]
fn nothing_at_all() {
    check(
        ReportBuilder::new(None),
        RecordingMeta::default(),
        "\
memfrag
  Traced     0 processes for 0 s
  Events     0: 0 allocations, 0 frees, 0 reallocations
  Lost       nothing
",
    );
}

#[test]
fn colours_change_nothing_but_colours() {
    let report = |builder: &mut ReportBuilder| server(builder);
    let page = |color| {
        let mut builder = ReportBuilder::new(None);
        report(&mut builder);
        render(&builder.finish(meta()), Style { color, width: 80 })
    };
    let mut plain = String::new();
    let mut rest = page(true);
    while let Some(start) = rest.find("\x1b[") {
        plain.push_str(&rest[..start]);
        let end = start + rest[start..].find('m').expect("the end of an escape");
        rest = rest[end + 1..].to_owned();
    }
    plain.push_str(&rest);
    assert_eq!(plain, page(false));
}

#[test]
fn names_cannot_write_to_the_terminal() {
    let mut builder = ReportBuilder::new(None);
    let info = ProcessInfo {
        pid: 1,
        comm: "\x1b[2J\n".to_owned(),
        cmdline: vec!["\x07\r".to_owned()],
        ..ProcessInfo::default()
    };
    builder.process(&info);
    let file = "\x1b]0;x".to_owned();
    let page = render(&builder.finish(RecordingMeta { file, ..meta() }), Style { color: false, width: 80 });
    assert!(!page.contains(|c: char| c.is_control() && c != '\n'), "{page:?}");
}

#[test]
fn a_site_without_room_loses_its_file_before_its_name() {
    let site = "_PyObject_Calloc+0x9b (libpython3.11.so.1.0)";
    assert_eq!(place(site, 44), site);
    assert_eq!(place(site, 43), "_PyObject_Calloc+0x9b");
    assert_eq!(place(site, 12), "_PyObj…+0x9b");
    assert_eq!(place("libpython3.11.so.1.0+0x1afb3b", 20), "libpython3…+0x1afb3b");
}
