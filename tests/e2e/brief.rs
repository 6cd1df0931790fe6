//! Processes that have ended before anybody could look at them: what is known of them all the same.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, Report, memfrag, number};
use memfrag_tests::process::{self, LIMIT, Running, until};
use memfrag_tests::{place, tests};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

tests!(children_of_a_command, whole_stacks, children_of_a_shell, the_whole_machine);

/// How many processes are started.
const COUNT: usize = 40;
/// The block that each of them holds.
const BLOCK: u64 = 4321;

/// Traces a command with these words for `memfrag trace`.
fn report(words: &[&str], target: &Path, arguments: &[&str]) -> Result<Report> {
    let dir = place::scratch()?;
    let recording = dir.path().join("brief.mfrag");
    let mut command = memfrag(&["trace", "--backend", "ebpf", "-o"])?;
    process::run(command.arg(&recording).args(words).arg("--").arg(target).args(arguments))?.success()?;
    let report = Report::of(&recording)?;
    report.nothing_lost()?;
    for lost in ["StackCut", "StackLost", "MappingsLost"] {
        ensure!(report.0["counters"][lost].is_null(), "{}", report.0["counters"]);
    }
    Ok(report)
}

/// The call sites of a process, each of which has the name of its file; its allocator is known.
fn sites(process: &Value) -> Result<&[Value]> {
    ensure!(process["allocator"]["name"] == "glibc", "{process}");
    let sites = process["top_sites"].as_array().context("no sites")?;
    ensure!(sites.iter().all(|site| site["module"].is_string()), "{sites:?}");
    Ok(sites)
}

/// The processes that hold the block, with the call site of that.
fn holders<'a>(report: &'a Report, program: &Path) -> Result<Vec<&'a Value>> {
    let mut found = Vec::new();
    for process in report.processes("brief") {
        ensure!(process["exe"] == program.display().to_string(), "{process}");
        let holds = |site: &&Value| site["live_bytes"] == BLOCK;
        found.extend(sites(process)?.iter().find(holds));
    }
    for site in &found {
        ensure!(site["function"] == "take" && site["module"] == program.display().to_string(), "{site}");
    }
    Ok(found)
}

fn children_of_a_command() -> Result<()> {
    Backend::Ebpf.require()?;
    let program = place::program("brief")?;
    let report = report(&[], &program, &[&COUNT.to_string()])?;
    let found = holders(&report, &program)?.len();
    ensure!(found == COUNT, "{found} of {COUNT}");
    ensure!(report.processes("brief").len() == COUNT + 1, "{}", report.processes("brief").len());
    Ok(())
}

fn whole_stacks() -> Result<()> {
    Backend::Ebpf.require()?;
    let program = place::program("brief")?;
    let report = report(&["--stacks", "dwarf"], &program, &[&COUNT.to_string()])?;
    let holders = holders(&report, &program)?;
    ensure!(holders.len() == COUNT, "{} of {COUNT}", holders.len());
    for site in holders {
        let stacks = site["stacks"].as_array().context("no stacks")?;
        ensure!(stacks.len() == 1 && stacks[0]["complete"] == true, "{site}");
        let frames = stacks[0]["frames"].as_array().context("no frames")?;
        let functions: Vec<&Value> = frames.iter().map(|frame| &frame["function"]).collect();
        ensure!(functions.starts_with(&[&"take".into(), &"want".into(), &"main".into()]), "{functions:?}");
        ensure!(functions.last() == Some(&&Value::from("_start")), "{functions:?}");
    }
    Ok(())
}

/// Forks that become other programs, and some that do not.
fn children_of_a_shell() -> Result<()> {
    Backend::Ebpf.require()?;
    let tool = place::tool("true")?;
    let script = format!("for i in $(seq {COUNT}); do {}; (: $(echo $i)); done", tool.display());
    let report = report(&["--stacks", "dwarf"], &place::tool("sh")?, &["-c", &script])?;
    let trues = report.processes("true");
    ensure!(trues.len() == COUNT, "{} of {COUNT}", trues.len());
    let exe = tool.canonicalize()?;
    ensure!(trues.iter().all(|process| process["exe"] == exe.display().to_string()), "{trues:?}");
    let all = report.0["processes"].as_array().context("no processes")?;
    ensure!(all.len() > 3 * COUNT, "{} processes", all.len());
    for process in all {
        sites(process)?;
        ensure!(process["comm"] != "", "{process}");
    }
    Ok(())
}

fn the_whole_machine() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let recording = dir.path().join("machine.mfrag");
    let program = place::program("brief")?;
    let mut tracer = Running::start(memfrag(&["trace", "--system", "--duration", "20s", "-o"])?.arg(&recording))?;
    until("the trace has begun", LIMIT, || {
        ensure!(tracer.alive()?, "memfrag ended at once: {}", tracer.stderr()?);
        Ok(tracer.stderr()?.contains("tracing"))
    })?;
    process::run(Command::new(&program).arg(COUNT.to_string()))?.success()?;
    tracer.signal(libc::SIGINT)?;
    let ended = tracer.wait(LIMIT)?.success()?;
    let report = Report::of(&recording).with_context(|| format!("memfrag trace wrote:\n{}", ended.stderr))?;
    let found = holders(&report, &program)?.len();
    let lost = number(&report.0["events"], "lost")?;
    ensure!(found == COUNT || lost > 0, "{found} of {COUNT}");
    Ok(())
}
