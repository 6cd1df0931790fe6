//! glibc's own records of a heap: an arena's state and the parameters, read from their bytes.

use super::layout::ALIGNMENT;
use super::memory::{Memory, Unreadable};
use super::version::{BINS, FASTBINS, Offsets, SMALL_CACHE_BINS};
use crate::target::residency::PAGE;

/// An arena's `malloc_state`, as far as the walk needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArenaState {
    /// Where it lies.
    pub(super) address: u64,
    /// Whether its memory is one piece of the brk heap; always so for other arenas than the main one.
    pub(super) is_contiguous: bool,
    /// First chunks of the fastbins' lists; empty in versions without them.
    pub(super) fastbins: Vec<u64>,
    /// The top chunk.
    pub(super) top: u64,
    /// The next arena in the ring.
    pub(super) next: u64,
    /// Threads that allocate from it.
    pub(super) threads: u64,
    /// Bytes obtained from the system.
    pub(super) system: u64,
    /// The most of that.
    pub(super) max_system: u64,
}

/// A little-endian word of eight bytes at an offset; 0 behind the end.
fn word(bytes: &[u8], at: u64) -> u64 {
    let bytes = usize::try_from(at).ok().and_then(|at| bytes.get(at..)?.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A little-endian number of four bytes at an offset; 0 behind the end.
fn int(bytes: &[u8], at: u64) -> u32 {
    word(bytes, at) as u32
}

impl ArenaState {
    /// Bit of `flags` that says that the arena's memory is in several pieces.
    const NONCONTIGUOUS: u32 = 2;

    /// Reads the state at an address.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub(super) fn read(memory: &impl Memory, address: u64, offsets: &Offsets) -> Result<Self, Unreadable> {
        let mut bytes = vec![0; offsets.arena.size as usize];
        memory.read(address, &mut bytes)?;
        Ok(Self::parse(&bytes, address, offsets))
    }

    fn parse(bytes: &[u8], address: u64, offsets: &Offsets) -> Self {
        let at = offsets.arena;
        let fastbins = at.fastbins.into_iter().flat_map(|first| (0..FASTBINS).map(move |list| first + list * 8));
        Self {
            address,
            is_contiguous: int(bytes, 4) & Self::NONCONTIGUOUS == 0,
            fastbins: fastbins.map(|at| word(bytes, at)).collect(),
            top: word(bytes, at.top),
            next: word(bytes, at.next),
            threads: word(bytes, at.threads),
            system: word(bytes, at.system),
            max_system: word(bytes, at.max_system),
        }
    }

    /// Whether these bytes may be an arena's state: its numbers are possible, and each bin is either empty, with both
    /// links to itself, or has two links to chunks.
    pub(super) fn is_possible(bytes: &[u8], address: u64, offsets: &Offsets) -> bool {
        let at = offsets.arena;
        let (top, next) = (word(bytes, at.top), word(bytes, at.next));
        let (system, max_system) = (word(bytes, at.system), word(bytes, at.max_system));
        let is_link = |link: u64| link >= PAGE && link.is_multiple_of(ALIGNMENT);
        if !is_link(top) || next < PAGE || !next.is_multiple_of(8) || system > max_system {
            return false;
        }
        // No whole pages: the break of a static program may have been anywhere when the allocator first moved it.
        if max_system >= 1 << 47 || (max_system != 0 && max_system < PAGE) {
            return false;
        }
        (0..BINS).all(|bin| {
            let place = at.bins + bin * 16;
            let (forward, back) = (word(bytes, place), word(bytes, place + 8));
            let itself = address.wrapping_add(place - 16);
            if forward == itself || back == itself {
                return forward == back;
            }
            // Other bins are no chunks.
            let is_chunk = |link: u64| is_link(link) && link.wrapping_sub(address) >= at.size;
            is_chunk(forward) && is_chunk(back)
        })
    }
}

/// The allocator's parameters (`mp_`): thresholds, tunables, and what it counts of mapped chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// A free that leaves the top chunk at least this large gives memory back.
    pub trim_threshold: u64,
    /// Bytes obtained beyond what is needed, and kept when memory is given back.
    pub top_pad: u64,
    /// Chunks from this size on are mapped by themselves.
    pub mmap_threshold: u64,
    /// Whether freeing a mapped chunk may raise the thresholds: true until one of them is set.
    pub dynamic_thresholds: bool,
    /// Arenas up to which no limit is looked up.
    pub arena_test: u64,
    /// The most arenas there may be; 0 for the default of eight a processor.
    pub arena_max: u64,
    /// The size of transparent huge pages, where they were asked for; else 0.
    pub thp_page_bytes: u64,
    /// The size of huge pages that memory is obtained in; 0 when it is not.
    pub huge_page_bytes: u64,
    /// Mapped chunks there are.
    pub mapped_chunks: u32,
    /// The most mapped chunks that there may be.
    pub max_mapped_chunks: u32,
    /// Bytes of the mapped chunks.
    pub mapped_bytes: u64,
    /// The most that they had.
    pub peak_mapped_bytes: u64,
    /// The beginning of the brk heap; 0 before it is used.
    pub sbrk_base: u64,
    /// Lists of small chunks that a thread's cache uses.
    pub cache_bins: u64,
    /// The largest request, or since 2.42 the first chunk size, that a thread does not cache.
    pub cache_max_bytes: u64,
    /// Chunks that a list of a thread's cache may hold.
    pub cache_count: u64,
}

impl Parameters {
    /// Reads them at an address.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub(super) fn read(memory: &impl Memory, address: u64, offsets: &Offsets) -> Result<Self, Unreadable> {
        let mut bytes = vec![0; offsets.parameters.size as usize];
        memory.read(address, &mut bytes)?;
        Ok(Self::parse(&bytes, offsets))
    }

    fn parse(bytes: &[u8], offsets: &Offsets) -> Self {
        let at = offsets.parameters;
        let huge = |more: u64| if at.huge_pages == 0 { 0 } else { word(bytes, at.huge_pages + more) };
        Self {
            trim_threshold: word(bytes, 0),
            top_pad: word(bytes, 8),
            mmap_threshold: word(bytes, 16),
            dynamic_thresholds: int(bytes, at.mapped_count + 12) == 0,
            arena_test: word(bytes, 24),
            arena_max: word(bytes, 32),
            thp_page_bytes: huge(0),
            huge_page_bytes: huge(8),
            mapped_chunks: int(bytes, at.mapped_count),
            max_mapped_chunks: int(bytes, at.mapped_count + 4),
            mapped_bytes: word(bytes, at.mapped_bytes),
            peak_mapped_bytes: word(bytes, at.mapped_bytes + 8),
            sbrk_base: word(bytes, at.mapped_bytes + 16),
            cache_bins: word(bytes, at.mapped_bytes + 24),
            cache_max_bytes: word(bytes, at.mapped_bytes + 32),
            cache_count: word(bytes, at.mapped_bytes + 40),
        }
    }

    /// Whether these bytes may be the parameters. What users set by tunables may have any value; what the allocator
    /// counts must fit together, and the limits of the threads' caches depend on each other.
    pub(super) fn is_possible(bytes: &[u8], offsets: &Offsets) -> bool {
        let found = Self::parse(bytes, offsets);
        let at = offsets.parameters;
        let peak_chunks = int(bytes, at.mapped_count + 8);
        let is_page = |size: u64| size == 0 || (size.is_power_of_two() && size >= PAGE);
        // Since 2.42 the field may be a chunk's size or one more, and large caches have lists of their own.
        let largest = match found.cache_max_bytes {
            max if offsets.cache_counts_room && max % ALIGNMENT <= 1 => max - max % ALIGNMENT,
            max => super::layout::chunk_bytes(max),
        };
        let mut bins = (largest / ALIGNMENT).saturating_sub(1);
        if offsets.cache_counts_room {
            bins = bins.min(SMALL_CACHE_BINS as u64);
        }
        found.cache_bins == bins
            && (1..=SMALL_CACHE_BINS as u64).contains(&found.cache_bins)
            && u16::try_from(found.cache_count).is_ok()
            && found.cache_max_bytes <= 8 << 20
            && int(bytes, at.mapped_count + 12) <= 1
            && found.mapped_chunks <= peak_chunks
            && found.mapped_bytes <= found.peak_mapped_bytes
            && found.peak_mapped_bytes.is_multiple_of(PAGE)
            && found.mapped_bytes.is_multiple_of(PAGE)
            && (found.mapped_chunks == 0) == (found.mapped_bytes == 0)
            && (peak_chunks == 0) == (found.peak_mapped_bytes == 0)
            && is_page(found.thp_page_bytes)
            && is_page(found.huge_page_bytes)
            && found.arena_test <= 1 << 32
            && found.arena_max <= 1 << 32
            && (found.sbrk_base == 0 || found.sbrk_base >= PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glibc::version::Version;
    use proptest::prelude::*;

    fn offsets(minor: u16) -> &'static Offsets {
        Version { major: 2, minor }.offsets().expect("known")
    }

    fn set(bytes: &mut [u8], at: u64, word: u64) {
        bytes[at as usize..at as usize + 8].copy_from_slice(&word.to_le_bytes());
    }

    /// An arena with nothing in its bins.
    fn arena(address: u64, offsets: &Offsets) -> Vec<u8> {
        let mut bytes = vec![0; offsets.arena.size as usize];
        for bin in 0..BINS {
            let place = offsets.arena.bins + bin * 16;
            set(&mut bytes, place, address + place - 16);
            set(&mut bytes, place + 8, address + place - 16);
        }
        set(&mut bytes, offsets.arena.top, 0x5000_1000);
        set(&mut bytes, offsets.arena.next, address);
        set(&mut bytes, offsets.arena.system, 0x21000);
        set(&mut bytes, offsets.arena.max_system, 0x21000);
        bytes
    }

    #[test]
    fn an_arena_is_told_from_what_is_none() {
        for minor in [31, 36, 43] {
            let (offsets, address) = (offsets(minor), 0x7000_0c60);
            let bytes = arena(address, offsets);
            assert!(ArenaState::is_possible(&bytes, address, offsets));
            let state = ArenaState::parse(&bytes, address, offsets);
            assert_eq!((state.top, state.next, state.system), (0x5000_1000, address, 0x21000));
            assert_eq!(state.fastbins.len(), if minor == 43 { 0 } else { 10 });
            assert!(!ArenaState::is_possible(&bytes, address + 16, offsets));
            let spoiled = |at: u64, word: u64| {
                let mut bytes = bytes.clone();
                set(&mut bytes, at, word);
                !ArenaState::is_possible(&bytes, address, offsets)
            };
            assert!(spoiled(offsets.arena.top, 0) && spoiled(offsets.arena.system, 0x22000));
            assert!(spoiled(offsets.arena.max_system, 1 << 50) && spoiled(offsets.arena.next, 3));
            assert!(spoiled(offsets.arena.bins, 0x5000_1000), "one link of a bin to itself, the other to a chunk");
        }
    }

    /// What the versions' releases begin with: thresholds, then zeros but for limits.
    fn parameters(minor: u16) -> Vec<u8> {
        let offsets = offsets(minor);
        let at = offsets.parameters;
        let mut bytes = vec![0; at.size as usize];
        for (field, value) in [(0, 0x20000), (8, 0x20000), (16, 0x20000), (24, 8)] {
            set(&mut bytes, field, value);
        }
        let (max, count) = match minor {
            43 => (1041, 16),
            _ => (1032, 7),
        };
        set(&mut bytes, at.mapped_count + 4, 65536);
        set(&mut bytes, at.mapped_bytes + 24, 64);
        set(&mut bytes, at.mapped_bytes + 32, max);
        set(&mut bytes, at.mapped_bytes + 40, count);
        bytes
    }

    #[test]
    fn parameters_are_told_from_what_is_none() {
        for minor in [31, 36, 42, 43] {
            let (offsets, bytes) = (offsets(minor), parameters(minor));
            assert!(Parameters::is_possible(&bytes, offsets), "2.{minor}");
            let found = Parameters::parse(&bytes, offsets);
            assert_eq!((found.mmap_threshold, found.cache_bins, found.max_mapped_chunks), (0x20000, 64, 65536));
            assert!(found.dynamic_thresholds && found.arena_test == 8);
            for (at, word) in [(24, 63), (24, 0), (32, 24), (40, 1 << 16), (0, 4096), (8, 17)] {
                let mut bytes = bytes.clone();
                set(&mut bytes, offsets.parameters.mapped_bytes + at, word);
                assert!(!Parameters::is_possible(&bytes, offsets), "2.{minor}: {word} at {at}");
            }
        }
        assert!(!Parameters::is_possible(&[0; 0x90], offsets(36)));
    }

    #[test]
    fn tunables_do_not_hide_the_parameters() {
        // tcache_max 200, tcache_count 20.
        let mut bytes = parameters(36);
        let at = offsets(36).parameters.mapped_bytes;
        for (field, value) in [(24, 12), (32, 200), (40, 20)] {
            set(&mut bytes, at + field, value);
        }
        assert!(Parameters::is_possible(&bytes, offsets(36)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..3000), address: u64, minor in 31u16..44) {
            ArenaState::is_possible(&bytes, address, offsets(minor));
            ArenaState::parse(&bytes, address, offsets(minor));
            Parameters::is_possible(&bytes, offsets(minor));
        }
    }
}
