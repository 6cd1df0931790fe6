//! Recordings out and in: `export`, `import`.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// What an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FormatChoice {
    /// A recording again, which --redact makes one that may leave the machine.
    Mfrag,
    /// MemFragX: a directory with `mftrace_log.csv`, `summary.json` and `smaps`.
    Memfragx,
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct ExportArgs {
    /// The recording.
    pub(in crate::cli) file: PathBuf,
    /// What to write.
    #[arg(long, value_enum, default_value_t = FormatChoice::Mfrag)]
    pub(in crate::cli) format: FormatChoice,
    /// The file to be made; for memfragx a directory, which is made if need be.
    #[arg(short, long, value_name = "PATH")]
    pub(in crate::cli) output: PathBuf,
    /// Whose calls a log of memfragx has, where several processes were recorded [default: those of the process with
    /// most].
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) pid: Option<u32>,
    /// Leave out what tells whose recording it is: where the system has put the program (addresses are moved), paths but
    /// for the system's own libraries, names of programs and of the machine, command lines.
    #[arg(long)]
    pub(in crate::cli) redact: bool,
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct ImportArgs {
    /// What the other tool has recorded: MemFragX's `mftrace_log.csv`.
    pub(in crate::cli) file: PathBuf,
    /// The recording to be made.
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: PathBuf,
}
