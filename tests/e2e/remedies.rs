//! `memfrag remedies` foretells what would bring memory down, and measuring bears it out.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, before_exit, explains, memfrag, traced};
use memfrag_tests::process::{self, Ended};
use memfrag_tests::{place, tests};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

tests!(what_is_foretold_is_measured, what_was_not_looked_at);

/// Few blocks stay among many that go, and the interpreter sleeps.
const BURST: &str = "
import time
burst = [bytes(700 + n * 37 % 1200) for n in range(60000)]
kept = burst[::25]
burst = None
time.sleep(1.2)
";

fn remedies(recording: &Path, words: &[&str]) -> Result<Ended> {
    process::run(memfrag(&["remedies"])?.arg(recording).args(words))
}

fn what_is_foretold_is_measured() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("burst.mfrag");
    let mut program = Command::new(place::tool("python3")?);
    traced(Backend::Preload, &recording, program.args(["-c", BURST]).env("PYTHONMALLOC", "malloc"))?;
    let at = before_exit(&recording, 600)?;
    let ended = remedies(&recording, &["--at", &at, "--run", "--json"])?.success()?;
    let found: Value = serde_json::from_slice(&ended.stdout)?;
    let resident = found["resident_bytes"].as_u64().context("no resident bytes")?;
    let agreement = found["replay_agreement"].as_f64().context("no agreement")?;
    ensure!((0.95..1.05).contains(&agreement), "the replay took {agreement} of what the program took");
    let of = |name: &str, what: &str| -> Result<u64> {
        let all = found["remedies"].as_array().context("no remedies")?;
        let remedy = all.iter().find(|remedy| remedy["name"] == name).with_context(|| format!("no {name}"))?;
        remedy[what].as_u64().with_context(|| format!("no {what} in {remedy}"))
    };
    let both = |name: &str| Ok::<_, anyhow::Error>((of(name, "predicted_bytes")?, of(name, "measured_bytes")?));
    ensure!(both("nothing")? == (resident, resident), "nothing changes nothing");
    for name in ["malloc_trim", "restart"] {
        let (predicted, measured) = both(name)?;
        eprintln!("{name}: {resident} resident, {predicted} foretold, {measured} measured");
        ensure!(predicted < resident / 2, "{name} saves most of {resident}: {predicted}");
        // Where the blocks of the replay lie is not to the page where those of the program did.
        ensure!(predicted.abs_diff(measured) * 20 <= resident, "{name}: {predicted} foretold, {measured} measured");
    }
    let (predicted, measured) = both("mmap-4m")?;
    ensure!(predicted.abs_diff(measured) * 20 <= resident, "mmap-4m: {predicted} foretold, {measured} measured");
    ensure!(of("compaction", "predicted_bytes")? <= of("restart", "predicted_bytes")?, "nobody goes below");
    if place::tool("musl-gcc").is_ok() {
        of("musl", "measured_bytes")?;
    }
    // Without --run nothing is run, and the table says how to measure.
    let text = remedies(&recording, &["--at", &at])?.success()?.text();
    for words in ["malloc_trim", "restart", "MALLOC_ARENA_MAX=1", "--run", "What this does not tell"] {
        ensure!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    let report = process::run(memfrag(&["report", "--at", "1s"])?.arg(&recording))?.success()?.text();
    ensure!(report.contains("What would be resident instead"), "{report}");
    Ok(())
}

fn what_was_not_looked_at() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("short.mfrag");
    let mut program = Command::new(place::tool("python3")?);
    traced(Backend::Preload, &recording, program.args(["-c", "pass"]))?;
    explains(&remedies(&recording, &["--at", "1us"])?, 125, &[&["which pages"], &["resident"]])?;
    explains(&remedies(&recording, &["--pid", "1"])?, 125, &[&["no process 1"], &["memfrag report"]])?;
    explains(&remedies(&recording, &["--memory-limit", "1G"])?, 125, &[&["--run"]])
}
