//! What users set by environment variables and tunables, as glibc reads it.

use crate::glibc::layout::chunk_bytes;

/// The settings of glibc's allocator that a model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// Chunks that a list of a thread's cache holds; `None` for the version's default, 0 for no caches.
    pub cache_count: Option<usize>,
    /// Bytes of the largest request that is cached; `None` for the version's default.
    pub cache_max: Option<u64>,
    /// Chunks from this size on are mapped by themselves, where no free chunk serves.
    pub mmap_threshold: u64,
    /// The most chunks that are mapped by themselves at a time.
    pub mmap_max: u64,
    /// A free that leaves a top chunk at least this large gives memory back.
    pub trim_threshold: u64,
    /// Whether freeing a mapped chunk raises the two thresholds: so until one of the settings is made.
    pub dynamic: bool,
    /// Bytes obtained beyond what is needed.
    pub top_pad: u64,
    /// The most arenas; `None` for eight a processor.
    pub arena_max: Option<usize>,
}

impl Default for Tunables {
    fn default() -> Self {
        Self {
            cache_count: None,
            cache_max: None,
            mmap_threshold: 128 << 10,
            mmap_max: 65_536,
            trim_threshold: 128 << 10,
            dynamic: true,
            top_pad: 128 << 10,
            arena_max: None,
        }
    }
}

/// Larger thresholds are refused: half of a heap.
const MOST_MMAP_THRESHOLD: u64 = 32 << 20;
/// Larger requests cannot be cached, before 2.42.
const MOST_CACHED: u64 = 1032;
/// Longer lists are refused.
const MOST_COUNT: u64 = u16::MAX as u64;

/// What a setting sets.
#[derive(Clone, Copy, Debug)]
enum Name {
    ArenaMax,
    CacheCount,
    CacheMax,
    MmapMax,
    MmapThreshold,
    TopPad,
    TrimThreshold,
}

impl Name {
    fn of_variable(name: &str) -> Option<Self> {
        Some(match name {
            "MALLOC_ARENA_MAX" => Self::ArenaMax,
            "MALLOC_MMAP_MAX_" => Self::MmapMax,
            "MALLOC_MMAP_THRESHOLD_" => Self::MmapThreshold,
            "MALLOC_TOP_PAD_" => Self::TopPad,
            "MALLOC_TRIM_THRESHOLD_" => Self::TrimThreshold,
            _ => return None,
        })
    }

    fn of_tunable(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("glibc.malloc.")? {
            "arena_max" => Self::ArenaMax,
            "tcache_count" => Self::CacheCount,
            "tcache_max" => Self::CacheMax,
            "mmap_max" => Self::MmapMax,
            "mmap_threshold" => Self::MmapThreshold,
            "top_pad" => Self::TopPad,
            "trim_threshold" => Self::TrimThreshold,
            _ => return None,
        })
    }
}

impl Tunables {
    /// Takes over what words `NAME=VALUE` of an environment set, and leaves the rest. `GLIBC_TUNABLES` counts more than the
    /// variables; what glibc would refuse changes nothing.
    pub fn read<'a>(&mut self, environment: impl Iterator<Item = &'a str> + Clone) {
        let words = environment.filter_map(|word| word.split_once('='));
        for (name, value) in words.clone().filter_map(|(name, value)| Some((Name::of_variable(name)?, value))) {
            self.set(name, value);
        }
        let tunables = words.filter(|(name, _)| *name == "GLIBC_TUNABLES").flat_map(|(_, value)| value.split(':'));
        let tunables = tunables.filter_map(|tunable| tunable.split_once('='));
        for (name, value) in tunables.filter_map(|(name, value)| Some((Name::of_tunable(name)?, value))) {
            self.set(name, value);
        }
    }

    fn set(&mut self, name: Name, value: &str) {
        let Some(value) = number(value) else { return };
        match name {
            Name::ArenaMax if value > 0 => self.arena_max = usize::try_from(value).ok(),
            Name::CacheCount if value <= MOST_COUNT => self.cache_count = Some(value as usize),
            Name::CacheMax if value <= MOST_CACHED => self.cache_max = Some(value),
            Name::MmapMax => (self.mmap_max, self.dynamic) = (value, false),
            Name::MmapThreshold if value <= MOST_MMAP_THRESHOLD => {
                (self.mmap_threshold, self.dynamic) = (value, false);
            }
            Name::TopPad => (self.top_pad, self.dynamic) = (value, false),
            Name::TrimThreshold => (self.trim_threshold, self.dynamic) = (value, false),
            Name::ArenaMax | Name::CacheCount | Name::CacheMax | Name::MmapThreshold => {}
        }
    }

    /// Bytes of the largest chunk that is cached, by the largest request that is.
    pub(super) fn cached_chunk(&self) -> Option<u64> {
        self.cache_max.map(chunk_bytes)
    }
}

/// A number as C writes it: hexadecimal behind `0x`, octal behind `0`, else decimal.
fn number(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).ok();
    }
    match text.strip_prefix('0') {
        Some("") => Some(0),
        Some(digits) => u64::from_str_radix(digits, 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Tunables {
        let mut tunables = Tunables::default();
        tunables.read(words.iter().copied());
        tunables
    }

    #[test]
    fn an_environment_is_read_as_glibc_does() {
        let default = Tunables::default();
        assert_eq!(
            read(&["HOME=/", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES=", "GLIBC_TUNABLES=glibc.rtld.nns=3"]),
            default
        );
        assert_eq!(read(&["MALLOC_ARENA_MAX=2"]), Tunables { arena_max: Some(2), ..default });
        let fixed = Tunables { dynamic: false, ..default };
        assert_eq!(read(&["MALLOC_TRIM_THRESHOLD_=0x10000"]), Tunables { trim_threshold: 1 << 16, ..fixed });
        assert_eq!(read(&["MALLOC_TOP_PAD_=0"]), Tunables { top_pad: 0, ..fixed });
        assert_eq!(read(&["MALLOC_MMAP_MAX_=010"]), Tunables { mmap_max: 8, ..fixed });
        let both = ["GLIBC_TUNABLES=glibc.malloc.arena_max=3:glibc.malloc.tcache_count=0", "MALLOC_ARENA_MAX=5"];
        assert_eq!(read(&both), Tunables { arena_max: Some(3), cache_count: Some(0), ..default });
        let cached = read(&["GLIBC_TUNABLES=glibc.malloc.tcache_max=128"]);
        assert_eq!((cached.cache_max, cached.cached_chunk()), (Some(128), Some(144)));
        assert_eq!(read(&["GLIBC_TUNABLES=glibc.malloc.tcache_max=0"]).cached_chunk(), Some(32));
    }

    #[test]
    fn what_glibc_refuses_changes_nothing() {
        for refused in [
            "MALLOC_ARENA_MAX=0",
            "MALLOC_ARENA_MAX=two",
            "MALLOC_ARENA_MAX=99999999999999999999",
            "MALLOC_MMAP_THRESHOLD_=33554433",
            "GLIBC_TUNABLES=glibc.malloc.tcache_count=65536",
            "GLIBC_TUNABLES=glibc.malloc.tcache_max=1033",
            "GLIBC_TUNABLES=malloc.arena_max=3",
        ] {
            assert_eq!(read(&[refused]), Tunables::default(), "{refused}");
        }
    }
}
