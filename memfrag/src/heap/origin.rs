//! Where blocks come from: each distinct call is kept once, and blocks carry its number.

use super::hash::BuildWordHasher;
use crate::recording::{Count, Input, Saved, put, saved};
use hashbrown::HashTable;
use memfrag_common::Function;
use std::hash::{BuildHasher, Hash, Hasher};

/// The number of an [`Origin`] within its heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginId(u32);

impl OriginId {
    /// No origin.
    pub(super) const NONE: Self = Self(u32::MAX);
    /// The origin of blocks that no event told of.
    pub const UNSEEN: Self = Self(u32::MAX - 1);

    #[cfg(test)]
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number as an index: origins are numbered from 0 in order of their first call.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A call that allocates: from where, through what, how aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Return address of the call.
    pub site: u64,
    /// Number of the recorded stack, 0 for none.
    pub stack: u32,
    /// The function called.
    pub function: Function,
    /// Base-2 logarithm of the requested alignment, 0 where the function takes none.
    pub align_log2: u8,
}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.site);
        state.write_u64(u64::from(self.stack) << 16 | u64::from(self.function as u8) << 8 | u64::from(self.align_log2));
    }
}

/// What was allocated through one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OriginTotals {
    /// Blocks that the process itself allocated, reallocations included; what a fork handed down does not count.
    pub allocations: u64,
    /// Bytes requested for them.
    pub requested_bytes: u64,
}

/// All origins of a heap.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    known: Vec<(Origin, OriginTotals)>,
    index: HashTable<u32>,
    hasher: BuildWordHasher,
}

impl Origins {
    /// Counts a block of `size` bytes and gives its origin's number. Beyond 2³² − 2 origins all others share the
    /// last number.
    pub(super) fn count(&mut self, origin: Origin, size: u64) -> OriginId {
        let hash = self.hasher.hash_one(origin);
        let id = match self.index.find(hash, |&id| self.known[id as usize].0 == origin) {
            Some(&id) => id,
            None if self.known.len() >= u32::MAX as usize - 1 => u32::MAX - 2,
            None => self.add(hash, origin),
        };
        let totals = &mut self.known[id as usize].1;
        totals.allocations += 1;
        totals.requested_bytes = totals.requested_bytes.wrapping_add(size);
        OriginId(id)
    }

    #[cold]
    fn add(&mut self, hash: u64, origin: Origin) -> u32 {
        let id = self.known.len() as u32;
        self.known.push((origin, OriginTotals::default()));
        let Self { known, index, hasher } = self;
        index.insert_unique(hash, id, |&id| hasher.hash_one(known[id as usize].0));
        id
    }

    pub(super) fn get(&self, id: OriginId) -> Option<&(Origin, OriginTotals)> {
        self.known.get(id.index())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (OriginId, &Origin, &OriginTotals)> {
        self.known.iter().enumerate().map(|(id, (origin, totals))| (OriginId(id as u32), origin, totals))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// The same origins under the same numbers, with nothing counted yet: what a forked process starts with.
    pub(super) fn fork(&self) -> Self {
        let mut child = self.clone();
        child.known.iter_mut().for_each(|(_, totals)| *totals = OriginTotals::default());
        child
    }

    /// Gives up the room for further ones.
    pub(super) fn rest(&mut self) {
        self.known.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.known.capacity() * size_of::<(Origin, OriginTotals)>() + self.index.allocation_size()) as u64
    }
}

saved!(Origin { site: u64, stack: u32, function: Function, align_log2: u8 });
saved!(OriginTotals { allocations: Count, requested_bytes: u64 });

impl Saved for OriginId {
    fn save(&self, out: &mut Vec<u8>) {
        // The one that no event told of is met often, and takes a byte like this.
        put(out, u64::from(self.0.wrapping_add(2)));
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        Some(Self(input.varint32()?.wrapping_sub(2))).filter(|id| *id != Self::NONE)
    }
}

impl Saved for Origins {
    fn save(&self, out: &mut Vec<u8>) {
        self.known.save(out);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        let mut origins = Self::default();
        for _ in 0..input.varint()? {
            let (origin, totals) = <(Origin, OriginTotals)>::load(input)?;
            let hash = origins.hasher.hash_one(origin);
            if origins.index.find(hash, |&id| origins.known[id as usize].0 == origin).is_some() {
                return None;
            }
            let id = origins.add(hash, origin);
            origins.known[id as usize].1 = totals;
        }
        Some(origins)
    }
}
