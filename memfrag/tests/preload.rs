//! The preload backend against small C programs, each named for what it does, and against real ones.

#![allow(missing_docs, reason = "tests")]

use memfrag::capture::Sink;
use memfrag::capture::preload::PreloadSession;
use memfrag::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::loss::Counter;
use memfrag_common::session::Stacks;
use memfrag_common::{Event, Function, Op};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Everything that a session told.
#[derive(Default)]
struct Recorded {
    events: Vec<Event>,
    processes: Vec<ProcessInfo>,
    mappings: HashMap<u32, Vec<Mapping>>,
    /// What was said of whether the programs are faster.
    behind: Vec<bool>,
}

impl Sink for Recorded {
    fn events(&mut self, events: &[Event]) {
        self.events.extend_from_slice(events);
    }
    fn behind(&mut self, behind: bool) {
        self.behind.push(behind);
    }
    fn process(&mut self, process: &ProcessInfo) {
        self.processes.push(process.clone());
    }
    fn mappings(&mut self, _: u64, pid: u32, mappings: &[Mapping]) {
        self.mappings.insert(pid, mappings.to_vec());
    }
    fn memory(&mut self, _: &MemorySample) {}
}

/// What came of a run.
struct Run {
    recorded: Recorded,
    status: ExitStatus,
    stdout: String,
    pid: u32,
    counters: [u64; memfrag_common::loss::COUNTERS],
    late: u64,
}

impl Run {
    fn events(&self) -> &[Event] {
        &self.recorded.events
    }

    /// How often blocks of this size were asked for by malloc in the process, or in all with 0.
    fn mallocs(&self, pid: u32, of: u64) -> usize {
        let wanted = |event: &&Event| {
            (pid == 0 || event.pid == pid)
                && matches!(event.op, Op::Alloc { function: Function::Malloc, size, .. } if size == of)
        };
        self.events().iter().filter(wanted).count()
    }

    fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Nothing may be missing, late, out of order, or at odds with the heaps.
    fn check(&self) {
        self.check_but(0);
    }

    /// The same, but for so many calls that the program left by a jump: whether such a call has taken effect, neither
    /// the program nor anybody else can know, and so it may free a block that is gone, or get one that is not.
    fn check_but(&self, left: usize) {
        assert_eq!(self.counter(Counter::Dropped), 0);
        assert_eq!(self.counter(Counter::ThreadMapFull), 0);
        assert_eq!(self.late, 0);
        assert!(self.events().is_sorted_by_key(|event| event.time), "times must not decrease");
        let errors = causality_errors(self.events());
        assert!(errors.len() <= left, "{errors:#?}");
    }
}

/// An allocation of a live block or a free of a dead one means that the order is wrong or something is missing.
fn causality_errors(events: &[Event]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut check = |right: bool, what: &str, event: &Event| {
        if !right {
            errors.push(format!("{what}: {event:x?}"));
        }
    };
    let mut heaps: HashMap<u32, HashSet<u64>> = HashMap::new();
    let mut reallocating: HashMap<u32, Vec<u64>> = HashMap::new();
    let mut started: HashSet<(u32, u32)> = HashSet::new();
    for event in events {
        let heap = heaps.entry(event.pid).or_default();
        match event.op {
            Op::Alloc { addr, .. } if addr != 0 => check(heap.insert(addr), "live already", event),
            Op::Free { addr, .. } => check(heap.remove(&addr), "not live", event),
            Op::ReallocBegin { old, .. } => {
                check(old == 0 || heap.remove(&old), "not live", event);
                reallocating.entry(event.tid).or_default().push(old);
            }
            Op::ReallocEnd { addr, size, .. } => {
                let old = reallocating.entry(event.tid).or_default().pop().expect("an end without a beginning");
                let live = match (addr, size) {
                    (0, 0) => 0,
                    (0, _) => old,
                    _ => addr,
                };
                check(live == 0 || heap.insert(live), "live already", event);
            }
            Op::Fork { child, flags } => {
                let copy = if flags == 0 { heap.clone() } else { HashSet::new() };
                assert!(heaps.get(&child).is_none_or(HashSet::is_empty), "events before the fork: {event:x?}");
                heaps.insert(child, copy);
            }
            Op::Exec => heap.clear(),
            Op::ThreadStart => assert!(started.insert((event.pid, event.tid)), "started twice: {event:?}"),
            Op::ThreadExit => assert!(started.remove(&(event.pid, event.tid)), "ended twice: {event:?}"),
            Op::Exit { .. } => {
                heaps.remove(&event.pid);
            }
            _ => {}
        }
    }
    assert_eq!(started.len(), 0, "threads without an end");
    errors
}

/// Programs compiled so far.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Compiles `name.c`, into a file of its own: another test may be running the same program.
fn program(name: &str, flags: &[&str]) -> PathBuf {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/preload-programs/{name}.c"));
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}-{number}", std::process::id()));
    let status = Command::new("cc")
        .args(["-O1", "-w", "-fno-builtin", "-pthread", "-o"])
        .arg(&target)
        .arg(&source)
        .args(flags)
        .status()
        .expect("the tests need a C compiler as `cc`");
    assert!(status.success());
    target
}

fn run_in(mut session: PreloadSession, command: &mut Command, more: &[(OsString, OsString)]) -> Run {
    let mut child =
        command.envs(session.env()).envs(more.iter().cloned()).stdout(Stdio::piped()).spawn().expect("cannot launch");
    let output = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::read_to_string(output));
    let mut recorded = Recorded::default();
    let deadline = Instant::now() + Duration::from_mins(2);
    let status = loop {
        session.poll(&mut recorded, Duration::from_millis(5)).expect("polling");
        if let Some(status) = child.try_wait().expect("waiting") {
            session.exited(child.id(), status.into_raw());
            break status;
        }
        assert!(Instant::now() < deadline, "the program does not end");
    };
    session.finish(&mut recorded).expect("finishing");
    let stdout = reader.join().expect("joining").expect("reading");
    let (counters, late) = (session.counters(), session.late());
    assert_eq!(session.unreadable(), 0);
    Run { recorded, status, stdout, pid: child.id(), counters, late }
}

fn run(command: &mut Command) -> Run {
    run_in(PreloadSession::create().expect("a session"), command, &[])
}

/// Runs the program with an allocator behind the library whose functions may be interrupted anywhere and left.
fn run_on_bump(name: &str) -> Run {
    let session = PreloadSession::create().expect("a session");
    let (variable, mut libraries) = session.env().remove(0);
    libraries.push(":");
    libraries.push(program("bump", &["-shared", "-fPIC"]));
    run_in(session, &mut Command::new(program(name, &[])), &[(variable, libraries)])
}

#[test]
fn every_function_is_recorded_as_it_was_called() {
    let run = run(&mut Command::new(program("every_function", &[])));
    assert_eq!(run.status.code(), Some(7));
    run.check();
    let marked = |mark: u64| {
        run.events().iter().position(|event| matches!(event.op, Op::Alloc { size, .. } if size == mark)).unwrap()
    };
    // Behind the first mark's free, up to the second mark.
    let events = &run.events()[marked(777_001) + 2..marked(777_002)];
    let ends: Vec<u64> =
        events.iter().filter_map(|event| if let Op::Brk { end } = event.op { Some(end) } else { None }).collect();
    // The segment was cut as the first mark was freed, and grows for the second one.
    assert!(ends.len() == 2 && ends[1] - ends[0] > 777_000, "{ends:x?}");
    let said: Vec<String> = events
        .iter()
        .filter(|event| !matches!(event.op, Op::Brk { .. }))
        .map(|event| match event.op {
            Op::Alloc { function, align_log2, addr, size, site, stack } => {
                assert!(site != 0 && stack == 0);
                let failed = if addr == 0 { " failed" } else { "" };
                format!("{} {size} {align_log2}{failed}", function.name())
            }
            Op::Free { function, addr, size, .. } => {
                assert!(addr != 0);
                format!("{} {size}", function.name())
            }
            Op::ReallocBegin { function, old, size, .. } => {
                format!("{} {} {size}", function.name(), u8::from(old != 0))
            }
            Op::ReallocEnd { function, addr, size, .. } => {
                format!("{} end {} {size}", function.name(), u8::from(addr != 0))
            }
            other => format!("{other:?}"),
        })
        .collect();
    let huge = u64::MAX / 2;
    let expected = format!(
        "malloc 100 0,free 0,malloc 0 0,free 0,calloc 150 0,free 0,\
         realloc 0 40,realloc end 1 40,realloc 1 4000,realloc end 1 4000,\
         realloc 1 {huge},realloc end 0 {huge},realloc 1 0,realloc end 0 0,\
         reallocarray 0 100,reallocarray end 1 100,reallocarray 1 {max},reallocarray end 0 {max},\
         reallocarray 1 400,reallocarray end 1 400,free 0,\
         memalign 200 6,free 0,aligned_alloc 256 7,free 0,posix_memalign 300 12,free 0,posix_memalign 300 1 failed,\
         valloc 400 0,free 0,pvalloc 500 0,free 0,malloc {huge} 0 failed,calloc {max} 0 failed,malloc 60 0,free 0,\
         malloc 70 0,free_sized 70,aligned_alloc 128 6,free_aligned_sized 128,malloc 80 0,cfree 0",
        max = u64::MAX
    );
    assert_eq!(said, expected.split(',').collect::<Vec<_>>());
}

#[test]
fn threads_that_pass_blocks_to_each_other_are_in_causal_order_and_counted_exactly() {
    let run = run(&mut Command::new(program("threads", &[])));
    run.check();
    let (allocations, frees) = run.stdout.trim().split_once(' ').expect("two counts");
    let sizes = 8..608;
    let made = run.events().iter().filter(
        |event| matches!(event.op, Op::Alloc { function: Function::Malloc, size, .. } if sizes.contains(&size)),
    );
    // What libc itself allocates for a thread is larger, or comes by calloc.
    assert_eq!(made.count().to_string(), allocations);
    let released = run.events().iter().filter(|event| matches!(event.op, Op::Free { .. })).count();
    assert!(released >= frees.parse().unwrap());
    let threads: HashSet<u32> = run.events().iter().map(|event| event.tid).collect();
    assert_eq!(threads.len(), 17);
}

#[test]
fn handlers_that_interrupt_and_leave_hooks_lose_nothing() {
    let run = run_on_bump("signals");
    assert!(run.status.success());
    let counts: Vec<usize> = run.stdout.split_whitespace().map(|count| count.parse().unwrap()).collect();
    let &[main, handler, jumps] = counts.as_slice() else { panic!("{:?}", run.stdout) };
    assert!(jumps > 10, "the program must have jumped: {jumps}");
    // A call that was left before the program could count it may have been recorded.
    let (of_main, of_handler) = (run.mallocs(0, 22), run.mallocs(0, 33));
    assert!((main..=main + jumps).contains(&of_main), "{of_main} of {main}, {jumps} jumps");
    assert!((handler..=handler + jumps).contains(&of_handler), "{of_handler} of {handler}, {jumps} jumps");
    run.check_but(jumps);
}

#[test]
fn what_no_record_can_tell_is_counted_and_told_as_a_gap() {
    let run = run_on_bump("far");
    assert!(run.status.success());
    assert_eq!(run.counter(Counter::Dropped), 6);
    assert_eq!((run.mallocs(0, 4004), run.mallocs(0, 1001)), (0, 10));
    let of_main = |event: &&Event| !matches!(event.op, Op::Brk { .. } | Op::ThreadStart);
    let said: Vec<_> = run
        .events()
        .iter()
        .filter(of_main)
        .skip_while(|event| !matches!(event.op, Op::Gap { .. }))
        .take(13)
        .map(|event| match event.op {
            Op::Gap { lost } => format!("gap {lost}"),
            Op::Free { addr, .. } => format!("free {addr:x}"),
            Op::ReallocBegin { old, size, .. } => format!("realloc {old:x} {size}"),
            Op::Alloc { size, .. } => format!("malloc {size}"),
            other => format!("{other:?}"),
        })
        .collect();
    let mut expected = ["gap 1", "free 4000000000000"].repeat(5);
    expected.extend(["realloc 0 4004", "gap 1", "malloc 1001"]);
    assert_eq!(said, expected);
    assert!(run.events().iter().all(|event| event.tid == run.pid));
}

#[test]
fn forks_and_execs_are_followed() {
    let run = run(&mut Command::new(program("family", &[])));
    assert_eq!(run.status.code(), Some(0));
    run.check();
    let one_with = |size| {
        let pids: HashSet<u32> = run
            .events()
            .iter()
            .filter(|event| matches!(event.op, Op::Alloc { size: of, .. } if of == size))
            .map(|event| event.pid)
            .collect();
        assert_eq!(pids.len(), 1, "blocks of {size}");
        let pid = pids.into_iter().next().unwrap();
        (pid, run.mallocs(pid, size))
    };
    assert_eq!(one_with(1001), (run.pid, 20));
    let (child, raw, again, grandchild) = (one_with(2002), one_with(3003), one_with(4004), one_with(5005));
    assert_eq!((child.1, raw.1, again.1, grandchild.1), (20, 30, 40, 5));
    let forks: Vec<(u32, u32)> = run
        .events()
        .iter()
        .filter_map(|event| match event.op {
            Op::Fork { child, .. } => Some((event.pid, child)),
            _ => None,
        })
        .collect();
    assert_eq!(forks.len(), 4, "{forks:?}");
    for pair in [(run.pid, child.0), (run.pid, raw.0), (run.pid, again.0), (child.0, grandchild.0)] {
        assert!(forks.contains(&pair), "{pair:?} in {forks:?}");
    }
    let ends = run.events().iter().filter(|event| matches!(event.op, Op::Exit { .. })).count();
    assert_eq!(ends, 5);
    let execs: Vec<u32> = run.events().iter().filter(|e| e.op == Op::Exec).map(|event| event.pid).collect();
    assert_eq!(execs, [again.0]);
    let last = run.recorded.processes.iter().rfind(|process| process.pid == again.0).unwrap();
    assert_eq!((last.ppid, last.cmdline.get(1).map(String::as_str)), (run.pid, Some("again")));
}

#[test]
fn a_child_is_known_whose_parent_ends_before_it_begins() {
    let run = run(&mut Command::new(program("orphan", &[])));
    assert_eq!(run.status.code(), Some(0));
    run.check();
    let pids: Vec<u32> = [(1001, 1), (2002, 1), (3003, 30)]
        .map(|(size, count)| {
            let made = run.events().iter().find(|event| matches!(event.op, Op::Alloc { size: of, .. } if of == size));
            let pid = made.expect("a block of this size").pid;
            assert_eq!(run.mallocs(pid, size), count);
            pid
        })
        .to_vec();
    let forks: Vec<(u32, u32)> = run
        .events()
        .iter()
        .filter_map(|event| if let Op::Fork { child, .. } = event.op { Some((event.pid, child)) } else { None })
        .collect();
    assert_eq!(forks, [(pids[0], pids[1]), (pids[1], pids[2])]);
    let processes = &run.recorded.processes;
    assert_eq!(processes.iter().map(|process| process.pid).collect::<Vec<_>>(), pids);
    for process in processes {
        assert!(process.comm.starts_with("orphan"), "{process:?}");
        assert_eq!((&process.exe, &process.cmdline), (&processes[0].exe, &processes[0].cmdline));
        assert!(!run.recorded.mappings[&process.pid].is_empty());
    }
}

#[test]
fn programs_started_with_an_empty_environment_are_followed() {
    let run = run(&mut Command::new(program("scrub", &[])));
    assert_eq!(run.status.code(), Some(3));
    run.check();
    assert_eq!((run.mallocs(0, 7001), run.mallocs(run.pid, 7001)), (10, 0));
    assert_eq!(run.mallocs(run.pid, 7002), 10);
}

#[test]
fn libraries_loaded_later_are_known_by_the_end() {
    let run = run(&mut Command::new(program("loads", &["-ldl"])));
    assert!(run.status.success());
    let maps = &run.recorded.mappings[&run.pid];
    assert!(maps.iter().any(|map| map.path.to_string_lossy().contains("libz.so")), "{maps:?}");
}

#[test]
fn what_a_killed_program_did_is_kept() {
    let path = program("killed", &[]);
    for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGABRT, libc::SIGTERM] {
        let run = run(Command::new(&path).arg(signal.to_string()));
        assert_eq!(run.status.signal(), Some(signal));
        run.check();
        assert_eq!(run.mallocs(run.pid, 4321), 1000);
        let end = run.events().last().unwrap();
        let Op::Exit { status: Some(status) } = end.op else { panic!("{end:?}") };
        assert_eq!(status & 0x7f, signal);
    }
}

#[test]
fn allocations_before_and_after_main_and_in_ending_threads_are_recorded() {
    let run = run(&mut Command::new(program("teardown", &["-ldl"])));
    assert_eq!(run.status.code(), Some(0));
    run.check();
    let counts = [6001, 6002, 6003, 6004, 6005].map(|size| run.mallocs(run.pid, size));
    assert_eq!(counts, [3, 3, 3, 600, 100]);
    let starts = run.events().iter().filter(|event| event.op == Op::ThreadStart).count();
    assert_eq!(starts, 101);
}

#[test]
fn a_small_ring_makes_the_program_wait_and_loses_nothing() {
    let session = PreloadSession::with(64, Stacks::Caller).expect("a session");
    let run = run_in(session, Command::new(program("steady", &[])).arg("20000"), &[]);
    assert_eq!((run.status.code(), run.stdout.as_str()), (Some(6), "done\n"));
    run.check();
    assert!(run.counter(Counter::Waited) > 0);
    // Whoever is told events is told that they are late, and both only when it changes.
    let behind = &run.recorded.behind;
    assert!(behind.first() == Some(&true) && behind.windows(2).all(|pair| pair[0] != pair[1]), "{behind:?}");
    let made: usize = (64..164).map(|size| run.mallocs(run.pid, size)).sum();
    assert!((20_000..20_010).contains(&made), "{made}");
}

#[test]
fn a_program_survives_a_daemon_that_reads_no_more() {
    let path = program("steady", &[]);
    let mut session = PreloadSession::with(64, Stacks::Caller).expect("a session");
    let mut child =
        Command::new(&path).arg("3000").envs(session.env()).stdout(Stdio::piped()).spawn().expect("cannot launch");
    let mut recorded = Recorded::default();
    let begin = Instant::now();
    while recorded.events.is_empty() && begin.elapsed() < Duration::from_secs(20) {
        session.poll(&mut recorded, Duration::from_millis(1)).expect("polling");
    }
    // From now on nobody reads. The daemon is alive but silent: the program drops and goes on.
    assert_eq!(child.wait().expect("waiting").code(), Some(6));
    let mut recorded = Recorded::default();
    session.finish(&mut recorded).expect("finishing");
    let lost = session.counters()[Counter::Dropped as usize];
    assert!(lost > 0);
    // A second one starts when the session has already ended.
    let environment = session.env();
    let mut late = Command::new(&path);
    late.arg("3000").envs(environment).stdout(Stdio::piped());
    assert_eq!(late.status().expect("launching").code(), Some(6));
}

#[test]
fn detaching_leaves_the_program_running() {
    let mut session = PreloadSession::create().expect("a session");
    let mut child = Command::new(program("steady", &[]))
        .arg("200000000")
        .envs(session.env())
        .stdout(Stdio::null())
        .spawn()
        .expect("cannot launch");
    let mut recorded = Recorded::default();
    while recorded.events.len() < 10_000 {
        session.poll(&mut recorded, Duration::from_millis(5)).expect("polling");
    }
    let begin = Instant::now();
    let progress = session.finish(&mut recorded).expect("finishing");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(progress.running, 1);
    drop(session);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(child.try_wait().expect("asking"), None, "the program must still run");
    child.kill().expect("killing");
    child.wait().expect("waiting");
    check_order_of_one_thread(&recorded.events);
}

fn check_order_of_one_thread(events: &[Event]) {
    assert!(events.is_sorted_by_key(|event| event.time));
    let mut live = HashSet::new();
    for event in events {
        match event.op {
            Op::Alloc { addr, .. } => assert!(live.insert(addr)),
            Op::Free { addr, .. } => assert!(live.remove(&addr)),
            _ => {}
        }
    }
}

#[test]
fn a_process_says_who_it_is() {
    let path = program("steady", &[]);
    let run = run(Command::new(&path).args(["10", "a b"]));
    let [process] = run.recorded.processes.as_slice() else { panic!("one process") };
    assert_eq!(process.pid, run.pid);
    assert_eq!(process.ppid, std::process::id());
    assert_eq!(process.exe, path.canonicalize().unwrap());
    assert_eq!(process.cmdline[1..], ["10", "a b"]);
    assert!(process.start_ticks > 0);
    let maps = &run.recorded.mappings[&run.pid];
    let site = run.events().iter().find_map(|event| match event.op {
        Op::Alloc { size: 64, site, .. } => Some(site),
        _ => None,
    });
    let site = site.unwrap();
    let home = maps.iter().find(|map| map.executable && (map.start..map.end).contains(&site)).unwrap();
    assert_eq!(home.path, process.exe);
}

#[test]
fn python_is_followed_through_its_own_allocator_and_through_malloc() {
    for allocator in ["pymalloc", "malloc"] {
        let code = "import json; print(len(json.dumps([{'a': i} for i in range(2000)])))";
        let run = run(Command::new("/usr/bin/python3").args(["-c", code]).env("PYTHONMALLOC", allocator));
        assert!(run.status.success());
        assert_eq!(run.stdout, "24890\n");
        run.check();
    }
}
