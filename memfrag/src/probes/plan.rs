//! All probes of one file.

#[cfg(test)]
mod tests;

use super::table::{Shape, TABLE};
use super::x86_64::{self, Branch, Placement, Site, Unplaceable};
use crate::target::allocator::{self, AllocatorKind};
use crate::target::elf::{AllocatorSymbol, ElfError, Image};
use crate::target::file::MappedFile;
use memfrag_common::Function;
use memfrag_common::config::Cookie;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a file gets no probes.
#[derive(Debug, Error)]
pub enum PlanError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a file that can be probed.
    #[error("{path}: {source}")]
    Elf {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        source: ElfError,
    },
    /// It has no interpreter, so it carries its own allocator, but no symbols to find that by.
    #[error(
        "{path} is linked statically and stripped of its symbols, so its allocator cannot be found: not traceable; \
         use a build with its symbols, or watch its memory mappings only"
    )]
    StaticWithoutSymbols {
        /// The file.
        path: PathBuf,
    },
    /// It defines no `malloc`: its blocks come from a library.
    #[error("{path} defines no malloc; probes go into the library that does")]
    NoAllocator {
        /// The file.
        path: PathBuf,
    },
}

/// Why a function of the table gets no probe although the file has it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Reason {
    /// It hands its work to a function that has a probe.
    #[error("hands over to {}", .0.name())]
    HandsOver(Function),
    /// A resolver picks its code when the file is loaded.
    #[error("an indirect function: its code is picked at load time")]
    Indirect,
    /// No instruction can carry a probe.
    #[error("{0}")]
    Unplaceable(Unplaceable),
}

/// A function of the table that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its symbols.
    pub names: Vec<&'static str>,
    /// Why.
    pub reason: Reason,
}

/// One function's probe: the entry and the return program share the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePoint {
    /// The function; where several share the code, the first of the table.
    pub function: Function,
    /// All symbols of the table that name this code.
    pub names: Vec<&'static str>,
    /// What a call does.
    pub shape: Shape,
    /// Where the function starts in the file.
    pub start: u64,
    /// Where the probe goes in the file: `start` plus the placement's offset.
    pub offset: u64,
    /// The instruction, with the arguments in the registers of the calling convention.
    pub placement: Placement,
    /// A better instruction, if there is one, at which some argument is in another register.
    pub moved: Option<Placement>,
    /// What the BPF program is told when the probe is at `offset`. A function that lies beside the allocator's code
    /// counts what is between as part of it.
    pub cookie: Cookie,
}

/// All probes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// The file to attach to.
    pub path: PathBuf,
    /// Its build-id; empty when it has none.
    pub build_id: Vec<u8>,
    /// Which allocator it is.
    pub allocator: AllocatorKind,
    /// The allocator's version where the file tells it.
    pub version: Option<String>,
    /// Whether it is a Go program: no return probe may go near code that runs on Go's stacks.
    pub is_go: bool,
    /// The allocator's own code, as file offsets.
    pub code: Range<u64>,
    /// The probes, in order of the function table.
    pub points: Vec<ProbePoint>,
    /// The functions without one.
    pub left_out: Vec<LeftOut>,
}

/// Plans the probes of the file at `path`.
///
/// # Errors
/// When it cannot be read, is no ELF file for x86-64, or defines no `malloc` that could be found.
pub fn plan(path: &Path) -> Result<ProbePlan, PlanError> {
    let file = MappedFile::open(path).map_err(|source| PlanError::Io { path: path.to_owned(), source })?;
    plan_bytes(path, &file)
}

/// Plans the probes of a file whose bytes are `data`; `path` is where they are to be attached.
///
/// # Errors
/// As [`plan`].
pub fn plan_bytes(path: &Path, data: &[u8]) -> Result<ProbePlan, PlanError> {
    let mut image = Image::parse(data).map_err(|source| PlanError::Elf { path: path.to_owned(), source })?;
    if !image.defines_malloc() {
        let path = path.to_owned();
        return Err(if image.is_static_without_symbols() {
            PlanError::StaticWithoutSymbols { path }
        } else {
            PlanError::NoAllocator { path }
        });
    }
    image.read_slots();
    let (allocator, version) = allocator::identify(&image, path);
    let groups = groups(&image);
    let window = window(&image, allocator, &groups);
    let mut result = ProbePlan {
        path: path.to_owned(),
        build_id: image.build_id.clone(),
        allocator,
        version,
        is_go: image.is_go,
        code: window.clone(),
        points: Vec::new(),
        left_out: Vec::new(),
    };
    let covers = covers(&image, &groups, &window);
    let entries: Vec<u64> = groups.iter().map(|group| group.symbol.address).collect();
    let segments = image.segments.iter().filter(|segment| segment.executable);
    let incoming: Vec<Branch> = segments
        .flat_map(|segment| {
            let code = image.code(segment.address..segment.address.saturating_add(segment.size));
            x86_64::branches_into(segment.address, code, &entries)
        })
        .collect();
    for group in &groups {
        let left_out = |reason| LeftOut { names: group.names(), reason };
        if group.symbol.indirect {
            result.left_out.push(left_out(Reason::Indirect));
        } else if let Some(&to) = covers.get(&group.symbol.address) {
            result.left_out.push(left_out(Reason::HandsOver(to)));
        } else {
            match point(&image, group, allocator, &window, &incoming) {
                Ok(point) => result.points.push(point),
                Err(error) => result.left_out.push(left_out(Reason::Unplaceable(error))),
            }
        }
    }
    Ok(result)
}

/// The symbols that share one piece of code.
struct Group {
    /// The one that stands first in the table.
    symbol: AllocatorSymbol,
    ranks: Vec<usize>,
}

impl Group {
    fn names(&self) -> Vec<&'static str> {
        self.ranks.iter().map(|&rank| TABLE[rank].symbol).collect()
    }

    fn function(&self) -> Function {
        TABLE[self.symbol.rank].function
    }

    fn shape(&self) -> Shape {
        TABLE[self.symbol.rank].shape
    }
}

/// Puts together what shares its code, in order of the table.
fn groups(image: &Image<'_>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for symbol in &image.allocator_symbols {
        match groups.iter_mut().find(|group| group.symbol.address == symbol.address) {
            Some(group) => {
                group.ranks.push(symbol.rank);
                group.symbol.size = group.symbol.size.max(symbol.size);
            }
            None => groups.push(Group { symbol: symbol.clone(), ranks: vec![symbol.rank] }),
        }
    }
    groups
}

/// The functions that only hand over to a probed one, by address. Both would report the same call.
///
/// An allocation that is made within another one is known to be inner work: the outer call is in flight, and the call
/// comes from the allocator's own code. A free has ended for its probe as soon as it has begun, so a free that calls
/// another free would be reported twice. A `reallocarray` that calls `realloc` is a cover outside the allocator's own
/// code; so are the operators of C++ in a program that is linked with both.
fn covers(image: &Image<'_>, groups: &[Group], code: &Range<u64>) -> BTreeMap<u64, Function> {
    let by_address: BTreeMap<u64, &Group> = groups.iter().map(|group| (group.symbol.address, group)).collect();
    let mut covers = BTreeMap::new();
    for group in groups {
        let entry = &TABLE[group.symbol.rank];
        let is_inside = image.file_offset(group.symbol.address).is_some_and(|offset| code.contains(&offset));
        let may_cover = |other: &Group| match entry.function {
            Function::Reallocarray => other.function() == Function::Realloc,
            Function::OperatorNew => {
                !is_inside && other.shape() == Shape::Alloc && !TABLE[other.symbol.rank].is_operator()
            }
            // Only an earlier function of the table, or two that call each other would both go.
            _ => entry.shape == Shape::Free && other.shape() == Shape::Free && other.symbol.rank < group.symbol.rank,
        };
        let wanted = |address| by_address.get(&address).is_some_and(|other| may_cover(other));
        let called = x86_64::callees(image, group.symbol.address, wanted);
        // A free that does some of the work itself is worth two reports of the rest: the second finds no block.
        if entry.shape == Shape::Free && called.works {
            continue;
        }
        // One that only jumps is known by that: the return address is the outer call's. So its own failures, such as
        // a product that overflows, are seen too.
        if entry.shape != Shape::Free && !called.calls {
            continue;
        }
        if let Some(other) = called.functions.iter().find_map(|address| by_address.get(address)) {
            covers.insert(group.symbol.address, other.function());
        }
    }
    covers
}

/// Where the allocator's own code lies in the file: a call from there is inner work of an outer call.
///
/// A library that is nothing but an allocator is its whole segment. In a C library or a program it is what lies
/// between the C functions, which are compiled together; `reallocarray` is not among them, and in musl neither are
/// `valloc` and `pvalloc`.
fn window(image: &Image<'_>, allocator: AllocatorKind, groups: &[Group]) -> Range<u64> {
    let malloc = image.allocator_symbols[0].address;
    let dedicated = image.soname.is_some()
        && matches!(allocator, AllocatorKind::Jemalloc | AllocatorKind::Tcmalloc | AllocatorKind::Mimalloc);
    let addresses = if dedicated { image.executable_range(malloc) } else { None };
    let addresses = addresses.unwrap_or_else(|| {
        let family = groups.iter().filter(|group| match group.function() {
            Function::Valloc | Function::Pvalloc => allocator == AllocatorKind::Glibc,
            Function::Malloc
            | Function::Calloc
            | Function::Realloc
            | Function::Free
            | Function::Memalign
            | Function::AlignedAlloc
            | Function::PosixMemalign => true,
            _ => false,
        });
        let start = family.clone().map(|group| group.symbol.address).min().unwrap_or(malloc);
        let end = family.map(|group| group.symbol.address.saturating_add(group.symbol.size)).max().unwrap_or(malloc);
        start..end
    });
    // Both ends lie in one segment; the end itself may be the segment's, which has no offset of its own.
    let start = image.file_offset(addresses.start).unwrap_or_default();
    start..start.saturating_add(addresses.end - addresses.start)
}

fn point(
    image: &Image<'_>,
    group: &Group,
    allocator: AllocatorKind,
    window: &Range<u64>,
    incoming: &[Branch],
) -> Result<ProbePoint, Unplaceable> {
    let entry = &TABLE[group.symbol.rank];
    let address = group.symbol.address;
    let start = image.file_offset(address).ok_or(Unplaceable::Empty)?;
    let code = image.code(address..address.saturating_add(extent(image, group)));
    let site = |standard_registers| Site {
        code,
        address,
        arguments: entry.arguments,
        null_is_nothing: entry.shape == Shape::Free,
        standard_registers,
        incoming,
    };
    let placement = x86_64::place(&site(true))?;
    let moved = x86_64::place(&site(false))?;
    let moved = (moved.class != placement.class).then_some(moved);
    let offset = start + u64::from(placement.offset);
    let distance = |from: u64, to: u64| u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
    let cookie = Cookie {
        function: entry.function as u8,
        frees_by_itself: allocator == AllocatorKind::Glibc,
        before: distance(window.start, offset),
        after: distance(offset, window.end),
    };
    Ok(ProbePoint {
        function: entry.function,
        names: group.names(),
        shape: entry.shape,
        start,
        offset,
        placement,
        moved,
        cookie,
    })
}

/// Bytes of a function whose symbol does not say them: up to the next function, and not endless.
fn extent(image: &Image<'_>, group: &Group) -> u64 {
    const MOST: u64 = 1 << 16;
    if group.symbol.size != 0 {
        return group.symbol.size;
    }
    let own = group.symbol.address;
    let next = image.allocator_symbols.iter().map(|symbol| symbol.address).filter(|&address| address > own).min();
    next.map_or(MOST, |next| (next - own).min(MOST))
}
