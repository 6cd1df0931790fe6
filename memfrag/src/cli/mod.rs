//! One verb a file; the only place that knows the command line, terminals and exit codes.

mod args;
mod backend;
mod blame;
mod checkpointer;
mod compare;
mod dashboard;
mod demo;
mod doctor;
mod heap;
mod interchange;
mod manual;
mod model;
mod modelled;
mod plots;
mod progress;
mod remedies;
mod replay;
mod report;
mod serve;
mod tally;
mod trace;
mod trim;
mod walks;

use args::{Args, Verb};
use clap::Parser as _;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

/// memfrag's own failures, as `timeout` and `env` have it.
const FAILED: u8 = 125;
/// The command was found but cannot be run.
const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const NOT_FOUND: u8 = 127;

/// An error that ends memfrag with a certain exit status.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Exit {
    status: u8,
    message: String,
}

/// Parses the command line, runs the verb, prints what went wrong.
pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    let result = match args.verb {
        Verb::Trace(args) => trace::run(&args),
        Verb::Blame(args) => blame::run(&args),
        Verb::Compare(args) => compare::run(&args),
        Verb::Remedies(args) => remedies::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Model(args) => model::run(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Serve(args) => serve::run(&args),
        Verb::ServeInherited(args) => dashboard::inherited(&args),
        Verb::CheckpointInherited(args) => checkpointer::inherited(&args),
        Verb::Heap(args) => heap::run(&args),
        Verb::Trim(args) => trim::run(&args),
        Verb::Export(args) => interchange::export(&args),
        Verb::Import(args) => interchange::import(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Completions(args) => manual::completions(&args),
        Verb::Man(args) => manual::man(&args),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memfrag: {}", explain(&error));
            let status = error.downcast_ref::<Exit>().map_or(FAILED, |exit| exit.status);
            ExitCode::from(status)
        }
    }
}

/// An error and its causes, each said once: many messages name their cause already.
fn explain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        known if known.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}

/// Whether the reader of our output went away, as `head` does; that is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::anyhow!("denied").context("cannot read x: denied").context("reporting");
        assert_eq!(explain(&error), "reporting: cannot read x: denied");
    }
}
