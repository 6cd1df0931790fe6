//! Traces that are limited to processes by the names of what they run.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, OWN_FAILURE, Report, explains, memfrag};
use memfrag_tests::process::{self, Running};
use memfrag_tests::{events, ledger, place, tests};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

tests!(of_a_compilation_the_compiler, becomes_and_ceases_to_be, of_the_machine, bad_filters);

/// What `memfrag trace` says of a shell's work, limited to names, and its report.
fn traced(backend: Backend, recording: &Path, filter: &str, script: &str) -> Result<(String, Report)> {
    let mut command = memfrag(&["trace", "--backend", backend.name(), "--filter", filter, "-o"])?;
    command.arg(recording).args(["--", "sh", "-c", script]);
    let told = process::run(command.current_dir(recording.parent().context("a file in a folder")?))?.success()?.stderr;
    Ok((told, Report::of(recording)?))
}

fn names(report: &Report) -> Vec<&str> {
    let processes = report.0["processes"].as_array();
    processes.into_iter().flatten().filter_map(|process| process["comm"].as_str()).collect()
}

fn of_a_compilation_the_compiler() -> Result<()> {
    for backend in Backend::ALL {
        backend.require()?;
        place::tool("gcc")?;
        let dir = place::scratch()?;
        let recording = dir.path().join("gcc.mfrag");
        fs::write(dir.path().join("x.c"), "int main(void) { return 0; }\n")?;
        let compile = "gcc -O2 -c x.c -o x.o && test -s x.o";
        let (told, report) = traced(backend, &recording, "comm=cc1", compile)?;
        ensure!(told.contains("only processes named cc1"), "{told}");
        ensure!(names(&report) == ["cc1"], "{:?}", names(&report));
        report.nothing_lost()?;
        report.every_free_matched()?;
        ensure!(report.0["processes"][0]["allocator"]["name"] == "glibc", "{}", report.0["processes"][0]);
        let (_, report) = traced(backend, &recording, "comm=cc*,comm=as", compile)?;
        ensure!(names(&report) == ["cc1", "as"], "{:?}", names(&report));
        let (told, report) = traced(backend, &recording, "comm=cc", compile)?;
        ensure!(told.contains("no process ran a program named cc,"), "{told}");
        ensure!(names(&report).is_empty() && report.number("/events/total")? == 0, "{:?}", names(&report));
    }
    Ok(())
}

/// One process that is the shell, then a program that counts its own calls, then another program.
fn becomes_and_ceases_to_be() -> Result<()> {
    for backend in Backend::ALL {
        backend.require()?;
        let dir = place::scratch()?;
        let recording = dir.path().join("becomes.mfrag");
        let (program, books) = (place::program("ledger")?, dir.path().join("books"));
        fs::create_dir(&books)?;
        let run = format!("{} {}", program.display(), books.display());
        let script = format!("{run} threads,fork 5 3000 && exec {run} basic,seeded 6 3000");
        let (_, report) = traced(backend, &recording, "comm=ledger", &script)?;
        report.nothing_lost()?;
        report.every_free_matched()?;
        ensure!(names(&report).iter().all(|&name| name == "ledger"), "{:?}", names(&report));
        let agreement = ledger::compare(&ledger::read(&books)?, &events::read(&recording)?)
            .with_context(|| format!("under {}", backend.name()))?;
        eprintln!("{agreement:?}");
        ensure!(agreement.calls > 3000, "{agreement:?}");

        // The shell makes copies of itself, and becomes another program at last.
        let (_, report) = traced(backend, &recording, "comm=sh", "(:); exec sleep 0.05")?;
        ensure!(names(&report).iter().all(|&name| name == "sh"), "{:?}", names(&report));
        let shells = report.processes("sh");
        ensure!(shells.first().is_some_and(|shell| !shell["exit"].is_null()), "it is not over: {shells:?}");
    }
    Ok(())
}

/// Of all processes those of a name, whether they are there already or start meanwhile.
fn of_the_machine() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let recording = dir.path().join("machine.mfrag");
    // A name that nobody else here has.
    let own = dir.path().join("mfrag-e2e-loops");
    let anyones = place::program("loop_forever")?;
    fs::copy(&anyones, &own)?;
    let start = |program: &Path, status: &str| Running::start(Command::new(program).arg(dir.path().join(status)));
    let before = start(&own, "before")?;
    let other = start(&anyones, "other")?;
    let mut words = memfrag(&["trace", "--system", "--duration", "2s", "--filter", "comm=mfrag-e2e-*", "-o"])?;
    let trace = Running::start(words.arg(&recording))?;
    std::thread::sleep(Duration::from_millis(800));
    let meanwhile = start(&own, "meanwhile")?;
    ensure!(trace.wait(Duration::from_mins(1))?.code() == 0, "the trace failed");
    let report = Report::of(&recording)?;
    let mut found: Vec<u64> =
        report.0["processes"].as_array().into_iter().flatten().filter_map(|process| process["pid"].as_u64()).collect();
    found.sort_unstable();
    let mut wanted = [before.pid(), meanwhile.pid()].map(u64::from);
    wanted.sort_unstable();
    ensure!(found == wanted, "{found:?} instead of {wanted:?}, beside {}", other.pid());
    for process in report.processes("mfrag-e2e-loops") {
        ensure!(process["totals"]["allocations"].as_u64() > Some(10), "{process}");
    }
    report.nothing_lost()
}

fn bad_filters() -> Result<()> {
    let run = |words: &[&str]| process::run(&mut memfrag(&[&["trace"], words, &["--", "true"]].concat())?);
    for filter in ["cc1", "comm=", "uid=0", "comm=*x"] {
        explains(&run(&["--filter", filter])?, OWN_FAILURE, &[&["comm=NAME"]])?;
    }
    explains(&run(&["--filter", "comm=/bin/sh"])?, OWN_FAILURE, &[&["without the folders"]])?;
    explains(&run(&["--filter", "comm=sh", "--no-follow"])?, OWN_FAILURE, &[&["cannot be used with"]])?;
    let many = ["comm=a"; 9].join(",");
    explains(&run(&["--filter", &many])?, OWN_FAILURE, &[&["8 names at most"]])
}
