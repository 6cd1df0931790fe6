//! How large the requests were.

use crate::glibc::layout::{ALIGNMENT, chunk_bytes};
use crate::recording::{Count, Input, Saved};

/// Sizes whose chunk is no larger are told apart by it.
const SMALL: u64 = 1040;
/// Classes of small sizes.
const SMALL_CLASSES: usize = (SMALL / ALIGNMENT) as usize + 1;
/// Classes of each doubling beyond.
const STEPS: u64 = 8;
/// All classes: of the small sizes, and of the doublings up to 2⁴⁸.
const CLASSES: usize = SMALL_CLASSES + (48 - 10) * STEPS as usize;

/// How many requests of each size class succeeded.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Up to the largest class that occurred.
    classes: Vec<u64>,
    count: u64,
    largest: u64,
}

impl Requests {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest one.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// The size that a share of the requests, in thousandths, did not exceed, rounded up to the end of its class: within the
    /// same chunk of glibc's up to 1 KiB, less than an eighth above the truth beyond. `None` without requests.
    pub fn quantile(&self, share: u64) -> Option<u64> {
        let wanted = (u128::from(self.count) * u128::from(share.min(1000))).div_ceil(1000).max(1);
        let mut met = 0;
        let class = self.classes.iter().position(|&count| {
            met += u128::from(count);
            met >= wanted
        })?;
        Some(Self::end(class).min(self.largest))
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.classes.capacity() * size_of::<u64>()) as u64
    }

    #[inline]
    pub(super) fn add(&mut self, size: u64) {
        let class = Self::class(size);
        match self.classes.get_mut(class) {
            Some(count) => *count += 1,
            None => self.widen(class),
        }
        self.count += 1;
        self.largest = self.largest.max(size);
    }

    /// Counts the first request of a class beyond those that occurred.
    #[cold]
    fn widen(&mut self, class: usize) {
        self.classes.reserve_exact(class + 1 - self.classes.len());
        self.classes.resize(class, 0);
        self.classes.push(1);
    }

    #[inline]
    fn class(size: u64) -> usize {
        let chunk = chunk_bytes(size);
        if chunk <= SMALL {
            return (chunk / ALIGNMENT) as usize;
        }
        let doubling = 63 - u64::from(size.leading_zeros());
        let step = size >> (doubling - u64::from(STEPS.trailing_zeros())) & (STEPS - 1);
        (SMALL_CLASSES + ((doubling - 10) * STEPS + step) as usize).min(CLASSES - 1)
    }

    /// The largest size of a class.
    fn end(class: usize) -> u64 {
        match (class as u64).checked_sub(SMALL_CLASSES as u64) {
            None => (class as u64 * ALIGNMENT).saturating_sub(8),
            Some(beyond) => ((STEPS + beyond % STEPS + 1) << (10 - STEPS.trailing_zeros()) << (beyond / STEPS)) - 1,
        }
    }
}

impl Saved for Requests {
    fn save(&self, out: &mut Vec<u8>) {
        let met: Vec<(u32, u64)> = (0..).zip(self.classes.iter().copied()).filter(|(_, count)| *count > 0).collect();
        met.save(out);
        self.largest.save(out);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        let mut requests = Self::default();
        for _ in 0..input.varint()? {
            let class = u32::load(input)? as usize;
            let count = Count::load(input)?;
            // Met twice or empty, a class would be none that was saved.
            if class >= CLASSES || class < requests.classes.len() || count == 0 {
                return None;
            }
            requests.classes.resize(class, 0);
            requests.classes.push(count);
            requests.count += count;
        }
        requests.largest = u64::load(input)?;
        Some(requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_sizes_are_told_apart_by_their_chunks() {
        let mut requests = Requests::default();
        assert_eq!(requests.quantile(500), None);
        for size in [10, 20, 30, 40] {
            requests.add(size);
        }
        assert_eq!([0, 500, 750, 1000].map(|share| requests.quantile(share)), [24, 24, 40, 40].map(Some));
        requests.add(5000);
        assert_eq!((requests.quantile(1000), requests.largest(), requests.count()), (Some(5000), 5000, 5));
    }

    proptest! {
        #[test]
        fn a_quantile_lies_in_the_class_of_the_true_one(
            mut sizes in prop::collection::vec(prop_oneof![0..3000_u64, 0..1_u64 << 40], 1..100),
            share in 0..=1000_u64,
        ) {
            let mut requests = Requests::default();
            for &size in &sizes {
                requests.add(size);
            }
            sizes.sort_unstable();
            let truth = sizes[(share as usize * sizes.len()).div_ceil(1000).max(1) - 1];
            let told = requests.quantile(share).expect("there are requests");
            prop_assert!(told >= truth, "{told} for {truth}");
            prop_assert!(chunk_bytes(told) == chunk_bytes(truth) || told as f64 <= truth as f64 * 1.125, "{told} for {truth}");
        }
    }
}
