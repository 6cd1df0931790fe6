//! Programs that work in an arena: their recordings are read as those of any other program.

use anyhow::{Context as _, Result, ensure};
use memfrag_tests::dashboard::Dashboard;
use memfrag_tests::memfrag::{OWN_FAILURE, Report, explains, memfrag};
use memfrag_tests::{place, process, tests};
use serde_json::Value;
use std::process::Command;

tests!(
    a_json_program_lives_in_an_arena,
    each_pattern_of_the_demonstration_is_recorded,
    the_same_seed_gives_the_same_demonstration,
    a_demonstration_is_watched_as_it_happens,
    an_arena_that_cannot_be_is_explained,
);

const PATTERNS: [&str; 7] = ["phases", "random-burst", "frag-storm", "large-blocks", "steady", "ramp", "mixed"];

/// The program checks its own results. What the report says of it is what it counted itself.
fn a_json_program_lives_in_an_arena() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("arena.mfrag");
    let mut program = Command::new(env!("CARGO_BIN_EXE_arena-json"));
    let ended = process::run(program.arg(&recording).arg("10000"))?.success()?;
    let told: Value = serde_json::from_slice(&ended.stdout).context("the program printed no JSON")?;
    ensure!(told["found"]["orders"] == 10_000 && told["found"]["customers"] == 977, "it found {told}");
    let report = Report::of(&recording)?;
    report.nothing_lost()?;
    for part in ["totals", "end"] {
        for (name, own) in told["own"][part].as_object().into_iter().flatten() {
            let reported = report.number(&format!("/processes/0/{part}/{name}"))?;
            ensure!(Some(reported) == own.as_u64(), "{name} is {reported} in the report, and {own} by its own count");
        }
    }
    ensure!(report.number("/processes/0/totals/allocations")? > 200_000, "too few: {}", report.0["events"]);
    ensure!(report.number("/processes/0/threads")? >= 4, "its threads are not told apart");
    Ok(())
}

fn each_pattern_of_the_demonstration_is_recorded() -> Result<()> {
    let dir = place::scratch()?;
    for pattern in PATTERNS {
        let recording = dir.path().join(format!("{pattern}.mfrag"));
        let mut demo = memfrag(&["demo", "--pattern", pattern, "-o"])?;
        let ended = process::run(demo.arg(&recording))?.success().context(pattern)?;
        let text = ended.text();
        ensure!(text.contains("cleanup") && text.contains("p99"), "{pattern} printed:\n{text}");
        let report = Report::of(&recording)?;
        report.nothing_lost()?;
        report.every_free_matched()?;
        ensure!(report.number("/processes/0/totals/allocations")? > 100, "{pattern}: {}", report.0["events"]);
        for end in ["live_blocks", "requested_bytes"] {
            let left = report.number(&format!("/processes/0/end/{end}"))?;
            ensure!(left == 0, "{pattern} leaves {left} {end}");
        }
    }
    Ok(())
}

fn the_same_seed_gives_the_same_demonstration() -> Result<()> {
    let dir = place::scratch()?;
    let totals = |seed: &str| -> Result<Value> {
        let recording = dir.path().join("seed.mfrag");
        let mut demo = memfrag(&["demo", "--seed", seed, "-o"])?;
        process::run(demo.arg(&recording))?.success()?;
        Ok(Report::of(&recording)?.0["processes"][0]["totals"].clone())
    };
    let first = totals("3")?;
    ensure!(totals("3")? == first, "the same seed, another course");
    ensure!(totals("4")? != first, "another seed, the same course");
    Ok(())
}

fn a_demonstration_is_watched_as_it_happens() -> Result<()> {
    let dashboard = Dashboard::start(&mut memfrag(&["demo", "--serve=0", "--speed", "10"])?)?;
    let (mut client, hello) = dashboard.connect()?;
    ensure!(hello["sources"][0]["growing"] == true && hello["sources"][0]["backend"] == "arena", "{hello}");
    client.wait("status", |status| status["state"] == "live" && status["events"].as_u64() > Some(100))?;
    client.wait("status", |status| status["state"] == "ended" && status["events"].as_u64() > Some(1000))?;
    let ended = dashboard.stop()?.success()?;
    ensure!(ended.stderr.contains("the dashboard stays"), "it said:\n{}", ended.stderr);
    Ok(())
}

fn an_arena_that_cannot_be_is_explained() -> Result<()> {
    let ended = process::run(&mut memfrag(&["demo", "--arena-size", "0"])?)?;
    explains(&ended, OWN_FAILURE, &[&["0 bytes"], &["ask for"]])?;
    let ended = process::run(&mut memfrag(&["demo", "--arena-size", "32000000G"])?)?;
    explains(&ended, OWN_FAILURE, &[&["cannot map"], &["ulimit"]])?;
    let ended = process::run(&mut memfrag(&["demo", "-o", "/nowhere/x.mfrag"])?)?;
    explains(&ended, OWN_FAILURE, &[&["/nowhere/x.mfrag"], &["cannot"]])
}
