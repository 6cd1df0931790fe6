//! Some granules in a row, and the holes that begin among them.

/// Granules of a word.
pub(super) const WORD: u64 = 64;

/// The holes that begin in 64 granules. The last of them may go on behind these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// The granules of these holes. Those of a hole that began before are none of them.
    bits: u64,
    /// Granules of the last hole behind the word, 0 unless it takes the word's last granule.
    reach: u64,
}

/// `count` bits from `at` on, at least one.
#[inline]
const fn mask(at: u32, count: u64) -> u64 {
    (!0 >> (WORD - count)) << at
}

impl Word {
    pub(super) const EMPTY: Self = Self { bits: 0, reach: 0 };

    /// Granules of the hole that begins at `at`.
    #[inline]
    pub(super) const fn length(self, at: u32) -> u64 {
        let run = (self.bits >> at).trailing_ones();
        if at + run == u64::BITS { run as u64 + self.reach } else { run as u64 }
    }

    /// Where the last hole begins that begins at `at` or before.
    #[inline]
    pub(super) fn last_upto(self, at: u32) -> Option<u32> {
        let below = self.bits << (63 - at);
        let unused = below.leading_zeros();
        (below != 0).then(|| at + 1 - unused - (below << unused).leading_ones())
    }

    /// Where the first hole begins that begins at `at` or behind.
    #[inline]
    pub(super) fn first_from(self, at: u32) -> Option<u32> {
        let begins = self.bits & !(self.bits << 1) & (!0 << at);
        (begins != 0).then(|| begins.trailing_zeros())
    }

    /// Where the first hole begins that has so many granules.
    #[inline]
    pub(super) fn first_fit(self, size: u64) -> Option<u32> {
        if size <= WORD {
            // A bit stays where as many as `known` from there on are set, which grows up to `size`.
            let (mut fits, mut known) = (self.bits, 1);
            while known < size {
                let step = known.min(size - known);
                fits &= fits >> step;
                known += step;
            }
            if fits != 0 {
                return Some(fits.trailing_zeros());
            }
        }
        let run = self.bits.leading_ones();
        (u64::from(run) + self.reach >= size).then(|| u64::BITS - run)
    }

    /// Granules of the largest hole, 0 without any.
    #[inline]
    pub(super) fn largest(self) -> u64 {
        let last = self.bits.leading_ones();
        let mut largest = u64::from(last) + self.reach;
        let mut rest = self.bits & !(!0_u64).checked_shl(u64::BITS - last).unwrap_or(0);
        while rest != 0 {
            rest >>= rest.trailing_zeros();
            let run = rest.trailing_ones();
            largest = largest.max(u64::from(run));
            rest >>= run;
        }
        largest
    }

    /// Makes `size` granules from `at` on one hole, which no hole before touches. Those that begin in it are part of it.
    #[inline]
    pub(super) fn cover(&mut self, at: u32, size: u64) {
        let room = WORD - u64::from(at);
        self.bits |= mask(at, size.min(room));
        if size >= room {
            self.reach = size - room;
        }
    }

    /// Takes out the hole of `size` granules that begins at `at`.
    #[inline]
    pub(super) fn uncover(&mut self, at: u32, size: u64) {
        let room = WORD - u64::from(at);
        self.bits &= !mask(at, size.min(room));
        if size >= room {
            self.reach = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The holes of a word, by looking at bit after bit.
    fn holes(word: Word) -> Vec<(u32, u64)> {
        let mut holes: Vec<(u32, u64)> = Vec::new();
        for at in 0..64 {
            match holes.last_mut() {
                _ if word.bits >> at & 1 == 0 => {}
                Some((start, size)) if u64::from(*start) + *size == u64::from(at) => *size += 1,
                _ => holes.push((at, 1)),
            }
        }
        if let Some((start, size)) = holes.last_mut()
            && u64::from(*start) + *size == 64
        {
            *size += word.reach;
        }
        holes
    }

    fn words() -> impl Strategy<Value = Word> {
        let bits = prop_oneof![any::<u64>(), (any::<u64>(), any::<u64>()).prop_map(|(a, b)| a | b), Just(0), Just(!0)];
        (bits, prop_oneof![Just(0), 0..100_u64, any::<u64>().prop_map(|reach| reach >> 4)])
            .prop_map(|(bits, reach)| Word { bits, reach: if bits >> 63 == 1 { reach } else { 0 } })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]
        #[test]
        fn tells_what_bit_after_bit_tells(
            word in words(),
            at in 0..64_u32,
            size in prop_oneof![1..80_u64, 1..1_u64 << 60],
        ) {
            let holes = holes(word);
            prop_assert_eq!(word.largest(), holes.iter().map(|hole| hole.1).max().unwrap_or(0));
            let first =
                |fits: &dyn Fn(u32, u64) -> bool| holes.iter().find(|hole| fits(hole.0, hole.1)).map(|hole| hole.0);
            prop_assert_eq!(word.first_fit(size), first(&|_, length| length >= size));
            prop_assert_eq!(word.first_from(at), first(&|start, _| start >= at));
            prop_assert_eq!(word.last_upto(at), holes.iter().rev().find(|hole| hole.0 <= at).map(|hole| hole.0));
            for &(start, length) in &holes {
                prop_assert_eq!(word.length(start), length);
            }
        }

        #[test]
        fn a_hole_goes_and_comes_back(word in words()) {
            let all = holes(word);
            for (which, &(start, size)) in all.iter().enumerate() {
                let mut other = word;
                other.uncover(start, size);
                let mut rest = all.clone();
                rest.remove(which);
                prop_assert_eq!(holes(other), rest);
                other.cover(start, size);
                prop_assert_eq!(other, word);
            }
        }
    }
}
