//! How much is live by origin, by thread and by size, kept while a heap is watched.

use super::blocks::Block;
use super::hash::BuildWordHasher;
use super::origin::OriginId;
use super::totals::Amount;
use hashbrown::HashMap;

/// Classes of sizes: up to 16 bytes, and up to each power of two behind it.
const SIZES: usize = 61;

/// What is live, told apart.
#[derive(Clone, Debug)]
pub struct Classes {
    /// By the number of the origin.
    origins: Vec<Amount>,
    unseen: Amount,
    threads: HashMap<u32, Amount, BuildWordHasher>,
    sizes: [Amount; SIZES],
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            unseen: Amount::default(),
            threads: HashMap::default(),
            sizes: [Amount::default(); SIZES],
        }
    }
}

/// The number of the class of a size: 0 for up to 16 bytes, then one more for each doubling.
#[inline]
pub const fn size_class(size: u64) -> usize {
    if size <= 16 { 0 } else { 60 - (size - 1).leading_zeros() as usize }
}

impl Classes {
    /// Live blocks of an origin. Those that no event told of are of [`OriginId::UNSEEN`].
    pub fn origin(&self, id: OriginId) -> Amount {
        if id == OriginId::UNSEEN { self.unseen } else { self.origins.get(id.index()).copied().unwrap_or_default() }
    }

    /// Live blocks by the thread that allocated them, in no order; threads that have none left may still be among them.
    /// Thread 0 has those that no event told of.
    pub fn threads(&self) -> impl Iterator<Item = (u32, Amount)> + '_ {
        self.threads.iter().map(|(&tid, &amount)| (tid, amount))
    }

    /// Live blocks by [`size_class`].
    pub fn sizes(&self) -> &[Amount] {
        &self.sizes
    }

    #[inline]
    pub(super) fn count<const ADD: bool>(&mut self, block: &Block) {
        let change = |amount: &mut Amount| if ADD { amount.add(block.size) } else { amount.sub(block.size) };
        if block.origin == OriginId::UNSEEN {
            change(&mut self.unseen);
        } else {
            let at = block.origin.index();
            if at >= self.origins.len() {
                self.origins.resize(at + 1, Amount::default());
            }
            change(&mut self.origins[at]);
        }
        change(self.threads.entry(block.thread).or_default());
        change(&mut self.sizes[size_class(block.size)]);
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.origins.capacity() * size_of::<Amount>() + self.threads.allocation_size()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn sizes_are_told_apart_by_powers_of_two() {
        let classes: Vec<usize> = [0, 16, 17, 32, 33, 64, 65, 1 << 20, (1 << 20) + 1, u64::MAX].map(size_class).into();
        assert_eq!(classes, [0, 0, 1, 1, 2, 2, 3, 16, 17, 60]);
    }
}
