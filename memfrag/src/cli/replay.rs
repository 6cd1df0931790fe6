//! `memfrag replay`: the calls of a recording again, under other allocators.

use super::args::{ReplayArgs, TouchChoice};
use super::report::{print, reading_bar, show, style};
use anyhow::{Context as _, Result};
use memfrag::recording::Reader;
use memfrag::replay::{self, Allocator, Limits, Touch};
use memfrag::report::replay::{RunReport, build, render};
use memfrag::report::units::{count, plural};
use std::ffi::{OsStr, OsString};
use std::fs;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &ReplayArgs) -> Result<u8> {
    let bar = reading_bar(Reader::open(&args.file)?.events());
    let mut progress = |read| bar.set_position(read);
    if let Some(directory) = &args.emit {
        let (chosen, planned) = replay::emit(&args.file, args.pid, directory, &mut progress)?;
        bar.finish_and_clear();
        let threads = plural(planned.threads.into(), "thread", "threads");
        let (calls, directory) = (count(planned.calls), directory.display());
        print(&format!(
            "{calls} calls of {} (pid {}) in {threads} are in {directory}; build and run them by: make -C {directory} run\n",
            chosen.comm, chosen.pid,
        ))?;
        return Ok(0);
    }
    let data = tempfile::NamedTempFile::new().context("cannot make a temporary file for the replay's data")?;
    let (chosen, planned) = replay::prepare(&args.file, args.pid, data.reopen()?, data.path(), &mut progress)?;
    bar.finish_and_clear();
    let limits = Limits { memory: args.memory_limit.map_or_else(available, Ok)?, time: args.time_limit };
    let touch = if args.touch == TouchChoice::All { Touch::All } else { Touch::Nothing };
    let mut report = build(args.file.display().to_string(), &chosen, &planned);
    for (name, found) in allocators(&args.allocator) {
        let run = match found {
            Ok(allocator) => {
                eprintln!("memfrag: replaying under {}", allocator.name);
                let outcome = replay::run(data.path(), &allocator, &args.env, touch, limits)
                    .with_context(|| format!("cannot run the replay under {name}"))?;
                RunReport::new(&allocator.name, args.env.iter().map(variable).collect(), &outcome)
            }
            Err(error) => RunReport::missing(&name, error.to_string()),
        };
        report.runs.push(run);
    }
    let all = report.runs.iter().all(|run| run.outcome == "completed");
    show(&report, args.json, || render(&report, style()))?;
    Ok(if all { 0 } else { super::FAILED })
}

/// The allocators that were asked for, or all that are installed.
fn allocators(names: &[String]) -> Vec<(String, Result<Allocator, replay::AllocatorError>)> {
    if names.is_empty() {
        return Allocator::installed().into_iter().map(|found| (found.name.clone(), Ok(found))).collect();
    }
    names.iter().map(|name| (name.clone(), Allocator::find(name))).collect()
}

fn variable((name, value): &(OsString, OsString)) -> String {
    let text = |part: &OsStr| part.to_string_lossy().into_owned();
    format!("{}={}", text(name), text(value))
}

/// Half of the memory that is available on this machine.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.context("/proc/meminfo does not tell the available memory; give --memory-limit")? * 512)
}
