//! `cargo xtask bench`: what is measured, tracing and dashboard one after the other or either alone.

use crate::{bench, dashboard};
use anyhow::{Result, ensure};

/// Minutes of a soak when nothing else is said.
const SOAK: u32 = 10;

/// Runs the verb: `[--quick] [--no-criterion] [--dashboard] [--soak [MINUTES]]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (mut alone, mut soak, mut others) = (false, None, Vec::new());
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--dashboard" => alone = true,
            "--soak" => {
                let minutes = args.next_if(|word| word.parse::<u32>().is_ok_and(|minutes| minutes > 0));
                soak = Some(minutes.and_then(|word| word.parse().ok()).unwrap_or(SOAK));
            }
            _ => others.push(arg.clone()),
        }
    }
    let quick = others.iter().any(|word| word == "--quick");
    if let Some(minutes) = soak {
        return dashboard::soak(minutes, quick);
    }
    if alone {
        ensure!(others.iter().all(|word| word == "--quick"), "--dashboard goes with --quick and --soak [MINUTES] only");
    } else {
        bench::run(&others)?;
    }
    dashboard::speed(quick)
}
