//! Which files to probe for a process, a command, or the whole machine.

use super::links::{Point, Role};
use super::{EbpfCapture, Scope};
use crate::probes::{self, PlanError, ProbePlan, Shape};
use crate::target::allocator::{self, Allocator, AllocatorKind, Cache};
use crate::target::library::{Environment, Loader};
use crate::target::process;
use anyhow::Result;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Where on a function its probe goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// On the first instruction that the kernel emulates.
    Best,
    /// On the first instruction, whatever it costs.
    Entry,
}

/// The files that have their probes.
#[derive(Debug)]
pub(super) struct Discovery {
    placing: Placing,
    cache: Cache,
    /// Build-id or, without one, path; and the process to which the probes are limited.
    probed: HashSet<(Vec<u8>, Option<u32>)>,
}

impl Discovery {
    pub(super) fn new(placing: Placing) -> Self {
        Self { placing, cache: Cache::default(), probed: HashSet::new() }
    }

    fn points(&self, plan: &ProbePlan) -> Vec<Point> {
        plan.points
            .iter()
            .map(|point| {
                let mut cookie = point.cookie;
                let mut offset = point.offset;
                if self.placing == Placing::Entry {
                    let moved = (point.offset - point.start) as u32;
                    cookie.before -= moved.min(cookie.before);
                    cookie.after += moved;
                    offset = point.start;
                }
                let role = if matches!(point.shape, Shape::Free) { Role::Frees } else { Role::Allocates };
                Point { offset, cookie: cookie.pack(), role }
            })
            .collect()
    }
}

/// The files of the machine that are known to hold allocators, whether a process uses them now or not.
pub fn known_allocators() -> Vec<PathBuf> {
    Loader::new(Environment::own()).known_allocators().into_iter().map(|file| file.path).collect()
}

impl EbpfCapture {
    /// Probes the allocators that a process has. Call it again when it has mapped more code.
    ///
    /// # Errors
    /// When the process cannot be traced, or the kernel refuses.
    pub fn attach_process(&mut self, pid: u32) -> Result<Vec<Allocator>> {
        let allocators = allocator::of_process(pid, &mut self.discovery.cache)?;
        let scope = (self.scope == Scope::Link).then_some(pid);
        for allocator in &allocators {
            self.attach_file(&allocator.open, scope)?;
        }
        Ok(allocators)
    }

    /// Probes every allocator that a command is going to load, and every one that the machine is known to have, for
    /// the processes that the command makes. Returns the allocators that the command itself will have, the one that
    /// its calls bind to first.
    ///
    /// # Errors
    /// When the kernel refuses, or the command's program carries an allocator that cannot be found.
    pub fn attach_command(&mut self, program: &Path, follow: bool, pid: u32) -> Result<Vec<AllocatorKind>> {
        let scope = (self.scope == Scope::Link).then_some(pid);
        let loader = Loader::new(Environment::own());
        let closure = loader.closure(program)?;
        let mut found = Vec::new();
        for (at, file) in closure.files.iter().enumerate() {
            match self.attach_file(&file.path, scope) {
                Ok(Some(kind)) => found.push(kind),
                Ok(None) => {}
                Err(error) if at == 0 => return Err(error),
                Err(_) => {}
            }
        }
        if follow {
            for file in loader.known_allocators() {
                self.attach_file(&file.path, scope)?;
            }
        }
        Ok(found)
    }

    /// Probes every allocator that a process has now, and those that the machine is known to have.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_machine(&mut self) -> Result<()> {
        for path in known_allocators() {
            self.attach_file(&path, None)?;
        }
        for pid in process::all()? {
            if pid != std::process::id() {
                // Kernel threads, processes that end meanwhile, static programs: nothing to probe there.
                let _ = self.attach_process(pid);
            }
        }
        Ok(())
    }

    /// Probes a file if it holds an allocator and is not probed yet; tells which one it is.
    fn attach_file(&mut self, path: &Path, pid: Option<u32>) -> Result<Option<AllocatorKind>> {
        let plan = match probes::plan(path) {
            Ok(plan) => plan,
            Err(error @ PlanError::StaticWithoutSymbols { .. }) => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        if plan.is_go {
            // A return probe on a Go stack crashes the program when the stack moves.
            return Ok(None);
        }
        let key = if plan.build_id.is_empty() {
            path.as_os_str().as_encoded_bytes().to_vec()
        } else {
            plan.build_id.clone()
        };
        if self.discovery.probed.insert((key, pid)) {
            let points = self.discovery.points(&plan);
            self.attach(&plan.path, &points, pid)?;
        }
        Ok(Some(plan.allocator))
    }
}
