//! What a probe costs on this machine: measured on functions of our own, in our own process.

#[path = "stubs_x86_64.rs"]
mod stubs;

use super::links::{Body, Point, Programs, Role};
use super::{Options, object};
use crate::target::process;
use anyhow::{Context, Result};
use memfrag_common::config::Scope;
use std::path::Path;
use std::time::Instant;
use stubs::Stub;

/// Calls that a figure is the mean of; the least of [`ROUNDS`] is taken, since whatever else runs only adds.
const CALLS: u32 = 2_000;
const ROUNDS: u32 = 3;
/// The least ring that can be made; nothing is written to it.
const SMALLEST_RING: u32 = 4096;

/// Nanoseconds that empty programs add to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// A probe on an instruction that the kernel emulates.
    pub emulated: f64,
    /// The same with a probe on the return.
    pub emulated_with_return: f64,
    /// A probe on an instruction that the kernel single-steps.
    pub single_stepped: f64,
}

impl Cost {
    /// What tracing adds to a `malloc` and its `free` where both have an emulated instruction.
    pub fn pair(&self) -> f64 {
        self.emulated_with_return + self.emulated
    }
}

/// Measures. It takes about half a second, most of it taking probes off again.
///
/// # Errors
/// As for a capture.
pub fn calibrate() -> Result<Cost> {
    let mut loaded = object::load(&Options { ring_bytes: SMALLEST_RING, ..Options::new(Scope::Link) })?;
    let programs = Programs::load(&mut loaded, Body::Empty)?;
    let mut cost = |stub: Stub, role: Role| -> Result<f64> {
        let bare = per_call(stub);
        let (file, offset) = place(stub)?;
        let point = Point { offset, cookie: 0, role };
        let links = programs.attach(&mut loaded, Path::new(&file), &[point], Some(std::process::id()))?;
        let probed = per_call(stub);
        Programs::detach(&mut loaded, links)?;
        Ok((probed - bare).max(0.0))
    };
    Ok(Cost {
        emulated: cost(stubs::EMULATED, Role::Frees)?,
        emulated_with_return: cost(stubs::EMULATED, Role::Allocates)?,
        single_stepped: cost(stubs::SINGLE_STEPPED, Role::Frees)?,
    })
}

fn per_call(stub: Stub) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..CALLS {
                stub.call();
            }
            begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .fold(f64::INFINITY, f64::min)
}

/// Our own file, and where in it the stub lies.
fn place(stub: Stub) -> Result<(String, u64)> {
    let map = process::map(std::process::id())?;
    let line = map
        .iter()
        .find(|line| line.is_file() && (line.start..line.end).contains(&stub.address()))
        .context("memfrag's own code is not mapped from a file")?;
    Ok(("/proc/self/exe".to_owned(), stub.address() - line.start + line.offset))
}
