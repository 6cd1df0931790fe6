//! Which files to probe for a process, a command, or the whole machine.

use super::links::{Point, Role};
use super::{EbpfCapture, Scope};
use crate::probes::{self, ProbePlan, Shape};
use crate::target::allocator::{self, Allocator, Cache};
use crate::target::library::{Allocators, Environment, Loader};
use crate::target::process;
use anyhow::Result;
use memfrag_common::names::{self, noted};
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
    probed: HashSet<Key>,
}

/// What names a probed file: its build-id or, without one, its path; and the process to which its probes are limited.
type Key = (Vec<u8>, Option<u32>);

fn key(build_id: &[u8], path: &Path, pid: Option<u32>) -> Key {
    let name = if build_id.is_empty() { path.as_os_str().as_encoded_bytes() } else { build_id };
    (name.to_vec(), pid)
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
            if !self.discovery.probed.contains(&key(&allocator.build_id, &allocator.open, scope)) {
                // The kernel's own word for a process that has just gone would not name it.
                self.attach_file(&allocator.open, scope)
                    .or_else(|error| process::check(pid).map_or_else(|gone| Err(gone.into()), |()| Err(error)))?;
            }
        }
        Ok(allocators)
    }

    /// Probes every allocator that a command is going to load and, if its children are followed, every one that the
    /// machine is known to have. Returns the files that the command itself will load, the one that its calls bind to
    /// first; none for a program that cannot be traced.
    ///
    /// # Errors
    /// When the program cannot be read, or the kernel refuses.
    pub fn attach_command(&mut self, program: &Path, follow: bool, pid: u32) -> Result<Vec<PathBuf>> {
        let scope = (self.scope == Scope::Link).then_some(pid);
        let Allocators { loaded, others, .. } = Loader::new(Environment::own()).allocators(program)?;
        let mut found = Vec::new();
        for file in loaded {
            if self.attach_file(&file.path, scope)? {
                found.push(file.path);
            }
        }
        for file in others.into_iter().filter(|_| follow) {
            self.attach_file(&file.path, scope)?;
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
                let name = process::Stat::read(pid).map(|stat| stat.comm).unwrap_or_default();
                if !self.names.is_empty() && self.names.record(names::words_of(name.as_bytes())) {
                    self.note(pid, noted::FOLLOWED)?;
                }
            }
        }
        Ok(())
    }

    /// Probes a file, if it is not probed yet; tells whether it holds an allocator that can be.
    fn attach_file(&mut self, path: &Path, pid: Option<u32>) -> Result<bool> {
        let Ok(plan) = probes::plan(path) else { return Ok(false) };
        if plan.is_go {
            // A return probe on a Go stack crashes the program when the stack moves.
            return Ok(false);
        }
        if self.discovery.probed.insert(key(&plan.build_id, path, pid)) {
            let points = self.discovery.points(&plan);
            self.attach(&plan.path, &points, pid)?;
        }
        Ok(true)
    }
}
