//! Probes on the functions of one allocator library: attached and detached together.

use super::multi::{self, End, MultiProgram};
use super::object::Loaded;
use anyhow::{Context, Result};
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope};
use aya::programs::{ProgramError, UProbe};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What a probed function does with blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Returns a block, from nothing or from an old one.
    Allocates,
    /// Takes a block back.
    Frees,
}

/// One probed function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Offset of the probed instruction in the file.
    pub offset: u64,
    /// The packed [`memfrag_common::config::Cookie`].
    pub cookie: u64,
    /// What the function does.
    pub role: Role,
}

/// The three programs on allocator functions, by either kind of link.
#[derive(Debug)]
pub(super) enum Programs {
    /// One link for all functions of a file.
    Multi { entry: MultiProgram, exit: MultiProgram, free: MultiProgram },
    /// One link for each, on kernels before 6.6.
    Single(Names),
}

/// What the probes do when they are hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Record the event.
    Full,
    /// Nothing, to measure what a probe costs by itself.
    Empty,
}

/// The names of the programs: entry and return of what allocates, entry of what frees.
type Names = [&'static str; 3];

impl Body {
    fn programs(self) -> Names {
        match self {
            Self::Full => ["allocation_entry", "allocation_return", "free_entry"],
            Self::Empty => ["nothing_at_entry", "nothing_at_return", "nothing_at_entry"],
        }
    }
}

/// The links of one file. Dropping them detaches; for single links use [`Programs::detach`].
#[derive(Debug)]
pub(super) enum Links {
    Multi(Vec<OwnedFd>),
    Single(Vec<(&'static str, UProbeLinkId)>),
}

impl Programs {
    /// Loads the programs, for multi links if the kernel has them.
    pub(super) fn load(loaded: &mut Loaded, body: Body) -> Result<Self> {
        let names = body.programs();
        let [entry, exit, free] = names;
        let programs = [(entry, End::Entry), (exit, End::Return), (free, End::Entry)];
        if kernel_has_multi() {
            let mut programs = multi::load(&loaded.bytes, &loaded.maps(), &loaded.globals, &programs)?.into_iter();
            if let (Some(entry), Some(exit), Some(free)) = (programs.next(), programs.next(), programs.next()) {
                return Ok(Self::Multi { entry, exit, free });
            }
        }
        for name in names {
            let program = uprobe(loaded, name)?;
            if program.fd().is_err() {
                program.load().with_context(|| format!("loading BPF program {name}"))?;
            }
        }
        Ok(Self::Single(names))
    }

    /// Attaches to the functions of a file, in one process or in all. Returns go first: so no call is seen to begin
    /// whose end would not be.
    pub(super) fn attach(&self, loaded: &mut Loaded, file: &Path, points: &[Point], pid: Option<u32>) -> Result<Links> {
        let of = |role: Role| points.iter().filter(move |point| point.role == role).map(|p| (p.offset, p.cookie)).collect::<Vec<_>>();
        let (allocating, freeing) = (of(Role::Allocates), of(Role::Frees));
        let parts = [&allocating, &freeing, &allocating];
        let tried = || format!("attaching probes to {}", file.display());
        match self {
            Self::Multi { entry, exit, free } => {
                let mut links = Vec::new();
                for (program, points) in [exit, free, entry].into_iter().zip(parts) {
                    if !points.is_empty() {
                        links.push(program.attach(file, points, pid).with_context(tried)?);
                    }
                }
                Ok(Links::Multi(links))
            }
            Self::Single([entry, exit, free]) => {
                let scope = match pid.and_then(NonZeroU32::new) {
                    Some(pid) => UProbeScope::OneProcess(pid),
                    None => UProbeScope::AllProcesses,
                };
                let mut links = Vec::new();
                for (&name, points) in [exit, free, entry].into_iter().zip(parts) {
                    let program = uprobe(loaded, name)?;
                    for &(offset, cookie) in points {
                        let location = UProbeAttachLocation::AbsoluteOffset(offset);
                        let point = UProbeAttachPoint { location, cookie: Some(cookie) };
                        links.push((name, program.attach(point, file, scope).with_context(tried)?));
                    }
                }
                Ok(Links::Single(links))
            }
        }
    }

    /// Takes the probes off; when this returns, the probed text is what it was.
    pub(super) fn detach(loaded: &mut Loaded, links: Links) -> Result<(), ProgramError> {
        match links {
            Links::Multi(links) => {
                // Each waits for every CPU to leave the probes, so they wait side by side.
                std::thread::scope(|scope| {
                    for link in links {
                        scope.spawn(move || drop(link));
                    }
                });
                Ok(())
            }
            Links::Single(links) => {
                for (name, link) in links {
                    if let Ok(program) = uprobe(loaded, name) {
                        program.detach(link)?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn uprobe<'a>(loaded: &'a mut Loaded, name: &str) -> Result<&'a mut UProbe> {
    Ok(loaded.program(name)?.try_into()?)
}

/// Multi links came with 6.6, but until 6.10 their process filter matched one thread alone.
fn kernel_has_multi() -> bool {
    kernel_release().is_some_and(|release| release >= (6, 10))
}

/// The running kernel's major and minor version.
pub fn kernel_release() -> Option<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
