//! Recorded events under allocation policies: glibc's addresses foretold, and what other settings really take.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, OWN_FAILURE, Report, explains, memfrag, number, trace, traced};
use memfrag_tests::process::{self, Running};
use memfrag_tests::redis::Redis;
use memfrag_tests::{place, tests};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

tests!(
    programs_with_one_thread,
    mixes_and_mallinfo,
    what_is_set,
    threads,
    settings,
    reports,
    beside_the_heap,
    another_allocator,
    bad_questions,
    damaged_recordings
);

/// `memfrag model FILE WORDS… --json`.
fn model(recording: &Path, words: &[&str]) -> Result<Value> {
    let mut command = memfrag(&["model", "--json"])?;
    let ended = process::run(command.arg(recording).args(words))?.success()?;
    let document: Value = serde_json::from_slice(&ended.stdout).context("not one JSON document")?;
    ensure!(document["format"] == "memfrag-model", "{document}");
    Ok(document)
}

/// What came of one policy.
fn outcome<'a>(document: &'a Value, policy: &str) -> Result<&'a Value> {
    let policies = document["policies"].as_array().context("no policies")?;
    policies.iter().find(|outcome| outcome["policy"] == policy).with_context(|| format!("no {policy}: {document}"))
}

/// Every address was foretold, and there were at least so many.
fn all_foretold(name: &str, document: &Value, least: u64) -> Result<()> {
    let outcome = outcome(document, "ptmalloc")?;
    let (placements, exact) = (number(outcome, "placements")?, number(outcome, "exact_placements")?);
    eprintln!("{name}: {exact} of {placements} addresses foretold");
    ensure!(placements >= least, "{name}: only {placements} placements");
    ensure!(exact == placements, "{name}: {exact} of {placements} addresses foretold");
    Ok(())
}

const PERL: &str = "my %h; for my $i (1..9000) { $h{$i} = [1..($i % 17)]; delete $h{int($i / 3)} if $i % 3; }";
const AWK: &str =
    "BEGIN { for (i = 0; i < 9000; i++) { a[i] = sprintf(\"%*d\", i % 90, i); if (i % 3) delete a[int(i / 2)] } }";
const PYTHON: &str = "import json; print(len(json.dumps([{'a': i, 'b': str(i) * (i % 9)} for i in range(2000)])))";

fn programs_with_one_thread() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let file = dir.path().join("large.c");
    let functions = (0..200).map(|at| format!("int f{at}(int x) {{ return x * {at} + (x >> {}); }}\n", at % 31));
    fs::write(&file, functions.collect::<String>())?;
    let said = process::run(Command::new(place::tool("cc")?).arg("-print-prog-name=cc1"))?.success()?.text();
    let tool = |name: &str, words: &[&str]| -> Result<Command> {
        let mut command = Command::new(place::tool(name)?);
        command.args(words).env("LC_ALL", "C").env_remove("GLIBC_TUNABLES");
        Ok(command)
    };
    let repository = place::root().to_str().context("a strange path")?;
    let mut cc1 = Command::new(said.trim());
    cc1.args(["-quiet", "-O2", "-o", "/dev/null"]).arg(&file);
    let mut python = tool("python3", &["-c", PYTHON])?;
    python.env("PYTHONMALLOC", "malloc");
    let programs = [
        ("ls", tool("ls", &["-lR", "/usr/lib/python3"])?, 2_000),
        ("perl", tool("perl", &["-e", PERL])?, 5_000),
        ("git", tool("git", &["-C", repository, "log", "-p", "-n", "20"])?, 1_000),
        ("cc1", cc1, 5_000),
        ("gawk", tool("gawk", &[AWK])?, 5_000),
        ("python3", python, 20_000),
    ];
    for (name, command, least) in programs {
        let recording = dir.path().join(name);
        let (ended, report) = traced(Backend::Ebpf, &recording, &command)?;
        ensure!(ended.code() == 0, "{name}: status {}: {}", ended.code(), ended.stderr);
        report.nothing_lost()?;
        all_foretold(name, &model(&recording, &["--policy", "ptmalloc"])?, least)?;
    }
    Ok(())
}

/// The numbers behind a word that the program printed.
fn printed(text: &str, word: &str) -> Result<Vec<u64>> {
    let line = text.lines().find_map(|line| line.strip_prefix(word)).with_context(|| format!("no {word} in {text}"))?;
    line.split_whitespace().map(|number| Ok(number.parse()?)).collect()
}

fn mixes_and_mallinfo() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    for seed in ["1", "2", "3"] {
        let recording = dir.path().join(seed);
        let mut mix = Command::new(place::program("mix")?);
        let (ended, _) = traced(Backend::Ebpf, &recording, mix.args([seed, "20000"]))?;
        let text = String::from_utf8_lossy(&ended.stdout).into_owned();
        let (obtained, real) = (printed(&text, "obtained ")?, printed(&text, "mallinfo ")?);
        let document = model(&recording, &["--policy", "ptmalloc,default"])?;
        all_foretold("mix", &document, 10_000)?;
        for policy in ["ptmalloc", "default"] {
            let outcome = outcome(&document, policy)?;
            let info = &outcome["mallinfo"];
            let names = ["arena", "ordblks", "smblks", "fordblks", "keepcost"];
            let modelled = names.iter().map(|name| number(info, name)).collect::<Result<Vec<u64>>>()?;
            ensure!(modelled == real, "{policy}, seed {seed}: mallinfo {modelled:?} instead of {real:?}");
            let footprint = [number(outcome, "peak_footprint_bytes")?, number(outcome, "final_footprint_bytes")?];
            ensure!(footprint[..] == obtained[..], "{policy}, seed {seed}: {footprint:?} instead of {obtained:?}");
        }
    }
    Ok(())
}

/// Programs that were run with other settings: these are in the recording, and the model takes them.
fn what_is_set() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let caches = "glibc.malloc.tcache_count=2:glibc.malloc.tcache_max=200:glibc.malloc.mmap_threshold=40000";
    let all = [
        ("MALLOC_TOP_PAD_", "0"),
        ("MALLOC_MMAP_MAX_", "0"),
        ("MALLOC_TRIM_THRESHOLD_", "0x8000"),
        ("GLIBC_TUNABLES", caches),
    ];
    for (at, (name, value)) in all.into_iter().enumerate() {
        for backend in Backend::ALL {
            backend.require()?;
            let recording = dir.path().join(format!("{at}-{backend:?}"));
            let mut mix = Command::new(place::program("mix")?);
            let (ended, report) = traced(backend, &recording, mix.args(["5", "20000"]).env(name, value))?;
            let word = format!("{name}={value}");
            let process = report.processes("mix").into_iter().next().context("no process")?;
            ensure!(process["settings"] == serde_json::json!([word]), "{}", process["settings"]);
            let document = model(&recording, &["--policy", "ptmalloc,default"])?;
            all_foretold(&word, &document, 10_000)?;
            let obtained = printed(&String::from_utf8_lossy(&ended.stdout), "obtained ")?;
            let footprint = |policy| -> Result<[u64; 2]> {
                let outcome = outcome(&document, policy)?;
                Ok([number(outcome, "peak_footprint_bytes")?, number(outcome, "final_footprint_bytes")?])
            };
            let foretold = footprint("ptmalloc")?;
            ensure!(foretold[..] == obtained[..], "{word}: {foretold:?} foretold, {obtained:?} taken");
            ensure!(footprint("default")?[..] != obtained[..], "{word} makes no difference");
        }
    }
    Ok(())
}

fn threads() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    for (threads, crossing) in [("2", "0"), ("4", "0"), ("4", "1")] {
        let recording = dir.path().join(format!("{threads}-{crossing}"));
        let mut program = Command::new(place::program("threads")?);
        let (ended, _) = traced(Backend::Ebpf, &recording, program.args([threads, "6000", crossing]))?;
        ensure!(ended.code() == 0, "status {}: {}", ended.code(), ended.stderr);
        let document = model(&recording, &["--policy", "ptmalloc"])?;
        if crossing == "0" {
            all_foretold("threads", &document, 10_000)?;
        } else {
            let share = outcome(&document, "ptmalloc")?["agreement"].as_f64().context("no agreement")?;
            eprintln!("{threads} threads with frees across: {share}");
            ensure!(share >= 0.9, "only {share} with frees across threads");
        }
    }
    Ok(())
}

/// What is foretold for other settings is what the programs take when they are really run so.
fn settings() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let programs: [(&str, &[&str]); 3] =
        [("mix", &["1", "30000"]), ("mix", &["7", "30000"]), ("threads", &["4", "20000", "0"])];
    for (at, (name, words)) in programs.into_iter().enumerate() {
        let recording = dir.path().join(at.to_string());
        traced(Backend::Ebpf, &recording, Command::new(place::program(name)?).args(words))?.0.success()?;
        let document = model(&recording, &[])?;
        let mut compared = 0;
        for outcome in document["policies"].as_array().context("no policies")? {
            let Some((variable, value)) = outcome["environment"].as_str().and_then(|set| set.split_once('=')) else {
                continue;
            };
            let foretold = number(outcome, "peak_footprint_bytes")?;
            // How threads meet in the arenas differs from run to run, and with it what they take.
            let mut taken = Vec::new();
            for _ in 0..if name == "threads" { 5 } else { 1 } {
                let mut program = Command::new(place::program(name)?);
                let really = process::run(program.args(words).env(variable, value))?.success()?.text();
                taken.push(printed(&really, "obtained ")?[0]);
            }
            let (least, most) = (taken.iter().min().context("no run")?, taken.iter().max().context("no run")?);
            eprintln!("{name} {words:?} {variable}={value}: {foretold} foretold, {taken:?} taken");
            let fits = least - least / 20 <= foretold && foretold <= most + most / 20;
            ensure!(fits, "{name} {variable}={value}: {foretold}, in truth {taken:?}");
            compared += 1;
        }
        ensure!(compared >= 7, "only {compared} settings compared");
    }
    Ok(())
}

fn reports() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let recording = dir.path().join("mix");
    let mut mix = Command::new(place::program("mix")?);
    let (_, report) = traced(Backend::Ebpf, &recording, mix.args(["4", "3000"]))?;
    let process = report.processes("mix").into_iter().next().context("no process")?;
    ensure!(process["allocator"]["model_agreement"] == 1.0, "{}", process["allocator"]);
    let text = process::run(memfrag(&["report"])?.arg(&recording))?.success()?.text();
    ensure!(text.contains("100 % of the addresses that glibc gave were foretold"), "{text}");
    let text = process::run(memfrag(&["model"])?.arg(&recording))?.success()?.text();
    ensure!(text.contains("100 %") && text.contains("MALLOC_ARENA_MAX=1"), "{text}");
    Ok(())
}

/// The heap beside policies: the verb and the report tell the same figures, and these fit what else is told.
fn beside_the_heap() -> Result<()> {
    for backend in Backend::ALL {
        backend.require()?;
        let dir = place::scratch()?;
        let recording = dir.path().join("burst");
        let mut program = Command::new(place::compile("workload", "workload", &["-lm"])?);
        let (_, report) = traced(backend, &recording, program.args(["burst", "15000", "3", "700"]))?;
        report.nothing_lost()?;
        let end = model(&recording, &[])?;
        let real = &end["real"];
        ensure!(real["live_blocks"] == end["live_blocks"], "{real}");
        let process = report.processes("workload").into_iter().next().context("no process")?;
        ensure!(real["requested_bytes"] == process["end"]["requested_bytes"], "{real}");
        // It slept, so somebody looked at its pages; nothing but its blocks keeps them.
        let (bound, held) = (number(real, "resident_bound_bytes")?, number(real, "footprint_bytes")?);
        let (resident, taken) = (number(real, "resident_bytes")?, number(real, "taken_bytes")?);
        ensure!(taken <= bound && bound <= resident && resident <= held, "{real}");
        ensure!(number(real, "largest_hole_bytes")? <= number(real, "free_bytes")?, "{real}");
        let policies = end["policies"].as_array().context("no policies")?;
        for outcome in policies {
            let name = outcome["policy"].as_str().context("no name")?;
            let [bound, taken] = [number(outcome, "resident_bound_bytes")?, number(outcome, "taken_bytes")?];
            ensure!(bound >= taken || name == "mesh", "{outcome}");
            let held = number(outcome, "final_footprint_bytes")?;
            let requested = number(outcome, "requested_bytes")?;
            let expected = (taken <= held).then(|| (held - taken) as f64 / held as f64);
            for (name, expected) in [
                ("external_fragmentation", expected),
                ("internal_fragmentation", Some((taken - requested) as f64 / taken as f64)),
            ] {
                let share = outcome[name].as_f64();
                let fits = share.zip(expected).map_or(share == expected, |(share, it)| (share - it).abs() < 1e-9);
                ensure!(fits, "{name}: {share:?} instead of {expected:?}: {outcome}");
            }
        }
        // What stays of a burst is scattered, in truth and under glibc's model alike.
        let modelled = number(outcome(&end, "ptmalloc")?, "resident_bound_bytes")?;
        eprintln!("{backend:?}: {bound} bytes of pages, {modelled} modelled, {taken} taken");
        ensure!(bound.abs_diff(modelled) <= bound / 50, "{modelled} instead of {bound}");
        same_in_the_report(&end, process)?;

        let middle = number(&process["peak"], "at_ns")?;
        let at = format!("{middle}ns");
        let then = model(&recording, &["--at", &at])?;
        ensure!(then["real"]["at_ns"] == middle, "{}", then["real"]);
        let json = process::run(memfrag(&["report", "--json", "--at", &at])?.arg(&recording))?.success()?.stdout;
        let report: Value = serde_json::from_slice(&json)?;
        let process = &report["processes"][0];
        ensure!(then["real"]["requested_bytes"] == process["end"]["requested_bytes"], "{}", then["real"]);
        same_in_the_report(&then, process)?;

        let said =
            |words: &[&str]| -> Result<String> { Ok(process::run(memfrag(words)?.arg(&recording))?.success()?.text()) };
        let all = said(&["model"])?;
        let rows = ["real heap  ", "ptmalloc  ", "first-fit  ", "compact  "];
        ensure!(rows.iter().all(|row| all.contains(row)) && all.contains("what lives"), "{all}");
        let two = said(&["model", "--policy", "first-fit,compact"])?;
        let figures = ["Footprint", "Resident bound", "Internal", "External", "Largest hole", "Failed", "Avoidable"];
        ensure!(figures.iter().all(|figure| two.contains(figure)), "{two}");
        let text = said(&["report"])?;
        ensure!(text.contains("Beside other ways to place the same blocks"), "{text}");
        ensure!(rows.iter().all(|row| text.contains(row)) && text.contains("what lives"), "{text}");
        let page = dir.path().join("page.html");
        said(&["report", "--html", page.to_str().context("a strange path")?])?;
        ensure!(fs::read_to_string(&page)?.contains("Beside other ways to place the same blocks"), "not in the page");
    }
    Ok(())
}

/// The report has the heap and some policies as the verb has them.
fn same_in_the_report(document: &Value, process: &Value) -> Result<()> {
    let comparison = &process["comparison"];
    ensure!(comparison["real"] == document["real"], "{} instead of {}", comparison["real"], document["real"]);
    let policies = comparison["policies"].as_array().context("no policies in the report")?;
    for told in policies {
        let name = told["policy"].as_str().context("no name")?;
        let expected = outcome(document, name)?;
        ensure!(told == expected, "{told} instead of {expected}");
    }
    ensure!(policies.len() == 4, "{} policies", policies.len());
    Ok(())
}

/// glibc's policies say nothing of a program with another allocator; the others do.
fn another_allocator() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let recording = dir.path().join("redis.mfrag");
    let redis = Redis::new(dir.path())?;
    let mut server = Running::start(&mut trace(Backend::Ebpf, &recording, &redis.server()?)?)?;
    redis.ready(&mut server)?;
    for key in 0..300 {
        redis.ask(&["set", &format!("key{key}"), &"x".repeat(4000)])?;
    }
    redis.shutdown()?;
    server.wait(process::LIMIT)?;
    let document = model(&recording, &[])?;
    let left_out = document["left_out"].as_str().context("nothing left out")?;
    ensure!(left_out.contains("jemalloc") && document["glibc"].is_null(), "{document}");
    ensure!(document["real"]["internal_fragmentation"].is_null(), "jemalloc's rounding is not known");
    let names = document["policies"].as_array().context("no policies")?.iter().map(|outcome| &outcome["policy"]);
    let names: Vec<&Value> = names.collect();
    ensure!(names.len() == 9 && names.iter().all(|name| *name != "ptmalloc"), "{names:?}");
    let of_redis = process::run(memfrag(&["report", "--json"])?.arg(&recording))?.success()?.stdout;
    let report: Value = serde_json::from_slice(&of_redis)?;
    let process = &report["processes"][0];
    ensure!(process["comparison"]["real"] == document["real"], "{}", process["comparison"]["real"]);
    ensure!(process["comparison"]["policies"].as_array().is_some_and(|all| all.len() == 3), "{process}");
    let text = process::run(memfrag(&["model"])?.arg(&recording))?.success()?.text();
    ensure!(text.contains("Left out") && text.contains("jemalloc") && text.contains("real heap"), "{text}");
    let ended = process::run(memfrag(&["model", "--policy", "default"])?.arg(&recording))?;
    explains(&ended, OWN_FAILURE, &[&["jemalloc"], &["glibc"]])?;
    let ended = process::run(memfrag(&["model", "--pid", "1"])?.arg(&recording))?;
    explains(&ended, OWN_FAILURE, &[&["no process 1"]])?;
    Ok(())
}

fn bad_questions() -> Result<()> {
    let dir = place::scratch()?;
    let none = dir.path().join("none");
    fs::write(&none, "this is a text\n")?;
    let ended = process::run(memfrag(&["model"])?.arg(&none))?;
    explains(&ended, OWN_FAILURE, &[&["not a memfrag recording"]])?;
    let ended = process::run(memfrag(&["model", "--policy", "worst-fit"])?.arg(&none))?;
    explains(&ended, OWN_FAILURE, &[&["no policy is called worst-fit"], &["ptmalloc"]])?;
    Ok(())
}

/// Damage takes events; the model notices at once, and goes on with what is there.
fn damaged_recordings() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let recording = dir.path().join("mix");
    let mut mix = Command::new(place::program("mix")?);
    traced(Backend::Ebpf, &recording, mix.args(["5", "120000"]))?.0.success()?;
    all_foretold("mix", &model(&recording, &["--policy", "ptmalloc"])?, 50_000)?;
    let mut bytes = fs::read(&recording)?;
    let middle = bytes.len() / 2;
    bytes[middle..middle + 16].iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(&recording, bytes)?;
    let report = Report::of(&recording)?;
    ensure!(report.number("/events/lost")? > 0, "the damage was not noticed");
    let document = model(&recording, &["--policy", "ptmalloc"])?;
    let share = outcome(&document, "ptmalloc")?["agreement"].as_f64().context("no agreement")?;
    eprintln!("with a part missing: {share}");
    ensure!(share > 0.5 && share < 1.0, "agreement {share} with a part missing");
    Ok(())
}
