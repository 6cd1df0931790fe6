//! Other tools' formats: a recording written as MemFragX's log comes back as the same heap.

use anyhow::{Context as _, Result, ensure};
use memfrag_tests::memfrag::{Backend, Report, explains, memfrag, traced};
use memfrag_tests::process::{self, Ended};
use memfrag_tests::{place, tests};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

tests!(a_log_goes_out_and_comes_back, a_redacted_copy_is_the_same_heap, bad_input);

/// Runs `export` or `import` of a file to a place.
fn run(verb: &str, from: &Path, to: &Path, words: &[&str]) -> Result<Ended> {
    let first = [OsStr::new(verb), from.as_ref(), "-o".as_ref(), to.as_ref()];
    let words = first.into_iter().chain(words.iter().map(OsStr::new)).collect::<Vec<_>>();
    process::run(&mut memfrag(&words)?)
}

fn a_log_goes_out_and_comes_back() -> Result<()> {
    let dir = place::scratch()?;
    let (recording, run_dir, back) =
        (dir.path().join("a.mfrag"), dir.path().join("new/run"), dir.path().join("b.mfrag"));
    traced(
        Backend::Preload,
        &recording,
        Command::new("/usr/bin/perl").args(["-e", "my %h = map { $_ => 'x' x ($_ % 99) } 1..20000;"]),
    )?;
    let said = run("export", &recording, &run_dir, &["--format", "memfragx"])?.success()?.text();
    let log = run_dir.join("mftrace_log.csv");
    ensure!(said.contains("mftrace_log.csv") && log.exists(), "{said}");
    let summary: Value = serde_json::from_slice(&fs::read(run_dir.join("summary.json"))?)?;
    ensure!(fs::read_to_string(run_dir.join("smaps"))?.contains("\nRss: "), "no readings of memory");
    // The sums are the recording's own.
    let report = Report::of(&recording)?;
    let totals = |name: &str| report.number(&format!("/processes/0/totals/{name}"));
    let (moved, allocations) = (totals("reallocations")?, totals("allocations")?);
    ensure!(allocations > 20_000, "perl made {allocations} allocations");
    ensure!(summary["allocs"] == allocations + moved, "{summary} of {allocations} and {moved} reallocations");
    ensure!(summary["frees"] == totals("frees")? + moved, "{summary}");
    ensure!(summary["total_alloc_bytes"] == totals("requested_bytes")?, "{summary}");
    let live = report.number("/processes/0/end/requested_bytes")?;
    ensure!(summary["net_alloc_bytes"] == live, "{summary} with {live} bytes live");

    let said = run("import", &log, &back, &[])?.success()?.text();
    ensure!(said.contains("memfrag report"), "{said}");
    let again = Report::of(&back)?;
    for path in
        ["/processes/0/end/requested_bytes", "/processes/0/end/live_blocks", "/processes/0/peak/requested_bytes"]
    {
        ensure!(again.number(path)? == report.number(path)?, "{path} came back otherwise");
    }
    ensure!(again.number("/processes/0/totals/requested_bytes")? == totals("requested_bytes")?, "requested");
    again.nothing_lost()?;
    again.every_free_matched()
}

/// Everything that a report says of the heap is said of the copy, and nothing of whose it is.
fn a_redacted_copy_is_the_same_heap() -> Result<()> {
    let dir = place::scratch()?;
    let (recording, copy, log) =
        (dir.path().join("a.mfrag"), dir.path().join("copy.mfrag"), dir.path().join("run/mftrace_log.csv"));
    let program = "my $hunter2 = 7; my %h = map { $_ => 'x' x ($_ % 99) } 1..20000; delete @h{1..15000}; sleep 1";
    traced(Backend::Preload, &recording, Command::new("/usr/bin/perl").args(["-e", program]))?;
    let said = run("export", &recording, &copy, &["--redact"])?.success()?.text();
    ensure!(said.contains("moved: addresses"), "{said}");
    let (before, after) = (Report::of(&recording)?, Report::of(&copy)?);
    for path in ["/events", "/processes/0/totals", "/processes/0/peak", "/processes/0/end", "/processes/0/threads"] {
        let part = |report: &Report| {
            let mut part = report.0.pointer(path).cloned();
            // Names fewer bytes: nothing of the heap.
            if let Some(events) = part.as_mut().and_then(Value::as_object_mut) {
                events.remove("bytes_on_disk");
            }
            part
        };
        ensure!(part(&before).is_some() && part(&before) == part(&after), "{path} is otherwise in the copy");
    }
    let whole = |report: &Report| report.0.to_string();
    ensure!(whole(&before).contains("hunter2") && whole(&before).contains("perl"), "the recording has no secret");
    ensure!(after.0.pointer("/processes/0/comm") == Some(&Value::from("program-1")), "{}", whole(&after));
    ensure!(after.0.pointer("/processes/0/allocator/name") == Some(&Value::from("glibc")), "{}", whole(&after));
    ensure!(!whole(&after).contains("hunter2") && !whole(&after).contains("perl"), "{}", whole(&after));
    // The model finds the same addresses in it: the arenas lie as they lay.
    let agreement = |report: &Report| report.0.pointer("/processes/0/allocator/model_agreement").cloned();
    ensure!(agreement(&before).is_some() && agreement(&before) == agreement(&after), "{:?}", agreement(&after));

    // A log for another tool, from the same recording, with addresses that are not the recording's.
    let first = |words: &[&str]| -> Result<String> {
        let to = dir.path().join("run");
        run("export", &recording, &to, &[&["--format", "memfragx"], words].concat())?.success()?;
        let text = fs::read_to_string(&log)?;
        text.lines().nth(1).and_then(|row| row.split(',').nth(2)).map(str::to_owned).context("a row with an address")
    };
    ensure!(first(&[])? != first(&["--redact"])?, "the log's addresses are the recording's");

    explains(&run("export", &recording, &dir.path().join("b.mfrag"), &[])?, 125, &[&["--redact"]])?;
    let onto_itself = run("export", &recording, &recording, &["--redact"])?;
    explains(&onto_itself, 125, &[&["must not exist yet"]])?;
    ensure!(whole(&Report::of(&recording)?) == whole(&before), "a copy onto the recording has changed it");
    Ok(())
}

fn bad_input() -> Result<()> {
    let dir = place::scratch()?;
    let place = |name: &str| dir.path().join(name);
    fs::write(place("text"), "what is this\n")?;
    fs::write(place("head"), "ts_ns,event,ptr,size,tid\n1,EAT,0x1,1,1\n")?;
    let out = place("out.mfrag");
    explains(&run("import", &place("text"), &out, &[])?, 125, &[&["no memfragx log"], &["what is this"]])?;
    explains(&run("import", &place("head"), &out, &[])?, 125, &[&["no row"], &["1 line"]])?;
    explains(&run("import", &place("none"), &out, &[])?, 125, &[&["cannot open"], &["none"]])?;
    ensure!(!out.exists(), "nothing was imported, and yet there is a recording");
    explains(&run("export", &place("text"), &place("dir"), &["--format", "memfragx"])?, 125, &[&["recording"]])?;
    let recording = place("a.mfrag");
    traced(Backend::Preload, &recording, &Command::new("/bin/true"))?;
    let ended = run("export", &recording, &place("dir"), &["--format", "memfragx", "--pid", "1"])?;
    explains(&ended, 125, &[&["no events of a process 1"]])?;
    let ended = run("export", &recording, &recording, &["--format", "memfragx"])?;
    explains(&ended, 125, &[&["cannot make the directory"]]).context("a file stands where the directory should")
}
