//! The command line of memfrag: tracing, reports, backends.

use crate::case::Skip;
use crate::place;
use crate::process::{self, Ended};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// memfrag's own failures exit with this.
pub const OWN_FAILURE: i32 = 125;
/// A command that cannot be run.
pub const CANNOT_RUN: i32 = 126;
/// A command that is not there.
pub const NOT_FOUND: i32 = 127;

/// Where the events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Probes on the allocator's functions.
    Ebpf,
    /// The library that is loaded into the program.
    Preload,
}

impl Backend {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ebpf, Self::Preload];

    /// As `--backend` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Preload => "preload",
        }
    }

    /// Skips the test where the backend cannot work.
    pub fn require(self) -> Result<()> {
        if self == Self::Ebpf
            && let Some(reason) = no_ebpf()
        {
            return Err(Skip(reason).into());
        }
        Ok(())
    }
}

/// Why BPF cannot be used here, `None` when it can. The kernel is asked, not memfrag: a memfrag that wrongly thinks
/// that it cannot is to fail the tests.
pub fn no_ebpf() -> Option<String> {
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON_AND_BPF: u64 = 1 << 38 | 1 << 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = rights.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    if rights & SYS_ADMIN == 0 && rights & PERFMON_AND_BPF != PERFMON_AND_BPF {
        return Some("no right to use BPF; run the tests as root".to_owned());
    }
    if !Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists() {
        return Some("this kernel has no BPF".to_owned());
    }
    if !Path::new("/sys/bus/event_source/devices/uprobe").exists() {
        return Some("this kernel has no user probes".to_owned());
    }
    None
}

/// Skips the test unless it runs as root.
pub fn require_root() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    if uid.and_then(|ids| ids.split_ascii_whitespace().nth(1)) != Some("0") {
        return Err(Skip("not root; run the tests as root".to_owned()).into());
    }
    Ok(())
}

/// `memfrag` with these words.
pub fn memfrag<S: AsRef<OsStr>>(words: &[S]) -> Result<Command> {
    let mut command = Command::new(place::memfrag()?);
    command.args(words);
    Ok(command)
}

/// `memfrag trace --backend BACKEND -o RECORDING -- COMMAND…`, without its last part.
fn trace_to(backend: Backend, recording: &Path) -> Result<Command> {
    let mut command = memfrag(&["trace", "--backend", backend.name(), "-o"])?;
    command.arg(recording);
    Ok(command)
}

/// The command that traces `target`, with the target's directory and environment.
pub fn trace(backend: Backend, recording: &Path, target: &Command) -> Result<Command> {
    let mut command = trace_to(backend, recording)?;
    command.arg("--").arg(target.get_program()).args(target.get_args());
    if let Some(dir) = target.get_current_dir() {
        command.current_dir(dir);
    }
    for (name, value) in target.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Ok(command)
}

/// The command that traces a process that is at work already.
pub fn attach(recording: &Path, pid: u32, words: &[&str]) -> Result<Command> {
    let mut command = trace_to(Backend::Ebpf, recording)?;
    command.arg("--pid").arg(pid.to_string()).args(words);
    Ok(command)
}

/// Traces the target to its end and checks that nothing was lost.
pub fn traced(backend: Backend, recording: &Path, target: &Command) -> Result<(Ended, Report)> {
    let ended = process::run(&mut trace(backend, recording, target)?)?;
    let report = Report::of(recording).with_context(|| format!("memfrag trace wrote:\n{}", ended.stderr))?;
    report.nothing_lost().with_context(|| format!("memfrag trace wrote:\n{}", ended.stderr))?;
    Ok((ended, report))
}

/// A number of a document, by its name.
pub fn number(value: &Value, name: &str) -> Result<u64> {
    value[name].as_u64().with_context(|| format!("{name} is no number in {value}"))
}

/// `memfrag report FILE --json`.
#[derive(Clone, Debug)]
pub struct Report(pub Value);

impl Report {
    /// The report on a recording.
    pub fn of(recording: &Path) -> Result<Self> {
        let mut command = memfrag(&["report", "--json"])?;
        let ended = process::run(command.arg(recording))?.success().context("memfrag report --json")?;
        let value: Value = serde_json::from_slice(&ended.stdout).context("the report is not one JSON document")?;
        ensure!(value["format"] == "memfrag-report", "not a report: {value}");
        Ok(Self(value))
    }

    /// A number by its path, such as `/events/lost`.
    pub fn number(&self, path: &str) -> Result<u64> {
        let value = self.0.pointer(path).with_context(|| format!("the report has no {path}: {}", self.0))?;
        value.as_u64().with_context(|| format!("{path} in the report is no count: {value}"))
    }

    /// The recording is complete and no event was lost on the way into it.
    pub fn nothing_lost(&self) -> Result<()> {
        let lost = self.number("/events/lost")?;
        ensure!(lost == 0, "{lost} events of {} were lost", self.number("/events/total")?);
        ensure!(self.0["recording"]["complete"] == true, "the recording is not complete: {}", self.0["recording"]);
        ensure!(self.number("/events/total")? > 0, "the recording is empty");
        Ok(())
    }

    /// Every free was of a block that is known: true where the whole life of the processes was recorded.
    pub fn every_free_matched(&self) -> Result<()> {
        let unmatched = self.number("/events/unmatched_free")?;
        ensure!(unmatched == 0, "{unmatched} frees of {} events met no block", self.number("/events/total")?);
        Ok(())
    }

    /// The processes of this name, in the report's order.
    pub fn processes(&self, comm: &str) -> Vec<&Value> {
        self.0["processes"].as_array().into_iter().flatten().filter(|process| process["comm"] == comm).collect()
    }
}

/// So long before the recorded process's end, as `--at` takes it: however slow a machine is, a program that sleeps last
/// does so then.
pub fn before_exit(recording: &Path, milliseconds: u64) -> Result<String> {
    let end = Report::of(recording)?.number("/processes/0/exit/at_ns")?;
    Ok(format!("{}ms", (end / 1_000_000).saturating_sub(milliseconds)))
}

/// Checks a message of memfrag's: the status, and that for each list one of its words is there (in any case). Thus a
/// message must name what it is about and what to do, in whatever words.
pub fn explains(ended: &Ended, code: i32, words: &[&[&str]]) -> Result<()> {
    ensure!(ended.code() == code, "status {} instead of {code}; it wrote:\n{}", ended.code(), ended.stderr);
    ensure!(!ended.stderr.contains("panicked at"), "it panicked:\n{}", ended.stderr);
    let message = ended.stderr.to_lowercase();
    for alternatives in words {
        let said = alternatives.iter().any(|word| message.contains(&word.to_lowercase()));
        ensure!(said, "the message says none of {alternatives:?}:\n{}", ended.stderr);
    }
    Ok(())
}
