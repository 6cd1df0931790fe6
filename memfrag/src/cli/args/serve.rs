//! What is seen in the browser: `serve`, `demo`, and what `trace --serve` starts.

use super::values::parse_size;
use clap::{Parser, ValueEnum};
use memfrag::server::listen::Wanted;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// The dashboard of what runs.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ServingArgs {
    /// Show it in the browser while it runs; at its end the dashboard stays until Ctrl-C.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = "localhost")]
    pub(in crate::cli) serve: Option<Wanted>,
    /// With --serve: a further name under which browsers may reach the server; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]", requires = "serve")]
    pub(in crate::cli) allow_host: Vec<String>,
    /// With --serve: the largest recording that may be imported.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "4G", requires = "serve")]
    pub(in crate::cli) import_limit: u64,
}

/// What the demonstration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum PatternChoice {
    /// Startup, fragmentation, large blocks, churn, cleanup.
    Phases,
    /// Bursts of 200 allocations and frees of 16 B to 2 KiB.
    RandomBurst,
    /// The arena filled with blocks of 128 bytes, of which every other one is freed.
    FragStorm,
    /// Blocks of 256 B to 128 KiB, always up to the brim.
    LargeBlocks,
    /// Requests and responses, the same from beginning to end.
    Steady,
    /// More requests at once from step to step.
    Ramp,
    /// Steady requests with bursts and large buffers between.
    Mixed,
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct DemoArgs {
    #[command(flatten)]
    pub(in crate::cli) serving: ServingArgs,
    /// What happens.
    #[arg(long, value_enum, default_value = "phases")]
    pub(in crate::cli) pattern: PatternChoice,
    /// Bytes of the arena, such as 1M or 64M.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1M")]
    pub(in crate::cli) arena_size: u64,
    /// How fast it happens: 2 is twice as fast as 1, which takes half a minute [default: 1 with --serve, else without a
    /// pause].
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed)]
    pub(in crate::cli) speed: Option<f64>,
    /// Another seed gives other sizes and another order.
    #[arg(long, default_value = "1")]
    pub(in crate::cli) seed: u64,
    /// Keep the recording in this file.
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct ServeArgs {
    /// The recording; it may still be growing.
    pub(in crate::cli) file: PathBuf,
    /// Where to listen, as PORT, ADDRESS or ADDRESS:PORT; port 0 has the kernel choose [default: 7170 or one of the
    /// next on this machine's own addresses].
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) addr: Option<Wanted>,
    /// A further name under which browsers may reach the server, as through a tunnel; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(in crate::cli) allow_host: Vec<String>,
    /// The largest recording that may be imported, such as 512M or 4G.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "4G")]
    pub(in crate::cli) import_limit: u64,
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct InheritArgs {
    /// The descriptor of the recording.
    #[arg(long)]
    pub(in crate::cli) recording: RawFd,
    /// The descriptor of a socket that listens.
    #[arg(long)]
    pub(in crate::cli) socket: Vec<RawFd>,
}

/// A factor greater than 0.
fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed > 0.0 => Ok(speed),
        _ => Err("a speed is a number greater than 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Args, Verb};

    #[test]
    fn a_demonstration_has_a_speed_and_a_size() {
        let demo = |words: &[&str]| match Args::try_parse_from(["memfrag", "demo"].iter().chain(words)) {
            Ok(Args { verb: Verb::Demo(args) }) => Some(args),
            _ => None,
        };
        let args = demo(&[]).unwrap();
        assert_eq!((args.arena_size, args.pattern, args.speed), (1 << 20, PatternChoice::Phases, None));
        assert_eq!(demo(&["--pattern", "frag-storm", "--serve=0"]).unwrap().pattern, PatternChoice::FragStorm);
        assert_eq!(demo(&["--speed", "2.5"]).unwrap().speed, Some(2.5));
        for words in
            [["--speed", "0"], ["--speed", "-1"], ["--speed", "NaN"], ["--pattern", "x"], ["--arena-size", "x"]]
        {
            assert!(demo(&words).is_none(), "{words:?}");
        }
    }
}
