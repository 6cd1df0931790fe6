//! The dashboard in a real browser, on recordings that the server of this memfrag serves: the tests of `web/test`.

use anyhow::{Result, ensure};
use memfrag_tests::process::Running;
use memfrag_tests::{place, skip, tests};
use std::process::Command;
use std::time::Duration;

tests!(page_on_recordings, page_around_the_heap, map_of_the_heap, policies_beside_the_heap);

/// With the recordings that they make, on a busy machine.
const LIMIT: Duration = Duration::from_mins(8);

/// Runs a file of tests below `web/test`; skips where something that they need is not installed.
fn run(file: &str) -> Result<()> {
    let node = place::tool("node")?;
    if place::tool("chromium").is_err() && place::tool("chromium-browser").is_err() {
        skip!("chromium is not installed");
    }
    let web = place::root().join("web");
    if !web.join("node_modules/playwright-core").is_dir() {
        skip!("the packages of web/package-lock.json are not installed; `cargo xtask web` does it");
    }
    let mut command = Command::new(node);
    command.args(["--test", "--test-reporter=tap", file]).current_dir(web).env("MEMFRAG_BIN", place::memfrag()?);
    let ended = Running::start(&mut command)?.wait(LIMIT)?;
    let told = ended.text();
    ensure!(ended.status.success(), "web/{file}:\n{}{}", failures(&told), ended.stderr);
    // A file whose tests were all skipped would pass as well.
    ensure!(count(&told, "pass") > 0 && count(&told, "skipped") == 0, "web/{file} did not run:\n{told}");
    Ok(())
}

/// A count of Node's closing lines.
fn count(told: &str, what: &str) -> u64 {
    let line = format!("# {what} ");
    told.lines().find_map(|text| text.strip_prefix(line.as_str())?.trim().parse().ok()).unwrap_or(0)
}

/// What was told of the tests that failed.
fn failures(told: &str) -> String {
    let mut kept = false;
    let mut lines = Vec::new();
    for line in told.lines() {
        if line.starts_with("ok ") || line.starts_with("not ok ") {
            kept = line.starts_with("not ok ");
        }
        if kept {
            lines.push(line);
        }
    }
    lines.join("\n")
}

fn page_on_recordings() -> Result<()> {
    run("test/e2e/dashboard.e2e.mjs")
}

fn policies_beside_the_heap() -> Result<()> {
    run("test/e2e/beside.e2e.mjs")
}

fn page_around_the_heap() -> Result<()> {
    run("test/e2e/shell.e2e.mjs")
}

fn map_of_the_heap() -> Result<()> {
    run("test/e2e/map.e2e.mjs")
}
