//! `at` and `holes`: what lies at an address, and the memory between blocks.

use super::blocks::{Describer, Live};
use super::parameters::{self, Address, json, within};
use super::{Context, QueryError};
use crate::glibc::layout::HEADER;
use crate::heap::{Block, Footprint, Heap};
use crate::target::Residency;
use crate::target::residency::{PAGE, Region, RegionKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;
use std::ops::Range;

/// How far neighbours are looked for, in steps: most are near.
const STEPS: [u64; 5] = [0, 1 << 16, 1 << 21, 1 << 26, 1 << 30];
/// Where no look at the pages tells what belongs together: blocks further apart than this have no hole between them.
const APART: u64 = 64 << 10;
/// Holes in an answer.
const MOST: u64 = 5000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AtParameters {
    address: Address,
}

#[derive(Serialize)]
struct At {
    address: Address,
    page: Page,
    block: Option<Live>,
    hole: Option<Hole>,
    before: Option<Live>,
    after: Option<Live>,
}

#[derive(Serialize)]
struct Page {
    address: Address,
    live_bytes: u64,
    blocks: u64,
    /// Null where no look at the pages tells.
    resident: Option<bool>,
    region: Option<&'static str>,
}

/// Memory between blocks.
#[derive(Debug, Serialize)]
struct Hole {
    start: Address,
    end: Address,
    bytes: u64,
    /// Null where no look at the pages tells.
    resident_bytes: Option<u64>,
}

pub(super) fn at(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let AtParameters { address: Address(address) } = parameters::take("at", parameters)?;
    let (_, heap) = context.state.process(context.pid)?;
    let look = look(context);
    let region = look.and_then(|look| look.region(address));
    let footprint = heap.pages().footprint();
    // The end of a block may lie where the next chunk begins.
    let asked = |block: &Block| address.checked_sub(block.addr).is_some_and(|distance| distance < block.size);
    let holds = |block: &Block| asked(block) || footprint.of(block.addr, block.size).contains(&address);
    let mut found = heap.overlapping(address.saturating_sub(HEADER)..address.saturating_add(1));
    // Of blocks that seem to overlap, because the free of one was missed, the last one allocated is there.
    found.sort_by_key(|block| (Reverse(asked(block)), Reverse(block.time)));
    let block = found.into_iter().find(holds);
    let (low, high) = block.map_or((address, address.saturating_add(1)), |block| {
        let taken = footprint.of(block.addr, block.size);
        (block.addr, taken.end.max(block.addr.saturating_add(1)))
    });
    let (before, after) = (before(heap, low, context)?, after(heap, high, context)?);
    let hole = block.is_none().then(|| between(footprint, address, before, after, region)).flatten();
    let occupancy = heap.pages().get(address);
    let mut describer = Describer::new(context, heap);
    let here = block.map(|block| describer.whole(&block));
    let mut live = |block: Option<Block>| block.map(|block| describer.block(&block));
    json(&At {
        address: Address(address),
        page: Page {
            address: Address(address & !(PAGE - 1)),
            live_bytes: occupancy.bytes,
            blocks: occupancy.blocks,
            resident: look.map(|_| region.is_some_and(|region| resident(region, &(address..address + 1)) > 0)),
            region: region.map(|region| label(region.kind)),
        },
        block: here,
        hole: hole.map(|range| Hole::new(range, look)),
        before: live(before),
        after: live(after),
    })
}

/// Which pages of the process were resident at the last look.
fn look<'a>(context: &Context<'a>) -> Option<&'a Residency> {
    let builder = &context.state.builder;
    builder.last_residency(builder.heaps().index_of(context.pid)?)
}

/// The last block that begins before an address.
fn before(heap: &Heap, address: u64, context: &Context<'_>) -> Result<Option<Block>, QueryError> {
    for step in STEPS.windows(2) {
        context.limit.check()?;
        let (start, end) = (address.saturating_sub(step[1]), address.saturating_sub(step[0]));
        let all = [heap.blocks(), heap.older()];
        let last = all.into_iter().filter_map(|blocks| blocks.range(start, end).last()).max_by_key(|block| block.addr);
        if last.is_some() {
            return Ok(last);
        }
    }
    Ok(None)
}

/// The first block that begins at an address or behind.
fn after(heap: &Heap, address: u64, context: &Context<'_>) -> Result<Option<Block>, QueryError> {
    for step in STEPS.windows(2) {
        context.limit.check()?;
        let (start, end) = (address.saturating_add(step[0]), address.saturating_add(step[1]));
        let all = [heap.blocks(), heap.older()];
        let first = all.into_iter().filter_map(|blocks| blocks.range(start, end).next()).min_by_key(|block| block.addr);
        if first.is_some() {
            return Ok(first);
        }
    }
    Ok(None)
}

/// The hole at an address: from the block before to that behind, within the region where that is known.
fn between(
    footprint: Footprint,
    address: u64,
    before: Option<Block>,
    after: Option<Block>,
    region: Option<&Region>,
) -> Option<Range<u64>> {
    let end = before.map(|block| footprint.of(block.addr, block.size).end);
    let start = after.map(|block| footprint.of(block.addr, block.size).start);
    let range = match region {
        Some(region) if region.kind.may_hold_blocks() => {
            let bounds = &region.range;
            end.map_or(bounds.start, |end| end.max(bounds.start))
                ..start.map_or(bounds.end, |start| start.min(bounds.end))
        }
        Some(_) => return None,
        None => end?..start?,
    };
    let is_near = region.is_some() || range.end.saturating_sub(range.start) < APART;
    (range.contains(&address) && is_near).then_some(range)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HolesParameters {
    limit: u64,
}

#[derive(Serialize)]
struct Holes {
    holes: Vec<Hole>,
}

pub(super) fn holes(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let HolesParameters { limit } = parameters::take("holes", parameters)?;
    let limit = within("holes", "limit", limit, 1..=MOST)? as usize;
    let (_, heap) = context.state.process(context.pid)?;
    let look = look(context);
    let footprint = heap.pages().footprint();
    // The smallest of the largest so far is on top.
    let mut largest: BinaryHeap<Reverse<(u64, Reverse<u64>)>> = BinaryHeap::with_capacity(limit + 1);
    let mut add = |range: Range<u64>| {
        if range.start < range.end {
            largest.push(Reverse((range.end - range.start, Reverse(range.start))));
            if largest.len() > limit {
                largest.pop();
            }
        }
    };
    let mut turns = context.limit.turns();
    let mut end: Option<u64> = None;
    let mut region: Option<&Region> = None;
    for block in by_address(heap) {
        turns.turn()?;
        let taken = footprint.of(block.addr, block.size);
        let is_same = match (look, region) {
            (Some(_), Some(region)) => region.range.contains(&taken.start),
            // A block that lies in no region came after the look.
            (_, None) => end.is_some_and(|end| taken.start.saturating_sub(end) < APART),
            (None, Some(_)) => false,
        };
        match end {
            Some(end) if is_same => add(end..taken.start),
            Some(end) => {
                if let Some(region) = region {
                    add(top(region, end));
                }
            }
            None => {}
        }
        if !is_same {
            region = look.and_then(|look| look.region(taken.start));
        }
        end = Some(if is_same { end.unwrap_or(0).max(taken.end) } else { taken.end });
    }
    if let (Some(region), Some(end)) = (region, end) {
        add(top(region, end));
    }
    let found = largest.into_sorted_vec().into_iter();
    let holes = found.map(|Reverse((bytes, Reverse(start)))| Hole::new(start..start + bytes, look));
    json(&Holes { holes: holes.collect() })
}

/// What is free behind the last block of the heap segment. Other regions are larger than their blocks for many reasons.
fn top(region: &Region, end: u64) -> Range<u64> {
    match region.kind {
        RegionKind::Heap => end..region.range.end,
        _ => end..end,
    }
}

/// All live blocks by address, those that no event told of included.
fn by_address(heap: &Heap) -> impl Iterator<Item = Block> {
    Merged { one: heap.blocks().by_address().peekable(), other: heap.older().by_address().peekable() }
}

/// Two ascending sequences of blocks as one.
struct Merged<I: Iterator<Item = Block>> {
    one: Peekable<I>,
    other: Peekable<I>,
}

impl<I: Iterator<Item = Block>> Iterator for Merged<I> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let first = match (self.one.peek(), self.other.peek()) {
            (Some(one), Some(other)) => one.addr <= other.addr,
            (one, _) => one.is_some(),
        };
        if first { self.one.next() } else { self.other.next() }
    }
}

impl Hole {
    fn new(range: Range<u64>, look: Option<&Residency>) -> Self {
        let bytes = range.end - range.start;
        let resident_bytes = look.map(|look| {
            let first = look.regions.partition_point(|region| region.range.end <= range.start);
            let regions = look.regions[first..].iter().take_while(|region| region.range.start < range.end);
            regions.map(|region| resident(region, &range)).sum()
        });
        Self { start: Address(range.start), end: Address(range.end), bytes, resident_bytes }
    }
}

/// Resident bytes of a region within a range.
fn resident(region: &Region, range: &Range<u64>) -> u64 {
    let first = region.resident.partition_point(|run| run.end <= range.start);
    let runs = region.resident[first..].iter().take_while(|run| run.start < range.end);
    runs.map(|run| run.end.min(range.end) - run.start.max(range.start)).sum()
}

const fn label(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Heap => "heap segment",
        RegionKind::Anonymous => "anonymous memory",
        RegionKind::Stack => "stack",
        RegionKind::File => "file",
        RegionKind::Other => "other",
        RegionKind::Memfrag => "memfrag's own",
    }
}
