//! What a recording holds: `report`, `blame`, `compare`, `model`.

use super::values::{ThemeChoice, parse_duration};
use clap::{Parser, ValueEnum};
use memfrag::analysis::By;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Parser)]
pub(in crate::cli) struct ReportArgs {
    /// The recording.
    pub(in crate::cli) file: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// The state at this time since the trace began, such as 1.5s or 200ms.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(in crate::cli) at: Option<Duration>,
    /// Write a page with pictures to this file: one that needs nothing else, for a browser.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// Write the pictures into this directory, as SVG.
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) plots: Option<PathBuf>,
    /// With --plots: write each picture as PNG as well, in the colours of one theme.
    #[arg(long, value_enum, value_name = "THEME", num_args = 0..=1, require_equals = true,
          default_missing_value = "light", requires = "plots")]
    pub(in crate::cli) png: Option<ThemeChoice>,
}

/// By what blocks are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ByChoice {
    /// The place that called the allocator.
    Site,
    /// The thread that allocated.
    Thread,
    /// The requested size, by powers of two.
    Size,
    /// How long the block has lived.
    Age,
    /// The file that called the allocator.
    Module,
    /// The whole stack of the call, where the trace recorded it (--stacks).
    Stack,
}

impl From<ByChoice> for By {
    fn from(choice: ByChoice) -> Self {
        match choice {
            ByChoice::Site => Self::Site,
            ByChoice::Thread => Self::Thread,
            ByChoice::Size => Self::Size,
            ByChoice::Age => Self::Age,
            ByChoice::Module => Self::Module,
            ByChoice::Stack => Self::Stack,
        }
    }
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct BlameArgs {
    /// The recording.
    pub(in crate::cli) file: PathBuf,
    /// By what blocks are told apart.
    #[arg(long, value_enum, default_value = "site")]
    pub(in crate::cli) by: ByChoice,
    /// The process; without it, the one with most resident bytes.
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) pid: Option<u32>,
    /// The last look at the process's pages until this time since the trace began, such as 1.5s or 200ms.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(in crate::cli) at: Option<Duration>,
    /// Print one JSON document.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// A recording, or a moment of one: `FILE`, `FILE@TIME`, `@TIME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Moment {
    /// The recording; `None` for the one named before.
    pub(in crate::cli) file: Option<PathBuf>,
    /// The time since the trace began; `None` for the end.
    pub(in crate::cli) at: Option<Duration>,
}

/// A file of that very name is taken first, so that an `@` may be part of it.
fn parse_moment(text: &str) -> Result<Moment, String> {
    let whole = || Ok(Moment { file: Some(text.into()), at: None });
    let Some((file, at)) = text.rsplit_once('@') else { return whole() };
    if Path::new(text).exists() {
        return whole();
    }
    let at = parse_duration(at).map_err(|problem| format!("what follows the @ is no time: {problem}"))?;
    Ok(Moment { file: (!file.is_empty()).then(|| file.into()), at: Some(at) })
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct CompareArgs {
    /// The first state: a recording's end as FILE, or a moment of it as FILE@TIME, such as run.mfrag@1.5s.
    #[arg(value_name = "A", value_parser = parse_moment)]
    pub(in crate::cli) a: Moment,
    /// The second state; @TIME is one of the same recording.
    #[arg(value_name = "B", value_parser = parse_moment)]
    pub(in crate::cli) b: Moment,
    /// The process, or that of A and that of B; without it, those that had the most live bytes.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(in crate::cli) pid: Vec<u32>,
    /// Print one JSON document.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct ModelArgs {
    /// The recording.
    pub(in crate::cli) file: PathBuf,
    /// The policies, with commas or by repeating; without it, all of them.
    #[arg(long, value_name = "POLICY", value_delimiter = ',')]
    pub(in crate::cli) policy: Vec<String>,
    /// The process; without it, the one that had the most live bytes.
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) pid: Option<u32>,
    /// What came of it until this time since the trace began, such as 1.5s or 200ms.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(in crate::cli) at: Option<Duration>,
    /// Print one JSON document.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_file_and_a_time() {
        let moment = |file: Option<&str>, at| Ok(Moment { file: file.map(PathBuf::from), at });
        assert_eq!(parse_moment("a.mfrag"), moment(Some("a.mfrag"), None));
        assert_eq!(parse_moment("a@b.mfrag@1.5s"), moment(Some("a@b.mfrag"), Some(Duration::from_millis(1500))));
        assert_eq!(parse_moment("@200ms"), moment(None, Some(Duration::from_millis(200))));
        assert!(parse_moment("a@b.mfrag").unwrap_err().contains("no time"));
        let directory = tempfile::tempdir().unwrap();
        let odd = directory.path().join("a@1s");
        std::fs::write(&odd, "").unwrap();
        assert_eq!(parse_moment(odd.to_str().unwrap()), moment(odd.to_str(), None), "a file of that name is there");
    }
}
