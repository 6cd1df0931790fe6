//! Policies by name, as they are asked for.

use super::classic::{CLASSICS, Classic};
use super::lifetimes::Lifetimes;
use super::policy::Policy;
use super::ptmalloc::{Ptmalloc, Tunables};
use crate::glibc::Version;

/// What a policy needs to know of the process.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The version of its glibc.
    pub version: Version,
    /// The most arenas that glibc makes on the machine: eight a processor.
    pub arena_max: usize,
    /// What the environment of the process told allocators, in words `NAME=VALUE`.
    pub environment: Vec<String>,
    /// How long its blocks live, where that was learnt.
    pub lifetimes: Lifetimes,
}

impl Setting {
    /// [`Self::arena_max`] on a machine of so many processors.
    pub const fn arenas_of(processors: usize) -> usize {
        const EACH: usize = 8;
        EACH * processors
    }
}

/// A policy that can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What it is, in some words.
    pub about: &'static str,
    /// What to set in the environment for the real allocator to act so.
    pub environment: Option<&'static str>,
    kind: Kind,
}

/// What a choice stands for.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// glibc, held to the observed addresses.
    Observing,
    /// glibc by itself, whatever the process had set.
    Default,
    /// glibc by itself, with what the choice sets beside what the process had set.
    Tuned,
    /// None of glibc's.
    Classic(&'static Classic),
    /// The one that knows lifetimes beforehand.
    Lifetimes,
}

const fn tunable(name: &'static str, environment: &'static str) -> Choice {
    Choice { name, about: "glibc with a setting", environment: Some(environment), kind: Kind::Tuned }
}

const fn classic(at: usize) -> Choice {
    let classic = &CLASSICS[at];
    Choice { name: classic.name, about: classic.about, environment: None, kind: Kind::Classic(classic) }
}

/// All of them.
pub const CHOICES: &[Choice] = &[
    Choice {
        name: "ptmalloc",
        about: "glibc, held to the observed addresses",
        environment: None,
        kind: Kind::Observing,
    },
    Choice {
        name: "default",
        about: "glibc by itself, as it is set by default",
        environment: None,
        kind: Kind::Default,
    },
    tunable("arena-max-1", "MALLOC_ARENA_MAX=1"),
    tunable("arena-max-2", "MALLOC_ARENA_MAX=2"),
    tunable("arena-max-4", "MALLOC_ARENA_MAX=4"),
    tunable("tcache-off", "GLIBC_TUNABLES=glibc.malloc.tcache_count=0"),
    tunable("tcache-64", "GLIBC_TUNABLES=glibc.malloc.tcache_count=64"),
    tunable("tcache-max-128", "GLIBC_TUNABLES=glibc.malloc.tcache_max=128"),
    tunable("mmap-64k", "MALLOC_MMAP_THRESHOLD_=65536"),
    tunable("mmap-4m", "MALLOC_MMAP_THRESHOLD_=4194304"),
    tunable("trim-64k", "MALLOC_TRIM_THRESHOLD_=65536"),
    tunable("trim-64m", "MALLOC_TRIM_THRESHOLD_=67108864"),
    tunable("top-pad-0", "MALLOC_TOP_PAD_=0"),
    tunable("top-pad-4m", "MALLOC_TOP_PAD_=4194304"),
    classic(0),
    classic(1),
    classic(2),
    classic(3),
    classic(4),
    classic(5),
    classic(6),
    classic(7),
    Choice {
        name: "lifetimes",
        about: "two heaps, one for sites whose blocks stay",
        environment: None,
        kind: Kind::Lifetimes,
    },
];

impl Choice {
    /// The choice of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CHOICES.iter().find(|choice| choice.name == name)
    }

    /// Whether [`Setting::lifetimes`] must have been learnt before.
    pub const fn needs_lifetimes(&self) -> bool {
        matches!(self.kind, Kind::Lifetimes)
    }

    /// Whether [`Setting::version`] matters.
    pub const fn needs_version(&self) -> bool {
        matches!(self.kind, Kind::Observing | Kind::Default | Kind::Tuned)
    }

    /// The policy; `None` when the version of glibc is not known.
    pub fn make(&self, setting: &Setting) -> Option<Box<dyn Policy>> {
        let mut tunables = Tunables { arena_max: Some(setting.arena_max), ..Tunables::default() };
        if !matches!(self.kind, Kind::Default) {
            tunables.read(setting.environment.iter().map(String::as_str));
        }
        let policy = match self.kind {
            Kind::Observing => Ptmalloc::observing(setting.version, tunables)?,
            Kind::Default | Kind::Tuned => {
                tunables.read(self.environment.into_iter());
                Ptmalloc::free_running(self.name.to_owned(), setting.version, tunables)?
            }
            Kind::Classic(classic) => return Some(classic.make()),
            Kind::Lifetimes => return Some(super::classic::lifetimes(setting.lifetimes.long_sites())),
        };
        Some(Box::new(policy))
    }
}
