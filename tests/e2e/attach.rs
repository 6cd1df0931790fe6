//! Attaching to programs at work, and leaving them as they were.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, Report, attach};
use memfrag_tests::process::{self, Ended, Running, changed_text, text_restored, until};
use memfrag_tests::redis::Redis;
use memfrag_tests::{events, place, tests};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

tests!(redis_ten_times_under_load, ends_with_its_target, several_processes);

/// Attaches, waits until probes lie in the target's code, and gives the memfrag at work.
pub(crate) fn attached(pid: u32, recording: &Path, words: &[&str]) -> Result<Running> {
    let mut memfrag = Running::start(&mut attach(recording, pid, words)?)?;
    until("probes lie in the target's code", Duration::from_secs(30), || {
        ensure!(memfrag.alive()?, "memfrag ended at once: {}", memfrag.stderr()?);
        Ok(!changed_text(pid)?.is_empty())
    })?;
    Ok(memfrag)
}

fn redis_ten_times_under_load() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let redis = Redis::new(dir.path())?;
    let mut server = Running::start(&mut redis.server()?)?;
    redis.ready(&mut server)?;
    let expected = redis.known_digest()?;
    ensure!(changed_text(server.pid())?.is_empty(), "redis's code differs from its files before any probe");
    for round in 0..10 {
        let recording = dir.path().join(format!("{round}.mfrag"));
        // It runs until it is stopped, so that every round attaches and leaves under load.
        let mut load = Running::start(&mut redis.benchmark(10_000_000)?)?;
        let ended = if round % 2 == 0 {
            let memfrag = attached(server.pid(), &recording, &[])?;
            std::thread::sleep(Duration::from_millis(700));
            memfrag.signal(libc::SIGINT)?;
            let asked = Instant::now();
            let ended = memfrag.wait(Duration::from_secs(20))?;
            eprintln!("round {round}: ended {:?} after it was asked to", asked.elapsed());
            ended
        } else {
            attached(server.pid(), &recording, &["--duration", "1s"])?.wait(Duration::from_secs(30))?
        };
        ensure!(ended.code() == 0, "round {round}: status {}; it wrote:\n{}", ended.code(), ended.stderr);
        text_restored(server.pid(), Duration::from_secs(10))?;
        ensure!(load.alive()?, "round {round}: redis-benchmark gave up: {}", load.stderr()?);
        drop(load);
        ensure!(server.alive()?, "round {round}: redis has died: {}", server.stderr()?);
        let report = Report::of(&recording)?;
        report.nothing_lost()?;
        ensure!(report.number("/events/alloc")? > 1000, "round {round}: {}", report.0["events"]);
        ensure!(redis.known_digest()? == expected, "round {round}: redis holds other data");
    }
    redis.shutdown()?;
    ensure!(server.wait(process::LIMIT)?.code() == 0, "redis did not end well");
    Ok(())
}

/// A service to attach to, at work.
pub(crate) struct Service {
    /// The process.
    pub(crate) running: Running,
    status: std::path::PathBuf,
}

impl Service {
    /// Starts it with its files in `dir`.
    pub(crate) fn start(dir: &Path, name: &str) -> Result<Self> {
        Self::start_with(dir, name, "2")
    }

    /// As [`Service::start`], with so many threads.
    pub(crate) fn start_with(dir: &Path, name: &str, threads: &str) -> Result<Self> {
        let status = dir.join(name);
        let mut running = Running::start(Command::new(place::program("loop_forever")?).arg(&status).arg(threads))?;
        until("the service works", Duration::from_secs(30), || {
            ensure!(running.alive()?, "it ended at once");
            Ok(state(&status).is_ok_and(|state| state.1 > 0))
        })?;
        Ok(Self { running, status })
    }

    /// It is alive, gets on with its work, and its blocks are as they should be.
    pub(crate) fn works(&mut self) -> Result<()> {
        ensure!(self.running.alive()?, "the target has died: {}", self.running.stderr()?);
        works(&self.status)
    }

    /// Ends it; it checks its blocks once more.
    pub(crate) fn end(self) -> Result<Ended> {
        self.running.signal(libc::SIGTERM)?;
        let ended = self.running.wait(process::LIMIT)?;
        ensure!(ended.code() == 0 && state(&self.status)?.2 == "ok", "the target found its blocks broken");
        Ok(ended)
    }
}

/// What a service last wrote about itself: its process id, rounds and state.
pub(crate) fn state(status: &Path) -> Result<(u32, u64, String)> {
    let line = std::fs::read_to_string(status)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [pid, rounds, state] = words[..] else { anyhow::bail!("no status: {line:?}") };
    Ok((pid.parse()?, rounds.parse()?, state.to_owned()))
}

/// The service that writes this file gets on with its work.
pub(crate) fn works(status: &Path) -> Result<()> {
    let before = state(status)?.1;
    until("the target gets on with its work", Duration::from_secs(10), || Ok(state(status)?.1 > before + 20))?;
    let state = state(status)?;
    ensure!(state.2 == "running", "the target found its blocks broken: {state:?}");
    Ok(())
}

fn ends_with_its_target() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let mut service = Service::start(dir.path(), "status")?;
    let recording = dir.path().join("r.mfrag");
    let memfrag = attached(service.running.pid(), &recording, &[])?;
    service.works()?;
    service.end()?;
    let ended = memfrag.wait(Duration::from_secs(20)).context("memfrag goes on though its target has ended")?;
    ensure!(ended.code() == 0, "status {}; it wrote:\n{}", ended.code(), ended.stderr);
    let report = Report::of(&recording)?;
    report.nothing_lost()
}

fn several_processes() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let (mut one, mut two) = (Service::start(dir.path(), "one")?, Service::start(dir.path(), "two")?);
    let mut third = Service::start(dir.path(), "three")?;
    let recording = dir.path().join("r.mfrag");
    let pids = [one.running.pid(), two.running.pid()];
    let memfrag = attached(pids[0], &recording, &["--pid", &pids[1].to_string()])?;
    for service in [&mut one, &mut two, &mut third] {
        service.works()?;
    }
    memfrag.signal(libc::SIGINT)?;
    let ended = memfrag.wait(Duration::from_secs(20))?;
    ensure!(ended.code() == 0, "status {}; it wrote:\n{}", ended.code(), ended.stderr);
    let mut seen: Vec<u32> = events::read(&recording)?.iter().map(|event| event.pid).collect();
    seen.sort_unstable();
    seen.dedup();
    let mut wanted = pids;
    wanted.sort_unstable();
    ensure!(seen == wanted, "recorded processes {seen:?} instead of {wanted:?}");
    for service in [one, two, third] {
        text_restored(service.running.pid(), Duration::from_secs(10))?;
        service.end()?;
    }
    Ok(())
}
