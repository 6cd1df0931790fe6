//! `memfrag heap`: a process's heap as it lies in memory now.

use super::args::HeapArgs;
use super::report::{show, style};
use anyhow::Result;
use memfrag::glibc::{TrimYield, Walker};
use memfrag::report::heap::{HeapReport, render};
use memfrag::target::ProcessInfo;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &HeapArgs) -> Result<u8> {
    let process = ProcessInfo::read(args.pid, 0)?;
    let walker = Walker::new(args.pid)?;
    let (walk, pages) = walker.with_pages(!args.running)?;
    let trim = TrimYield::of_walk(&walk, &pages);
    let report = HeapReport::new(&process, &walker, &walk, &trim);
    show(&report, args.json, || render(&report, style()))?;
    Ok(0)
}
