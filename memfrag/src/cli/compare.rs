//! `memfrag compare`: two states side by side.

use super::args::{CompareArgs, Moment};
use super::report::{nanoseconds, read, show, style};
use anyhow::{Context as _, Result, bail};
use memfrag::report::compare::{State, compare, render};
use memfrag::report::{RecordingMeta, ReportBuilder};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &CompareArgs) -> Result<u8> {
    let first = args.a.file.as_deref().context("the first of the two names a recording, as FILE or FILE@TIME")?;
    let second = args.b.file.as_deref().unwrap_or(first);
    let one_recording = same(first, second)?;
    let (at_a, at_b) = (args.a.at, args.b.at);
    if one_recording {
        let order = |at: Option<Duration>| at.map_or(u64::MAX, nanoseconds);
        if order(at_a) > order(at_b) {
            bail!("of two moments of one recording the earlier comes first: {} is later than {}", args.a, args.b);
        }
        if at_a == at_b && args.pid.len() < 2 {
            bail!("{} and {} are the same state; a moment is written FILE@TIME, as in FILE@1.5s", args.a, args.b);
        }
    }
    let (a, b) = (read(first, at_a)?, read(second, at_b)?);
    let largest = |(builder, meta): &(ReportBuilder, RecordingMeta)| {
        let heaps = builder.heaps();
        let own = heaps.processes().iter().filter(|process| !heaps.shares_heap(process));
        let largest = own.max_by_key(|process| heaps.heap(process).peak().live.bytes).map(memfrag::heap::Process::pid);
        largest.with_context(|| format!("{} holds no process: nothing was recorded until then", meta.file))
    };
    let (pid_a, pid_b) = match args.pid[..] {
        [a, b] => (a, b),
        [one] => (one, one),
        [] if one_recording => largest(&b).map(|pid| (pid, pid))?,
        [] => (largest(&a)?, largest(&b)?),
        _ => bail!("--pid takes one process, or one of each state: two"),
    };
    let (a, b) = (state(&a, pid_a)?, state(&b, pid_b)?);
    let comparison = compare(&a, &b, one_recording).context("a process has gone while it was looked at")?;
    show(&comparison, args.json, || render(&comparison, style()))?;
    Ok(0)
}

fn state((builder, meta): &(ReportBuilder, RecordingMeta), pid: u32) -> Result<State<'_>> {
    if builder.heaps().find(pid).is_none() {
        let known: Vec<String> = builder
            .heaps()
            .processes()
            .iter()
            .take(8)
            .map(|process| match process.info() {
                Some(info) => format!("{} ({})", process.pid(), info.comm),
                None => process.pid().to_string(),
            })
            .collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        bail!("{} holds no process {pid} until then; it has {known}", meta.file);
    }
    let at_ns = meta.duration_ns;
    Ok(State { builder, file: &meta.file, backend: &meta.backend, at_ns, pid })
}

/// Whether two paths are one file.
fn same(one: &Path, other: &Path) -> Result<bool> {
    let real = |path: &Path| fs::canonicalize(path).with_context(|| format!("cannot open {}", path.display()));
    Ok(real(one)? == real(other)?)
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
        }
        self.at.map_or(Ok(()), |at| write!(f, "@{at:?}"))
    }
}
