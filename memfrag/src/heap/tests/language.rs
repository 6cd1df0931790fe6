//! A small language for golden cases: text in, text out.
//!
//! One event a line, `[PID[.TID]] OP ARGUMENTS`; the time is the line's number. Process and thread default to 10.
//! Addresses are hexadecimal, sizes decimal. The answer shows each process's sums, blocks and anomalies, leaving out
//! what is zero.

use crate::heap::{Heaps, Process};
use crate::target::ProcessInfo;
use memfrag_common::{Event, Function, Op};
use std::fmt::Write as _;

/// Runs `input` and compares what it leads to with `expected`, line by line.
#[track_caller]
pub(super) fn check(input: &str, expected: &str) {
    let lines = |text: &str| text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n");
    let found = describe(&run(input));
    assert_eq!(lines(&found), lines(expected), "\nfound:\n{found}");
}

/// Runs a script.
pub(super) fn run(input: &str) -> Heaps {
    let mut heaps = Heaps::default();
    for (number, line) in (1..).zip(input.lines().map(str::trim).filter(|line| !line.is_empty())) {
        step(&mut heaps, number, line);
    }
    heaps
}

fn step(heaps: &mut Heaps, time: u64, line: &str) {
    let mut words = line.split_whitespace().peekable();
    let (mut pid, mut tid) = (10, 10);
    if let Some(id) = words.next_if(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
        let (process, thread) = id.split_once('.').unwrap_or((id, id));
        pid = process.parse().expect("a process id");
        tid = thread.parse().expect("a thread id");
    }
    let op = words.next().expect("an operation");
    let rest: Vec<&str> = words.collect();
    let addr = |at: usize| rest.get(at).map_or(0, |word| u64::from_str_radix(word, 16).expect("an address"));
    let number = |at: usize| rest.get(at).map_or(0, |word| word.parse::<u64>().expect("a number"));
    let site = 0x1000;
    let alloc = |function, align_log2| Op::Alloc {
        function,
        align_log2,
        addr: addr(0),
        size: number(1),
        site: if rest.len() > 2 { addr(2) } else { site },
        stack: 0,
    };
    let function = Function::Realloc;
    let op = match op {
        "info" => {
            let start_ticks = number(0);
            return heaps.learn(&ProcessInfo { time, pid, start_ticks, ..ProcessInfo::default() });
        }
        "malloc" => alloc(Function::Malloc, 0),
        "calloc" => alloc(Function::Calloc, 0),
        "memalign" => alloc(Function::Memalign, 6),
        "new" => alloc(Function::OperatorNew, 0),
        "free" => Op::Free { function: Function::Free, addr: addr(0), size: 0, site },
        "begin" => Op::ReallocBegin { function, old: addr(0), size: number(1), site },
        "end" => Op::ReallocEnd { function, addr: addr(0), size: number(1), site, stack: 0 },
        "fork" => Op::Fork { child: number(0) as u32, flags: 17 },
        "vfork" => Op::Fork { child: number(0) as u32, flags: 0x4111 },
        "clone" => Op::Fork { child: number(0) as u32, flags: 0x1_0100 },
        "exec" => Op::Exec,
        "exit" => Op::Exit { status: Some(number(0) as i32) },
        "start" => Op::ThreadStart,
        "leave" => Op::ThreadExit,
        "gap" => Op::Gap { lost: number(0) },
        "mmap" => Op::Mmap { addr: addr(0), size: number(1), protection: 3, flags: 34, fd: -1 },
        "munmap" => Op::Munmap { addr: addr(0), size: number(1) },
        "unmunmap" => Op::MunmapFailed { addr: addr(0), size: number(1) },
        "mremap" => Op::MremapBegin { addr: addr(0), size: number(1) },
        "remapped" => Op::MremapEnd { addr: addr(0), size: number(1) },
        "brk" => Op::Brk { end: addr(0) },
        other => panic!("no such operation: {other}"),
    };
    heaps.apply(&Event { time, pid, tid, op });
}

fn describe(heaps: &Heaps) -> String {
    let mut text = String::new();
    for process in heaps.processes() {
        line(&mut text, heaps, process);
    }
    text
}

fn line(text: &mut String, heaps: &Heaps, process: &Process) {
    let heap = heaps.heap(process);
    write!(text, "{}", process.pid()).expect("written");
    if let Some(parent) = process.parent() {
        write!(text, " of {}", heaps.processes()[parent].pid()).expect("written");
    }
    if let Some(ended) = process.ended() {
        write!(text, " ended {ended}").expect("written");
    }
    let mut field = |name: &str, value: u64| {
        if value > 0 {
            write!(text, " {name} {value}").expect("written");
        }
    };
    field("execs", process.execs());
    if process.threads().len() > 1 {
        field("threads", process.threads().len() as u64);
    }
    if heaps.shares_heap(process) {
        text.push_str(" shares\n");
        return;
    }
    let totals = heap.totals();
    field("a", totals.allocations);
    field("f", totals.frees);
    field("r", totals.reallocations);
    field("+", totals.requested_bytes);
    field("-", totals.freed_bytes);
    field("inherited", heap.inherited().bytes);
    field("discarded", heap.discarded().bytes);
    field("under_way", process.under_way().bytes);
    field("failed", heap.functions().iter().map(|(_, totals)| totals.failed).sum());
    for (name, value, _) in heap.anomalies().iter() {
        field(name, value);
    }
    field("damaged_at", heap.damaged_at().unwrap_or(0));
    let maps = heap.maps();
    field("mapped", maps.mapped_bytes);
    field("unmapped", maps.unmapped_bytes);
    field("brk", maps.brk_end.unwrap_or(0));
    field("grown", maps.brk_growth.unsigned_abs());
    let peak = heap.peak();
    if peak.live.bytes > 0 {
        write!(text, " peak {}/{}@{}", peak.live.blocks, peak.live.bytes, peak.time).expect("written");
    }
    let mut blocks: Vec<_> = heap.blocks().iter().collect();
    blocks.sort_by_key(|block| block.addr);
    let blocks: Vec<String> =
        blocks.iter().map(|b| format!("{:x}:{}@{}.{}", b.addr, b.size, b.time, b.thread)).collect();
    write!(text, " [{}]", blocks.join(" ")).expect("written");
    assert_eq!(heap.live().blocks, heap.blocks().len(), "the count of live blocks");
    text.push('\n');
}
