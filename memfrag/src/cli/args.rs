//! The command line's grammar: what belongs to one group of verbs is in a file of its own.

mod exchange;
mod process;
mod recording;
mod replay;
mod serve;
mod trace;
mod values;

pub(super) use exchange::{ExportArgs, FormatChoice, ImportArgs};
pub(super) use process::{HeapArgs, TrimArgs};
pub(super) use recording::{BlameArgs, CompareArgs, ModelArgs, Moment, ReportArgs};
pub(super) use replay::{LanguageChoice, OrderChoice, RemediesArgs, ReplayArgs, TouchChoice};
pub(super) use serve::{DemoArgs, InheritArgs, PatternChoice, ServeArgs, ServingArgs};
pub(super) use trace::{BackendChoice, BodyChoice, CheckpointsChoice, PlacementChoice, StacksChoice, TraceArgs};

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Where a process's memory goes, which call sites pin it, and what would free it.
#[derive(Debug, Parser)]
#[command(name = "memfrag", version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Record every allocation of a running process, of a command, or of the whole machine.
    Trace(TraceArgs),
    /// Show what a recording holds.
    Report(ReportArgs),
    /// Show a recording in the browser: the dashboard, with time travel.
    Serve(ServeArgs),
    /// What `trace --serve` starts: serves on sockets that it inherits.
    #[command(hide = true)]
    ServeInherited(InheritArgs),
    /// What `trace` starts: makes checkpoints of a recording that it inherits.
    #[command(hide = true)]
    CheckpointInherited(InheritArgs),
    /// Show the heap of a running process as it lies in memory now, without tracing.
    Heap(HeapArgs),
    /// Rank call sites by the memory that would be returned without their blocks.
    Blame(BlameArgs),
    /// Tell what would bring a process's resident memory down: trimming, a restart, settings, other allocators.
    Remedies(RemediesArgs),
    /// Set two states side by side: two recordings, or two moments of one.
    Compare(CompareArgs),
    /// Make the calls of a recording again under other allocators and settings, and compare the memory.
    Replay(ReplayArgs),
    /// Set a heap beside what allocation policies make of its requests: glibc with other settings, other allocators.
    Model(ModelArgs),
    /// Tell what `malloc_trim` would return of a running process's heap; with --apply, let it do so, and compare.
    Trim(TrimArgs),
    /// Write a recording in another tool's format.
    Export(ExportArgs),
    /// Make a recording of what another tool has recorded.
    Import(ImportArgs),
    /// Demonstrate an arena: blocks come and go in five phases, or as a pattern has it.
    Demo(DemoArgs),
    /// Tell what this kernel, user and machine allow, what probes cost here, and what to do about the rest.
    Doctor(DoctorArgs),
    /// Print the script that completes memfrag's words in a shell.
    Completions(CompletionsArgs),
    /// Print the manual page of memfrag or of one of its verbs.
    Man(ManArgs),
}

#[derive(Debug, Parser)]
pub(super) struct DoctorArgs {
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Parser)]
pub(super) struct CompletionsArgs {
    /// The shell.
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Parser)]
pub(super) struct ManArgs {
    /// The verb; without it, the page of memfrag itself.
    pub(super) verb: Option<String>,
    /// Write all pages into this directory instead, one file each.
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    pub(super) dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_grammar_is_sound() {
        Args::command().debug_assert();
    }
}
