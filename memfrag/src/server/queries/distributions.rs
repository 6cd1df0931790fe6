//! `distributions`: live blocks by thread and size and by call site and size, how long freed ones lived, and what size classes waste.

use super::blocks::usable;
use super::parameters::{self, Nothing, json};
use super::site::{Namer, Site};
use super::{Context, QueryError};
use crate::heap::Lifetimes;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// The largest size of the first class; each of the others ends at twice the one before.
const FIRST: u64 = 8;
/// Size classes, the last one open.
const CLASSES: usize = 46;
/// Threads with a row of their own. The others, those with least, share one under thread 0.
const THREADS: usize = 255;
/// Call sites with a row of their own, those that hold most.
const SITES: usize = 24;
/// Usable sizes up to this are told apart; beyond, by doublings.
const EXACT: u64 = 1032;

#[derive(Serialize)]
struct Answer {
    threads: Vec<u32>,
    sizes: Vec<u64>,
    live_blocks: Vec<Vec<u64>>,
    live_bytes: Vec<Vec<u64>>,
    /// Those that hold most, and where there are more a last one for all others.
    sites: Vec<Site>,
    site_blocks: Vec<Vec<u64>>,
    site_bytes: Vec<Vec<u64>>,
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

/// Rows by what they are of.
struct Rows<K>(HashMap<K, Box<Row>>);

impl<K: Copy + Eq + Hash + Ord> Rows<K> {
    fn enter(&mut self, of: K, size: u64) {
        let row = self.0.entry(of).or_insert_with(|| Box::new(Row::EMPTY));
        row.bytes += size;
        let cell = &mut row.each[class(size)];
        *cell = (cell.0 + 1, cell.1 + size);
    }

    /// The `most` rows with most bytes, these first; the others in one under `None`.
    fn largest(self, most: usize) -> Vec<(Option<K>, Box<Row>)> {
        let mut rows: Vec<(K, Box<Row>)> = self.0.into_iter().collect();
        rows.sort_unstable_by_key(|(of, row)| (std::cmp::Reverse(row.bytes), *of));
        let rest = rows.split_off(most.min(rows.len()));
        let mut rows: Vec<_> = rows.into_iter().map(|(of, row)| (Some(of), row)).collect();
        if !rest.is_empty() {
            let mut others = Box::new(Row::EMPTY);
            for (_, row) in rest {
                others.each.iter_mut().zip(row.each).for_each(|(sum, cell)| *sum = (sum.0 + cell.0, sum.1 + cell.1));
            }
            rows.push((None, others));
        }
        rows
    }
}

/// A part of each cell.
fn column<K>(rows: &[(Option<K>, Box<Row>)], of: fn(&(u64, u64)) -> u64) -> Vec<Vec<u64>> {
    rows.iter().map(|(_, row)| row.each.iter().map(of).collect()).collect()
}

pub(super) fn distributions(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Nothing {} = parameters::take("distributions", parameters)?;
    let (_, heap) = context.state.process(context.pid)?;
    let footprint = heap.pages().footprint();
    let (mut threads, mut sites) = (Rows(HashMap::new()), Rows(HashMap::new()));
    let mut wastes: BTreeMap<u64, Waste> = BTreeMap::new();
    let mut turns = context.limit.turns();
    for block in heap.blocks().iter() {
        turns.turn()?;
        threads.enter(block.thread, block.size);
        // A site may have many origins: one for each stack.
        sites.enter(heap.origin(block.origin).map(|origin| origin.site), block.size);
        if let Some(usable) = usable(footprint, block.addr, block.size) {
            let size = if usable <= EXACT { usable } else { usable.checked_next_power_of_two().unwrap_or(u64::MAX) };
            let waste = wastes.entry(size).or_insert(Waste { size, ..Waste::default() });
            waste.blocks += 1;
            waste.requested_bytes += block.size;
            waste.usable_bytes += usable;
        }
    }
    let (threads, sites) = (threads.largest(THREADS), sites.largest(SITES));
    let mut namer = Namer::new(context.state.builder.sites(context.pid));
    #[allow(clippy::option_option, reason = "all others, and among the sites that of blocks without one")]
    let mut name = |site: Option<Option<u64>>| match site {
        None => Site::none("(others)"),
        Some(None) => Site::older(),
        Some(Some(address)) => namer.name(address),
    };
    json(&Answer {
        threads: threads.iter().map(|(thread, _)| thread.unwrap_or(0)).collect(),
        sizes: (0..CLASSES).map(lower).collect(),
        live_blocks: column(&threads, |cell| cell.0),
        live_bytes: column(&threads, |cell| cell.1),
        sites: sites.iter().map(|(site, _)| name(*site)).collect(),
        site_blocks: column(&sites, |cell| cell.0),
        site_bytes: column(&sites, |cell| cell.1),
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
    fn rows_beyond_the_largest_are_one() {
        let mut rows = Rows(HashMap::new());
        for (of, size) in [(1, 100), (2, 8), (2, 8), (3, 9), (4, 200)] {
            rows.enter(of, size);
        }
        let rows = rows.largest(2);
        assert_eq!(rows.iter().map(|(of, _)| *of).collect::<Vec<_>>(), [Some(4), Some(1), None]);
        assert_eq!(rows[2].1.each[..2], [(2, 16), (1, 9)]);
        assert_eq!(column(&rows, |cell| cell.1).concat().iter().sum::<u64>(), 325);
    }

    #[test]
    fn classes_follow_one_another() {
        assert_eq!((class(0), class(8), class(9), class(16), class(17)), (0, 0, 1, 1, 2));
        for at in 1..CLASSES {
            assert_eq!((class(lower(at) - 1), class(lower(at))), (at - 1, at));
        }
        assert_eq!(class(u64::MAX), CLASSES - 1);
    }
}
