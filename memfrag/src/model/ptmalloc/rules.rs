//! What differs between glibc's versions in how requests are served, and what users may set.

use crate::glibc::Version;

/// How one version serves requests. From the releases' `malloc/malloc.c` and `malloc/arena.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a difference between versions of its own")]
pub(super) struct Rules {
    /// Whether there are fastbins.
    pub(super) fastbins: bool,
    /// Chunks that a list of a thread's cache holds by default.
    pub(super) cache_count: usize,
    /// The largest chunk that a thread's cache holds by default.
    pub(super) cache_largest: u64,
    /// Bytes of the structure of a thread's cache.
    pub(super) cache_bytes: u64,
    /// Whether a free makes the cache of a thread that has none.
    pub(super) cache_begun_by_free: bool,
    /// Whether `calloc` takes from the cache.
    pub(super) calloc_cached: bool,
    /// Whether aligned allocation takes from the cache.
    pub(super) memalign_cached: bool,
    /// Whether what a reallocation leaves goes to the cache or a fastbin where it can.
    pub(super) realloc_rest_cached: bool,
    /// Whether what aligned allocation leaves goes to the cache or a fastbin where it can.
    pub(super) memalign_rest_cached: bool,
    /// Whether a small chunk that is freed goes to its bin at once.
    pub(super) small_to_bins: bool,
    /// Whether a block stays as it is when the new size leaves less than 16 bytes unused.
    pub(super) realloc_keeps: bool,
    /// Bytes of a heap's header.
    pub(super) heap_header: u64,
    /// Bytes of an arena's state.
    pub(super) arena_bytes: u64,
}

impl Rules {
    /// The rules of a version, if it is known.
    pub(super) fn of(version: Version) -> Option<Self> {
        let offsets = version.offsets()?;
        let minor = version.minor;
        Some(Self {
            fastbins: offsets.arena.fastbins.is_some(),
            cache_count: if minor >= 43 { 16 } else { 7 },
            cache_largest: if minor == 42 { 1024 } else { 1040 },
            cache_bytes: offsets.cache_bytes(),
            cache_begun_by_free: minor < 42,
            calloc_cached: minor >= 41,
            memalign_cached: minor >= 38,
            realloc_rest_cached: minor < 42,
            memalign_rest_cached: minor < 39,
            small_to_bins: minor >= 41,
            realloc_keeps: minor >= 38,
            heap_header: offsets.heap_header,
            arena_bytes: offsets.arena.size,
        })
    }
}
