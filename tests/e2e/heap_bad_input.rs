//! Heaps that cannot be walked: what memfrag heap says of each, and that it does no harm.

use crate::attach::Service;
use crate::bad_input::{for_everyone, kernel_thread};
use anyhow::{Context, Result, ensure};
use memfrag::glibc::Stopped;
use memfrag_tests::known_heap::KnownHeap;
use memfrag_tests::memfrag::{OWN_FAILURE, explains, memfrag, require_root};
use memfrag_tests::process::{self, Ended, Running, until};
use memfrag_tests::redis::Redis;
use memfrag_tests::{place, skip, tests};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

tests!(
    no_such_process,
    a_kernel_thread,
    a_process_that_ends_during_the_walk,
    a_damaged_heap,
    jemalloc,
    musl,
    a_stripped_static_program,
    another_users_process,
    an_unknown_version,
    a_process_that_is_traced_already,
    killed_during_the_walk,
);

/// `memfrag heap --pid PID`.
fn heap(pid: u32, words: &[&str]) -> Result<Ended> {
    let mut command = memfrag(&["heap", "--pid", &pid.to_string()])?;
    process::run(command.args(words))
}

/// It fails with these words, names the process, and prints nothing else.
fn fails(pid: u32, words: &[&[&str]]) -> Result<()> {
    for format in [&[][..], &["--json"]] {
        let ended = heap(pid, format)?;
        explains(&ended, OWN_FAILURE, words)?;
        explains(&ended, OWN_FAILURE, &[&[&pid.to_string()]])?;
        ensure!(ended.stdout.is_empty(), "it wrote all the same: {}", ended.text());
    }
    Ok(())
}

fn no_such_process() -> Result<()> {
    let gone = Running::start(&mut Command::new("true"))?;
    let pid = gone.pid();
    gone.wait(process::LIMIT)?;
    for pid in [pid, u32::MAX / 2] {
        fails(pid, &[&["no process", "exited"]])?;
    }
    Ok(())
}

fn a_kernel_thread() -> Result<()> {
    let Some(pid) = kernel_thread() else { skip!("no kernel thread can be seen from here") };
    fails(pid, &[&["kernel thread"]])
}

fn a_process_that_ends_during_the_walk() -> Result<()> {
    let mut ends = [0, 0];
    for delay in 0..24 {
        let heap = KnownHeap::start(&["4", "3000"])?;
        let pid = heap.pid().to_string();
        let memfrag = Running::start(&mut memfrag(&["heap", "--pid", &pid])?)?;
        std::thread::sleep(Duration::from_millis(delay * 3));
        heap.signal(libc::SIGKILL)?;
        let ended = memfrag.wait(Duration::from_secs(20)).with_context(|| format!("killed after {delay}"))?;
        ends[usize::from(ended.code() != 0)] += 1;
        if ended.code() != 0 {
            explains(&ended, OWN_FAILURE, &[&[&pid], &["exited", "no process"]])?;
        }
    }
    ensure!(ends[1] > 0, "it never ended during the walk");
    Ok(())
}

fn a_damaged_heap() -> Result<()> {
    let heap = KnownHeap::start(&["1", "3000", "corrupt"])?;
    let block = heap.corrupt.context("it did not say what it damaged")?;
    // The chunk behind the block is the damaged one; the block's own size leads there.
    let ended = self::heap(heap.pid(), &[])?;
    explains(&ended, OWN_FAILURE, &[&["damaged"], &["main arena", "arena 0x"], &["4702111234474983744"]])?;
    let at = ended.stderr.split("chunk 0x").nth(1).and_then(|rest| rest.split_whitespace().next());
    let at = u64::from_str_radix(at.context("no address")?, 16)?;
    ensure!(at > block && at - block < 1 << 20, "the chunk {at:#x} does not follow the block {block:#x}");
    Ok(())
}

fn jemalloc() -> Result<()> {
    let dir = place::scratch()?;
    let redis = Redis::new(dir.path())?;
    let mut server = Running::start(&mut redis.server()?)?;
    redis.ready(&mut server)?;
    fails(server.pid(), &[&["jemalloc"], &["memfrag trace --pid"]])?;
    redis.shutdown()?;
    server.wait(process::LIMIT)?;
    Ok(())
}

/// `static.c`, built thus and at work.
fn sleeper(compiler: &str, words: &[&str]) -> Result<(tempfile::TempDir, Running)> {
    let dir = place::scratch()?;
    let program = dir.path().join("sleeper");
    let mut cc = Command::new(place::tool(compiler)?);
    cc.arg(place::root().join("tests/programs/static.c")).args(words).arg("-o").arg(&program);
    process::run(&mut cc)?.success()?;
    let mut running = Running::start(Command::new(&program).arg("100"))?;
    asleep(&mut running)?;
    Ok((dir, running))
}

fn asleep(running: &mut Running) -> Result<()> {
    until("it sleeps", Duration::from_secs(20), || {
        ensure!(running.alive()?, "it ended at once: {}", running.stderr()?);
        Ok(state(running.pid())? == b'S'
            && !std::fs::read_to_string(format!("/proc/{}/maps", running.pid()))?.is_empty())
    })
}

fn state(pid: u32) -> Result<u8> {
    Ok(memfrag::target::process::Stat::read(pid)?.state)
}

fn musl() -> Result<()> {
    for words in [&[][..], &["-static"]] {
        let (_dir, running) = sleeper("musl-gcc", words)?;
        fails(running.pid(), &[&["musl"], &["memfrag trace --pid"]]).with_context(|| format!("{words:?}"))?;
    }
    Ok(())
}

fn a_stripped_static_program() -> Result<()> {
    let (_dir, running) = sleeper("cc", &["-static", "-s"])?;
    fails(running.pid(), &[&["linked statically and stripped of its symbols"]])
}

fn another_users_process() -> Result<()> {
    require_root()?;
    let dir = place::scratch()?;
    let mut service = Service::start(dir.path(), "status")?;
    let pid = service.running.pid().to_string();
    let ended = process::run(&mut for_everyone(dir.path(), &memfrag(&["heap", "--pid", &pid])?)?)?;
    explains(&ended, OWN_FAILURE, &[&[&pid], &["root", "sudo", "cap_"]])?;
    service.works()?;
    service.end()?;
    Ok(())
}

/// A copy of libc that calls itself a version which nobody has seen.
fn an_unknown_version() -> Result<()> {
    let dir = place::scratch()?;
    let mut bytes = std::fs::read(place::libc_path()?)?;
    let mark = b"release version 2.";
    let at = bytes.windows(mark.len()).position(|window| window == mark).context("libc tells no version")?;
    bytes[at + mark.len()..at + mark.len() + 2].copy_from_slice(b"99");
    std::fs::write(dir.path().join("libc.so.6"), bytes)?;
    let mut sleep = Running::start(Command::new("sleep").arg("100").env("LD_LIBRARY_PATH", dir.path()))?;
    asleep(&mut sleep)?;
    fails(sleep.pid(), &[&["2.99"], &["2.31"], &["memfrag trace --pid"]])
}

fn a_process_that_is_traced_already() -> Result<()> {
    let heap = KnownHeap::start(&["2", "3000"])?;
    let stopped = Stopped::new(heap.pid())?;
    let ended = self::heap(heap.pid(), &["--json"])?.success()?;
    let json: Value = serde_json::from_slice(&ended.stdout)?;
    let why = json["walk"]["not_stopped"].as_str().context("it says that it stopped the process")?;
    ensure!(why.contains("traced by") && why.contains(&std::process::id().to_string()), "{why}");
    ensure!(json["walk"]["confidence"] == "consistent", "{}", json["walk"]);
    drop(stopped);
    ensure!(heap_works(heap.pid(), Path::new("/proc"))?, "it does not go on");
    Ok(())
}

fn heap_works(pid: u32, proc: &Path) -> Result<bool> {
    let status = std::fs::read_to_string(proc.join(pid.to_string()).join("status"))?;
    Ok(status.contains("TracerPid:\t0\n") && !status.contains("State:\tt"))
}

/// Whenever memfrag dies, the process goes on.
fn killed_during_the_walk() -> Result<()> {
    let dir = place::scratch()?;
    let mut service = Service::start(dir.path(), "status")?;
    let pid = service.running.pid();
    for delay in 0..20 {
        let memfrag = Running::start(&mut memfrag(&["heap", "--pid", &pid.to_string()])?)?;
        std::thread::sleep(Duration::from_millis(delay * 3));
        memfrag.signal(libc::SIGKILL)?;
        memfrag.wait(process::LIMIT)?;
        until("nobody traces it", Duration::from_secs(5), || heap_works(pid, Path::new("/proc")))?;
    }
    service.works()?;
    service.end()?;
    Ok(())
}
