//! How much of a range of addresses is resident.

use crate::target::residency::{PAGE, Residency};
use std::ops::Range;

/// The resident pages that may hold blocks, ready for questions about ranges.
#[derive(Clone, Debug, Default)]
pub struct ResidentPages {
    /// Runs of resident addresses, upwards, none touching the next.
    runs: Vec<Range<u64>>,
    /// Resident bytes before each run.
    before: Vec<u64>,
    bytes: u64,
}

impl ResidentPages {
    /// The pages of a process.
    pub fn new(residency: &Residency) -> Self {
        Self::from_runs(residency.runs())
    }

    /// Runs of resident addresses. What is empty, or lies before what came already, is left out.
    pub fn from_runs(runs: impl Iterator<Item = Range<u64>>) -> Self {
        let mut pages = Self::default();
        for run in runs {
            let start = run.start.max(pages.runs.last().map_or(0, |last| last.end));
            if start >= run.end {
                continue;
            }
            match pages.runs.last_mut() {
                Some(last) if last.end == start && last.start != start => last.end = run.end,
                _ => {
                    pages.runs.push(start..run.end);
                    pages.before.push(pages.bytes);
                }
            }
            pages.bytes += run.end - start;
        }
        pages
    }

    /// All resident bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Resident bytes of a range.
    pub fn bytes_in(&self, range: Range<u64>) -> u64 {
        if range.start >= range.end {
            return 0;
        }
        // Most ranges lie in one run, where the second search is not needed.
        let at = self.runs.partition_point(|run| run.end <= range.start);
        match self.runs.get(at) {
            None => 0,
            Some(run) if range.end <= run.end => range.end.saturating_sub(range.start.max(run.start)),
            Some(run) => self.below(range.end) - self.before[at] - range.start.saturating_sub(run.start),
        }
    }

    /// Whether the page that holds an address is resident.
    pub fn holds(&self, address: u64) -> bool {
        let page = address & !(PAGE - 1);
        self.bytes_in(page..page.saturating_add(PAGE)) > 0
    }

    /// The runs that a range cuts out.
    pub fn runs_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.runs.partition_point(|run| run.end <= range.start);
        self.runs[first..]
            .iter()
            .take_while(move |run| run.start < range.end)
            .map(move |run| run.start.max(range.start)..run.end.min(range.end))
    }

    /// Resident bytes below an address.
    fn below(&self, address: u64) -> u64 {
        let at = self.runs.partition_point(|run| run.end <= address);
        match self.runs.get(at) {
            Some(run) => self.before[at] + address.saturating_sub(run.start),
            None => self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_as_a_list_of_pages_would(
            present in prop::collection::vec(any::<bool>(), 1..40),
            start in 0..45 * PAGE,
            length in 0..45 * PAGE,
        ) {
            let run = |(page, _): (usize, &bool)| (page as u64 + 2) * PAGE..(page as u64 + 3) * PAGE;
            let pages = ResidentPages::from_runs(present.iter().enumerate().filter(|page| *page.1).map(run));
            let resident = |address: u64| {
                address >= 2 * PAGE && present.get((address / PAGE - 2) as usize).copied().unwrap_or(false)
            };
            let expected = (start..start + length).filter(|&address| resident(address)).count() as u64;
            prop_assert_eq!(pages.bytes_in(start..start + length), expected);
            prop_assert_eq!(pages.runs_in(start..start + length).map(|run| run.end - run.start).sum::<u64>(), expected);
            prop_assert_eq!(pages.holds(start), resident(start));
        }
    }

    #[test]
    fn runs_out_of_order_are_not_counted_twice() {
        let runs = [PAGE..3 * PAGE, 2 * PAGE..4 * PAGE, 0..PAGE, 9..9];
        let pages = ResidentPages::from_runs(runs.into_iter());
        assert_eq!(pages.bytes(), 3 * PAGE);
        assert_eq!(pages.bytes_in(0..u64::MAX), 3 * PAGE);
    }
}
