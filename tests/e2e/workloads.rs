//! Synthetic workloads that keep their own books: what memfrag records, exports and replays of them is what they did.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, Report, memfrag, number, traced};
use memfrag_tests::process;
use memfrag_tests::{place, tests_on_both};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

tests_on_both!(uniform, burst, pareto, run_by_a_shell);

fn uniform(backend: Backend) -> Result<()> {
    workload(backend, "uniform", 1.0)
}

fn burst(backend: Backend) -> Result<()> {
    workload(backend, "burst", 1.0)
}

fn pareto(backend: Backend) -> Result<()> {
    // 2.9 by the distribution, 0.15 more or less for so many blocks.
    workload(backend, "pareto", 2.5)
}

/// Records a workload and compares with its books; half of its blocks must be at least so many times smaller than their
/// mean.
fn workload(backend: Backend, kind: &str, skew: f64) -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("workload.mfrag");
    let mut program = Command::new(place::compile("workload", "workload", &["-lm"])?);
    let (ended, report) = traced(backend, &recording, program.args([kind, "50000", "7", "500"]))?;
    report.nothing_lost()?;
    report.every_free_matched()?;
    let books: Value = serde_json::from_slice(&ended.stdout)?;
    let book = |name: &str| books[name].as_u64().with_context(|| format!("no {name} in {books}"));
    let totals = |name: &str| report.number(&format!("/processes/0/totals/{name}"));
    for name in ["allocations", "frees", "requested_bytes"] {
        ensure!(totals(name)? == book(name)?, "{name}: {} recorded, {} made", totals(name)?, book(name)?);
    }
    ensure!(report.number("/processes/0/end/live_blocks")? == book("live_blocks")?, "live blocks");
    ensure!(report.number("/processes/0/end/requested_bytes")? == book("live_bytes")?, "live bytes");
    // The same log for MemFragX, where sizes are looked at one by one.
    let out = dir.path().join("run");
    let mut export = memfrag(&["export", "--format", "memfragx", "-o"])?;
    process::run(export.arg(&out).arg(&recording))?.success()?;
    let log = fs::read_to_string(out.join("mftrace_log.csv"))?;
    let mut sizes: Vec<u64> = Vec::new();
    for line in log.lines().filter(|line| line.contains(",ALLOC,")) {
        sizes.push(line.split(',').nth(3).and_then(|size| size.parse().ok()).with_context(|| line.to_owned())?);
    }
    ensure!(
        sizes.len() as u64 == book("allocations")? && sizes.iter().sum::<u64>() == book("requested_bytes")?,
        "sizes"
    );
    sizes.sort_unstable();
    let (mean, median) = (book("requested_bytes")? as f64 / sizes.len() as f64, sizes[sizes.len() / 2] as f64);
    ensure!(mean >= median * skew * 0.95, "{kind}: half of the blocks are up to {median} bytes, the mean is {mean}");
    if skew > 1.0 {
        ensure!(sizes.last() > Some(&(256 << 10)), "the largest is {:?}", sizes.last());
    }
    replays(&recording, kind, book("allocations")? + book("frees")?)?;
    ensure!(Report::of(&recording)?.processes("workload").len() == 1, "one process");
    Ok(())
}

/// Replays the program that made so many calls, or a few more for the C library: it grows as it did.
fn replays(recording: &Path, kind: &str, calls: u64) -> Result<()> {
    let ended = process::run(memfrag(&["replay", "--allocator", "glibc", "--json"])?.arg(recording))?.success()?;
    let replayed: Value = serde_json::from_slice(&ended.stdout)?;
    ensure!((calls..calls + 16).contains(&number(&replayed, "calls")?), "{calls} calls made, {replayed}");
    let (real, run) = (&replayed["original"]["final_rss_bytes"], &replayed["runs"][0]["final_rss_bytes"]);
    let (real, run) = (real.as_u64().context("no reading")?, run.as_u64().context("no run")?);
    eprintln!("{kind}: {real} really, {run} replayed");
    ensure!(real > 4 << 20 && real.abs_diff(run) <= real / 50, "{kind}: {real} really, {run} replayed");
    Ok(())
}

/// What a shell runs is replayed as what memfrag runs: as a child of the shell, and in the shell's place.
fn run_by_a_shell(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let program = place::compile("workload", "workload", &["-lm"])?;
    for script in ["\"$0\" uniform 20000 7 500; true", "/bin/true; exec \"$0\" uniform 20000 7 500"] {
        let recording = dir.path().join("shell.mfrag");
        let mut shell = Command::new(place::tool("sh")?);
        let (ended, report) = traced(backend, &recording, shell.args(["-c", script]).arg(&program))?;
        report.nothing_lost()?;
        let books: Value = serde_json::from_slice(&ended.stdout)?;
        replays(&recording, script, number(&books, "allocations")? + number(&books, "frees")?)?;
    }
    Ok(())
}
