//! The command line.

mod cli;

use std::process::ExitCode;

/// Probes on the machine's C library must not make memfrag trace itself: its own blocks come from elsewhere.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    cli::main()
}
