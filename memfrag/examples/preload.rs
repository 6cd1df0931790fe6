//! Runs a command under the preload backend, checks the order of what it does, and prints counts:
//! `cargo run --example preload -- COMMAND ARGUMENT…`.

use anyhow::{Context, bail};
use memfrag::capture::Sink;
use memfrag::capture::preload::PreloadSession;
use memfrag::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::loss::Counter;
use memfrag_common::session::Stacks;
use memfrag_common::{Event, Op};
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Counts, and unless told otherwise keeps every heap to see whether the order is causal.
#[derive(Default)]
struct Check {
    null: bool,
    verbose: bool,
    events: u64,
    allocs: u64,
    frees: u64,
    reallocs: u64,
    others: HashMap<&'static str, u64>,
    heaps: HashMap<u32, HashMap<u64, u64>>,
    pending: HashMap<(u32, u32), Vec<u64>>,
    errors: u64,
    peak_batch: usize,
    processes: u64,
}

impl Check {
    fn error(&mut self, what: &str, event: &Event) {
        self.errors += 1;
        if self.errors <= 20 {
            eprintln!("  {what}: {event:x?}");
        }
    }

    fn apply(&mut self, event: &Event) {
        let key = (event.pid, event.tid);
        match event.op {
            Op::Alloc { addr, size, .. } => {
                self.allocs += 1;
                if addr != 0 && self.heaps.entry(event.pid).or_default().insert(addr, size).is_some() {
                    self.error("allocated while live", event);
                }
            }
            Op::Free { addr, .. } => {
                self.frees += 1;
                if self.heaps.entry(event.pid).or_default().remove(&addr).is_none() {
                    self.error("freed while not live", event);
                }
            }
            Op::ReallocBegin { old, .. } => {
                if old != 0 && self.heaps.entry(event.pid).or_default().remove(&old).is_none() {
                    self.error("reallocated while not live", event);
                }
                self.pending.entry(key).or_default().push(old);
            }
            Op::ReallocEnd { addr, size, .. } => {
                self.reallocs += 1;
                let Some(old) = self.pending.entry(key).or_default().pop() else {
                    self.error("reallocation ends without beginning", event);
                    return;
                };
                let live = if addr != 0 {
                    addr
                } else if size != 0 {
                    old
                } else {
                    0
                };
                if live != 0 && self.heaps.entry(event.pid).or_default().insert(live, size).is_some() {
                    self.error("reallocated onto a live block", event);
                }
            }
            Op::Fork { child, flags } => {
                *self.others.entry("fork").or_default() += 1;
                if flags == 0 {
                    let heap = self.heaps.get(&event.pid).cloned().unwrap_or_default();
                    self.heaps.insert(child, heap);
                }
            }
            Op::Exec => {
                *self.others.entry("exec").or_default() += 1;
                self.heaps.remove(&event.pid);
            }
            Op::Exit { .. } => {
                *self.others.entry("exit").or_default() += 1;
                self.heaps.remove(&event.pid);
            }
            Op::ThreadStart => *self.others.entry("thread start").or_default() += 1,
            Op::ThreadExit => *self.others.entry("thread exit").or_default() += 1,
            Op::Gap { lost } => *self.others.entry("lost").or_default() += lost,
            _ => *self.others.entry("other").or_default() += 1,
        }
    }
}

impl Sink for Check {
    fn events(&mut self, events: &[Event]) {
        self.events += events.len() as u64;
        self.peak_batch = self.peak_batch.max(events.len());
        if !self.null {
            for event in events {
                if self.verbose {
                    eprintln!("  {event:x?}");
                }
                self.apply(event);
            }
        }
    }
    fn process(&mut self, process: &ProcessInfo) {
        self.processes += 1;
        if self.verbose {
            eprintln!("  {process:?}");
        }
    }
    fn mappings(&mut self, _: u64, _: u32, _: &[Mapping]) {}
    fn memory(&mut self, _: &MemorySample) {}
}

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context("usage: preload COMMAND ARGUMENT…")?;
    let slots = std::env::var("SLOTS").ok().and_then(|slots| slots.parse().ok());
    let mut session = PreloadSession::with(slots.unwrap_or(memfrag::capture::preload::RING_SLOTS), Stacks::Caller)?;
    let mut child = Command::new(&program).args(arguments).envs(session.env()).spawn().context("cannot launch")?;
    let set = |name: &str| std::env::var_os(name).is_some();
    let mut check = Check { null: set("NULL"), verbose: set("VERBOSE"), ..Check::default() };
    let begin = Instant::now();
    let status = loop {
        session.poll(&mut check, Duration::from_millis(20))?;
        if let Some(status) = child.try_wait()? {
            session.exited(child.id(), status.into_raw());
            break status;
        }
    };
    let progress = session.finish(&mut check)?;
    let counters = session.counters();
    eprintln!(
        "{} events in {:.2?}: {} allocations, {} frees, {} reallocations, {:?}; {} processes, {} still running",
        check.events,
        begin.elapsed(),
        check.allocs,
        check.frees,
        check.reallocs,
        check.others,
        progress.seen,
        progress.running
    );
    for (counter, value) in Counter::ALL.iter().zip(counters) {
        if value != 0 {
            eprintln!("  {}: {value}", counter.name());
        }
    }
    // Clock ticks of a hundredth of a second, in user and in kernel mode.
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let ticks = stat.rsplit(')').next().unwrap_or("").split(' ').skip(12).take(2).collect::<Vec<_>>().join(" + ");
    eprintln!("  processor time of this program: {ticks} hundredths of a second");
    eprintln!("  late {}, unreadable {}, order errors {}", session.late(), session.unreadable(), check.errors);
    if check.errors > 0 {
        bail!("the order is not causal");
    }
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255)))
}
