//! Whole stacks: what is recorded under each backend, and what is shown of it.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, Report, memfrag, no_ebpf, traced};
use memfrag_tests::{place, process, tests, tests_on_both};
use serde_json::Value;
use std::process::Command;

tests_on_both!(paths_to_one_site_are_told_apart, callers_alone_look_as_ever, nobody_at_all);
tests!(the_backend_is_chosen_as_ever);

/// Traces the program with these stacks; gives the site that holds most.
fn site(backend: Backend, choice: &str) -> Result<Value> {
    let dir = place::scratch()?;
    let recording = dir.path().join("paths.mfrag");
    let mut command = memfrag(&["trace", "--stacks", choice, "--backend", backend.name(), "-o"])?;
    process::run(command.arg(&recording).arg("--").arg(place::program("call_paths")?))?.success()?;
    let report = Report::of(&recording)?;
    report.nothing_lost()?;
    let process = *report.processes("call_paths").first().context("the program was not recorded")?;
    process["top_sites"].get(0).cloned().context("no site")
}

/// The functions of a stack's frames, the innermost first.
fn functions(stack: &Value) -> Vec<&str> {
    stack["frames"].as_array().into_iter().flatten().filter_map(|frame| frame["function"].as_str()).collect()
}

fn paths_to_one_site_are_told_apart(backend: Backend) -> Result<()> {
    let site = site(backend, "dwarf")?;
    ensure!(site["function"] == "build" && site["live_blocks"] == 40, "{site}");
    let stacks = site["stacks"].as_array().context("no stacks")?;
    ensure!(stacks.len() == 2, "{} stacks: {site}", stacks.len());
    for (stack, path, blocks, bytes) in [(&stacks[0], "left", 10, 10_000), (&stacks[1], "right", 30, 3000)] {
        let functions = functions(stack);
        ensure!(functions.starts_with(&["build", path, "main"]), "{functions:?}");
        ensure!(functions.last() == Some(&"_start") && stack["complete"] == true, "{functions:?}");
        ensure!(stack["live_blocks"] == blocks && stack["live_bytes"] == bytes, "{stack}");
        ensure!(stack["frames"][0]["address"] == site["address"], "the first frame is the site");
    }
    Ok(())
}

fn callers_alone_look_as_ever(backend: Backend) -> Result<()> {
    let site = site(backend, "caller")?;
    ensure!(site["function"] == "build" && site["live_blocks"] == 40 && site.get("stacks").is_none(), "{site}");
    // What is the default records no more either.
    let dir = place::scratch()?;
    let target = Command::new(place::program("call_paths")?);
    let (_, report) = traced(backend, &dir.path().join("r.mfrag"), &target)?;
    let process = *report.processes("call_paths").first().context("the program was not recorded")?;
    ensure!(process["top_sites"][0].get("stacks").is_none(), "{}", process["top_sites"]);
    Ok(())
}

fn nobody_at_all(backend: Backend) -> Result<()> {
    let site = site(backend, "none")?;
    ensure!(site["address"] == 0 && site["function"].is_null(), "{site}");
    Ok(())
}

fn the_backend_is_chosen_as_ever() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("auto.mfrag");
    let mut command = memfrag(&["trace", "--stacks", "dwarf", "-o"])?;
    process::run(command.arg(&recording).args(["--", "true"]))?.success()?;
    let backend = Report::of(&recording)?.0["recording"]["backend"].clone();
    let expected = if no_ebpf().is_none() { "ebpf" } else { "preload" };
    ensure!(backend == expected, "{backend} instead of {expected}");
    Ok(())
}
