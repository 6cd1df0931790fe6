//! `distributions`: live blocks by thread and size, how long freed ones lived, and what size classes waste.

use super::blocks::usable;
use super::parameters::{self, Nothing, json};
use super::{Context, QueryError};
use crate::heap::Lifetimes;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};

/// The largest size of the first class; each of the others ends at twice the one before.
const FIRST: u64 = 8;
/// Size classes, the last one open.
const CLASSES: usize = 46;
/// Threads with a row of their own. The others, those with least, share one under thread 0.
const THREADS: usize = 255;
/// Usable sizes up to this are told apart; beyond, by doublings.
const EXACT: u64 = 1032;

#[derive(Serialize)]
struct Answer {
    threads: Vec<u32>,
    sizes: Vec<u64>,
    live_blocks: Vec<Vec<u64>>,
    live_bytes: Vec<Vec<u64>>,
    /// Without rows where lifetimes are not counted.
    lifetimes: Lived,
    waste: Vec<Waste>,
}

#[derive(Serialize)]
struct Lived {
    bounds_ns: Vec<u64>,
    threads: Vec<u32>,
    freed: Vec<Vec<u64>>,
}

#[derive(Default, Serialize)]
struct Waste {
    size: u64,
    blocks: u64,
    requested_bytes: u64,
    usable_bytes: u64,
}

struct Row {
    bytes: u64,
    /// Blocks and bytes by class.
    each: [(u64, u64); CLASSES],
}

impl Row {
    const EMPTY: Self = Self { bytes: 0, each: [(0, 0); CLASSES] };
}

pub(super) fn distributions(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Nothing {} = parameters::take("distributions", parameters)?;
    let (_, heap) = context.state.process(context.pid)?;
    let footprint = heap.pages().footprint();
    let mut rows: HashMap<u32, Box<Row>> = HashMap::new();
    let mut wastes: BTreeMap<u64, Waste> = BTreeMap::new();
    let mut turns = context.limit.turns();
    for block in heap.blocks().iter() {
        turns.turn()?;
        let row = rows.entry(block.thread).or_insert_with(|| Box::new(Row::EMPTY));
        row.bytes += block.size;
        let cell = &mut row.each[class(block.size)];
        *cell = (cell.0 + 1, cell.1 + block.size);
        if let Some(usable) = usable(footprint, block.addr, block.size) {
            let size = if usable <= EXACT { usable } else { usable.checked_next_power_of_two().unwrap_or(u64::MAX) };
            let waste = wastes.entry(size).or_insert(Waste { size, ..Waste::default() });
            waste.blocks += 1;
            waste.requested_bytes += block.size;
            waste.usable_bytes += usable;
        }
    }
    let mut rows: Vec<(u32, Box<Row>)> = rows.into_iter().collect();
    rows.sort_unstable_by_key(|(thread, row)| (std::cmp::Reverse(row.bytes), *thread));
    if rows.len() > THREADS {
        let mut others = Box::new(Row::EMPTY);
        for (_, row) in rows.drain(THREADS..) {
            others.each.iter_mut().zip(row.each).for_each(|(sum, cell)| *sum = (sum.0 + cell.0, sum.1 + cell.1));
        }
        rows.push((0, others));
    }
    let column = |of: fn(&(u64, u64)) -> u64| rows.iter().map(|(_, row)| row.each.iter().map(of).collect()).collect();
    json(&Answer {
        threads: rows.iter().map(|(thread, _)| *thread).collect(),
        sizes: (0..CLASSES).map(lower).collect(),
        live_blocks: column(|cell| cell.0),
        live_bytes: column(|cell| cell.1),
        lifetimes: lived(heap.lifetimes()),
        waste: wastes.into_values().collect(),
    })
}

fn lived(lifetimes: Option<&Lifetimes>) -> Lived {
    let rows = lifetimes.into_iter().flat_map(Lifetimes::rows);
    let (threads, freed) = rows.map(|(thread, freed)| (thread, freed.to_vec())).unzip();
    Lived { bounds_ns: Lifetimes::bounds().collect(), threads, freed }
}

/// The class of a size.
fn class(size: u64) -> usize {
    let doublings = size.max(1).div_ceil(FIRST).checked_next_power_of_two().map_or(64, u64::trailing_zeros);
    (doublings as usize).min(CLASSES - 1)
}

/// The smallest size of a class.
const fn lower(class: usize) -> u64 {
    if class == 0 { 0 } else { (FIRST << (class - 1)) + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_one_another() {
        assert_eq!((class(0), class(8), class(9), class(16), class(17)), (0, 0, 1, 1, 2));
        for at in 1..CLASSES {
            assert_eq!((class(lower(at) - 1), class(lower(at))), (at - 1, at));
        }
        assert_eq!(class(u64::MAX), CLASSES - 1);
    }
}
