//! What `malloc_trim` would return, against what it does return; and that it can be called in programs at work.

use crate::attach::Service;
use anyhow::{Context, Result, ensure};
use memfrag_tests::case::long;
use memfrag_tests::memfrag::{OWN_FAILURE, explains, memfrag, number};
use memfrag_tests::process::{self, Ended, Running, until};
use memfrag_tests::redis::Redis;
use memfrag_tests::{place, tests};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

tests!(
    heaps_of_many_shapes,
    under_an_allocating_load,
    waiting_programs_are_not_disturbed,
    working_programs_are_not_disturbed,
    never_in_a_signal_handler,
    never_inside_malloc,
    a_lock_that_is_kept,
    a_stopped_program,
    python_after_a_burst,
    node_after_a_burst,
    redis_with_glibc,
    another_allocator,
    a_static_program,
    no_such_process,
);

const PAGE: u64 = 4096;

/// `memfrag trim --pid PID WORDS…`.
fn trim(pid: u32, words: &[&str]) -> Result<Ended> {
    let mut command = memfrag(&["trim", "--pid"])?;
    process::run(command.arg(pid.to_string()).args(words))
}

/// Trims, and gives the JSON document.
fn applied(pid: u32, words: &[&str]) -> Result<Value> {
    let ended = trim(pid, &[&["--apply", "--json"], words].concat())?.success()?;
    let document: Value = serde_json::from_slice(&ended.stdout).context("not one JSON document")?;
    ensure!(document["format"] == "memfrag-trim" && document["pid"] == pid, "{document}");
    Ok(document)
}

/// Prediction and measurement agree within one percent, or two pages for each run of free chunks that may give any.
fn agree(name: &str, document: &Value) -> Result<(u64, u64)> {
    let (predicted, measured) = (number(document, "predicted_bytes")?, number(document, "measured_bytes")?);
    let runs = number(document, "free_runs")?;
    eprintln!("{name}: predicted {predicted}, measured {measured}, {runs} free runs");
    let tolerance = (predicted / 100).max(2 * PAGE * runs.min(predicted / PAGE + 1));
    ensure!(
        measured.abs_diff(predicted) <= tolerance,
        "{name}: predicted {predicted}, measured {measured}: {document}"
    );
    Ok((predicted, measured))
}

/// Starts a test program and waits until it says that it is ready.
fn ready(command: &mut Command) -> Result<Running> {
    let mut program = Running::start(command)?;
    until("the program is ready", Duration::from_mins(1), || {
        ensure!(program.alive()?, "it ended at once: {}", program.stderr()?);
        Ok(program.stderr()?.contains("ready"))
    })?;
    Ok(program)
}

/// Words for `pins`, and the least and the most that must be predicted of such a heap.
const SHAPES: [(&str, u64, u64); 18] = [
    // Nothing to give; everything.
    ("20000 1000 0 0 1 keep", 0, 64 << 10),
    ("20000 1000 0 0 1", 20_000_000, 21 << 20),
    ("20000 1000 0 0 1 touch=3", 6_000_000, 21 << 20),
    // Pins so close that no page is free between them; just so; far apart.
    ("20000 1000 4 24 1", 0, 64 << 10),
    ("5000 4000 1 24 1", 0, 64 << 10),
    ("5000 4200 1 24 1", 100 << 10, 1 << 20),
    ("3000 8192 1 24 1", 10 << 20, 14 << 20),
    ("20000 1000 25 560 1", 14 << 20, 18 << 20),
    ("4000 5000 7 100 1", 16 << 20, 20 << 20),
    ("400 100000 1 100 1", 36 << 20, 40 << 20),
    // Sizes that caches and fastbins take.
    ("100000 100 40 24 1 fast=2000 cached", 512 << 10, 4 << 20),
    ("200000 24 500 24 1 cached", 4 << 20, 6 << 20),
    // Several arenas, whose tops stay; one with more than one heap; blocks mapped by themselves.
    ("8000 1000 0 0 3", 7 << 20, 9 << 20),
    ("8000 1000 25 560 4", 24 << 20, 30 << 20),
    ("1500 60000 3 5000 2", 160 << 20, 180 << 20),
    ("5000 2000 16 100 1 mapped=40", 7 << 20, 10 << 20),
    // Blocks that were never written to are not resident.
    ("500 20000 0 0 1 touch=2", 5 << 20, 7 << 20),
    ("2000 5000 2 3000 3 touch=2 fast=500 cached", 12 << 20, 16 << 20),
];

fn heaps_of_many_shapes() -> Result<()> {
    let program = place::program("pins")?;
    for (shape, least, most) in SHAPES {
        let start = || ready(Command::new(&program).args(shape.split(' ')));
        let untouched = start()?;
        untouched.signal(libc::SIGTERM)?;
        let expected = untouched.wait(process::LIMIT)?.success()?.text();
        let pins = start()?;
        let document = applied(pins.pid(), &[])?;
        let (predicted, _) = agree(shape, &document)?;
        ensure!((least..=most).contains(&predicted), "{shape}: predicted {predicted}, not {least} to {most}");
        ensure!(document["walk"]["confidence"] == "exact", "{shape}: {document}");
        let threads: u64 = shape.split(' ').nth(4).context("a shape")?.parse()?;
        ensure!(document["arenas"].as_array().is_some_and(|arenas| arenas.len() as u64 == threads), "{document}");
        // What is free now is stuck.
        let again = applied(pins.pid(), &[])?;
        ensure!(number(&again, "predicted_bytes")? == 0 && number(&again, "measured_bytes")? == 0, "{shape}: {again}");
        pins.signal(libc::SIGTERM)?;
        let ended = pins.wait(process::LIMIT)?.success().context("its blocks have changed")?;
        ensure!(ended.text() == expected, "{shape}: {} instead of {expected}", ended.text());
    }
    Ok(())
}

fn under_an_allocating_load() -> Result<()> {
    let times = if long() { 10_000 } else { 200 };
    let dir = place::scratch()?;
    let mut service = Service::start_with(dir.path(), "status", "8")?;
    let mut left = times;
    while left > 0 {
        let some = left.min(100);
        applied(service.running.pid(), &["--repeat", &some.to_string()])
            .with_context(|| format!("after {} trims", times - left))?;
        left -= some;
        service.works()?;
    }
    service.end()?;
    Ok(())
}

/// Trims a program that stands in one way several times; it must end well, and as it would have.
fn undisturbed(mode: &str) -> Result<()> {
    let program = ready(Command::new(place::program("waits")?).arg(mode))?;
    for _ in 0..20 {
        trim(program.pid(), &["--apply"])?.success().with_context(|| format!("{mode}: {:?}", program.pid()))?;
    }
    program.signal(libc::SIGTERM)?;
    program.wait(process::LIMIT)?.success().with_context(|| format!("{mode}: it was disturbed"))?;
    Ok(())
}

fn waiting_programs_are_not_disturbed() -> Result<()> {
    ["epoll", "poll", "read", "sleep", "semaphore", "pause"].into_iter().try_for_each(undisturbed)
}

fn working_programs_are_not_disturbed() -> Result<()> {
    ["numbers", "signals"].into_iter().try_for_each(undisturbed)
}

/// The program cannot be trimmed where it is, says memfrag; it goes on and ends well.
fn refused(mode: &str, words: &[&[&str]]) -> Result<()> {
    let program = ready(Command::new(place::program("waits")?).arg(mode))?;
    // It is ready shortly before it is where it will stay.
    std::thread::sleep(Duration::from_millis(200));
    let ended = trim(program.pid(), &["--apply", "--timeout", "300ms"])?;
    explains(&ended, OWN_FAILURE, words)?;
    program.signal(libc::SIGTERM)?;
    program.wait(process::LIMIT)?.success().with_context(|| format!("{mode}: it was disturbed"))?;
    Ok(())
}

fn never_in_a_signal_handler() -> Result<()> {
    refused("handler", &[&["outside malloc"], &["signal"], &["--timeout"]])
}

fn never_inside_malloc() -> Result<()> {
    refused("inside", &[&["outside malloc"], &["malloc on its stack", "in malloc"], &["nothing was changed"]])
}

fn a_lock_that_is_kept() -> Result<()> {
    refused("beside", &[&["lock"], &["called off"], &["goes on as before"]])
}

fn a_stopped_program() -> Result<()> {
    let pins = ready(Command::new(place::program("pins")?).args(["20000", "1000", "25", "560", "1"]))?;
    pins.signal(libc::SIGSTOP)?;
    until("it is stopped", Duration::from_secs(10), || Ok(state(pins.pid())? == 'T'))?;
    let mut heap = memfrag(&["heap", "--json", "--pid"])?;
    let heap = process::run(heap.arg(pins.pid().to_string()))?.success()?;
    let heap: Value = serde_json::from_slice(&heap.stdout)?;
    let (predicted, _) = agree("a stopped program", &applied(pins.pid(), &[])?)?;
    ensure!(number(&heap, "trim_yield_bytes")? == predicted, "the heap's yield is not {predicted}: {heap}");
    ensure!(predicted > 10 << 20, "{predicted}");
    until("it stands still again", Duration::from_secs(10), || Ok(state(pins.pid())? == 'T'))?;
    pins.signal(libc::SIGTERM)?;
    pins.signal(libc::SIGCONT)?;
    pins.wait(process::LIMIT)?.success()?;
    Ok(())
}

/// The letter of a process's state.
fn state(pid: u32) -> Result<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).context("no state")
}

/// Of 100,000 strings of bytes one in 25 survives, and what survives must be as it was.
const PYTHON: &str = "
import hashlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
blocks = [bytes([i % 251]) * (700 + i % 1200) for i in range(100000)]
kept = blocks[::25]
del blocks
print('ready', file=sys.stderr, flush=True)
signal.sigwait([signal.SIGTERM])
print(hashlib.sha256(b''.join(kept)).hexdigest(), [bytes(i) for i in range(3000)][2999] == bytes(2999))
";

/// What a program prints that was trimmed, and what it prints otherwise, are the same; gives what was returned.
fn same_result(name: &str, command: &dyn Fn() -> Result<Command>) -> Result<u64> {
    let results = [false, true].map(|trimmed| -> Result<(String, u64)> {
        let program = ready(&mut command()?)?;
        let bytes = if trimmed { agree(name, &applied(program.pid(), &[])?)?.1 } else { 0 };
        program.signal(libc::SIGTERM)?;
        Ok((program.wait(process::LIMIT)?.success()?.text(), bytes))
    });
    let [untouched, trimmed] = results;
    let (untouched, (text, bytes)) = (untouched?.0, trimmed?);
    ensure!(text == untouched && !text.is_empty(), "{name}: {text:?} instead of {untouched:?}");
    Ok(bytes)
}

fn python_after_a_burst() -> Result<()> {
    let python = place::tool("python3")?;
    for allocator in ["pymalloc", "malloc"] {
        let bytes = same_result(&format!("python3 with {allocator}"), &|| {
            let mut command = Command::new(&python);
            command.args(["-c", PYTHON]).env("PYTHONMALLOC", allocator);
            Ok(command)
        })?;
        ensure!(bytes > 50 << 20, "{bytes} bytes");
    }
    Ok(())
}

const NODE: &str = "
let kept = [], all = [];
for (let i = 0; i < 100000; i++) {
  const buffer = Buffer.allocUnsafeSlow(1500 + i % 1200).fill(i % 251);
  all.push(buffer);
  if (i % 500 === 0) kept.push(buffer);
}
all = null;
process.on('SIGTERM', () => {
  const hash = require('crypto').createHash('sha256');
  kept.forEach((buffer) => hash.update(buffer));
  console.log(hash.digest('hex'));
  process.exit(0);
});
setTimeout(() => { global.gc(); setTimeout(() => console.error('ready'), 1000); }, 50);
setInterval(() => {}, 100000);
";

fn node_after_a_burst() -> Result<()> {
    let node = place::tool("node")?;
    let bytes = same_result("node", &|| {
        let mut command = Command::new(&node);
        command.args(["--expose-gc", "-e", NODE]);
        Ok(command)
    })?;
    ensure!(bytes > 50 << 20, "{bytes} bytes");
    Ok(())
}

fn redis_with_glibc() -> Result<()> {
    let dir = place::scratch()?;
    let redis = Redis::new(dir.path())?;
    let mut command = redis.server()?;
    // Debian's redis is linked with jemalloc; libc before it wins.
    command.env("LD_PRELOAD", place::libc_path()?);
    let mut server = Running::start(&mut command)?;
    redis.ready(&mut server)?;
    let expected = redis.known_digest()?;
    redis.ask(&["DEBUG", "POPULATE", "200000", "a", "150"])?;
    redis.ask(&["FLUSHALL"])?;
    let again = redis.known_digest()?;
    ensure!(again == expected, "the digest is not one of the keys alone: {again}, {expected}");
    // Its threads rest, except for a timer that runs a few times a second.
    let (predicted, _) = agree("redis", &applied(server.pid(), &[])?)?;
    ensure!(predicted > 1 << 20, "{predicted}");
    let load = Running::start(&mut redis.benchmark(10_000_000)?)?;
    for _ in 0..20 {
        applied(server.pid(), &[])?;
    }
    drop(load);
    ensure!(server.alive()?, "redis has died: {}", server.stderr()?);
    ensure!(redis.known_digest()? == expected, "redis holds other data");
    redis.shutdown()?;
    ensure!(server.wait(process::LIMIT)?.code() == 0, "redis did not end well");
    Ok(())
}

fn another_allocator() -> Result<()> {
    let dir = place::scratch()?;
    let redis = Redis::new(dir.path())?;
    let mut server = Running::start(&mut redis.server()?)?;
    redis.ready(&mut server)?;
    let ended = trim(server.pid(), &["--apply"])?;
    explains(&ended, OWN_FAILURE, &[&["jemalloc"], &["glibc"]])?;
    redis.shutdown()?;
    server.wait(process::LIMIT)?.success()?;
    Ok(())
}

fn a_static_program() -> Result<()> {
    let program = place::compile("static", "bare", &["-static", "-s"])?;
    let running = Running::start(Command::new(program).arg("60"))?;
    explains(&trim(running.pid(), &["--apply"])?, OWN_FAILURE, &[&["linked statically and stripped of its symbols"]])
}

fn no_such_process() -> Result<()> {
    let limit: u32 = std::fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    explains(&trim(limit - 1, &[])?, OWN_FAILURE, &[&["no process"]])
}
