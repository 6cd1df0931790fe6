//! `cargo xtask lint`: formatting, clippy, documentation, and whether BPF object and dashboard are current.

use crate::{ebpf, shell, web};
use anyhow::{Result, ensure};

/// A check's name and what runs it.
pub(crate) type Check = (&'static str, fn() -> Result<()>);

/// What makes up the verb, in order of cost.
pub(crate) const CHECKS: &[Check] = &[
    ("formatting", formatting),
    ("BPF object", ebpf::check),
    ("dashboard", web::check),
    ("clippy", clippy),
    ("documentation", documentation),
];

/// Runs every check, also after one has failed.
pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "lint takes no words");
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if let Err(error) = check() {
            eprintln!("{name}: {error:#}");
            failed.push(*name);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn formatting() -> Result<()> {
    shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    shell::run(&mut shell::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn documentation() -> Result<()> {
    let words = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    shell::run(shell::cargo(&words).env("RUSTDOCFLAGS", "-Dwarnings"))
}
