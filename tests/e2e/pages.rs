//! How live blocks lie on pages, against what a program finds out about its own.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, traced};
use memfrag_tests::{place, tests_on_both};
use std::process::Command;

tests_on_both!(as_the_program_sees_them);

fn as_the_program_sees_them(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let program = place::program("sparse_pages")?;
    let (ended, report) = traced(backend, &dir.path().join("r.mfrag"), &Command::new(program))?;
    report.nothing_lost()?;
    let text = ended.text();
    let own: Vec<u64> = text
        .split_whitespace()
        .map(|word| word.parse().with_context(|| format!("the program printed {text:?}")))
        .collect::<Result<_>>()?;
    let names = [
        "live_blocks",
        "requested_bytes",
        "metrics/compact_bound_bytes",
        "metrics/page_occupancy/pinned",
        "metrics/page_occupancy/partial",
        "metrics/page_occupancy/full",
        "metrics/compact_bound_peak_bytes",
    ];
    ensure!(own.len() == names.len(), "the program printed {text:?}");
    for (name, own) in names.into_iter().zip(own) {
        let told = report.number(&format!("/processes/0/end/{name}"))?;
        ensure!(told == own, "{name} is {told}, but {own} by the program's own account");
    }
    Ok(())
}
