//! The command line.

mod allocator;
mod cli;

use std::process::ExitCode;

#[global_allocator]
static BLOCKS: allocator::Blocks = allocator::Blocks::new();

fn main() -> ExitCode {
    cli::main()
}
