//! The classic policies: what a heap would be under first fit, buddies, slabs, or none that can be built.
//!
//! Each decides in a file of its own where blocks lie, over addresses that stand for no memory and without headers;
//! `driven` keeps the table of blocks, the sums and the counts for all of them. What a policy holds is counted as soon as
//! it is obtained, touched or not, and until it is given back, at the moment that its rule says.

mod best_fit;
mod buddy;
mod compact;
mod driven;
mod extents;
mod first_fit;
mod lifetimes;
mod mesh;
mod next_fit;
mod paged;
mod segment;
mod segregated;
mod slabs;
#[cfg(test)]
mod tests;

use super::policy::Policy;
use driven::Driven;
use std::collections::HashSet;
use std::sync::Arc;

/// A classic policy that can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Classic {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What it is, in some words.
    pub about: &'static str,
    make: fn(&'static str) -> Box<dyn Policy>,
}

impl Classic {
    /// The policy, with an empty heap.
    pub fn make(&self) -> Box<dyn Policy> {
        (self.make)(self.name)
    }

    /// The policy of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CLASSICS.iter().find(|classic| classic.name == name)
    }
}

/// First fit in two heaps, one of them for these call sites, whose blocks live long.
pub(super) fn lifetimes(long_sites: HashSet<u64>) -> Box<dyn Policy> {
    Box::new(Driven::new("lifetimes", lifetimes::Lifetimes::new(Arc::new(long_sites))))
}

/// All that need no knowledge beforehand.
pub const CLASSICS: &[Classic] = &[
    Classic {
        name: "first-fit",
        about: "the lowest hole that is large enough",
        make: |name| Box::new(Driven::new(name, first_fit::FirstFit::new())),
    },
    Classic {
        name: "best-fit",
        about: "the smallest hole that is large enough",
        make: |name| Box::new(Driven::new(name, best_fit::BestFit::new())),
    },
    Classic {
        name: "next-fit",
        about: "first fit from the last block on; a control",
        make: |name| Box::new(Driven::new(name, next_fit::NextFit::new())),
    },
    Classic {
        name: "buddy",
        about: "powers of two that split in halves",
        make: |name| Box::new(Driven::new(name, buddy::Buddy::new())),
    },
    Classic {
        name: "slabs",
        about: "slabs by size class, as in jemalloc",
        make: |name| Box::new(Driven::new(name, segregated::Segregated::new())),
    },
    Classic {
        name: "pages",
        about: "pages by size class, as in mimalloc",
        make: |name| Box::new(Driven::new(name, paged::Paged::new())),
    },
    Classic {
        name: "mesh",
        about: "spans that share memory, as in Mesh",
        make: |name| Box::new(Driven::new(name, mesh::Mesh::new())),
    },
    Classic {
        name: "compact",
        about: "live blocks moved together: a bound",
        make: |name| Box::new(Driven::new(name, compact::Compact::default())),
    },
];
