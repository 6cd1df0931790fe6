//! What a trace that began late, or lost events, knows of the heap in the end: what is there.

use crate::attach::attached;
use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, Report, memfrag};
use memfrag_tests::process::{self, Running, until};
use memfrag_tests::{place, tests};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

tests!(blocks_older_than_the_trace, losses_are_mended, without_walks);

/// `churn.py` at work.
struct Churn {
    running: Running,
    dir: PathBuf,
}

impl Churn {
    fn start(dir: &Path) -> Result<Self> {
        let script = place::root().join("tests/programs/churn.py");
        let mut command = Command::new(place::tool("python3")?);
        let running = Running::start(command.arg(script).arg(dir).env("PYTHONMALLOC", "malloc"))?;
        let mut churn = Self { running, dir: dir.to_path_buf() };
        churn.reaches("ready")?;
        Ok(churn)
    }

    fn reaches(&mut self, step: &str) -> Result<()> {
        let file = self.dir.join(step);
        until("the program comes to its next step", Duration::from_mins(1), || {
            ensure!(self.running.alive()?, "it ended: {}", self.running.stderr()?);
            Ok(file.exists())
        })
    }

    fn may(&self, step: &str) -> Result<()> {
        std::fs::write(self.dir.join(step), "").context("cannot tell the program to go on")
    }

    /// Traces it while it replaces its objects for a second, and gives the report's one process, with the report, and
    /// the heap as it lies in memory.
    fn traced(mut self, words: &[&str]) -> Result<(Report, Value)> {
        let recording = self.dir.join("r.mfrag");
        let memfrag_at_work = attached(self.running.pid(), &recording, words)?;
        self.may("go")?;
        std::thread::sleep(Duration::from_secs(1));
        self.may("stop")?;
        self.reaches("done")?;
        memfrag_at_work.signal(libc::SIGINT)?;
        let ended = memfrag_at_work.wait(Duration::from_mins(1))?;
        ensure!(ended.code() == 0, "status {}; it wrote:\n{}", ended.code(), ended.stderr);
        let pid = self.running.pid().to_string();
        let heap = process::run(&mut memfrag(&["heap", "--json", "--pid", &pid])?)?.success()?;
        self.may("end")?;
        ensure!(self.running.wait(process::LIMIT)?.code() == 0, "the program did not end well");
        Ok((Report::of(&recording)?, serde_json::from_slice(&heap.stdout)?))
    }
}

/// Every chunk in use is a block that the trace knows, or an older one.
fn knows_every_block(report: &Report, heap: &Value) -> Result<()> {
    let live = report.number("/processes/0/end/live_blocks")?;
    let older = report.number("/processes/0/older/blocks")?;
    let number = |path: &str| heap.pointer(path).and_then(Value::as_u64).with_context(|| format!("no {path}: {heap}"));
    let used = number("/total/used_chunks")? + number("/mmapped/chunks")?;
    // The program polls for a file meanwhile, with a block or two.
    ensure!((live + older).abs_diff(used) <= 4, "{live} live and {older} older blocks, but {used} chunks are in use");
    Ok(())
}

fn blocks_older_than_the_trace() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let (report, heap) = Churn::start(dir.path())?.traced(&[])?;
    report.nothing_lost()?;
    let (older, live) = (report.number("/processes/0/older/blocks")?, report.number("/processes/0/end/live_blocks")?);
    ensure!(older > 1000 && live > 1000, "{older} older blocks, {live} live ones");
    // A free may have been under way as the trace began.
    ensure!(report.number("/events/unmatched_free")? <= 1, "frees of older blocks are known: {}", report.0["events"]);
    ensure!(report.0["processes"][0]["anomalies"]["missed_allocations"].is_null(), "{}", report.0["processes"][0]);
    knows_every_block(&report, &heap)
}

/// A ring much too small for the program: what is lost is said, and the walk at the end sets the state right.
fn losses_are_mended() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let (report, heap) = Churn::start(dir.path())?.traced(&["--ring", "4K"])?;
    ensure!(report.number("/events/lost")? > 0, "a ring of 4 KiB lost nothing: {}", report.0["events"]);
    let anomalies = &report.0["processes"][0]["anomalies"];
    let named = anomalies["missed_allocations"].as_u64().unwrap_or(0) + anomalies["missed_frees"].as_u64().unwrap_or(0);
    ensure!(named > 0, "the walk found nothing to mend: {anomalies}");
    knows_every_block(&report, &heap)
}

fn without_walks() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let (report, _) = Churn::start(dir.path())?.traced(&["--no-walk"])?;
    report.nothing_lost()?;
    ensure!(report.0["processes"][0]["walked_at_ns"].is_null(), "it was walked");
    ensure!(report.number("/processes/0/older/blocks")? == 0, "older blocks cannot be known without a walk");
    ensure!(report.number("/events/unmatched_free")? > 1000, "older blocks were freed: {}", report.0["events"]);
    Ok(())
}
