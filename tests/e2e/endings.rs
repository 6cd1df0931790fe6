//! However a program ends, `memfrag trace` ends the same way and has recorded everything up to there.

use anyhow::{Result, ensure};
use memfrag_tests::memfrag::{Backend, trace, traced};
use memfrag_tests::process::{self, Running, until};
use memfrag_tests::{place, tests_on_both};
use std::process::Command;
use std::time::Duration;

tests_on_both!(
    statuses,
    signals,
    a_child_outlives_its_parent,
    output_goes_where_it_went,
    ctrl_c_ends_the_trace_not_the_recording,
);

fn same(backend: Backend, way: &str, number: i32) -> Result<()> {
    let dir = place::scratch()?;
    let mut target = Command::new(place::program("exits_by")?);
    target.args([way, &number.to_string()]);
    let bare = process::run(&mut target)?;
    let recording = dir.path().join("r.mfrag");
    let (ended, report) = traced(backend, &recording, &target)?;
    ensure!(ended.code() == bare.code(), "{way} {number}: {} instead of {}", ended.code(), bare.code());
    ensure!(ended.stdout == bare.stdout, "{way} {number} wrote {:?} instead of {:?}", ended.text(), bare.text());
    ensure!(report.number("/events/alloc")? >= 1000, "{way} {number}: {}", report.0["events"]);
    Ok(())
}

fn statuses(backend: Backend) -> Result<()> {
    for number in [0, 1, 42, 125, 255] {
        same(backend, "status", number)?;
    }
    same(backend, "_exit", 7)?;
    same(backend, "thread", 8)
}

fn signals(backend: Backend) -> Result<()> {
    for number in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV, libc::SIGABRT, libc::SIGINT, libc::SIGUSR1] {
        same(backend, "signal", number)?;
    }
    Ok(())
}

fn a_child_outlives_its_parent(backend: Backend) -> Result<()> {
    same(backend, "child", 9)
}

fn output_goes_where_it_went(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let mut target = Command::new("/bin/sh");
    target.args(["-c", "echo out; echo err >&2; pwd; echo \"$FROM_TEST\"; exit 3"]);
    target.current_dir(dir.path()).env("FROM_TEST", "with spaces and 'quotes'");
    let bare = process::run(&mut target)?;
    let ended = process::run(&mut trace(backend, &dir.path().join("r.mfrag"), &target)?)?;
    ensure!(ended.stdout == bare.stdout, "{:?} instead of {:?}", ended.text(), bare.text());
    ensure!(ended.stderr.lines().any(|line| line == "err"), "standard error got lost: {:?}", ended.stderr);
    ensure!(ended.code() == 3, "{}", ended.code());
    Ok(())
}

fn ctrl_c_ends_the_trace_not_the_recording(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let (status, recording) = (dir.path().join("status"), dir.path().join("r.mfrag"));
    let mut target = Command::new(place::program("loop_forever")?);
    target.arg(&status);
    let running = Running::start(&mut trace(backend, &recording, &target)?)?;
    until("the program works", Duration::from_mins(1), || {
        Ok(std::fs::read_to_string(&status).is_ok_and(|line| line.contains("running")))
    })?;
    std::thread::sleep(Duration::from_millis(500));
    // A terminal sends the signal to the whole foreground group: the program ends by it as well.
    let line = std::fs::read_to_string(&status)?;
    let pid = line.split_whitespace().next().unwrap_or_default().parse()?;
    running.signal(libc::SIGINT)?;
    process::send(pid, libc::SIGINT)?;
    let ended = running.wait(Duration::from_secs(20))?;
    ensure!(ended.code() == 130, "status {} instead of 130: {}", ended.code(), ended.stderr);
    let report = memfrag_tests::memfrag::Report::of(&recording)?;
    report.nothing_lost()
}
