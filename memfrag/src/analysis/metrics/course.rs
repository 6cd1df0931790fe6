//! Measures that compare heap and live data over a whole recording.
//!
//! They are taken at the moments when the process's memory was read; the heap's size is what was resident of anonymous
//! memory then. That holds stacks and data of libraries as well, which matters for small heaps.

use super::ratios;
use crate::heap::{Reading, Readings};

/// Johnstone and Wilson's four measures of fragmentation, each in percent over what is live: 0 is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JohnstoneWilson {
    /// Measure 1: the mean over time of the heap's size over live bytes.
    pub mean: f64,
    /// Measure 2: the same at the time when most was live.
    pub at_most_live: f64,
    /// Measure 3: the same at the time when the heap was largest.
    pub at_largest_heap: f64,
    /// Measure 4: the largest heap over the most that was live, whenever that was.
    pub largest_over_most: f64,
}

impl JohnstoneWilson {
    /// By requested bytes: headers and alignment count as fragmentation.
    pub fn by_request(readings: &Readings) -> Option<Self> {
        Self::new(readings, 0, |reading| reading.requested)
    }

    /// By the bytes that blocks take: headers and alignment do not count.
    pub fn by_footprint(readings: &Readings) -> Option<Self> {
        Self::new(readings, 1, |reading| reading.taken)
    }

    fn new(readings: &Readings, mean: usize, live: impl Fn(&Reading) -> u64) -> Option<Self> {
        let (largest, fullest) = (readings.largest()?, readings.fullest()?);
        Some(Self {
            mean: (readings.means()?[mean] - 1.0) * 100.0,
            at_most_live: ratios::excess(fullest.resident, live(&fullest))?,
            at_largest_heap: ratios::excess(largest.resident, live(&largest))?,
            largest_over_most: ratios::excess(largest.resident, live(&fullest))?,
        })
    }
}

/// [`ratios::realized_fragmentation`] over the readings.
pub fn realized_fragmentation(readings: &Readings) -> Option<f64> {
    readings.largest().and_then(|largest| ratios::realized_fragmentation(largest.resident, largest.requested))
}

/// [`ratios::end_fragmentation`] by the last reading.
pub fn end_fragmentation(readings: &Readings) -> Option<f64> {
    readings.last().and_then(|last| ratios::end_fragmentation(last.resident, last.requested))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::{Footprint, Heaps};
    use crate::target::{MemorySample, ProcessInfo};
    use memfrag_common::{Event, Function, Op};

    fn event(time: u64, op: Op) -> Event {
        Event { time, pid: 1, tid: 1, op }
    }

    fn alloc(time: u64, addr: u64, size: u64) -> Event {
        event(time, Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 1, stack: 0 })
    }

    fn close(measured: f64, expected: f64) {
        assert!((measured - expected).abs() < 1e-9, "{measured} is not {expected}");
    }

    #[test]
    fn a_heap_that_stays_when_its_blocks_go() {
        let mut heaps = Heaps::default();
        heaps.learn(&ProcessInfo { pid: 1, ..ProcessInfo::default() });
        heaps.set_footprint(0, Footprint::Glibc);
        let read = |heaps: &mut Heaps, time, rss_anon| {
            heaps.sample(&MemorySample { time, pid: 1, rss_anon, ..MemorySample::default() });
        };
        read(&mut heaps, 0, 77);
        // 104 bytes take 112, 904 take 912.
        heaps.apply(&alloc(1, 0x1010, 104));
        read(&mut heaps, 100, 208);
        heaps.apply(&alloc(101, 0x2010, 904));
        read(&mut heaps, 200, 1260);
        heaps.apply(&event(201, Op::Free { function: Function::Free, addr: 0x2010, size: 0, site: 0 }));
        read(&mut heaps, 300, 1300);

        let readings = heaps.heap(&heaps.processes()[0]).readings();
        let by_request = JohnstoneWilson::by_request(readings).expect("there are readings");
        // 2 for 100 ns, then 1.25 for 100 ns.
        close(by_request.mean, 62.5);
        close(by_request.at_most_live, 25.0);
        close(by_request.at_largest_heap, 1150.0);
        close(by_request.largest_over_most, (1300.0 / 1008.0 - 1.0) * 100.0);
        let by_footprint = JohnstoneWilson::by_footprint(readings).expect("there are readings");
        close(by_footprint.mean, f64::midpoint(208.0 / 112.0 - 1.0, 1260.0 / 1024.0 - 1.0) * 100.0);
        close(by_footprint.largest_over_most, (1300.0 / 1024.0 - 1.0) * 100.0);
        close(realized_fragmentation(readings).expect("there are readings"), 1150.0);
        close(end_fragmentation(readings).expect("there are readings"), 1150.0);
    }

    #[test]
    fn nothing_read_is_nothing_known() {
        let readings = Readings::default();
        assert_eq!(JohnstoneWilson::by_request(&readings), None);
        assert_eq!((realized_fragmentation(&readings), end_fragmentation(&readings)), (None, None));
    }
}
