//! What a walk of a heap tells. Field names are those of the JSON document; they are added to, never renamed within
//! a version. Sizes are bytes.

use crate::glibc::{self, ChunkKind, TrimYield, Walk, Walker};
use crate::target::ProcessInfo;
use serde::Serialize;

/// A heap as it lies in memory.
#[derive(Clone, Debug, Serialize)]
pub struct HeapReport {
    /// Always `memfrag-heap`.
    pub format: &'static str,
    /// Version of the field names.
    pub version: u32,
    /// Process id.
    pub pid: u32,
    /// The kernel's short name of the process.
    pub comm: String,
    /// The command line's words.
    pub cmdline: Vec<String>,
    /// The allocator.
    pub allocator: Allocator,
    /// How it was read, and how sure it is.
    pub walk: Reading,
    /// Bytes that `malloc_trim(0)` would return to the system now.
    pub trim_yield_bytes: u64,
    /// Bytes that are free and resident, and that it would not return.
    pub stuck_free_bytes: u64,
    /// The sums of all arenas.
    pub total: Sums,
    /// The arenas, the main one first.
    pub arenas: Vec<Arena>,
    /// The chunks mapped by themselves.
    pub mmapped: Mapped,
    /// Chunks by size: each class begins with a power of two and ends before the next; empty ones are left out.
    pub sizes: Vec<SizeClass>,
    /// The threads' caches that have been found.
    pub thread_caches: Vec<ThreadCache>,
    /// Thresholds, tunables and counters.
    pub parameters: Parameters,
}

/// The allocator.
#[derive(Clone, Debug, Serialize)]
pub struct Allocator {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Its file.
    pub path: String,
    /// The file's build-id in hexadecimal digits; empty when it has none.
    pub build_id: String,
    /// Libraries whose `malloc` is called first and taken to hand over to this one.
    pub interposed: Vec<String>,
}

/// How a heap was read.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    /// `exact`: the process stood still, and all sums agree. `consistent`: it ran, and all sums agree. `doubtful`:
    /// see `discrepancies`.
    pub confidence: &'static str,
    /// How often it was read.
    pub attempts: u32,
    /// How long the process stood still, in nanoseconds.
    pub stopped_ns: u64,
    /// Why the process was not stopped, if it was not.
    pub not_stopped: Option<String>,
    /// What does not add up.
    pub discrepancies: Vec<String>,
}

/// The bytes of one arena or of all: obtained = used + tcache + fastbin + free + top + metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Bytes obtained from the system.
    pub system_bytes: u64,
    /// Chunks in use: the program's and libc's own.
    pub used_chunks: u64,
    /// Their bytes, headers included.
    pub used_bytes: u64,
    /// Free chunks kept in threads' caches and fastbins, which to the allocator are in use.
    pub cached_chunks: u64,
    /// Their bytes.
    pub cached_bytes: u64,
    /// The part of them that threads' caches keep.
    pub tcache_chunks: u64,
    /// Its bytes.
    pub tcache_bytes: u64,
    /// The part of them that fastbins keep.
    pub fastbin_chunks: u64,
    /// Its bytes.
    pub fastbin_bytes: u64,
    /// Free chunks in bins.
    pub free_chunks: u64,
    /// Their bytes.
    pub free_bytes: u64,
    /// The largest of them.
    pub largest_free_bytes: u64,
    /// Bytes of the top chunk.
    pub top_bytes: u64,
    /// Bytes of the allocator's own: headers of arenas and heaps, fenceposts, tables of threads' caches, and what
    /// something else took in between.
    pub metadata_bytes: u64,
}

/// An arena.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Arena {
    /// Address of its state.
    pub address: u64,
    /// Whether it is the main arena, in the brk heap.
    pub is_main: bool,
    /// Threads that allocate from it.
    pub threads: u64,
    /// The most bytes that it had obtained.
    pub max_system_bytes: u64,
    /// Pieces of memory that it has.
    pub segments: usize,
    /// Its bytes.
    #[serde(flatten)]
    pub sums: Sums,
}

/// Chunks mapped by themselves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Mapped {
    /// How many there are.
    pub chunks: u64,
    /// Bytes of their mappings.
    pub bytes: u64,
    /// The most bytes that they had.
    pub peak_bytes: u64,
}

/// Chunks of about one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SizeClass {
    /// The smallest size of the class.
    pub from_bytes: u64,
    /// Chunks in use.
    pub used_chunks: u64,
    /// Their bytes.
    pub used_bytes: u64,
    /// Free chunks in threads' caches and fastbins.
    pub cached_chunks: u64,
    /// Their bytes.
    pub cached_bytes: u64,
    /// Free chunks in bins.
    pub free_chunks: u64,
    /// Their bytes.
    pub free_bytes: u64,
}

/// A thread's cache.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ThreadCache {
    /// Address of its table.
    pub table: u64,
    /// Chunks in it.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Thresholds, tunables and counters.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parameters {
    /// A free that leaves the main arena's top chunk at least this large gives memory back.
    pub trim_threshold_bytes: u64,
    /// Bytes obtained beyond what is needed, and kept when memory is given back.
    pub top_pad_bytes: u64,
    /// Chunks from this size on are mapped by themselves.
    pub mmap_threshold_bytes: u64,
    /// Whether freeing a mapped chunk may raise the two thresholds.
    pub dynamic_thresholds: bool,
    /// The most arenas; 0 for eight a processor.
    pub arena_max: u64,
    /// The most mapped chunks.
    pub mmap_max: u32,
    /// Chunks that each list of a thread's cache may hold; 0 when there are no caches.
    pub tcache_count: u64,
    /// Lists of small chunks in a thread's cache.
    pub tcache_bins: u64,
    /// The size of huge pages that memory is obtained in, or that it is to be backed with; 0 for none.
    pub huge_page_bytes: u64,
}

impl Sums {
    fn of(arena: &glibc::Arena, foreign: u64) -> Self {
        let mut sums = Self { system_bytes: arena.system_bytes, metadata_bytes: foreign, ..Self::default() };
        for segment in &arena.segments {
            sums.metadata_bytes += segment.first - segment.range.start;
            for &chunk in &segment.chunks {
                let bytes = chunk.bytes();
                match chunk.kind() {
                    ChunkKind::Used => {
                        sums.used_chunks += 1;
                        sums.used_bytes += bytes;
                    }
                    ChunkKind::Tcache => {
                        sums.tcache_chunks += 1;
                        sums.tcache_bytes += bytes;
                    }
                    ChunkKind::Fastbin => {
                        sums.fastbin_chunks += 1;
                        sums.fastbin_bytes += bytes;
                    }
                    ChunkKind::Free => {
                        sums.free_chunks += 1;
                        sums.free_bytes += bytes;
                        sums.largest_free_bytes = sums.largest_free_bytes.max(bytes);
                    }
                    ChunkKind::Top => sums.top_bytes += bytes,
                    ChunkKind::TcacheTable | ChunkKind::Fencepost => sums.metadata_bytes += bytes,
                }
            }
        }
        sums.cached_chunks = sums.tcache_chunks + sums.fastbin_chunks;
        sums.cached_bytes = sums.tcache_bytes + sums.fastbin_bytes;
        sums
    }

    /// What the parts add up to; [`Sums::system_bytes`], unless the walk is doubtful.
    pub const fn parts(&self) -> u64 {
        self.used_bytes + self.cached_bytes + self.free_bytes + self.top_bytes + self.metadata_bytes
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.system_bytes += other.system_bytes;
        self.used_chunks += other.used_chunks;
        self.used_bytes += other.used_bytes;
        self.cached_chunks += other.cached_chunks;
        self.cached_bytes += other.cached_bytes;
        self.tcache_chunks += other.tcache_chunks;
        self.tcache_bytes += other.tcache_bytes;
        self.fastbin_chunks += other.fastbin_chunks;
        self.fastbin_bytes += other.fastbin_bytes;
        self.free_chunks += other.free_chunks;
        self.free_bytes += other.free_bytes;
        self.largest_free_bytes = self.largest_free_bytes.max(other.largest_free_bytes);
        self.top_bytes += other.top_bytes;
        self.metadata_bytes += other.metadata_bytes;
    }
}

/// Chunks of the arenas by powers of two, top chunks and the allocator's own left out.
fn sizes(arenas: &[glibc::Arena]) -> Vec<SizeClass> {
    let mut classes = [SizeClass::default(); 64];
    let segments = arenas.iter().flat_map(|arena| &arena.segments);
    for &chunk in segments.flat_map(|segment| &segment.chunks) {
        let bytes = chunk.bytes();
        let class = &mut classes[bytes.max(1).ilog2() as usize];
        let (chunks, sum) = match chunk.kind() {
            ChunkKind::Used => (&mut class.used_chunks, &mut class.used_bytes),
            ChunkKind::Tcache | ChunkKind::Fastbin => (&mut class.cached_chunks, &mut class.cached_bytes),
            ChunkKind::Free => (&mut class.free_chunks, &mut class.free_bytes),
            ChunkKind::Top | ChunkKind::TcacheTable | ChunkKind::Fencepost => continue,
        };
        *chunks += 1;
        *sum += bytes;
        class.from_bytes = 1 << bytes.ilog2();
    }
    classes.into_iter().filter(|class| class.from_bytes > 0).collect()
}

impl Allocator {
    pub(in crate::report) fn new(walker: &Walker, walk: &Walk) -> Self {
        let allocator = walker.allocator();
        Self {
            name: allocator.kind.name(),
            version: walk.version.to_string(),
            path: allocator.path.display().to_string(),
            build_id: allocator.build_id.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat(),
            interposed: walker.interposed().iter().map(|path| path.display().to_string()).collect(),
        }
    }
}

impl Reading {
    pub(in crate::report) fn new(walk: &Walk) -> Self {
        Self {
            confidence: walk.confidence.name(),
            attempts: walk.attempts,
            stopped_ns: u64::try_from(walk.stopped.as_nanos()).unwrap_or(u64::MAX),
            not_stopped: walk.not_stopped.clone(),
            discrepancies: walk.discrepancies.iter().map(ToString::to_string).collect(),
        }
    }
}

impl HeapReport {
    /// What a walk of this process's heap tells, and what could be trimmed of it.
    pub fn new(process: &ProcessInfo, walker: &Walker, walk: &Walk, trim: &TrimYield) -> Self {
        let layout = &walk.layout;
        let mut total = Sums::default();
        let mut arenas = Vec::with_capacity(layout.arenas.len());
        for (number, arena) in layout.arenas.iter().enumerate() {
            let foreign = if arena.is_main { walk.foreign_bytes } else { 0 };
            let sums = Sums::of(arena, foreign);
            total.add(&sums);
            arenas.push(Arena {
                address: arena.address,
                is_main: arena.is_main,
                threads: walk.threads.get(number).copied().unwrap_or_default(),
                max_system_bytes: arena.max_system_bytes,
                segments: arena.segments.len(),
                sums,
            });
        }
        let parameters = &walk.parameters;
        Self {
            format: "memfrag-heap",
            version: 1,
            pid: walk.pid,
            comm: process.comm.clone(),
            cmdline: process.cmdline.clone(),
            allocator: Allocator::new(walker, walk),
            walk: Reading::new(walk),
            trim_yield_bytes: trim.bytes(),
            stuck_free_bytes: trim.stuck_bytes(),
            total,
            arenas,
            mmapped: Mapped {
                chunks: layout.mapped.len() as u64,
                bytes: walk.mapped_bytes,
                peak_bytes: parameters.peak_mapped_bytes,
            },
            sizes: sizes(&layout.arenas),
            thread_caches: walk
                .caches
                .iter()
                .map(|cache| ThreadCache { table: cache.table, chunks: cache.chunks, bytes: cache.bytes })
                .collect(),
            parameters: Parameters {
                trim_threshold_bytes: parameters.trim_threshold,
                top_pad_bytes: parameters.top_pad,
                mmap_threshold_bytes: parameters.mmap_threshold,
                dynamic_thresholds: parameters.dynamic_thresholds,
                arena_max: parameters.arena_max,
                mmap_max: parameters.max_mapped_chunks,
                tcache_count: parameters.cache_count,
                tcache_bins: parameters.cache_bins,
                huge_page_bytes: parameters.huge_page_bytes.max(parameters.thp_page_bytes),
            },
        }
    }
}
