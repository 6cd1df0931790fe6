//! The report's ledger puts every resident byte of real programs in one line.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, Report, trace};
use memfrag_tests::process::{self, Running, until};
use memfrag_tests::{place, tests_on_both};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

tests_on_both!(python, perl, cc1);

const PYTHON: &str = r"
import random
random.seed(1)
kept = []
while True:
    blocks = [bytes(random.randrange(16, 1900)) for _ in range(20000)]
    kept += blocks[::100]
    del kept[:-5000]
";

const PERL: &str = r"
my @kept;
while (1) {
    my @blocks = map { 'x' x (16 + $_ * 7919 % 1900) } 1 .. 20000;
    push @kept, grep { length($_) % 97 == 0 } @blocks;
    splice(@kept, 0, @kept - 5000) if @kept > 5000;
}
";

fn python(backend: Backend) -> Result<()> {
    let mut target = Command::new(place::tool("python3")?);
    target.args(["-c", PYTHON]).env("PYTHONMALLOC", "malloc");
    adds_up(backend, &mut target)
}

fn perl(backend: Backend) -> Result<()> {
    adds_up(backend, Command::new(place::tool("perl")?).args(["-e", PERL]))
}

fn cc1(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let source = dir.path().join("large.c");
    let mut text = String::new();
    for n in 0..20_000 {
        writeln!(
            text,
            "int f{n}(int *p, int x) {{ for (int i = 0; i < x; i++) p[i] = p[i ^ {n}] * x; return p[{n}]; }}"
        )?;
    }
    std::fs::write(&source, text)?;
    let found = process::run(Command::new(place::tool("gcc")?).arg("-print-prog-name=cc1"))?.success()?.text();
    adds_up(backend, Command::new(found.trim()).arg("-quiet").arg("-O2").arg(source).args(["-o", "/dev/null"]))
}

/// Traces the program for a while, stops it, ends the trace, and compares the ledger with what the kernel counts of
/// the stopped process.
fn adds_up(backend: Backend, target: &mut Command) -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("resident.mfrag");
    let mut memfrag = Running::start(&mut trace(backend, &recording, target)?)?;
    let name = Path::new(target.get_program()).file_name().context("no name")?.to_string_lossy().into_owned();
    let mut pid = 0;
    until("the program has worked for a while", Duration::from_mins(1), || {
        ensure!(memfrag.alive()?, "memfrag ended: {}", memfrag.stderr()?);
        pid = child(memfrag.pid(), &name)?;
        Ok(pid != 0 && rollup(pid, "Anonymous:")? > 8 << 20)
    })?;
    stop_outside_the_library(pid)?;
    // Before the probes are taken out, for which the kernel copied pages of the libraries.
    let counted = rollup(pid, "Rss:")?;
    memfrag.signal(libc::SIGINT)?;
    // memfrag waits for nobody: the program stays as it is.
    until("the trace has ended", Duration::from_mins(1), || {
        Ok(Report::of(&recording).is_ok_and(|r| r.nothing_lost().is_ok()))
    })?;
    let report = Report::of(&recording)?;
    let process = report.0["processes"].as_array().into_iter().flatten().find(|process| process["pid"] == pid);
    let ledger = &process.context("the process is not in the report")?["end"]["ledger"];
    eprintln!("{name}, {counted} bytes resident: {ledger:#}");
    let number = |name: &str| ledger[name].as_u64().with_context(|| format!("{name} in {ledger}"));
    let lines =
        ["free_pages", "requested", "rounding", "cached", "free_in_pages", "metadata", "untracked", "not_malloc"];
    let sum = lines.iter().map(|name| number(name)).sum::<Result<u64>>()?;
    ensure!(number("rss")? == counted, "{} bytes instead of {counted}", number("rss")?);
    ensure!(sum == counted && ledger["unexplained"] == 0, "the lines add up to {sum} of {counted}");
    let end = &process.context("gone")?["end"];
    let live = end["requested_bytes"].as_u64().context("requested_bytes")?;
    ensure!(number("requested")? + number("untouched")? == live, "{live} bytes are live");
    ensure!(number("requested")? > 1 << 20 && number("contradicted_blocks")? == 0, "{ledger}");
    places(ledger, sum - number("not_malloc")?)
}

/// Stops a program, but not in the middle of a record of the preload library's: that holds back the records before it
/// that have the same stamp, until the program goes on.
fn stop_outside_the_library(pid: u32) -> Result<()> {
    let stopped = || -> Result<bool> {
        process::send(pid, libc::SIGSTOP)?;
        until("the program stands still", Duration::from_secs(10), || {
            Ok(std::fs::read_to_string(format!("/proc/{pid}/stat"))?.contains(") T "))
        })?;
        let registers = std::fs::read_to_string(format!("/proc/{pid}/syscall"))?;
        let at = registers
            .split_whitespace()
            .last()
            .and_then(|at| u64::from_str_radix(at.trim_start_matches("0x"), 16).ok());
        let at = at.with_context(|| format!("where process {pid} stands: {registers}"))?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let within = |line: &str| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
            Some(range.contains(&at))
        };
        Ok(!maps.lines().any(|line| line.contains("libmemfrag_preload") && within(line) == Some(true)))
    };
    until("the program is outside the library", Duration::from_secs(10), || {
        let outside = stopped()?;
        if !outside {
            process::send(pid, libc::SIGCONT)?;
        }
        Ok(outside)
    })
}

/// The places add up to what the allocator owns.
fn places(ledger: &Value, owned: u64) -> Result<()> {
    let places = ledger["places"].as_object().context("places")?;
    let sum: u64 = places.values().filter_map(|place| place["resident"].as_u64()).sum();
    ensure!(sum == owned && places["main_arena"]["resident"].as_u64() > Some(0), "{owned} bytes in {ledger}");
    Ok(())
}

/// A sum over all mappings, in bytes.
pub(crate) fn rollup(pid: u32, name: &str) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

/// Resident bytes of the mappings whose line in `smaps` is one of these.
pub(crate) fn of_mappings(pid: u32, one_of_these: impl Fn(&str) -> bool) -> Result<u64> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut counts, mut sum) = (false, 0);
    for line in smaps.lines() {
        let (first, rest) = line.split_once(' ').context("a line without a value")?;
        if !first.ends_with(':') {
            counts = one_of_these(line);
        } else if counts && first == "Rss:" {
            sum += rest.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
        }
    }
    Ok(sum)
}

/// The child of this name, 0 while there is none.
fn child(parent: u32, name: &str) -> Result<u32> {
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((before, after)) = stat.rsplit_once(") ") else { continue };
        let comm = before.split_once('(').map_or("", |part| part.1);
        let parent_of = after.split_whitespace().nth(1).and_then(|field| field.parse().ok());
        if parent_of == Some(parent) && (name.starts_with(comm) || comm.starts_with(name)) {
            return Ok(pid);
        }
    }
    Ok(0)
}
