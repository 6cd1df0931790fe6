//! Whole stacks under the preload backend, against what the C library's own unwinder says at the same call.

#![allow(missing_docs, reason = "tests")]

use memfrag::capture::Sink;
use memfrag::capture::preload::{PreloadSession, RING_SLOTS};
use memfrag::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::loss::Counter;
use memfrag_common::session::Stacks;
use memfrag_common::stacks::{Frame, UNKNOWN};
use memfrag_common::{Event, Op};
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Recorded {
    /// Each with the frames that had been told before.
    events: Vec<Event>,
    frames: HashMap<u32, Frame>,
    mappings: Vec<Mapping>,
}

impl Sink for Recorded {
    fn events(&mut self, events: &[Event]) {
        for event in events {
            let (Op::Alloc { stack, .. } | Op::ReallocEnd { stack, .. }) = event.op else { continue };
            assert!(stack == 0 || self.frames.contains_key(&stack), "stack {stack} was not told before its event");
        }
        self.events.extend_from_slice(events);
    }
    fn process(&mut self, _: &ProcessInfo) {}
    fn mappings(&mut self, _: u64, _: u32, mappings: &[Mapping]) {
        self.mappings.extend_from_slice(mappings);
    }
    fn memory(&mut self, _: &MemorySample) {}
    fn stacks(&mut self, frames: &[Frame]) {
        for frame in frames {
            assert!(frame.parent == 0 || self.frames.contains_key(&frame.parent), "{frame:?} before its caller");
            assert!(self.frames.insert(frame.number, *frame).is_none(), "{frame:?} twice");
        }
    }
}

impl Recorded {
    fn addresses(&self, number: u32) -> Vec<u64> {
        let mut found = Vec::new();
        let mut at = self.frames.get(&number);
        while let Some(frame) = at {
            found.push(frame.address);
            at = self.frames.get(&frame.parent);
        }
        found
    }

    /// The stack of the only block of a size.
    fn stack(&self, wanted: u64) -> Vec<u64> {
        let of = |event: &Event| match event.op {
            Op::Alloc { size, stack, site, .. } if size == wanted => Some((stack, site)),
            _ => None,
        };
        let found: Vec<(u32, u64)> = self.events.iter().filter_map(of).collect();
        let &[(stack, site)] = found.as_slice() else { panic!("{} blocks of {wanted} bytes", found.len()) };
        let addresses = self.addresses(stack);
        assert_eq!(addresses.first(), Some(&site), "the innermost frame is the call site");
        addresses
    }

    fn is_in(&self, address: u64, file: &Path) -> bool {
        self.mappings.iter().any(|mapping| mapping.path == file && (mapping.start..mapping.end).contains(&address))
    }
}

struct Run {
    recorded: Recorded,
    stdout: String,
    cut: u64,
    lost: u64,
}

fn program(name: &str, flags: &[&str]) -> PathBuf {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/preload-programs/stacks.c");
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let mut compiler = Command::new("cc");
    let status = compiler.args(["-w", "-pthread", "-o"]).arg(&target).arg(&source).args(flags).status();
    assert!(status.expect("the tests need a C compiler as `cc`").success());
    target
}

fn run(stacks: Stacks, command: &mut Command) -> Run {
    let mut session = PreloadSession::with(RING_SLOTS, stacks).expect("a session");
    let mut child = command.envs(session.env()).stdout(Stdio::piped()).spawn().expect("cannot launch");
    let output = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::read_to_string(output));
    let mut recorded = Recorded::default();
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        session.poll(&mut recorded, Duration::from_millis(5)).expect("polling");
        if let Some(status) = child.try_wait().expect("waiting") {
            assert!(status.success(), "{status}");
            session.exited(child.id(), status.into_raw());
            break;
        }
        assert!(Instant::now() < deadline, "the program does not end");
    }
    session.finish(&mut recorded).expect("finishing");
    let counters = session.counters();
    assert_eq!((session.unreadable(), counters[Counter::Dropped as usize]), (0, 0));
    let count = |counter: Counter| counters[counter as usize];
    let (cut, lost) = (count(Counter::StackCut), count(Counter::StackLost));
    Run { recorded, stdout: reader.join().expect("joining").expect("reading"), cut, lost }
}

/// The lines of the program: a size, and the addresses from the caller of the asking function outwards.
fn lines(stdout: &str) -> Vec<(u64, Vec<u64>)> {
    let line = |line: &str| {
        let (size, frames) = line.split_once(' ').expect("a size and frames");
        let frames = frames.split(' ').map(|frame| u64::from_str_radix(frame, 16).expect("an address"));
        (size.parse().expect("a size"), frames.collect())
    };
    stdout.lines().map(line).collect()
}

#[test]
fn stacks_by_call_frame_information_are_those_of_the_c_library_frame_by_frame() {
    for (name, flags) in [("stacks-O2", &["-O2"][..]), ("stacks-O0", &["-O0"]), ("stacks-size", &["-Os", "-no-pie"])] {
        let run = run(Stacks::Dwarf, &mut Command::new(program(name, flags)));
        let lines = lines(&run.stdout);
        assert!(lines.len() > 100, "{} lines", lines.len());
        for (size, expected) in lines {
            assert_eq!(run.recorded.stack(size)[1..], expected, "{name}, the block of {size} bytes");
        }
        assert_eq!((run.cut, run.lost), (0, 0), "{name}");
    }
}

/// Below the main program, in a C library built without, frame pointers lead nowhere.
#[test]
fn stacks_by_frame_pointers_have_every_frame_of_a_program_that_keeps_them() {
    let path = program("stacks-fp", &["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"]);
    let run = run(Stacks::FramePointers, &mut Command::new(&path));
    let mut compared = 0;
    for (size, expected) in lines(&run.stdout) {
        let found = run.recorded.stack(size);
        let own = expected.iter().take_while(|&&address| run.recorded.is_in(address, &path)).count();
        assert_eq!(found[1..=own], expected[..own], "the block of {size} bytes");
        compared += own;
    }
    assert!(compared > 1000, "{compared} frames were compared");
    assert_eq!(run.lost, 0);
}

#[test]
fn a_stack_deeper_than_is_kept_has_its_inner_frames_and_says_that_it_is_cut() {
    let path = program("stacks-deep", &["-O1", "-fno-optimize-sibling-calls"]);
    let run = run(Stacks::Dwarf, Command::new(path).arg("580"));
    let mut cut = 0;
    for (size, expected) in lines(&run.stdout) {
        let mut found = run.recorded.stack(size);
        if found.last() == Some(&UNKNOWN) {
            found.pop();
            cut += 1;
            assert!(found.len() == 512 && expected.len() > 511, "{} of {}", found.len(), expected.len());
        }
        assert_eq!(found[1..], expected[..found.len() - 1], "the block of {size} bytes");
    }
    assert!(cut > 50, "{cut} stacks were cut");
    assert_eq!(run.cut, cut);
}

#[test]
fn callers_alone_and_nothing_at_all_have_no_stack() {
    let path = program("stacks-none", &["-O1"]);
    for (stacks, callers) in [(Stacks::Caller, true), (Stacks::None, false)] {
        let run = run(stacks, Command::new(&path).arg("5"));
        assert!(run.recorded.frames.is_empty());
        let mut allocations = 0;
        for event in &run.recorded.events {
            let (site, stack) = match event.op {
                Op::Alloc { site, stack, .. } | Op::ReallocEnd { site, stack, .. } => (site, stack),
                Op::Free { site, .. } | Op::ReallocBegin { site, .. } => (site, 0),
                _ => continue,
            };
            assert_eq!((site != 0, stack), (callers, 0));
            allocations += 1;
        }
        assert!(allocations > 20);
    }
}
