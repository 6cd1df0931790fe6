//! Whole stacks by probes, frame by frame: against what the C library's own unwinder says at the same call, of programs that
//! run already, and where there is no room for them.

use anyhow::{Context, Result, ensure};
use memfrag::recording::{Item, Reader, Stacks};
use memfrag_common::loss::Counter;
use memfrag_common::told::FRAMES;
use memfrag_common::{Event, Op};
use memfrag_tests::memfrag::{Backend, Report, attach, memfrag};
use memfrag_tests::process::{self, Ended, Running};
use memfrag_tests::{place, tests};
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

tests!(
    by_call_frame_information,
    by_frame_pointers,
    deeper_than_is_kept,
    a_running_program_without_frame_pointers,
    children,
    without_room,
);

/// Milliseconds for which the program stays when it has done its work, so that its mappings can be looked at on a busy machine.
const STAY: &str = "500";

/// What a trace by probes recorded.
struct Traced {
    ended: Ended,
    events: Vec<Event>,
    stacks: Stacks,
}

/// Traces a program of the tests that prints its stacks.
fn traced(choice: &str, recording: &Path, words: &[&str], program: &Path, arguments: &[&str]) -> Result<Traced> {
    let mut command = memfrag(&["trace", "--backend", "ebpf", "--stacks", choice, "-o"])?;
    let ended = process::run(command.arg(recording).args(words).arg("--").arg(program).args(arguments))?.success()?;
    read(ended, recording)
}

fn read(ended: Ended, recording: &Path) -> Result<Traced> {
    let reader = Reader::open(recording).with_context(|| format!("memfrag trace wrote:\n{}", ended.stderr))?;
    let mut events = Vec::new();
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        if let Item::Events(more) = item {
            events.extend_from_slice(more);
        }
    }
    Ok(Traced { ended, events, stacks: Stacks::of(&reader) })
}

/// Where a call that allocates came from: its site and its stack's number.
fn origin(event: &Event) -> Option<(u64, u64, u32)> {
    match event.op {
        Op::Alloc { size, site, stack, .. } | Op::ReallocEnd { size, site, stack, .. } => Some((size, site, stack)),
        _ => None,
    }
}

impl Traced {
    /// The stack of the only block of a size, and whether all of it is known.
    fn stack(&self, wanted: u64) -> Result<(Vec<u64>, bool)> {
        let found: Vec<_> = self.events.iter().filter_map(origin).filter(|&(size, ..)| size == wanted).collect();
        let &[(_, site, stack)] = found.as_slice() else {
            anyhow::bail!("{} blocks of {wanted} bytes; memfrag wrote:\n{}", found.len(), self.ended.stderr)
        };
        let (frames, is_whole) = self.stacks.get(stack);
        ensure!(frames.first() == Some(&site), "the innermost frame is not the call site {site:#x}: {frames:x?}");
        Ok((frames, is_whole))
    }

    /// What the trace's last lines say of a counter.
    fn counted(&self, counter: Counter) -> Result<u64> {
        let line = self.ended.stderr.lines().find_map(|line| line.strip_suffix(counter.describe()));
        let Some(line) = line else { return Ok(0) };
        let number: String = line.chars().filter(char::is_ascii_digit).collect();
        number.parse().with_context(|| format!("no number: {line}"))
    }

    /// The lines of the program: a size, and the addresses from the caller of the asking function outwards.
    fn printed(&self) -> Result<Vec<(u64, Vec<u64>)>> {
        let line = |line: &str| {
            let (size, frames) = line.split_once(' ').context("a size and frames")?;
            let frames = frames.split(' ').map(|frame| u64::from_str_radix(frame, 16));
            Ok((size.parse()?, frames.collect::<Result<_, _>>()?))
        };
        self.ended.text().lines().map(line).collect()
    }
}

fn program(name: &str, flags: &[&str]) -> Result<PathBuf> {
    place::compile("../../memfrag/tests/preload-programs/stacks", name, flags)
}

fn by_call_frame_information() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    for (name, flags) in [("stacks-O2", &["-O2"][..]), ("stacks-O0", &["-O0"]), ("stacks-size", &["-Os", "-no-pie"])] {
        let traced = traced("dwarf", &dir.path().join(name), &[], &program(name, flags)?, &["40", STAY])?;
        let printed = traced.printed()?;
        ensure!(printed.len() > 100, "{} lines", printed.len());
        for (size, expected) in printed {
            let (found, is_whole) = traced.stack(size)?;
            ensure!(found[1..] == expected, "{name}, the block of {size} bytes:\n{found:x?}\n{expected:x?}");
            ensure!(is_whole, "{name}, the block of {size} bytes is cut");
        }
        let counted = (traced.counted(Counter::StackCut)?, traced.counted(Counter::StackLost)?);
        ensure!(counted == (0, 0), "{name}: {counted:?}");
    }
    Ok(())
}

/// Below the main program, in a C library built without, frame pointers lead nowhere.
fn by_frame_pointers() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let program = program("stacks-fp", &["-O1", "-fno-omit-frame-pointer", "-no-pie", "-static-libgcc"])?;
    let traced = traced("fp", &dir.path().join("fp.mfrag"), &[], &program, &[])?;
    // A program at a fixed address lies below all of its libraries.
    let is_own = |address: &&u64| **address < 1 << 32;
    let mut compared = 0;
    for (size, expected) in traced.printed()? {
        let own = expected.iter().take_while(is_own).count();
        let (found, _) = traced.stack(size)?;
        ensure!(found.len() > own && found[1..=own] == expected[..own], "{size} bytes:\n{found:x?}\n{expected:x?}");
        compared += own;
    }
    ensure!(compared > 1000, "{compared} frames were compared");
    ensure!(traced.counted(Counter::StackLost)? == 0, "{}", traced.ended.stderr);
    Ok(())
}

fn deeper_than_is_kept() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let program = program("stacks-deep", &["-O1"])?;
    for choice in ["dwarf", "fp"] {
        let traced = traced(choice, &dir.path().join(choice), &[], &program, &["330", STAY])?;
        let printed = traced.printed()?;
        let mut cut = 0;
        for (size, expected) in &printed {
            let (found, is_whole) = traced.stack(*size)?;
            cut += u64::from(!is_whole);
            if choice == "dwarf" {
                ensure!(found[1..] == expected[..found.len() - 1], "the block of {size} bytes");
                ensure!(is_whole || found.len() <= FRAMES && expected.len() >= found.len(), "{} frames", found.len());
            }
        }
        let all = traced.counted(Counter::StackCut)?;
        ensure!(all >= cut && cut > 50, "{cut} of {} stacks are cut, {all} were counted", printed.len());
        // With rules known, nothing but the depth cuts a stack.
        let deepest = printed.iter().filter(|(_, frames)| frames.len() >= FRAMES).count() as u64;
        ensure!(choice == "fp" || cut <= deepest + 20, "{cut} cut, {deepest} deeper than is kept");
    }
    Ok(())
}

fn a_running_program_without_frame_pointers() -> Result<()> {
    Backend::Ebpf.require()?;
    let python = place::tool("python3")?;
    let dir = place::scratch()?;
    let recording = dir.path().join("python.mfrag");
    let script = "import json, re
while True:
    kept = [re.sub('a', lambda match: 'x' * 700, 'b' * n + 'a') for n in range(50)]
    json.loads(json.dumps(['y' * 900] * 30)), bytearray(3000), sorted('z' * 600)";
    let mut target = Running::start(Command::new(python).args(["-c", script]))?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    ensure!(target.alive()?, "python has ended: {}", target.stderr()?);
    let words = ["--stacks", "dwarf", "--duration", "1s"];
    let traced = read(process::run(&mut attach(&recording, target.pid(), &words)?)?.success()?, &recording)?;
    drop(target);
    let numbers: Vec<u32> = traced.events.iter().filter_map(origin).map(|(.., stack)| stack).collect();
    ensure!(numbers.len() > 1000, "{} allocations; memfrag wrote:\n{}", numbers.len(), traced.ended.stderr);
    let counted = (traced.counted(Counter::StackCut)?, traced.counted(Counter::StackLost)?);
    ensure!(counted == (0, 0) && !numbers.contains(&0), "cut and lost: {counted:?}\n{}", traced.ended.stderr);
    let different: HashSet<u32> = numbers.into_iter().collect();
    for &number in &different {
        let (frames, is_whole) = traced.stacks.get(number);
        ensure!(is_whole && frames.len() > 8, "{is_whole} {frames:x?}");
    }
    ensure!(different.len() > 3, "{} stacks", different.len());
    let report = Report::of(&recording)?;
    report.nothing_lost()?;
    let sites = report.0.pointer("/processes/0/top_sites").and_then(Value::as_array).context("no sites")?;
    let stacks: Vec<&Value> = sites.iter().filter_map(|site| site["stacks"].as_array()).flatten().collect();
    let last = |stack: &&Value| stack["frames"].as_array().and_then(|frames| frames.last().cloned());
    ensure!(!stacks.is_empty(), "no stacks in the report: {sites:?}");
    for frame in stacks.iter().filter_map(last) {
        ensure!(frame["function"] == "_start" || frame["function"].is_null(), "a stack ends in {frame}");
    }
    Ok(())
}

/// A child begins with its parent's code and goes on by itself; another program has other code.
fn children() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let program = program("stacks-child", &["-O2"])?;
    let script = dir.path().join("twice.sh");
    std::fs::write(&script, format!("({0} 3 {STAY})\n{0} 3 {STAY}\n(echo $({0} 2) > /dev/null)\n", program.display()))?;
    let traced =
        traced("dwarf", &dir.path().join("children"), &[], &place::tool("sh")?, &[&script.display().to_string()])?;
    let printed = traced.printed()?;
    let (mut matched, mut pids) = (0, HashSet::new());
    for (size, expected) in &printed {
        for event in &traced.events {
            let Some((_, _, stack)) = origin(event).filter(|(found, ..)| found == size) else { continue };
            let (frames, is_whole) = traced.stacks.get(stack);
            if is_whole && frames.get(1..) == Some(expected.as_slice()) {
                matched += 1;
                pids.insert(event.pid);
                break;
            }
        }
    }
    ensure!(matched == printed.len() && printed.len() > 100, "{matched} of {} lines", printed.len());
    ensure!(pids.len() == 2, "{} processes", pids.len());
    let all: HashSet<u32> = traced.events.iter().map(|event| event.pid).collect();
    ensure!(all.len() > 3, "{} processes; memfrag wrote:\n{}", all.len(), traced.ended.stderr);
    Ok(())
}

/// A ring in which few stacks find room costs stacks, and each is counted.
fn without_room() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let program = program("stacks-small", &["-O1"])?;
    let ring = ["--ring", "32768"];
    let traced = traced("dwarf", &dir.path().join("small"), &ring, &program, &["60"])?;
    let missing = traced.events.iter().filter_map(origin).filter(|&(.., stack)| stack == 0).count() as u64;
    let lost = traced.counted(Counter::StackLost)?;
    let dropped = traced.counted(Counter::Dropped)?;
    // An event that found no room has taken its stack's count with it.
    ensure!(
        lost > 0 && missing <= lost && lost <= missing + dropped,
        "{lost} counted, {missing} missing, {dropped} dropped"
    );
    Ok(())
}
