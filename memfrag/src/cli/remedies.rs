//! `memfrag remedies`: what would bring resident memory down, foretold and measured.

use super::args::RemediesArgs;
use super::model::tunables;
use super::replay::available;
use super::report::{read, show, style};
use anyhow::{Context as _, Result, bail};
use memfrag::replay::{self, Allocator, Compact, Limits, Manner, Outcome, Run, Wanted};
use memfrag::report::remedies::{Remedies, Remedy, render};
use memfrag::report::replay::RunReport;
use std::ffi::OsString;
use std::path::Path;
use tempfile::NamedTempFile;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &RemediesArgs) -> Result<u8> {
    let (builder, meta) = read(&args.file, args.at)?;
    let file = meta.file.clone();
    let report = builder.report(meta);
    let looked_at = || report.processes.iter().find(|process| process.end.ledger.is_some());
    let Some(pid) = args.pid.or_else(|| looked_at().map(|process| process.pid)) else {
        bail!(
            "{file} does not tell which pages of any process were resident, and remedies are about these: record with \
             the right to read /proc/PID/pagemap, and longer than a moment"
        );
    };
    let Some(process) = report.processes.iter().find(|process| process.pid == pid) else {
        bail!("{file} holds no process {pid}; memfrag report lists those that it holds");
    };
    let Some(mut found) = Remedies::new(file.clone(), process) else {
        bail!(
            "{file} does not tell which pages of process {pid} were resident until then, and remedies are about these"
        );
    };
    if let Some((default, tuned)) = tunables(&args.file, &builder, pid, found.at_ns)? {
        found.foretell_tunables(&default, &tuned);
    }
    if args.run {
        measure(args, &mut found)?;
    }
    show(&found, args.json, || render(&found, style()))?;
    Ok(0)
}

/// Makes the calls until the moment of the comparison again: as they were, and with each remedy.
fn measure(args: &RemediesArgs, found: &mut Remedies) -> Result<()> {
    let data = || NamedTempFile::new().context("cannot make a temporary file for the replay's data");
    let (calls, anew) = (data()?, data()?);
    let prepare = |file: &NamedTempFile, compact| -> Result<_> {
        let wanted = Wanted { pid: Some(found.pid), until: Some(found.at_ns), compact };
        Ok(replay::prepare(&args.file, &wanted, file.reopen()?, file.path(), &mut |_| ())?.1)
    };
    let planned = prepare(&calls, None)?;
    prepare(&anew, Some(Compact::default()))?;
    let limits = Limits { memory: args.memory_limit.map_or_else(available, Ok)?, time: args.time_limit };
    let settings = found.settings.clone();
    let go = |data: &NamedTempFile, name: &str, environment: Option<&str>, trim: bool| -> Result<Run, String> {
        let own = settings.iter().map(String::as_str).chain(environment);
        let variables = own.filter_map(|text| text.split_once('=')).map(|(name, value)| (name.into(), value.into()));
        eprintln!("memfrag: replaying under {name}{}", environment.map_or_else(String::new, |text| format!(" {text}")));
        completed(data.path(), name, &variables.collect::<Vec<_>>(), Manner { trim, ..Manner::default() }, limits)
    };
    // The allocator that the program had.
    let own = found.allocator.clone().unwrap_or_else(|| "glibc".to_owned());
    let is_glibc = own == "glibc";
    let as_it_was = go(&calls, &own, None, is_glibc);
    let as_it_was =
        as_it_was.map_err(|reason| anyhow::anyhow!("the calls cannot be made again as they were: {reason}"))?;
    found.replay_agreement = agreement(&planned, &as_it_was);
    let (resident, base) = (found.resident_bytes, as_it_was.final_bytes);
    for remedy in &mut found.remedies {
        let tried = match remedy.kind {
            "none" => Ok(base),
            "trim" if is_glibc => as_it_was.trimmed_bytes.ok_or_else(|| "malloc_trim was not called".to_owned()),
            "restart" => go(&anew, &own, None, false).map(|run| run.final_bytes),
            "tunable" => go(&calls, "glibc", Some(&remedy.how), false).map(|run| run.final_bytes),
            _ => continue,
        };
        remedy.enter(resident, base, tried);
    }
    for allocator in Allocator::installed().into_iter().filter(|allocator| allocator.name != own) {
        let library = allocator.library.as_ref().map(|path| path.display().to_string());
        let mut remedy = Remedy::allocator(&allocator.name, library.as_deref());
        let tried = go(&calls, &allocator.name, None, false);
        remedy.enter(resident, base, tried.map(|run| run.final_bytes));
        found.remedies.push(remedy);
    }
    Ok(())
}

/// A run that came to its end, or why it did not.
fn completed(
    data: &Path,
    name: &str,
    environment: &[(OsString, OsString)],
    manner: Manner,
    limits: Limits,
) -> Result<Run, String> {
    let allocator = Allocator::find(name).map_err(|error| error.to_string())?;
    match replay::run(data, &allocator, environment, manner, limits).map(|ended| ended.outcome) {
        Ok(Outcome::Completed(run)) => Ok(run),
        Ok(outcome) => {
            let report = RunReport::new(name, Vec::new(), &outcome);
            Err(report.reason.unwrap_or_else(|| report.outcome.to_owned()))
        }
        Err(error) => Err(format!("it cannot be run: {error}")),
    }
}

/// How a run grew up to the last reading of the recorded program's memory, over how the program did.
fn agreement(planned: &replay::Planned, run: &Run) -> Option<f64> {
    let (first, last) = (planned.readings.get(planned.base)?, planned.readings.last()?);
    let (run_first, run_last) = (run.points.first()?, run.points.last()?);
    let real = last.rss_anon.checked_sub(first.rss_anon).filter(|&grown| grown > 0)?;
    Some(run_last.bytes.saturating_sub(run_first.bytes) as f64 / real as f64)
}
