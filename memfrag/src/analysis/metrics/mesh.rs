//! Meshing: pages whose live bytes do not collide could share one page of memory, mapped twice.
//!
//! No allocator does this to glibc's heap; the count is a bound on what one that meshes could give back (Mesh, by
//! Powers and others, 2019).

use crate::target::residency::PAGE;
use std::ops::Range;

/// Bytes that one bit of a span stands for.
const GRANULE: u64 = 16;
/// Granules of a page.
const SLOTS: u64 = PAGE / GRANULE;
/// How many partners each page is tried with: Mesh's own number.
const PROBES: usize = 64;

/// Which granules of a page, or places of a span, are taken.
pub type Span = [u64; (SLOTS / 64) as usize];

/// The pages of a heap that have live blocks and room.
#[derive(Clone, Debug, Default)]
pub struct Spans(Vec<Span>);

impl From<Vec<Span>> for Spans {
    fn from(spans: Vec<Span>) -> Self {
        Self(spans)
    }
}

impl Spans {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many pages meshing would free: as many as pairs are found by Mesh's own search. The pages are shuffled, the
    /// same way every time, and each of the first half is tried with 64 of the second.
    pub fn meshable_pages(&self) -> u64 {
        self.pairs().len() as u64
    }

    /// The pairs found, by their places.
    pub fn pairs(&self) -> Vec<(u32, u32)> {
        let mut order: Vec<u32> = (0..self.0.len() as u32).collect();
        shuffle(&mut order);
        let (left, right) = order.split_at_mut(self.0.len() / 2);
        let right = &mut right[..left.len()];
        let mut pairs = Vec::new();
        for probe in 0..PROBES.min(left.len()) {
            for (at, one) in left.iter_mut().enumerate() {
                let partner = if at + probe < right.len() { at + probe } else { at + probe - right.len() };
                let other = &mut right[partner];
                if *one != GONE && *other != GONE && disjoint(&self.0[*one as usize], &self.0[*other as usize]) {
                    pairs.push((*one, *other));
                    (*one, *other) = (GONE, GONE);
                }
            }
        }
        pairs
    }
}

/// A page that has found its partner.
const GONE: u32 = u32::MAX;

fn disjoint(one: &Span, other: &Span) -> bool {
    one.iter().zip(other).all(|(one, other)| one & other == 0)
}

/// Shuffles by a small generator of numbers, the same in every run.
fn shuffle(order: &mut [u32]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = (u128::from(state) * (at as u128 + 1)) >> 64;
        order.swap(at, other as usize);
    }
}

/// The probability that two spans of `slots` mesh when `first` and `second` of them are taken at random:
/// `C(slots − first, second) / C(slots, second)`.
pub fn probability(slots: u64, first: u64, second: u64) -> f64 {
    (0..second).map(|taken| slots.saturating_sub(first + taken) as f64 / slots.saturating_sub(taken) as f64).product()
}

/// Makes spans of ranges that come upwards.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// The page under way.
    current: Option<(u64, Span)>,
    spans: Spans,
}

impl Builder {
    /// Adds what a block takes.
    pub(super) fn add(&mut self, taken: Range<u64>) {
        if taken.is_empty() {
            return;
        }
        let (first, last) = (taken.start / PAGE, (taken.end - 1) / PAGE);
        self.take(first, &taken);
        // The pages between are full.
        if last > first {
            self.take(last, &taken);
        }
    }

    fn take(&mut self, page: u64, taken: &Range<u64>) {
        match self.current {
            // Blocks that seem to overlap can come back to a page that was closed.
            Some((current, _)) if page < current => return,
            Some((current, _)) if page == current => {}
            _ => {
                self.close();
                self.current = Some((page, Span::default()));
            }
        }
        let start = taken.start.saturating_sub(page * PAGE) / GRANULE;
        let end = (taken.end - page * PAGE).min(PAGE).div_ceil(GRANULE);
        if let Some((_, span)) = &mut self.current {
            (start..end).for_each(|slot| span[(slot / 64) as usize] |= 1 << (slot % 64));
        }
    }

    fn close(&mut self) {
        if let Some((_, span)) = self.current.take()
            && span != [u64::MAX; (SLOTS / 64) as usize]
        {
            self.spans.0.push(span);
        }
    }

    pub(super) fn finish(mut self) -> Spans {
        self.close();
        self.spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn spans(taken: &[Range<u64>]) -> Spans {
        let mut builder = Builder::default();
        for range in taken {
            builder.add(range.clone());
        }
        builder.finish()
    }

    #[test]
    fn the_published_case() {
        // 64 spans of 256 slots with one object each, all at the same slot: no pair among them meshes.
        let meet = 1.0 - probability(256, 1, 1);
        assert!((meet - 1.0 / 256.0).abs() < 1e-15);
        let all = meet.powi(63);
        assert!((1e-152..3e-152).contains(&all), "{all:e}");
    }

    #[test]
    fn the_probability_is_that_of_counting() {
        let ways = |taken: u32| (0..1_u32 << 8).filter(move |set| set.count_ones() == taken);
        for (first, second) in [(0, 3), (1, 1), (3, 2), (4, 4), (5, 4)] {
            let pairs = ways(first).flat_map(|one| ways(second).map(move |other| one & other == 0));
            let (mut free, mut all) = (0, 0);
            for disjoint in pairs {
                free += u32::from(disjoint);
                all += 1;
            }
            let counted = f64::from(free) / f64::from(all);
            let told = probability(8, u64::from(first), u64::from(second));
            assert!((told - counted).abs() < 1e-12, "{first}, {second}: {told} is not {counted}");
        }
    }

    #[test]
    fn pages_that_collide_everywhere_do_not_mesh() {
        let same: Vec<Range<u64>> = (0..100).map(|page| page * PAGE + 160..page * PAGE + 170).collect();
        let spans = spans(&same);
        assert_eq!((spans.len(), spans.meshable_pages()), (100, 0));
    }

    #[test]
    fn pages_that_never_collide_all_mesh() {
        let apart: Vec<Range<u64>> =
            (0..100).map(|page| page * PAGE + page * 16..page * PAGE + page * 16 + 16).collect();
        assert_eq!(spans(&apart).meshable_pages(), 50);
        // Two halves of a page, and a full page, which is no candidate.
        let halves = [0..2048, PAGE + 2048..2 * PAGE, 2 * PAGE..3 * PAGE];
        assert_eq!((spans(&halves).len(), spans(&halves).meshable_pages()), (2, 1));
    }

    /// Among random spans the search finds nearly what chance allows: with q the probability of a pair, a page finds a
    /// partner in 64 tries unless each fails.
    #[test]
    fn sparse_pages_mostly_mesh() {
        let mut random = 1_u64;
        let mut taken = Vec::new();
        for page in 0..2000 {
            let mut slots: Vec<u64> = (0..16)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    random >> 56
                })
                .collect();
            slots.sort_unstable();
            slots.dedup();
            taken.extend(slots.iter().map(|slot| page * PAGE + slot * 16..page * PAGE + slot * 16 + 16));
        }
        // A pair meshes with about a third of a chance, so nearly every page finds one.
        assert!((0.3..0.4).contains(&probability(256, 16, 16)));
        assert!(spans(&taken).meshable_pages() > 950);
    }

    proptest! {
        #[test]
        fn bits_and_pairs_are_right(blocks in prop::collection::vec((0..9000_u64, 1..9000_u64), 1..60)) {
            let mut at = 0;
            let mut taken = Vec::new();
            for (gap, size) in blocks {
                let start = at + gap / 16 * 16;
                at = start + size.next_multiple_of(16);
                taken.push(start..at);
            }
            let mut expected: BTreeMap<u64, Span> = BTreeMap::new();
            for granule in taken.iter().flat_map(|range| (range.start..range.end).step_by(16)) {
                let slot = granule % PAGE / 16;
                expected.entry(granule / PAGE).or_default()[(slot / 64) as usize] |= 1 << (slot % 64);
            }
            expected.retain(|_, span| *span != [u64::MAX; 4]);
            let spans = spans(&taken);
            prop_assert_eq!(&spans.0, &expected.into_values().collect::<Vec<_>>());
            let pairs = spans.pairs();
            let mut met: Vec<u32> = pairs.iter().flat_map(|&(one, other)| [one, other]).collect();
            met.sort_unstable();
            let count = met.len();
            met.dedup();
            prop_assert_eq!(met.len(), count, "a page has one partner");
            for (one, other) in pairs {
                prop_assert!(disjoint(&spans.0[one as usize], &spans.0[other as usize]));
            }
        }
    }
}
