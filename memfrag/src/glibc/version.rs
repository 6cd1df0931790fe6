//! Where glibc's versions keep the fields of their heap.

use std::fmt;

/// Bins of an arena, the first one unsorted.
pub const BINS: u64 = 127;
/// Lists of the fastbins.
pub const FASTBINS: u64 = 10;
/// Lists of a thread's cache that hold chunks of one size each.
pub const SMALL_CACHE_BINS: usize = 64;

/// A release of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Before the dot; always 2.
    pub major: u16,
    /// Behind the dot.
    pub minor: u16,
}

impl Version {
    /// The oldest release whose heap is known.
    pub const OLDEST: Self = Self { major: 2, minor: 31 };
    /// The newest release whose heap is known.
    pub const NEWEST: Self = Self { major: 2, minor: 43 };

    /// Reads `2.36`. A snapshot of development, such as `2.42.9000`, is `None`: its layout may be that of either
    /// neighbour.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
        Some(Self { major: number(major)?, minor: number(minor)? })
    }

    /// The layout of its heap; `None` when it is not known.
    pub fn offsets(self) -> Option<&'static Offsets> {
        (Self::OLDEST..=Self::NEWEST).contains(&self).then(|| {
            let row = TABLE.iter().rev().find(|(since, _)| *since <= self.minor);
            &row.unwrap_or(&TABLE[0]).1
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Byte offsets in glibc's structures on x86-64, and what else of the heap's layout changed between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// In `malloc_state`.
    pub arena: ArenaOffsets,
    /// In `malloc_par`.
    pub parameters: ParameterOffsets,
    /// Bytes of `heap_info`, behind which an arena or a heap's first chunk lies.
    pub heap_header: u64,
    /// A heap's size in units of the huge page size, where that is set; 0 when it does not matter.
    pub huge_pages_a_heap: u64,
    /// Lists of a thread's cache.
    pub cache_bins: usize,
    /// Whether a thread's cache counts the free places of a list, not its chunks.
    pub cache_counts_room: bool,
    /// Whether links inside lists are mangled with their own address.
    pub links_mangled: bool,
    /// Bytes at the end of a mapped chunk that its size leaves out.
    pub mapped_tail: u64,
}

/// Byte offsets in `malloc_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaOffsets {
    /// `fastbinsY`, where there are fastbins.
    pub fastbins: Option<u64>,
    /// `top`.
    pub top: u64,
    /// `bins`.
    pub bins: u64,
    /// `next`.
    pub next: u64,
    /// `attached_threads`.
    pub threads: u64,
    /// `system_mem`.
    pub system: u64,
    /// `max_system_mem`.
    pub max_system: u64,
    /// Bytes of the structure.
    pub size: u64,
}

/// Byte offsets in `malloc_par`, where they differ between versions. Before them all have `trim_threshold`,
/// `top_pad`, `mmap_threshold`, `arena_test` and `arena_max`, 8 bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterOffsets {
    /// `thp_pagesize`, behind which `hp_pagesize` stands; 0 when there is none.
    pub huge_pages: u64,
    /// `n_mmaps`, then `n_mmaps_max`, `max_n_mmaps` and `no_dyn_threshold`, 4 bytes each.
    pub mapped_count: u64,
    /// `mmapped_mem`, then `max_mmapped_mem`, `sbrk_base`, the number of bins of a thread's cache, its largest size
    /// and its fill count, 8 bytes each.
    pub mapped_bytes: u64,
    /// Bytes of the structure.
    pub size: u64,
}

impl Offsets {
    /// Bytes of the chunk that holds a thread's cache.
    pub const fn cache_chunk(&self) -> u64 {
        super::layout::chunk_bytes(self.cache_bytes())
    }

    /// Bytes of a thread's cache: counts of 2 bytes, then heads of 8.
    pub const fn cache_bytes(&self) -> u64 {
        self.cache_bins as u64 * 10
    }
}

const ARENA: ArenaOffsets = ArenaOffsets {
    fastbins: Some(0x10),
    top: 0x60,
    bins: 0x70,
    next: 0x870,
    threads: 0x880,
    system: 0x888,
    max_system: 0x890,
    size: 0x898,
};

const SINCE_31: Offsets = Offsets {
    arena: ARENA,
    parameters: ParameterOffsets { huge_pages: 0, mapped_count: 0x28, mapped_bytes: 0x38, size: 0x70 },
    heap_header: 0x20,
    huge_pages_a_heap: 0,
    cache_bins: SMALL_CACHE_BINS,
    cache_counts_room: false,
    links_mangled: false,
    mapped_tail: 0,
};

const SINCE_32: Offsets = Offsets { links_mangled: true, ..SINCE_31 };

const SINCE_35: Offsets = Offsets {
    parameters: ParameterOffsets { huge_pages: 0x28, mapped_count: 0x3c, mapped_bytes: 0x50, size: 0x88 },
    heap_header: 0x30,
    huge_pages_a_heap: 4,
    ..SINCE_32
};

const SINCE_42: Offsets =
    Offsets { huge_pages_a_heap: 0, cache_bins: SMALL_CACHE_BINS + 12, cache_counts_room: true, ..SINCE_35 };

const SINCE_43: Offsets = Offsets {
    arena: ArenaOffsets {
        fastbins: None,
        top: 0x08,
        bins: 0x18,
        next: 0x818,
        threads: 0x828,
        system: 0x830,
        max_system: 0x838,
        size: 0x840,
    },
    parameters: ParameterOffsets { huge_pages: 0x30, mapped_count: 0x44, mapped_bytes: 0x58, size: 0x90 },
    mapped_tail: 16,
    ..SINCE_42
};

/// Layouts by the minor version since which they hold.
///
/// 2.31, 2.36, 2.41 and 2.43: from the debugging information of Debian's builds. The others: the structures in the
/// releases' `malloc/malloc.c` and `malloc/arena.c` are those of the version before, but for what the rows say.
const TABLE: &[(u16, Offsets)] = &[(31, SINCE_31), (32, SINCE_32), (35, SINCE_35), (42, SINCE_42), (43, SINCE_43)];

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(text: &str) -> Option<&'static Offsets> {
        Version::parse(text).and_then(Version::offsets)
    }

    #[test]
    fn versions_outside_the_table_are_unknown() {
        for known in ["2.31", "2.36", "2.43"] {
            assert!(offsets(known).is_some(), "{known}");
        }
        for unknown in ["2.30", "2.44", "3.36", "1.99", "2.42.9000", "2", "", "2.", ".36", "2.+36", "2.99999"] {
            assert!(offsets(unknown).is_none(), "{unknown}");
        }
        assert_eq!(Version::NEWEST.to_string(), "2.43");
    }

    #[test]
    fn rows_hold_until_the_next() {
        assert_eq!(offsets("2.34"), offsets("2.32"));
        assert_eq!(offsets("2.41"), offsets("2.35"));
        assert_ne!(offsets("2.31"), offsets("2.32"));
        assert_ne!(offsets("2.42"), offsets("2.41"));
    }

    #[test]
    fn fields_follow_each_other() {
        for (since, offsets) in TABLE {
            let arena = offsets.arena;
            // Top and last_remainder, then the bins, binmap, next, next_free, threads, and two sizes.
            assert_eq!(arena.bins, arena.top + 16, "{since}");
            assert_eq!(arena.next, arena.bins + BINS * 16 + 16, "{since}");
            assert_eq!((arena.threads, arena.system), (arena.next + 16, arena.next + 24), "{since}");
            assert_eq!((arena.max_system, arena.size), (arena.next + 32, arena.next + 40), "{since}");
            let parameters = offsets.parameters;
            assert_eq!(parameters.size, parameters.mapped_bytes + 56, "{since}");
            assert_eq!(parameters.mapped_bytes, (parameters.mapped_count + 16).next_multiple_of(8), "{since}");
        }
        assert_eq!([SINCE_31.cache_chunk(), SINCE_43.cache_chunk()], [0x290, 0x300]);
    }
}
