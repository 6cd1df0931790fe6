//! `distributions`: live blocks by thread and size and by call site and size, how long freed ones lived, and what size classes waste.

use super::blocks::usable;
use super::parameters::{self, Nothing, json};
use super::site::{Namer, Site};
use super::{Context, QueryError};
use crate::analysis::sizes::{CLASSES, Cell, Row, Rows, lower};
use crate::heap::Lifetimes;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

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

/// A part of each cell.
fn column<K>(rows: &[(Option<K>, Box<Row>)], of: fn(&Cell) -> u64) -> Vec<Vec<u64>> {
    rows.iter().map(|(_, row)| row.each.iter().map(of).collect()).collect()
}

pub(super) fn distributions(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Nothing {} = parameters::take("distributions", parameters)?;
    let (_, heap) = context.state.process(context.pid)?;
    let footprint = heap.pages().footprint();
    let (mut threads, mut sites) = (Rows::default(), Rows::default());
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
        live_blocks: column(&threads, |cell| cell.blocks),
        live_bytes: column(&threads, |cell| cell.bytes),
        sites: sites.iter().map(|(site, _)| name(*site)).collect(),
        site_blocks: column(&sites, |cell| cell.blocks),
        site_bytes: column(&sites, |cell| cell.bytes),
        lifetimes: lived(heap.lifetimes()),
        waste: wastes.into_values().collect(),
    })
}

fn lived(lifetimes: Option<&Lifetimes>) -> Lived {
    let rows = lifetimes.into_iter().flat_map(Lifetimes::rows);
    let (threads, freed) = rows.map(|(thread, freed)| (thread, freed.to_vec())).unzip();
    Lived { bounds_ns: Lifetimes::bounds().collect(), threads, freed }
}
