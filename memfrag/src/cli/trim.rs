//! `memfrag trim`: what `malloc_trim` would return of a process's heap, and doing it.

use super::args::TrimArgs;
use super::report::{show, style};
use anyhow::Result;
use memfrag::glibc::{TrimYield, Walker, inject};
use memfrag::report::trim::{TrimReport, render};
use memfrag::target::ProcessInfo;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &TrimArgs) -> Result<u8> {
    let process = ProcessInfo::read(args.pid, 0)?;
    let walker = Walker::new(args.pid)?;
    let (walk, pages) = walker.with_pages(true)?;
    let predicted = TrimYield::of_walk(&walk, &pages);
    let mut trimmed = None;
    if args.apply {
        trimmed = Some(inject::trim(args.pid, walker.allocator(), args.timeout)?);
        for _ in 1..args.repeat {
            inject::trim(args.pid, walker.allocator(), args.timeout)?;
        }
    }
    let report = TrimReport::new(&process, &walker, &walk, &predicted, trimmed.as_ref());
    show(&report, args.json, || render(&report, style()))?;
    Ok(0)
}
