//! The ledger as a part of the report.

use crate::analysis::census::Source;
use crate::analysis::ledger::{Ledger as Counted, Parts};
use serde::Serialize;

/// Where the resident bytes of a process go. The lines from `free_pages` to `not_malloc`, and `unexplained`, add up to
/// `rss`; those that begin with a line's name are parts of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ledger {
    /// When the pages were looked at.
    pub at_ns: u64,
    /// How the heap's layout is known: `walk`, `blocks` (what lies between live blocks counts as free, caches too), or
    /// `unknown` (another allocator: free, rounding and its own data are one).
    pub source: &'static str,
    /// Resident bytes.
    pub rss: u64,
    /// Whole pages that `malloc_trim` would return; where the layout is unknown, pages without a block.
    pub free_pages: u64,
    /// What live blocks asked for.
    pub requested: u64,
    /// What their chunks take beyond that.
    pub rounding: u64,
    /// Of it, headers.
    pub rounding_header: u64,
    /// Of it, padding.
    pub rounding_padding: u64,
    /// Freed blocks in caches.
    pub cached: u64,
    /// Of it, in threads' caches.
    pub cached_tcache: u64,
    /// Of it, in fastbins.
    pub cached_fastbin: u64,
    /// What is free on pages that trimming leaves.
    pub free_in_pages: u64,
    /// Of it, in bins.
    pub free_in_pages_binned: u64,
    /// Of it, in top chunks.
    pub free_in_pages_top: u64,
    /// The allocator's own data.
    pub metadata: u64,
    /// Blocks in use that no event told of.
    pub untracked: u64,
    /// Memory that the allocator does not own.
    pub not_malloc: u64,
    /// Of it, files.
    pub not_malloc_files: u64,
    /// Of it, the main stack.
    pub not_malloc_stacks: u64,
    /// Of it, anonymous memory without blocks, other threads' stacks included.
    pub not_malloc_anonymous: u64,
    /// Of it, shared memory and everything else.
    pub not_malloc_other: u64,
    /// Of it, the preload library with its rings and its shadow of the heap, which a process has only while it is
    /// traced.
    pub not_malloc_memfrag: u64,
    /// What does not add up.
    pub unexplained: i64,
    /// Requested bytes that are not resident; they are no part of the sum.
    pub untouched: u64,
    /// Live blocks whose memory was found free.
    pub contradicted_blocks: u64,
    /// By place.
    pub places: Places,
}

/// The allocator's lines by place.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Places {
    /// The main arena.
    pub main_arena: Lines,
    /// The other arenas.
    pub other_arenas: Lines,
    /// Chunks mapped by themselves.
    pub mapped: Lines,
    /// Blocks outside of these.
    pub elsewhere: Lines,
}

/// Lines of one place.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lines {
    /// Resident bytes there.
    pub resident: u64,
    /// See [`Ledger::free_pages`].
    pub free_pages: u64,
    /// See [`Ledger::requested`].
    pub requested: u64,
    /// See [`Ledger::rounding`].
    pub rounding: u64,
    /// See [`Ledger::cached`].
    pub cached: u64,
    /// See [`Ledger::free_in_pages_binned`].
    pub binned: u64,
    /// See [`Ledger::free_in_pages_top`].
    pub top: u64,
    /// See [`Ledger::metadata`].
    pub metadata: u64,
    /// See [`Ledger::untracked`].
    pub untracked: u64,
}

/// What the text calls the preload library and its memory.
pub(super) const MEMFRAGS: &str = "memfrag's, while it traces";

/// The JSON's word for where a layout comes from.
pub(super) const fn source_name(source: Source) -> &'static str {
    match source {
        Source::Walk => "walk",
        Source::Blocks => "blocks",
        Source::Unknown => "unknown",
    }
}

impl Ledger {
    /// The report's form of a ledger.
    pub(super) fn new(at_ns: u64, counted: &Counted) -> Self {
        let (malloc, not_malloc) = (counted.malloc(), counted.not_malloc);
        Self {
            at_ns,
            source: source_name(counted.source),
            rss: counted.rss,
            free_pages: malloc.free_pages,
            requested: malloc.requested,
            rounding: malloc.rounding(),
            rounding_header: malloc.header,
            rounding_padding: malloc.padding,
            cached: malloc.cached(),
            cached_tcache: malloc.tcache,
            cached_fastbin: malloc.fastbin,
            free_in_pages: malloc.free_in_pages(),
            free_in_pages_binned: malloc.binned,
            free_in_pages_top: malloc.top,
            metadata: malloc.metadata,
            untracked: malloc.untracked,
            not_malloc: not_malloc.sum(),
            not_malloc_files: not_malloc.files,
            not_malloc_stacks: not_malloc.stacks,
            not_malloc_anonymous: not_malloc.anonymous,
            not_malloc_other: not_malloc.other,
            not_malloc_memfrag: not_malloc.memfrag,
            unexplained: counted.unexplained(),
            untouched: counted.untouched,
            contradicted_blocks: counted.contradicted.blocks,
            places: Places {
                main_arena: Lines::new(&counted.main_arena),
                other_arenas: Lines::new(&counted.other_arenas),
                mapped: Lines::new(&counted.mapped),
                elsewhere: Lines::new(&counted.elsewhere),
            },
        }
    }
}

impl Lines {
    fn new(parts: &Parts) -> Self {
        Self {
            resident: parts.sum(),
            free_pages: parts.free_pages,
            requested: parts.requested,
            rounding: parts.rounding(),
            cached: parts.cached(),
            binned: parts.binned,
            top: parts.top,
            metadata: parts.metadata,
            untracked: parts.untracked,
        }
    }
}
