//! What is live at a moment, as a plan of its own: a program that was started anew and has built up the same.

use super::plan::{How, Planned, Step, Steps};
use super::survey::{Live, Touched};
use memfrag_common::Function;

/// In which order live blocks are allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they were allocated: what a restart would make of them.
    #[default]
    Age,
    /// By their addresses: as they lay.
    Address,
    /// The largest first.
    Size,
}

/// A compact plan: its order and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    /// The order.
    pub order: Order,
    /// The most blocks.
    pub most_blocks: u64,
    /// The most bytes in all.
    pub most_bytes: u64,
}

impl Default for Compact {
    /// In the order of age, without bounds.
    fn default() -> Self {
        Self { order: Order::Age, most_blocks: u64::MAX, most_bytes: u64::MAX }
    }
}

/// Allocates live blocks in one thread, as far as the bounds allow: the first block that goes beyond them is left out
/// with all that follow it.
pub(super) fn plan(mut live: Vec<Live>, touched: &Touched, compact: Compact, steps: &mut impl Steps) -> Planned {
    match compact.order {
        Order::Age => live.sort_by_key(|block| (block.time, block.address)),
        Order::Address => live.sort_by_key(|block| block.address),
        Order::Size => live.sort_by_key(|block| (std::cmp::Reverse(block.request.size), block.address)),
    }
    let mut planned = Planned { threads: 1, ..Planned::default() };
    let mut bytes = 0_u64;
    // Slots are numbered by 32 bits.
    let most = compact.most_blocks.min(u32::MAX.into());
    for (slot, block) in (0..).zip(&live) {
        let size = block.request.size;
        bytes = bytes.saturating_add(size);
        if u64::from(slot) >= most || bytes > compact.most_bytes {
            planned.left_out = live.len() as u64 - u64::from(slot);
            break;
        }
        if let Some(pages) = block.pages(touched) {
            planned.sparse += 1;
            steps.step(0, Step::Touch { pages });
        }
        let how = match (block.request.function, block.request.align_log2) {
            (Function::Calloc, _) => How::Calloc,
            (Function::Valloc | Function::Pvalloc, log2) => How::Aligned(log2.max(12)),
            (_, 0) => How::Malloc,
            (_, log2) => How::Aligned(log2),
        };
        steps.step(0, Step::Allocate { slot, how, size });
        planned.slots += 1;
        planned.calls += 1;
    }
    steps.step(0, Step::End);
    planned
}

#[cfg(test)]
mod tests {
    use super::super::survey::Survey;
    use super::*;
    use crate::model::{Listening, ModelHeap};
    use memfrag_common::{Event, Op};

    #[derive(Default)]
    struct Kept(Vec<Step>);

    impl Steps for Kept {
        fn step(&mut self, _: u32, step: Step) {
            self.0.push(step);
        }
    }

    /// Sizes in the order of their allocation, and how many blocks were left out.
    fn sizes(compact: Compact) -> (Vec<u64>, u64) {
        let survey = Survey::default();
        let mut heap = ModelHeap::new(vec![Listening::by(survey.clone())]);
        for (time, addr, size) in [(1, 0x3000, 30), (2, 0x1000, 40), (3, 0x2000, 20), (4, 0x4000, 99)] {
            let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 1, stack: 0 };
            heap.apply(&Event { time, pid: 1, tid: 1, op });
        }
        let op = Op::Free { function: Function::Free, addr: 0x4000, size: 0, site: 1 };
        heap.apply(&Event { time: 5, pid: 1, tid: 1, op });
        drop(heap);
        let (touched, live) = survey.finish();
        let mut kept = Kept::default();
        let planned = plan(live, &touched, compact, &mut kept);
        assert_eq!(kept.0.pop(), Some(Step::End));
        assert_eq!(planned.calls, kept.0.len() as u64);
        let size = |step| match step {
            Step::Allocate { size, how: How::Malloc, .. } => size,
            other => panic!("{other:?}"),
        };
        (kept.0.into_iter().map(size).collect(), planned.left_out)
    }

    #[test]
    fn what_is_live_is_allocated_in_the_order_that_is_wanted() {
        let order = |order| sizes(Compact { order, ..Compact::default() });
        assert_eq!(order(Order::Age), (vec![30, 40, 20], 0));
        assert_eq!(order(Order::Address), (vec![40, 20, 30], 0));
        assert_eq!(order(Order::Size), (vec![40, 30, 20], 0));
    }

    #[test]
    fn what_exceeds_the_bounds_is_left_out_and_counted() {
        assert_eq!(sizes(Compact { most_blocks: 2, ..Compact::default() }), (vec![30, 40], 1));
        assert_eq!(sizes(Compact { most_bytes: 75, ..Compact::default() }), (vec![30, 40], 1));
        assert_eq!(sizes(Compact { most_bytes: 5, ..Compact::default() }), (vec![], 3));
    }
}
