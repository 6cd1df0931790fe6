//! What became of blocks between two states of a heap, by call site.

use crate::heap::{Amount, Block, Heap, Process};
use std::collections::{HashMap, HashSet};

/// What became of the blocks of a call site, or of all, between two times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Allocated between, and live at the end.
    pub grown: Amount,
    /// Live at the beginning, and not at the end.
    pub freed: Amount,
    /// Allocated between, and freed before the end.
    pub temporary: Amount,
    /// Live at both.
    pub survivors: Amount,
    /// Allocated between, whatever became of them.
    pub allocated: Amount,
    /// Live at the beginning.
    before: Amount,
}

impl Course {
    /// Those of several call sites together.
    pub fn sum<'a>(courses: impl Iterator<Item = &'a Self>) -> Self {
        courses.fold(Self::default(), |sum, course| Self {
            grown: plus(sum.grown, course.grown),
            freed: plus(sum.freed, course.freed),
            temporary: plus(sum.temporary, course.temporary),
            survivors: plus(sum.survivors, course.survivors),
            allocated: plus(sum.allocated, course.allocated),
            before: plus(sum.before, course.before),
        })
    }
}

/// What became of the blocks of each call site, by its address, between `from_ns` and the state `to`. `from` is the
/// process at the first of the two; without it, it began in between, and what it inherited then was allocated before.
/// `turn` is called for every block, so that whoever waits can call it off.
///
/// # Errors
/// That of `turn`.
pub fn courses<E>(
    from: Option<(&Process, &Heap)>,
    from_ns: u64,
    to: (&Process, &Heap),
    mut turn: impl FnMut() -> Result<(), E>,
) -> Result<HashMap<u64, Course>, E> {
    let (end_process, end) = to;
    let mut courses: HashMap<u64, Course> = HashMap::new();
    if let Some((_, begin)) = from {
        for block in begin.blocks().iter() {
            turn()?;
            courses.entry(site_of(begin, &block)).or_default().before.add(block.size);
        }
    }
    // Of these the state does not say whether they are live: their reallocation had begun and not ended.
    let under_way: HashSet<u64> =
        from.iter().flat_map(|(process, _)| process.blocks_under_way()).map(|block| block.addr).collect();
    for block in end.blocks().iter() {
        turn()?;
        let survives = match from {
            Some((_, begin)) => match begin.blocks().get(block.addr) {
                Some(before) => is_same(&before, &block) && site_of(begin, &before) == site_of(end, &block),
                None => under_way.contains(&block.addr) && block.time <= from_ns,
            },
            None => block.time < end_process.started(),
        };
        let course = courses.entry(site_of(end, &block)).or_default();
        if survives {
            course.survivors.add(block.size);
            if from.is_none_or(|(_, begin)| begin.blocks().get(block.addr).is_none()) {
                course.before.add(block.size);
            }
        } else {
            course.grown.add(block.size);
        }
    }
    for (_, origin, totals) in end.origins() {
        let allocated = &mut courses.entry(origin.site).or_default().allocated;
        allocated.blocks += totals.allocations;
        allocated.bytes = allocated.bytes.wrapping_add(totals.requested_bytes);
    }
    // A process that has become another program since the first state may have another heap, with sums of its own.
    for (_, origin, totals) in from.into_iter().flat_map(|(_, begin)| begin.origins()) {
        let allocated = &mut courses.entry(origin.site).or_default().allocated;
        *allocated = less(*allocated, Amount { blocks: totals.allocations, bytes: totals.requested_bytes });
    }
    for course in courses.values_mut() {
        course.freed = less(course.before, course.survivors);
        course.temporary = less(course.allocated, course.grown);
    }
    courses.retain(|_, course| {
        [course.grown, course.freed, course.survivors, course.allocated].iter().any(|a| a.blocks > 0)
    });
    Ok(courses)
}

/// What each call site holds, by its address. `turn` as with [`courses`].
///
/// # Errors
/// That of `turn`.
pub fn live_by_site<E>(heap: &Heap, mut turn: impl FnMut() -> Result<(), E>) -> Result<HashMap<u64, Amount>, E> {
    let mut sites: HashMap<u64, Amount> = HashMap::new();
    for block in heap.blocks().iter() {
        turn()?;
        sites.entry(site_of(heap, &block)).or_default().add(block.size);
    }
    Ok(sites)
}

fn plus(one: Amount, other: Amount) -> Amount {
    Amount { blocks: one.blocks + other.blocks, bytes: one.bytes.wrapping_add(other.bytes) }
}

fn less(one: Amount, other: Amount) -> Amount {
    Amount { blocks: one.blocks.saturating_sub(other.blocks), bytes: one.bytes.saturating_sub(other.bytes) }
}

fn is_same(before: &Block, block: &Block) -> bool {
    (before.time, before.size, before.thread) == (block.time, block.size, block.thread)
}

fn site_of(heap: &Heap, block: &Block) -> u64 {
    heap.origin(block.origin).map_or(0, |origin| origin.site)
}
