//! `memfrag replay`: the calls of a recording again, under other allocators.

use super::args::{LanguageChoice, OrderChoice, ReplayArgs, TouchChoice};
use super::plots::save;
use super::report::{nanoseconds, print, reading_bar, show, style};
use anyhow::{Context as _, Result};
use memfrag::recording::Reader;
use memfrag::replay::{self, Allocator, Compact, Language, Limits, Manner, Order, Touch, Wanted};
use memfrag::report::plots::png::Rasteriser;
use memfrag::report::plots::runs;
use memfrag::report::replay::{RunReport, build, render};
use memfrag::report::units::{count, plural};
use std::ffi::{OsStr, OsString};
use std::fs;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &ReplayArgs) -> Result<u8> {
    let bar = reading_bar(Reader::open(&args.file)?.events());
    let mut progress = |read| bar.set_position(read);
    let wanted =
        Wanted { pid: args.pid, until: args.at.map(nanoseconds), compact: args.compact.map(|it| compact(it, args)) };
    if let Some(directory) = &args.emit {
        let language = match args.language {
            LanguageChoice::C => Language::C,
            LanguageChoice::Rust => Language::Rust,
        };
        let (chosen, planned) = replay::emit(&args.file, &wanted, language, directory, &mut progress)?;
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
    let (chosen, planned) = replay::prepare(&args.file, &wanted, data.reopen()?, data.path(), &mut progress)?;
    bar.finish_and_clear();
    let limits = Limits { memory: args.memory_limit.map_or_else(available, Ok)?, time: args.time_limit };
    let touch = match args.touch {
        TouchChoice::Sampled => Touch::Sampled,
        TouchChoice::All => Touch::All,
        TouchChoice::None => Touch::Nothing,
    };
    let manner = Manner { touch, pace: args.pace.0, trim: args.trim };
    let mut report = build(args.file.display().to_string(), &chosen, &planned, &manner);
    for (name, found) in allocators(&args.allocator) {
        let run = match found {
            Ok(allocator) => {
                eprintln!("memfrag: replaying under {}", allocator.name);
                let ended = replay::run(data.path(), &allocator, &args.env, manner, limits)
                    .with_context(|| format!("cannot run the replay under {name}"))?;
                RunReport::ended(&allocator.name, args.env.iter().map(variable).collect(), &ended)
            }
            Err(error) => RunReport::missing(&name, error.to_string()),
        };
        report.add(run);
    }
    let all = report.runs.iter().all(|run| run.outcome == "completed");
    if let Some(directory) = &args.plots {
        let pictures = runs::draw(&report);
        if pictures.is_empty() {
            eprintln!("memfrag: no run came to readings of the recorded program, so there is nothing to draw");
        }
        let rasteriser = args.png.map(|theme| Rasteriser::new(theme.into())).transpose()?;
        let count = save(directory, &report.pid.to_string(), &pictures, rasteriser.as_ref())?;
        eprintln!("memfrag: {} in {}", plural(count, "picture", "pictures"), directory.display());
    }
    show(&report, args.json, || render(&report, style()))?;
    Ok(if all { 0 } else { super::FAILED })
}

fn compact(order: OrderChoice, args: &ReplayArgs) -> Compact {
    let order = match order {
        OrderChoice::Age => Order::Age,
        OrderChoice::Address => Order::Address,
        OrderChoice::Size => Order::Size,
    };
    let all = u64::MAX;
    Compact { order, most_blocks: args.most_blocks.unwrap_or(all), most_bytes: args.most_bytes.unwrap_or(all) }
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
pub(super) fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.context("/proc/meminfo does not tell the available memory; give --memory-limit")? * 512)
}
