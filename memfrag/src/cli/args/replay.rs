//! The calls of a recording again: `replay`, `remedies`.

use super::values::{ThemeChoice, parse_duration, parse_size};
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Parser)]
pub(in crate::cli) struct RemediesArgs {
    /// The recording.
    pub(in crate::cli) file: PathBuf,
    /// The process; without it, of those whose pages were looked at the one that had the most live bytes.
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) pid: Option<u32>,
    /// The last look at the process's pages until this time since the trace began, such as 1.5s or 200ms.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(in crate::cli) at: Option<Duration>,
    /// Measure as well: make the calls until then again with each remedy, as `memfrag replay` does.
    #[arg(long)]
    pub(in crate::cli) run: bool,
    /// Stop a run that takes more resident memory, such as 512M or 4G; without it, than half of what is available.
    #[arg(long, value_parser = parse_size, value_name = "BYTES", requires = "run")]
    pub(in crate::cli) memory_limit: Option<u64>,
    /// Stop a run that takes longer.
    #[arg(long, value_parser = parse_duration, value_name = "TIME", default_value = "10m")]
    pub(in crate::cli) time_limit: Duration,
    /// Print one JSON document.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Whether a replay writes to its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum TouchChoice {
    /// To as many pages of each block as were seen resident in the recorded program.
    Sampled,
    /// To every page of every block.
    All,
    /// To none.
    None,
}

/// In which order what is live is allocated anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OrderChoice {
    /// As it was allocated: what a restart would make of it.
    Age,
    /// By addresses: as it lay.
    Address,
    /// The largest blocks first.
    Size,
}

/// The language of a program that stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LanguageChoice {
    /// C: for any allocator that can be preloaded or linked.
    C,
    /// Rust: for any global allocator.
    Rust,
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct ReplayArgs {
    /// The recording.
    pub(in crate::cli) file: PathBuf,
    /// The process; without it, the one that called the allocator most.
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) pid: Option<u32>,
    /// The allocators: glibc, jemalloc, mimalloc, tcmalloc, musl, or the path of a library; without it, all that are
    /// installed.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub(in crate::cli) allocator: Vec<String>,
    /// A variable for the environment of the runs, such as `GLIBC_TUNABLES=glibc.malloc.arena_max=1`; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    pub(in crate::cli) env: Vec<(OsString, OsString)>,
    /// Whether the blocks are written to.
    #[arg(long, value_enum, default_value = "sampled")]
    pub(in crate::cli) touch: TouchChoice,
    /// When the calls are made: fast, as soon as they can be; real, in the time that they took; or a factor such as 4x,
    /// four times as fast. Allocators that return memory by the clock need time for it.
    #[arg(long, value_parser = parse_pace, value_name = "PACE", default_value = "fast")]
    pub(in crate::cli) pace: Pace,
    /// The calls until this time since the trace began, such as 1.5s or 200ms; without it, all.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(in crate::cli) at: Option<Duration>,
    /// Not the calls, but the blocks that are live at their end, allocated anew in this order by one thread.
    #[arg(long, value_enum, value_name = "ORDER")]
    pub(in crate::cli) compact: Option<OrderChoice>,
    /// With --compact: the first blocks only, so many.
    #[arg(long, value_name = "COUNT", requires = "compact")]
    pub(in crate::cli) most_blocks: Option<u64>,
    /// With --compact: the first blocks only, of so many bytes together, such as 512M.
    #[arg(long, value_parser = parse_size, value_name = "BYTES", requires = "compact")]
    pub(in crate::cli) most_bytes: Option<u64>,
    /// At the end of each run call `malloc_trim(0)`, which is glibc's, and tell what memory is then.
    #[arg(long)]
    pub(in crate::cli) trim: bool,
    /// Stop a run that takes more resident memory, such as 512M or 4G; without it, than half of what is available.
    #[arg(long, value_parser = parse_size, value_name = "BYTES")]
    pub(in crate::cli) memory_limit: Option<u64>,
    /// Stop a run that takes longer.
    #[arg(long, value_parser = parse_duration, value_name = "TIME", default_value = "10m")]
    pub(in crate::cli) time_limit: Duration,
    /// Write a directory that stands alone instead of running: a program, its data, how to build it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["allocator", "env", "touch", "pace", "trim", "json"])]
    pub(in crate::cli) emit: Option<PathBuf>,
    /// Write pictures of the runs into this directory, as SVG: memory over time, and by kind of mapping.
    #[arg(long, value_name = "DIR", conflicts_with = "emit")]
    pub(in crate::cli) plots: Option<PathBuf>,
    /// With --plots: write each picture as PNG as well, in the colours of one theme.
    #[arg(long, value_enum, value_name = "THEME", num_args = 0..=1, require_equals = true,
          default_missing_value = "light", requires = "plots")]
    pub(in crate::cli) png: Option<ThemeChoice>,
    /// With --emit: the program's language.
    #[arg(long, value_enum, default_value = "c", requires = "emit")]
    pub(in crate::cli) language: LanguageChoice,
    /// Print one JSON document.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// How many times as fast as recorded; `None` for as fast as possible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) struct Pace(pub(in crate::cli) Option<f64>);

/// `fast`, `real`, or a factor such as `4x`.
fn parse_pace(text: &str) -> Result<Pace, String> {
    match text {
        "fast" => Ok(Pace(None)),
        "real" => Ok(Pace(Some(1.0))),
        factor => match factor.strip_suffix('x').unwrap_or(factor).parse::<f64>() {
            Ok(factor) if factor > 0.0 && factor <= 1e6 => Ok(Pace(Some(factor))),
            _ => Err("a pace is fast, real, or a factor such as 4x".to_owned()),
        },
    }
}

fn parse_variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("a variable is written NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_word_or_a_factor() {
        assert_eq!(
            ["fast", "real", "4x", "0.5"].map(|text| parse_pace(text).unwrap().0),
            [None, Some(1.0), Some(4.0), Some(0.5)]
        );
        assert!(["slow", "-1", "0x", "NaN", "1e9"].iter().all(|text| parse_pace(text).is_err()));
    }
}
