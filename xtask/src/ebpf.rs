//! Building the BPF object, and telling whether the committed one is current.

use anyhow::{Result, ensure};

/// `cargo xtask ebpf [--check]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(args.iter().all(|arg| arg == "--check"), "only --check is known");
    check()
}

/// Whether the committed object was built from the sources beside it.
pub(crate) fn check() -> Result<()> {
    let source = crate::shell::root().join("memfrag-ebpf");
    ensure!(!source.exists(), "{} is there, but nothing checks it yet", source.display());
    Ok(())
}
