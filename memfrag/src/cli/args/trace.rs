//! Capturing: `trace`.

use super::serve::ServingArgs;
use super::values::{parse_duration, parse_size};
use anyhow::Context as _;
use clap::{ArgGroup, Parser, ValueEnum};
use memfrag_common::names::{MOST_NAMES, Name, Names};
use memfrag_common::session::Stacks;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How events are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum BackendChoice {
    /// eBPF when it may be used, else preload for a command.
    Auto,
    /// Probes in the kernel: any process, without restart; needs root or `CAP_BPF` and `CAP_PERFMON`.
    Ebpf,
    /// A library loaded into the command: needs no rights and costs the command less.
    Preload,
}

/// What is recorded of the stacks of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum StacksChoice {
    /// Nothing, not even the caller.
    None,
    /// The caller of the allocator.
    Caller,
    /// All frames, by frame pointers: for programs that were built with them.
    Fp,
    /// All frames, by the call frame information that programs have with them.
    Dwarf,
}

impl From<StacksChoice> for Stacks {
    fn from(choice: StacksChoice) -> Self {
        match choice {
            StacksChoice::None => Self::None,
            StacksChoice::Caller => Self::Caller,
            StacksChoice::Fp => Self::FramePointers,
            StacksChoice::Dwarf => Self::Dwarf,
        }
    }
}

/// Whether checkpoints are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum CheckpointsChoice {
    /// Every eight million events or, with many live blocks, less often: they take less than a tenth of the file.
    Auto,
    /// Never.
    None,
}

/// Where probes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum PlacementChoice {
    /// The first instruction that the kernel emulates.
    Best,
    /// The function's first instruction, as other tools do: for comparison.
    Entry,
}

/// What probes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum BodyChoice {
    /// Record.
    Full,
    /// Nothing: for measuring what the probes themselves cost.
    Empty,
}

#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
#[command(group = ArgGroup::new("target").required(true).args(["pid", "system", "command"]))]
pub(in crate::cli) struct TraceArgs {
    /// A running process; several with commas or by repeating.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(in crate::cli) pid: Vec<u32>,
    /// Every process that uses a known allocator, now or later.
    #[arg(long)]
    pub(in crate::cli) system: bool,
    /// A command to run and trace, with the processes that it makes.
    #[arg(last = true, value_name = "CMD")]
    pub(in crate::cli) command: Vec<OsString>,
    /// How events are captured.
    #[arg(long, value_enum, default_value = "auto")]
    pub(in crate::cli) backend: BackendChoice,
    /// What is recorded of the stack of each call that allocates.
    #[arg(long, value_enum, value_name = "WHICH", default_value = "caller")]
    pub(in crate::cli) stacks: StacksChoice,
    /// The recording [default: memfrag.NAME.PID.mfrag].
    #[arg(short, long, value_name = "FILE", conflicts_with = "no_record")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Whether a long recording gets checkpoints: states of the heaps, from which it can be opened at any moment
    /// without going through what comes before. They are made while a processor is idle.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(in crate::cli) checkpoints: CheckpointsChoice,
    /// Keep no recording; only count.
    #[arg(long)]
    pub(in crate::cli) no_record: bool,
    /// Stop after this long, such as 30s, 500ms or 2m.
    #[arg(long, value_parser = parse_duration)]
    pub(in crate::cli) duration: Option<Duration>,
    /// Do not trace the processes that the command makes. Probes are then limited to the command's process, and no
    /// other process of the machine pays for them.
    #[arg(long)]
    pub(in crate::cli) no_follow: bool,
    /// Record only processes that run a program of this name: comm=NAME, or comm=BEGINNING*; several with commas or by
    /// repeating. A process counts from when it becomes such a program to when it becomes another one, with the copies that
    /// it makes of itself; the name is the file's, of which the kernel keeps 15 bytes.
    #[arg(long, value_name = "comm=NAME", value_delimiter = ',', value_parser = parse_filter)]
    #[arg(conflicts_with_all = ["pid", "no_follow"])]
    pub(in crate::cli) filter: Vec<Filter>,
    /// Do not stop the process for the moment that it takes to read its heap, as the trace begins and ends. Blocks that
    /// are older than the trace then stay unknown.
    #[arg(long)]
    pub(in crate::cli) no_walk: bool,
    #[command(flatten)]
    pub(in crate::cli) serving: ServingArgs,
    /// At the end print the report to stdout, as JSON.
    #[arg(long, conflicts_with = "no_record")]
    pub(in crate::cli) json: bool,
    /// Say nothing but errors.
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
    /// Bytes of the ring between the probes and memfrag, a power of two such as 64M.
    #[arg(long, value_parser = parse_ring, value_name = "SIZE", default_value = "64M")]
    pub(in crate::cli) ring: u32,
    #[arg(long, value_enum, default_value = "best", hide = true)]
    pub(in crate::cli) placement: PlacementChoice,
    #[arg(long, value_enum, default_value = "full", hide = true)]
    pub(in crate::cli) probe_body: BodyChoice,
}

/// A name that the trace is limited to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Filter {
    /// As it was given.
    text: String,
    name: Name,
}

fn parse_filter(text: &str) -> Result<Filter, String> {
    const SYNTAX: &str = "say comm=NAME, as in comm=cc1, or comm=BEGINNING*";
    let Some(("comm", pattern)) = text.split_once('=') else { return Err(SYNTAX.to_owned()) };
    let (name, begins) = pattern.strip_suffix('*').map_or((pattern, false), |beginning| (beginning, true));
    if name.contains('*') {
        return Err(format!("a * stands at the end only; {SYNTAX}"));
    }
    if name.contains('/') {
        return Err(format!("a name is that of a file, without the folders before it; {SYNTAX}"));
    }
    let name = Name::new(name.as_bytes(), begins).ok_or(SYNTAX)?;
    Ok(Filter { text: pattern.to_owned(), name })
}

impl TraceArgs {
    /// The names that the trace is limited to.
    pub(in crate::cli) fn names(&self) -> anyhow::Result<Names> {
        let names: Vec<Name> = self.filter.iter().map(|filter| filter.name).collect();
        Names::new(&names).with_context(|| format!("--filter takes {MOST_NAMES} names at most, not {}", names.len()))
    }

    /// The same for people; `None` where it is not limited.
    pub(in crate::cli) fn wanted(&self) -> Option<String> {
        let (last, others) = self.filter.split_last()?;
        let others: Vec<&str> = others.iter().map(|filter| filter.text.as_str()).collect();
        Some(if others.is_empty() { last.text.clone() } else { format!("{} or {}", others.join(", "), last.text) })
    }
}

/// A power of two of bytes, at least a page, with an optional K, M or G.
fn parse_ring(text: &str) -> Result<u32, String> {
    match u32::try_from(parse_size(text)?) {
        Ok(bytes) if bytes.is_power_of_two() && bytes >= 4096 => Ok(bytes),
        _ => Err("a ring has a power of two of bytes, from 4K to 2G".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Args, Verb};
    use memfrag::server::listen::Wanted;
    use memfrag_common::names::words_of;

    fn trace(words: &[&str]) -> Result<TraceArgs, clap::Error> {
        Args::try_parse_from(["memfrag", "trace"].iter().chain(words)).map(|args| match args.verb {
            Verb::Trace(args) => args,
            other => panic!("parsed as {other:?}"),
        })
    }

    #[test]
    fn a_target_is_one_of_three() {
        assert_eq!(trace(&["--pid", "1,2", "--pid", "3"]).unwrap().pid, [1, 2, 3]);
        assert_eq!(trace(&["--", "ls", "--pid"]).unwrap().command, ["ls", "--pid"]);
        assert!(trace(&[]).is_err());
        assert!(trace(&["--pid", "1", "--", "ls"]).is_err());
        assert!(trace(&["--system", "--pid", "1"]).is_err());
        assert!(trace(&["--pid", "x"]).is_err());
    }

    #[test]
    fn an_address_follows_serve_behind_an_equals_sign() {
        assert_eq!(trace(&["--pid", "1"]).unwrap().serving.serve, None);
        assert_eq!(trace(&["--pid", "1", "--serve"]).unwrap().serving.serve, Some(Wanted::default()));
        let wanted = Wanted { address: None, port: Some(0) };
        assert_eq!(trace(&["--serve=0", "--", "ls"]).unwrap().serving.serve, Some(wanted));
        assert!(trace(&["--serve=everywhere", "--", "ls"]).is_err());
        assert!(trace(&["--allow-host", "x", "--", "ls"]).is_err());
    }

    #[test]
    fn names_are_whole_or_begin_so() {
        let args = trace(&["--filter", "comm=cc1,comm=python*", "--filter", "comm=as", "--", "make"]).unwrap();
        assert_eq!(args.wanted().as_deref(), Some("cc1, python* or as"));
        let names = args.names().unwrap();
        assert!(!names.record(words_of(b"cc1plus")));
        assert!(["python3.11", "cc1"].iter().all(|name| names.record(words_of(name.as_bytes()))));
        assert!(trace(&["--", "make"]).unwrap().names().unwrap().is_empty());
        for bad in ["cc1", "comm=", "comm=a*b", "comm=/bin/sh", "name=cc1", ""] {
            assert!(trace(&["--filter", bad, "--", "make"]).is_err(), "{bad}");
        }
        assert!(trace(&["--filter", "comm=a", "--pid", "1"]).is_err());
        assert!(trace(&["--filter", "comm=a", "--no-follow", "--", "make"]).is_err());
        let many = ["comm=a"; MOST_NAMES + 1].join(",");
        assert!(trace(&["--filter", &many, "--", "make"]).unwrap().names().is_err());
    }

    #[test]
    fn a_ring_is_a_power_of_two() {
        assert_eq!(parse_ring("16M"), Ok(16 << 20));
        assert!(parse_ring("3M").is_err());
        assert!(parse_ring("99999999999999999999G").is_err());
        assert!(parse_ring("9223372036854775808M").is_err());
    }
}
