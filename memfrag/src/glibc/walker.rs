//! A process's heap, walked from outside.

mod confidence;
mod error;

pub use confidence::{Confidence, Discrepancy};
pub use error::WalkError;
use error::{explain, repeats, unreadable};

use super::caches::{self, Cached, Links, ThreadCache};
use super::find::{self, Anchors, Missing};
use super::layout::{Arena, ChunkKind, Layout};
use super::mapped::{self, Mapped};
use super::memory::{Memory, ProcessMemory};
use super::state::{ArenaState, Parameters};
use super::stop::{StopError, Stopped};
use super::version::{Offsets, Version};
use super::walk::{Damage, Stream, Walked, Walking};
use crate::target::AllocatorKind;
use crate::target::allocator::{self, Allocator, Cache};
use crate::target::maps::MapLine;
use crate::target::process::{self, ProcessError};
use crate::target::residency::Residency;
use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// How often a heap that was changing is read again.
const ATTEMPTS: u32 = 12;

/// How often an arena that was changing is read again, before all of the heap is.
const ARENA_ATTEMPTS: u32 = 50;

/// How long a process runs before it is looked at for the `attempt`th time: longer and longer, since a thread in the
/// middle of a change may be waiting for a processor.
pub(crate) fn pause(attempt: u32) -> Duration {
    Duration::from_millis(1 << attempt.min(7).saturating_sub(1))
}

/// A process's heap.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The process.
    pub pid: u32,
    /// The version of glibc.
    pub version: Version,
    /// The arenas and their chunks, and the mapped chunks.
    pub layout: Layout,
    /// Thresholds, tunables and counters.
    pub parameters: Parameters,
    /// Threads that allocate from each arena of the layout, in its order.
    pub threads: Vec<u64>,
    /// The threads' caches, by the addresses of their tables. A thread that has none, or an empty one, need not be
    /// among them; that of a thread which ended in a fork may be.
    pub caches: Vec<ThreadCache>,
    /// Bytes among the main arena's that something else obtained by moving the break.
    pub foreign_bytes: u64,
    /// Bytes of the mappings of mapped chunks: more than the chunks', where one has an alignment of its own.
    pub mapped_bytes: u64,
    /// How sure the walk is.
    pub confidence: Confidence,
    /// What does not add up.
    pub discrepancies: Vec<Discrepancy>,
    /// How often the heap was read until it was found unchanging.
    pub attempts: u32,
    /// How long the process stood still for the walk, all attempts together.
    pub stopped: Duration,
    /// Why the process was not stopped, if it was not.
    pub not_stopped: Option<String>,
}

/// What was read of a heap, to be made a [`Walk`] of; the process may go on meanwhile.
#[derive(Debug)]
pub struct Snapshot {
    pid: u32,
    version: Version,
    parameters: Parameters,
    arenas: Vec<Walked>,
    threads: Vec<u64>,
    caches: Vec<ThreadCache>,
    cached: Vec<Cached>,
    broken_fastbins: Vec<(u64, u32)>,
    mapped: Mapped,
}

/// Walks the heap of a process, once or many times.
#[derive(Clone, Debug)]
pub struct Walker {
    pid: u32,
    version: Version,
    offsets: &'static Offsets,
    allocator: Allocator,
    interposed: Vec<PathBuf>,
    anchors: Anchors,
}

impl Walk {
    /// Walks a process's heap, stopping the process for the time that the reading takes.
    ///
    /// # Errors
    /// See [`WalkError`].
    pub fn take(pid: u32) -> Result<Self, WalkError> {
        Walker::new(pid)?.stopped()
    }

    /// Bytes that the arenas obtained.
    pub fn system_bytes(&self) -> u64 {
        self.layout.arenas.iter().map(|arena| arena.system_bytes).sum()
    }
}

impl Walker {
    /// Finds out which allocator a process has and where its records lie.
    ///
    /// # Errors
    /// When the process cannot be looked at, or has another allocator than a glibc that is known.
    pub fn new(pid: u32) -> Result<Self, WalkError> {
        Self::find(pid).map_err(|error| explain(pid, error))
    }

    fn find(pid: u32) -> Result<Self, WalkError> {
        let mut allocators = allocator::of_process(pid, &mut Cache::default())?.into_iter().peekable();
        // A library that is no allocator that one knows, before a glibc, most often hands calls over to that.
        let mut interposed = Vec::new();
        while let Some(other) = allocators.next_if(|first| first.kind == AllocatorKind::Other) {
            interposed.push(other);
        }
        let first = allocators.next().or_else(|| interposed.pop());
        let Some(allocator) = first else { return Err(WalkError::NoAllocator { pid }) };
        let (kind, version) = (allocator.kind, allocator.version.clone());
        if kind != AllocatorKind::Glibc {
            return Err(WalkError::OtherAllocator { pid, kind, version });
        }
        let known = version.as_deref().and_then(Version::parse).and_then(|known| Some((known, known.offsets()?)));
        let Some((version, offsets)) = known else {
            let version = version.unwrap_or_else(|| "of an unknown version".to_owned());
            return Err(WalkError::UnknownVersion { pid, version });
        };
        let mut attempt = 1;
        let anchors = loop {
            let data = data(&process::map(pid)?, &allocator);
            let found = find::find(&ProcessMemory::new(pid), &data, offsets);
            let missing = match found.map_err(|source| unreadable(pid, source))? {
                Ok(anchors) => break anchors,
                Err(missing) => missing,
            };
            // The process may have been at work in its heap.
            if attempt == ATTEMPTS {
                let (what, places) = match missing {
                    Missing::Arena(places) => ("the main arena", places),
                    Missing::Parameters(places) => ("the record of parameters", places),
                };
                return Err(WalkError::NotFound { pid, what, places, version, file: allocator.path });
            }
            attempt += 1;
            std::thread::sleep(Duration::from_millis(1));
        };
        let interposed = interposed.into_iter().map(|other| other.path).collect();
        Ok(Self { pid, version, offsets, allocator, interposed, anchors })
    }

    /// Libraries whose `malloc` the program calls first. It is taken that they hand the calls over to glibc; blocks
    /// that they serve themselves are not seen.
    pub fn interposed(&self) -> &[PathBuf] {
        &self.interposed
    }

    /// The process.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The version of glibc.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The file that holds the allocator.
    pub const fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Walks the heap, stopping the process for the time that the reading takes. A thread may have been stopped in
    /// the middle of a change; then it is let go and stopped again.
    ///
    /// Where another program holds the process stopped or traces it, it is read as it is.
    ///
    /// # Errors
    /// When the process is gone or may not be read, or its heap is damaged.
    pub fn stopped(&self) -> Result<Walk, WalkError> {
        self.stopping(|| Ok(()))
    }

    /// As [`Walker::stopped`], or [`Walker::running`], together with the pages that are resident at the same moment.
    ///
    /// # Errors
    /// As those, and when the pages cannot be read.
    pub fn with_pages(&self, stop: bool) -> Result<(Walk, Residency), WalkError> {
        // Only one of the attempts is kept; its number tells which.
        let pages = RefCell::new(Vec::new());
        let read = || {
            pages.borrow_mut().push(Residency::read(self.pid, 0)?);
            Ok(())
        };
        let walk = if stop {
            self.stopping(read)
        } else {
            self.retry(|| {
                read()?;
                Ok((self.snapshot()?, Err("as asked".to_owned())))
            })
        }?;
        let mut pages = pages.into_inner();
        let kept = (walk.attempts as usize).clamp(1, pages.len().max(1)) - 1;
        if kept < pages.len() {
            return Ok((walk, pages.swap_remove(kept)));
        }
        Err(ProcessError::Exited { pid: self.pid }.into())
    }

    /// Stops the process, has `beside` done, and walks the heap, until nothing contradicts itself.
    fn stopping(&self, beside: impl Fn() -> Result<(), WalkError>) -> Result<Walk, WalkError> {
        self.retry(|| match Stopped::new(self.pid) {
            Ok(stopped) => {
                beside()?;
                let snapshot = self.snapshot();
                let elapsed = stopped.elapsed();
                drop(stopped);
                Ok((snapshot?, Ok(elapsed)))
            }
            Err(error @ (StopError::Traced { .. } | StopError::Stuck { .. })) => {
                beside()?;
                Ok((self.snapshot()?, Err(error.to_string())))
            }
            Err(error) => Err(error.into()),
        })
    }

    /// Walks the heap while the process runs, again and again until nothing contradicts itself.
    ///
    /// # Errors
    /// As [`Walker::stopped`]; a heap that changes all the time looks damaged.
    pub fn running(&self) -> Result<Walk, WalkError> {
        let memory = ProcessMemory::new(self.pid);
        self.retry(|| {
            let snapshot = self.snapshot_of(&memory, || process::map(self.pid), ARENA_ATTEMPTS)?;
            Ok((snapshot, Err("as asked".to_owned())))
        })
    }

    /// Reads until what is read adds up, or does not in the same way again and again.
    fn retry(
        &self,
        mut read: impl FnMut() -> Result<(Snapshot, Result<Duration, String>), WalkError>,
    ) -> Result<Walk, WalkError> {
        let mut stopped = Duration::ZERO;
        let mut best: Option<Walk> = None;
        let mut faults: Vec<String> = Vec::new();
        for attempt in 1..=ATTEMPTS {
            if attempt > 1 {
                std::thread::sleep(pause(attempt));
            }
            match read() {
                Ok((snapshot, stop)) => {
                    let mut walk = snapshot.analyse();
                    match stop {
                        Ok(time) => stopped += time,
                        Err(why) => walk.not_stopped = Some(why),
                    }
                    if walk.not_stopped.is_some() && walk.confidence == Confidence::Exact {
                        walk.confidence = Confidence::Consistent;
                    }
                    let is_sound = walk.discrepancies.is_empty();
                    faults.push(format!("{:?}", walk.discrepancies));
                    if best.as_ref().is_none_or(|best| walk.discrepancies.len() <= best.discrepancies.len()) {
                        best = Some(walk);
                    }
                    if is_sound {
                        break;
                    }
                }
                Err(WalkError::Damaged { damage, .. }) => {
                    faults.push(damage.to_string());
                    if best.is_none() && (attempt == ATTEMPTS || repeats(&faults)) {
                        return Err(explain(self.pid, WalkError::Damaged { damage, attempts: attempt }));
                    }
                }
                Err(error) => return Err(explain(self.pid, error)),
            }
            if repeats(&faults) {
                break;
            }
        }
        let Some(mut walk) = best else { return Err(ProcessError::Exited { pid: self.pid }.into()) };
        (walk.attempts, walk.stopped) = (faults.len() as u32, stopped);
        Ok(walk)
    }

    /// Reads the heap once. The caller has stopped the process, or reads again when what is read does not add up.
    ///
    /// # Errors
    /// When the process is gone or may not be read, or its heap is damaged or was changing.
    pub fn snapshot(&self) -> Result<Snapshot, WalkError> {
        self.snapshot_of(&ProcessMemory::new(self.pid), || process::map(self.pid), 1)
    }

    /// Reads the heap once, each arena up to so many times until it does not contradict itself.
    fn snapshot_of(
        &self,
        memory: &impl Memory,
        map: impl Fn() -> Result<Vec<MapLine>, ProcessError>,
        attempts: u32,
    ) -> Result<Snapshot, WalkError> {
        let parameters = Parameters::read(memory, self.anchors.parameters, self.offsets)
            .map_err(|source| unreadable(self.pid, source))?;
        let main_arena = self.anchors.main_arena;
        let states = find::ring(memory, main_arena, self.offsets).ok_or_else(|| {
            let why = "the ring of arenas does not close".to_owned();
            WalkError::Damaged { damage: Damage { arena: main_arena, chunk: main_arena, why }, attempts: 1 }
        })?;
        let mut extents = extents(&map()?);
        let mut snapshot = Snapshot {
            pid: self.pid,
            version: self.version,
            parameters,
            arenas: Vec::with_capacity(states.len()),
            threads: states.iter().map(|state| state.threads).collect(),
            caches: Vec::new(),
            cached: Vec::new(),
            broken_fastbins: Vec::new(),
            mapped: Mapped::default(),
        };
        let mut states = states;
        for state in &mut states {
            let mut attempt = 1;
            let walked = loop {
                let walked = self.arena(memory, state, &parameters, &extents);
                let is_sound = walked.as_ref().is_ok_and(Walked::adds_up);
                if is_sound || attempt >= attempts {
                    break walked.map_err(|damage| WalkError::Damaged { damage, attempts: attempt })?;
                }
                attempt += 1;
                extents = self::extents(&map()?);
                *state = ArenaState::read(memory, state.address, self.offsets)
                    .map_err(|source| unreadable(self.pid, source))?;
            };
            snapshot.arenas.push(walked);
        }
        // What is in caches and fastbins, as near in time to the arenas as can be.
        let mut links = Links::new(memory, self.offsets);
        for (walked, state) in snapshot.arenas.iter().zip(&states) {
            for candidate in &walked.candidates {
                if let Some((cache, cached)) = caches::follow(&mut links, candidate, &parameters) {
                    snapshot.caches.push(cache);
                    snapshot.cached.extend(cached);
                }
            }
            let chunks = walked.arena.segments.iter().map(|segment| segment.chunks.len()).sum();
            let (cached, broken) = caches::fastbins(&mut links, state, chunks);
            snapshot.cached.extend(cached);
            if broken > 0 {
                snapshot.broken_fastbins.push((state.address, broken));
            }
        }
        let taken = snapshot.arenas.iter().flat_map(|walked| &walked.arena.segments);
        let free = without(extents, taken.map(|segment| segment.range.clone()));
        snapshot.mapped = mapped::find(memory, &free, self.offsets);
        Ok(snapshot)
    }

    /// Reads the chunks of one arena.
    fn arena(
        &self,
        memory: &impl Memory,
        state: &ArenaState,
        parameters: &Parameters,
        extents: &[Range<u64>],
    ) -> Result<Walked, Damage> {
        let mut walking = Walking {
            stream: Stream::new(memory),
            offsets: self.offsets,
            parameters: *parameters,
            extents,
            candidates: Vec::new(),
            steps: extents.iter().map(|extent| (extent.end - extent.start) / 8).sum(),
        };
        walking.arena(state, state.address == self.anchors.main_arena)
    }
}

impl Snapshot {
    /// Puts together what was read, and checks that it adds up.
    pub fn analyse(self) -> Walk {
        let mut discrepancies = Vec::new();
        let foreign_bytes = self.arenas.iter().map(|walked| walked.foreign).sum();
        for Walked { arena, foreign, .. } in &self.arenas {
            let walked = foreign + arena.obtained();
            if walked != arena.system_bytes {
                let system = arena.system_bytes;
                discrepancies.push(Discrepancy::System { arena: arena.address, system, walked });
            }
        }
        let mut arenas: Vec<Arena> = self.arenas.into_iter().map(|walked| walked.arena).collect();
        let strays = caches::mark(&mut arenas, self.cached);
        if let Some(first) = strays.first() {
            discrepancies.push(Discrepancy::Strays { chunks: strays.len() as u64, first: first.chunk });
        }
        let broken = self.broken_fastbins.into_iter();
        discrepancies.extend(broken.map(|(arena, lists)| Discrepancy::Fastbins { arena, lists }));
        let (found, found_bytes) = (self.mapped.chunks.len() as u64, self.mapped.bytes);
        let (chunks, bytes) = (u64::from(self.parameters.mapped_chunks), self.parameters.mapped_bytes);
        if (found, found_bytes) != (chunks, bytes) {
            discrepancies.push(Discrepancy::Mapped { chunks, bytes, found, found_bytes });
        }
        let mut caches = self.caches;
        let unused = |cache: &ThreadCache| {
            strays.iter().any(|stray| stray.kind == ChunkKind::TcacheTable && stray.chunk + 16 == cache.table)
        };
        caches.retain(|cache| !unused(cache));
        Walk {
            pid: self.pid,
            version: self.version,
            layout: Layout { arenas, mapped: self.mapped.chunks },
            parameters: self.parameters,
            threads: self.threads,
            caches,
            foreign_bytes,
            mapped_bytes: found_bytes,
            confidence: if discrepancies.is_empty() { Confidence::Exact } else { Confidence::Doubtful },
            discrepancies,
            attempts: 1,
            stopped: Duration::ZERO,
            not_stopped: None,
        }
    }
}

/// The writable memory of the allocator's file: its data, and the zeros behind it that have no file.
fn data(map: &[MapLine], allocator: &Allocator) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for line in map.iter().filter(|line| line.readable && line.writable) {
        let is_of_file = line.is_file() && (line.device, line.inode) == (allocator.device, allocator.inode);
        let follows = line.inode == 0 && ranges.last().is_some_and(|last| last.end == line.start) && !is_heap(line);
        match ranges.last_mut() {
            Some(last) if (follows || is_of_file) && last.end == line.start => last.end = line.end,
            _ if is_of_file => ranges.push(line.start..line.end),
            _ => {}
        }
    }
    ranges
}

fn is_heap(line: &MapLine) -> bool {
    line.path.as_os_str() == "[heap]"
}

/// Writable private memory without a file, adjacent pieces joined.
fn extents(map: &[MapLine]) -> Vec<Range<u64>> {
    let mut extents: Vec<Range<u64>> = Vec::new();
    for line in map {
        let name = line.path.as_os_str().as_encoded_bytes();
        let is_anonymous = line.inode == 0 && (name.is_empty() || is_heap(line) || name.starts_with(b"[anon:"));
        if !(is_anonymous && line.readable && line.writable && !line.shared) {
            continue;
        }
        match extents.last_mut() {
            Some(last) if last.end == line.start => last.end = line.end,
            _ => extents.push(line.start..line.end),
        }
    }
    extents
}

/// What is left of ranges by address when others are taken out of them.
fn without(ranges: Vec<Range<u64>>, taken: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut taken: Vec<Range<u64>> = taken.collect();
    taken.sort_unstable_by_key(|range| range.start);
    let mut left = Vec::new();
    for range in ranges {
        let mut start = range.start;
        let first = taken.partition_point(|taken| taken.end <= range.start);
        for taken in taken[first..].iter().take_while(|taken| taken.start < range.end) {
            left.push(start..taken.start.max(start));
            start = start.max(taken.end);
        }
        left.push(start..range.end.max(start));
    }
    left.retain(|range| !range.is_empty());
    left
}

#[cfg(test)]
mod tests;
