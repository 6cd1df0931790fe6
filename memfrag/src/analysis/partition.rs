//! Owners of blocks: what a blame is laid at.

use super::census::{FIRST_OWNER, UNTRACKED};
use crate::heap::{Amount, Block, Origin, OriginId};
use std::collections::HashMap;
use std::hash::Hash;

/// By what blocks are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The return address of the call that allocated.
    Site,
    /// The thread that allocated.
    Thread,
    /// The requested size, by powers of two.
    Size,
    /// How long the block has lived.
    Age,
    /// The file from which the allocator was called.
    Module,
    /// The whole stack of the call, where it was recorded.
    Stack,
}

/// An owner of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A call site's return address.
    Site(u64),
    /// A thread id.
    Thread(u32),
    /// The largest request of the class, a power of two.
    Size(u64),
    /// An age class: an index into [`AGES`], or one more for those older than all of them.
    Age(usize),
    /// A file; `None` for call sites that lie in no known mapping.
    Module(Option<String>),
    /// A call site's return address and the number of the recorded stack, 0 for none.
    Stack(u64, u32),
}

/// Where one age class ends and the next begins, in nanoseconds.
pub const AGES: [u64; 7] =
    [10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000, 60_000_000_000, 600_000_000_000, 3_600_000_000_000];

/// Which owner each block has.
#[derive(Clone, Debug)]
pub struct Partition {
    keys: Vec<Key>,
    live: Vec<Amount>,
    older: Amount,
    of_block: Vec<u32>,
}

/// What a partition needs to know beside the blocks.
pub trait Facts {
    /// Where a block came from.
    fn origin(&self, id: OriginId) -> Option<&Origin>;
    /// The file that holds a call site.
    fn module(&self, site: u64) -> Option<String>;
}

impl Partition {
    /// Tells blocks apart. Those without an [origin](OriginId::UNSEEN), which are older than the trace, are nobody's.
    /// `now` is the moment from which ages count back.
    pub fn new(by: By, blocks: &[Block], now: u64, facts: &impl Facts) -> Self {
        match by {
            By::Site => Self::by_origin(blocks, |id| Key::Site(facts.origin(id).map_or(0, |origin| origin.site))),
            By::Module => {
                let mut modules = HashMap::new();
                Self::by_origin(blocks, |id| {
                    let site = facts.origin(id).map_or(0, |origin| origin.site);
                    Key::Module(modules.entry(site).or_insert_with(|| facts.module(site)).clone())
                })
            }
            By::Stack => Self::by_origin(blocks, |id| {
                facts.origin(id).map_or(Key::Stack(0, 0), |origin| Key::Stack(origin.site, origin.stack))
            }),
            By::Thread => Self::by(blocks, |block| block.thread, Key::Thread),
            By::Size => {
                Self::by(blocks, |block| block.size.max(16).checked_next_power_of_two().unwrap_or(u64::MAX), Key::Size)
            }
            By::Age => {
                Self::by(blocks, |block| AGES.partition_point(|&age| age <= now.saturating_sub(block.time)), Key::Age)
            }
        }
    }

    /// Each origin is looked at once: blocks are many, origins few.
    fn by_origin(blocks: &[Block], mut key: impl FnMut(OriginId) -> Key) -> Self {
        let mut owners = Owners::default();
        let mut of_origin: Vec<u32> = Vec::new();
        let mut owner_of = |block: &Block| {
            if block.origin == OriginId::UNSEEN {
                return UNTRACKED;
            }
            let at = block.origin.index();
            if at >= of_origin.len() {
                of_origin.resize(at + 1, u32::MAX);
            }
            if of_origin[at] == u32::MAX {
                of_origin[at] = owners.number(key(block.origin));
            }
            of_origin[at]
        };
        let of_block = blocks.iter().map(&mut owner_of).collect();
        owners.partition(of_block, blocks)
    }

    fn by<K: Copy + Eq + Hash>(blocks: &[Block], part: impl Fn(&Block) -> K, key: impl Fn(K) -> Key) -> Self {
        let mut owners = Owners::default();
        let mut known = HashMap::new();
        let mut last = None;
        let mut owner_of = |block: &Block| {
            if block.origin == OriginId::UNSEEN {
                return UNTRACKED;
            }
            let part = part(block);
            // Neighbours are often alike.
            match last {
                Some((known, owner)) if known == part => owner,
                _ => {
                    let owner = *known.entry(part).or_insert_with(|| owners.number(key(part)));
                    last = Some((part, owner));
                    owner
                }
            }
        };
        let of_block = blocks.iter().map(&mut owner_of).collect();
        owners.partition(of_block, blocks)
    }

    /// How many owners there are, those that own no blocks included: the numbers end here.
    pub fn owners(&self) -> usize {
        FIRST_OWNER as usize + self.keys.len()
    }

    /// The owner of a block, by the block's index.
    #[inline]
    pub fn owner(&self, block: u32) -> u32 {
        self.of_block[block as usize]
    }

    /// The owners' keys, in order of their numbers.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// What each owner holds.
    pub fn live(&self) -> &[Amount] {
        &self.live
    }

    /// What the blocks without an origin hold, their sizes being what their chunks can hold.
    pub const fn older(&self) -> Amount {
        self.older
    }
}

/// Owners, numbered as they are met.
#[derive(Default)]
struct Owners {
    keys: Vec<Key>,
    numbers: HashMap<Key, u32>,
}

impl Owners {
    fn number(&mut self, key: Key) -> u32 {
        *self.numbers.entry(key).or_insert_with_key(|key| {
            self.keys.push(key.clone());
            FIRST_OWNER + self.keys.len() as u32 - 1
        })
    }

    fn partition(self, of_block: Vec<u32>, blocks: &[Block]) -> Partition {
        let mut live = vec![Amount::default(); self.keys.len()];
        let mut older = Amount::default();
        for (owner, block) in of_block.iter().zip(blocks) {
            let held = owner.checked_sub(FIRST_OWNER).map_or(&mut older, |at| &mut live[at as usize]);
            held.add(block.size);
        }
        Partition { keys: self.keys, live, older, of_block }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memfrag_common::Function;

    struct Fixed(Vec<Origin>);

    impl Facts for Fixed {
        fn origin(&self, id: OriginId) -> Option<&Origin> {
            self.0.get(id.index())
        }

        fn module(&self, site: u64) -> Option<String> {
            (site < 0x2000).then(|| "program".to_owned())
        }
    }

    #[track_caller]
    fn check(by: By, expected: &[(Key, u64)]) {
        let origin = |site, function| Origin { site, stack: 0, function, align_log2: 0 };
        let facts = Fixed(vec![
            origin(0x1000, Function::Malloc),
            origin(0x1000, Function::Calloc),
            origin(0x1010, Function::Malloc),
            origin(0x9000, Function::Malloc),
        ]);
        let block = |number: u64, size, time, thread, origin| Block {
            addr: number * 0x100,
            size,
            time,
            thread,
            origin: OriginId::new(origin),
        };
        let second = 1_000_000_000;
        let blocks = [
            block(1, 0, 0, 7, 0),
            block(2, 16, 9 * second, 7, 1),
            block(3, 17, 9 * second, 8, 2),
            block(4, 1 << 40, 10 * second, 8, 3),
            Block { origin: OriginId::UNSEEN, ..block(5, 48, 0, 0, 0) },
        ];
        let partition = Partition::new(by, &blocks, 10 * second, &facts);
        let found: Vec<(Key, u64)> =
            partition.keys().iter().cloned().zip(partition.live().iter().map(|live| live.blocks)).collect();
        assert_eq!(found, expected);
        let sum: u64 = partition.live().iter().map(|live| live.bytes).sum();
        assert_eq!(sum, blocks[..4].iter().map(|block| block.size).sum::<u64>());
        assert_eq!((partition.owner(4), partition.older()), (UNTRACKED, Amount { blocks: 1, bytes: 48 }));
    }

    #[test]
    fn blocks_are_told_apart() {
        check(By::Site, &[(Key::Site(0x1000), 2), (Key::Site(0x1010), 1), (Key::Site(0x9000), 1)]);
        check(By::Thread, &[(Key::Thread(7), 2), (Key::Thread(8), 2)]);
        check(By::Size, &[(Key::Size(16), 2), (Key::Size(32), 1), (Key::Size(1 << 40), 1)]);
        check(By::Age, &[(Key::Age(4), 1), (Key::Age(3), 2), (Key::Age(0), 1)]);
        check(By::Module, &[(Key::Module(Some("program".to_owned())), 3), (Key::Module(None), 1)]);
    }
}
