//! A running process, without tracing: `heap`, `trim`.

use super::values::parse_duration;
use clap::Parser;
use std::time::Duration;

#[derive(Debug, Parser)]
pub(in crate::cli) struct HeapArgs {
    /// The process; its allocator must be glibc's.
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) pid: u32,
    /// Print one JSON document.
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Do not stop the process while its heap is read: it is read until nothing contradicts itself, which may never
    /// be while the process allocates much.
    #[arg(long)]
    pub(in crate::cli) running: bool,
}

#[derive(Debug, Parser)]
pub(in crate::cli) struct TrimArgs {
    /// The process; its allocator must be glibc's.
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) pid: u32,
    /// Call `malloc_trim(0)` in the process, by one of its own threads, stopped where it is provably outside malloc.
    #[arg(long)]
    pub(in crate::cli) apply: bool,
    /// How long such a thread is looked for, and how long the call may wait for a lock of malloc's.
    #[arg(long, value_parser = parse_duration, value_name = "TIME", default_value = "5s", requires = "apply")]
    pub(in crate::cli) timeout: Duration,
    /// Apply so many times: for tests.
    #[arg(long, value_name = "TIMES", default_value = "1", requires = "apply", hide = true)]
    pub(in crate::cli) repeat: u32,
    /// Print one JSON document.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
