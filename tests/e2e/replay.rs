//! `memfrag replay` foretells what a program's memory is under another allocator, and what it makes stands alone.

use crate::fidelity::burst;
use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, Report, before_exit, explains, memfrag, number, traced};
use memfrag_tests::process::{self, Ended};
use memfrag_tests::{place, skip, tests};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

tests!(
    threads_as_they_were,
    the_artefact_stands_alone,
    limits_and_what_is_missing,
    damaged_data,
    blocks_are_touched_as_they_were,
    time_passes_as_it_did,
    what_is_live_is_built_up_anew
);

fn replay(recording: &Path, words: &[&str]) -> Result<Ended> {
    process::run(memfrag(&["replay"])?.arg(recording).args(words))
}

fn json(recording: &Path, words: &[&str]) -> Result<Value> {
    let ended = replay(recording, &[&["--json"], words].concat())?.success()?;
    serde_json::from_slice(&ended.stdout).context("no JSON")
}

/// The replay traced by memfrag itself makes the calls that the recording has, thread by thread.
fn threads_as_they_were() -> Result<()> {
    let dir = place::scratch()?;
    let (recording, again) = (dir.path().join("ledger.mfrag"), dir.path().join("again.mfrag"));
    let books = dir.path().join("books");
    fs::create_dir(&books)?;
    let mut program = Command::new(place::program("ledger")?);
    traced(Backend::Preload, &recording, program.arg(&books).args(["threads,churn", "11", "20000"]))?;
    let emitted = dir.path().join("emitted");
    replay(&recording, &["--emit", place::word(&emitted).to_str().context("a path")?])?.success()?;
    process::run(Command::new("make").arg("-C").arg(&emitted))?.success()?;
    let mut program = Command::new(emitted.join("replay"));
    let (ended, report) = traced(Backend::Preload, &again, program.arg(emitted.join("replay.data")))?;
    let made: Value = serde_json::from_slice(&ended.stdout)?;
    ensure!(number(&made, "calls")? == number(&made, "planned_calls")? && made["failed_calls"] == 0, "{made}");
    report.nothing_lost()?;
    report.every_free_matched()?;
    let calls = |recording: &Path, comm: &str| -> Result<Vec<u64>> {
        let report = Report::of(recording)?;
        let processes = report.processes(comm);
        let totals = &processes.first().with_context(|| format!("no process {comm}"))?["totals"];
        ["allocations", "frees", "reallocations"].into_iter().map(|name| number(totals, name)).collect()
    };
    let (then, now) = (calls(&recording, "ledger")?, calls(&again, "replay")?);
    eprintln!("allocations, frees, reallocations: {then:?} recorded, {now:?} replayed");
    // What the C library allocates for itself when it starts threads and prints comes on top.
    let (few, threads) = (64, 4 * number(&json(&recording, &["--allocator", "glibc"])?, "threads")?);
    for (then, now) in then.into_iter().zip(now) {
        ensure!(now.abs_diff(then) <= few + threads, "{then} recorded, {now} replayed");
    }
    Ok(())
}

fn the_artefact_stands_alone() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("short.mfrag");
    let mut program = Command::new(place::tool("python3")?);
    traced(Backend::Preload, &recording, program.args(["-c", "import json; json.loads('[1, 2]' )"]))?;
    let emitted = dir.path().join("emitted");
    let told = process::run(memfrag(&["replay", "--emit"])?.arg(&emitted).arg(&recording))?.success()?.text();
    ensure!(told.contains("make -C"), "it is not told how to build: {told}");
    let source = emitted.join("replay.c");
    let mut compilers = vec!["gcc"];
    compilers.extend(place::tool("clang").is_ok().then_some("clang"));
    for compiler in compilers {
        let mut command = Command::new(place::tool(compiler)?);
        command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread", "-o"]);
        process::run(command.arg(emitted.join(compiler)).arg(&source))?.success()?;
        let ended = process::run(Command::new(emitted.join(compiler)).arg(emitted.join("replay.data")))?.success()?;
        let made: Value = serde_json::from_slice(&ended.stdout)?;
        ensure!(number(&made, "calls")? > 1000 && made["calls"] == made["planned_calls"], "{compiler}: {made}");
    }
    let sanitized = emitted.join("sanitized");
    let flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-pthread", "-o"];
    process::run(Command::new("gcc").args(flags).arg(&sanitized).arg(&source))?.success()?;
    let mut run = Command::new(&sanitized);
    // What the recording leaks the replay leaks as well.
    process::run(run.arg(emitted.join("replay.data")).env("ASAN_OPTIONS", "detect_leaks=0"))?.success()?;
    let Ok(valgrind) = place::tool("valgrind") else { skip!("valgrind is not installed") };
    let mut run = Command::new(valgrind);
    run.args(["--quiet", "--error-exitcode=9"]).arg(emitted.join("gcc")).arg(emitted.join("replay.data"));
    process::run(&mut run)?.success()?;
    Ok(())
}

fn limits_and_what_is_missing() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("large.mfrag");
    let mut program = Command::new(place::tool("python3")?);
    traced(Backend::Preload, &recording, program.args(["-c", "kept = [bytes(1 << 20) for n in range(300)]"]))?;
    let ended = replay(&recording, &["--allocator", "glibc", "--memory-limit", "50M", "--json"])?;
    ensure!(ended.code() == 125, "{ended:?}");
    let report: Value = serde_json::from_slice(&ended.stdout)?;
    let run = &report["runs"][0];
    ensure!(run["outcome"] == "memory_limit" && number(run, "peak_rss_bytes")? >= 50 << 20, "{run}");
    ensure!(number(run, "memory_limit_bytes")? == 50 << 20, "{run}");
    let by = run["memory_limited_by"].as_str().context("no limit in force")?;
    eprintln!("held to its limit by {by}");
    ensure!(by == expected_limit()?, "{run}");
    let text = replay(&recording, &["--allocator", "glibc", "--memory-limit", "900M"])?.success()?.text();
    ensure!(text.contains("held to 900.0 MiB by") && text.contains("control group"), "{text}");
    ensure!(left_over()?.is_empty(), "control groups are left: {:?}", left_over()?);
    let ended = replay(&recording, &["--allocator", "glibc,hoard,/etc/passwd", "--touch", "none"])?;
    explains(&ended, 125, &[])?;
    let text = ended.text();
    for words in ["neither the path of a library", "cannot be preloaded", "glibc"] {
        ensure!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    explains(&replay(&recording, &["--pid", "1"])?, 125, &[&["process 1"], &["python3"]])?;
    explains(&replay(&recording, &["--env", "nonsense"])?, 125, &[&["NAME=VALUE"]])?;
    explains(&replay(Path::new("/etc/passwd"), &[])?, 125, &[&["not a memfrag recording"]])
}

/// The own control group in the hierarchy of version 1 that has memory, if that is mounted where it mostly is, and whole:
/// of a part, as a name space of control groups sees it, our own group's place is not known.
fn own_group() -> Result<Option<PathBuf>> {
    const MOUNT: &str = "/sys/fs/cgroup/memory";
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    if !mounts.lines().any(|line| line.split(' ').skip(3).take(2).eq(["/", MOUNT])) {
        return Ok(None);
    }
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.split_once(":memory:/").map(|(_, path)| path.to_owned()));
    Ok(path.map(|path| Path::new(MOUNT).join(path)).filter(|path| path.is_dir()))
}

/// What must hold a run to its limit: the kernel, where root has the controller of version 1.
fn expected_limit() -> Result<&'static str> {
    let Some(group) = own_group()? else { return Ok("readings") };
    let hierarchy = fs::read_to_string(group.join("memory.use_hierarchy"))?;
    let probe = group.join("memfrag-e2e-probe");
    let may = fs::create_dir(&probe).is_ok();
    if may {
        fs::remove_dir(&probe)?;
    }
    Ok(if may && hierarchy.trim() == "1" { "cgroup_v1" } else { "readings" })
}

/// Control groups of replays that are still there.
fn left_over() -> Result<Vec<String>> {
    let Some(group) = own_group()? else { return Ok(Vec::new()) };
    let names = fs::read_dir(group)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<String>>>()?;
    Ok(names.into_iter().filter(|name| name.starts_with("memfrag-replay-")).collect())
}

fn damaged_data() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("short.mfrag");
    let mut program = Command::new(place::tool("python3")?);
    traced(Backend::Preload, &recording, program.args(["-c", "pass"]))?;
    let emitted = dir.path().join("emitted");
    process::run(memfrag(&["replay", "--emit"])?.arg(&emitted).arg(&recording))?.success()?;
    process::run(Command::new("make").arg("-C").arg(&emitted))?.success()?;
    let whole = fs::read(emitted.join("replay.data"))?;
    let data = dir.path().join("damaged.data");
    let run = |bytes: &[u8]| -> Result<Ended> {
        fs::write(&data, bytes)?;
        // A size that has become absurd is asked for, but not filled.
        process::run(Command::new(emitted.join("replay")).args(["--touch", "none"]).arg(&data))
    };
    for length in [0, 95, 96, whole.len() / 2, whole.len() - 1] {
        let ended = run(&whole[..length])?;
        ensure!(ended.code() == 1 && ended.stderr.contains("replay:"), "cut at {length}: {ended:?}");
    }
    // Any byte of a step may be anything: the program says what is wrong, or makes other calls, but never crashes in
    // its own code.
    for at in (96..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] = 0xff;
        let ended = run(&bytes)?;
        ensure!([0, 1, 2].contains(&ended.code()), "byte {at}: {ended:?}");
    }
    Ok(())
}

/// A program that asks for much and writes to a part of it.
fn blocks_are_touched_as_they_were() -> Result<()> {
    const SPARSE: &str = "
import time
time.sleep(0.6)
kept = [bytes(4 << 20) for n in range(40)]
full = [b'x' * ((1 << 20) + n) for n in range(40)]
time.sleep(1)
";
    let dir = place::scratch()?;
    let recording = dir.path().join("sparse.mfrag");
    let mut program = Command::new(place::tool("python3")?);
    traced(Backend::Preload, &recording, program.args(["-c", SPARSE]).env("PYTHONMALLOC", "malloc"))?;
    // Before the interpreter gives all of it back.
    let at = before_exit(&recording, 500)?;
    let at = ["--at", &at, "--allocator", "glibc"];
    let report = json(&recording, &at)?;
    let (real, run) = (number(&report["original"], "final_rss_bytes")?, &report["runs"][0]);
    let sampled = number(run, "final_rss_bytes")?;
    eprintln!("{real} really, {sampled} touched as sampled");
    ensure!(number(&report, "sparse_blocks")? >= 40 && report["touch"] == "sampled", "{report}");
    ensure!(real > 40 << 20 && real.abs_diff(sampled) * 20 <= real, "{real} really, {sampled} replayed");
    // What the runs came to as pictures.
    let plots = dir.path().join("plots");
    let words = ["--plots", plots.to_str().context("a path")?, "--png"];
    let all = json(&recording, &[&at[..], &["--touch", "all"], &words].concat())?;
    for name in ["runs", "mappings"] {
        let file = |kind: &str| plots.join(format!("{}-{name}.{kind}", report["pid"]));
        let svg = fs::read_to_string(file("svg"))?;
        ensure!(svg.starts_with("<svg") && svg.contains("glibc"), "{name} is no SVG that names the run");
        let png = fs::read(file("png"))?;
        let width = png.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        ensure!(png.starts_with(b"\x89PNG") && width == Some(1920), "{name} is {width:?} pixels wide");
    }
    let all = number(&all["runs"][0], "final_rss_bytes")?;
    ensure!(all > 160 << 20, "every page of every block is written to, and only {all} bytes are resident");
    let (told, mappings) = (&report["original"]["mappings"], &run["mappings"]);
    for of in [told, mappings] {
        let blocks = number(of, "heap")? + number(of, "anonymous")?;
        ensure!((40 << 20..64 << 20).contains(&blocks) && number(of, "file")? > 0, "{of}");
    }
    Ok(())
}

fn time_passes_as_it_did() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("slow.mfrag");
    let mut program = Command::new(place::tool("python3")?);
    let script = "import time\nfor n in range(8):\n  kept = bytes(1 << 20)\n  time.sleep(0.2)\nkept = None";
    traced(Backend::Preload, &recording, program.args(["-c", script]))?;
    let seconds = |pace| -> Result<f64> {
        let report = json(&recording, &["--allocator", "glibc", "--pace", pace])?;
        report["runs"][0]["seconds"].as_f64().context("no time")
    };
    let (fast, real, faster) = (seconds("fast")?, seconds("real")?, seconds("4x")?);
    eprintln!("{fast} s fast, {real} s real, {faster} s at 4x");
    ensure!(fast < 0.4 && real >= 1.4 && (0.35..real).contains(&faster), "{fast}, {real}, {faster}");
    explains(&replay(&recording, &["--pace", "slow"])?, 125, &[&["4x"]])
}

/// Few blocks keep many pages; allocated anew they take little, and trimming returns what lies between.
fn what_is_live_is_built_up_anew() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("python.mfrag");
    traced(Backend::Preload, &recording, &burst()?)?;
    // The burst is over by then, and the program sleeps.
    let at = before_exit(&recording, 400)?;
    let at = ["--at", at.as_str()];
    let run = |words: &[&str]| -> Result<Value> { json(&recording, &[&at[..], words].concat()) };
    let whole = run(&["--allocator", "glibc", "--trim"])?;
    let (end, trimmed) = (number(&whole["runs"][0], "end_rss_bytes")?, number(&whole["runs"][0], "trimmed_rss_bytes")?);
    let compact = run(&["--allocator", "glibc", "--compact", "age"])?;
    let anew = number(&compact["runs"][0], "end_rss_bytes")?;
    eprintln!("{end} bytes, {trimmed} trimmed, {anew} anew");
    ensure!(end > 60 << 20 && trimmed < end / 2 && anew < trimmed, "{end}, {trimmed} trimmed, {anew} anew");
    let few = run(&["--allocator", "glibc", "--compact", "size", "--most-blocks", "100"])?;
    let blocks = number(&compact, "calls")?;
    ensure!(number(&few, "calls")? == 100 && number(&few, "left_out_blocks")? == blocks - 100, "{few}");
    let report = process::run(memfrag(&["report", "--json"])?.args(at).arg(&recording))?.success()?;
    let report: Value = serde_json::from_slice(&report.stdout)?;
    let live = number(&report["processes"][0]["end"], "live_blocks")?;
    ensure!(live == blocks, "{live} blocks are live, {blocks} are built up");
    if place::tool("musl-gcc").is_ok() {
        let musl = run(&["--allocator", "musl"])?;
        ensure!(musl["runs"][0]["outcome"] == "completed", "{musl}");
    }
    // The same data for a program in Rust.
    let (in_c, in_rust) = (dir.path().join("c"), dir.path().join("rust"));
    let calls_of = |dir: &Path, language: &str| -> Result<(Value, Vec<u8>)> {
        let mut emit = memfrag(&["replay", "--language", language, "--emit"])?;
        process::run(emit.arg(dir).args(at).arg(&recording))?.success()?;
        process::run(Command::new("make").arg("-C").arg(dir))?.success()?;
        let ended =
            process::run(Command::new(dir.join("replay")).arg("--trim").arg(dir.join("replay.data")))?.success()?;
        Ok((serde_json::from_slice(&ended.stdout)?, fs::read(dir.join("replay.data"))?))
    };
    let ((c, c_data), (rust, rust_data)) = (calls_of(&in_c, "c")?, calls_of(&in_rust, "rust")?);
    ensure!(
        c_data == rust_data && c["calls"] == rust["calls"] && rust["calls"] == rust["planned_calls"],
        "{c}\n{rust}"
    );
    let names = |document: &Value| -> Vec<String> {
        document.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    ensure!(names(&c) == names(&rust) && names(&c).contains(&"trimmed_mappings".to_owned()), "{c}\n{rust}");
    for path in ["/final_bytes", "/trimmed_bytes", "/mappings/heap", "/trimmed_mappings/heap"] {
        let [in_c, in_rust] = [&c, &rust].map(|it| it.pointer(path).and_then(Value::as_u64));
        let (in_c, in_rust) = in_c.zip(in_rust).with_context(|| format!("no {path} in\n{c}\n{rust}"))?;
        eprintln!("{path}: {in_c} bytes by C's malloc, {in_rust} by Rust's allocator");
        ensure!(in_c.abs_diff(in_rust) <= (in_c / 20).max(256 << 10), "{path}: {in_c} and {in_rust}");
    }
    Ok(())
}
