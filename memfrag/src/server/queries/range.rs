//! `range` and `compare`: what two states have in common, and what not.

use super::parameters::{self, json, wrong};
use super::report::{Summary, summary};
use super::site::{Namer, Site};
use super::{Context, Limit, QueryError, State};
use crate::heap::{Block, Heap};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// Call sites in an answer.
const SITES: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeParameters {
    from_ns: u64,
    to_ns: u64,
}

/// Blocks and their requested bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Amount {
    blocks: u64,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    fn sum(amounts: impl Iterator<Item = Self>) -> Self {
        amounts.fold(Self::default(), |sum, amount| Self {
            blocks: sum.blocks + amount.blocks,
            bytes: sum.bytes.wrapping_add(amount.bytes),
        })
    }

    fn less(self, other: Self) -> Self {
        Self { blocks: self.blocks.saturating_sub(other.blocks), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// What became of the blocks of a call site, or of all, between two times.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// Allocated between, and live at the end.
    grown: Amount,
    /// Live at the beginning, and not at the end.
    freed: Amount,
    /// Allocated between, and freed before the end.
    temporary: Amount,
    /// Live at both.
    survivors: Amount,
    /// Allocated between, whatever became of them.
    allocated: Amount,
    before: Amount,
}

#[derive(Serialize)]
struct Range {
    from_ns: u64,
    to_ns: u64,
    grown: Amount,
    freed: Amount,
    temporary: Amount,
    survivors: Amount,
    allocated: Amount,
    sites: Vec<RangeSite>,
}

#[derive(Serialize)]
struct RangeSite {
    #[serde(flatten)]
    site: Site,
    grown_bytes: u64,
    grown_blocks: u64,
    freed_bytes: u64,
    temporary_bytes: u64,
    temporary_blocks: u64,
    survivors_bytes: u64,
}

pub(super) fn range(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let RangeParameters { from_ns, to_ns } = parameters::take("range", parameters)?;
    if from_ns > to_ns {
        return Err(wrong("range", "from_ns is later than to_ns"));
    }
    let from = context.states.at(None, from_ns, context.limit)?;
    let at_end;
    let to = if to_ns == context.state.at_ns {
        context.state
    } else {
        at_end = context.states.at(None, to_ns, context.limit)?;
        &at_end
    };
    let courses = courses(&from, to, context.pid, context.limit)?;
    let sum = |of: fn(&Course) -> Amount| Amount::sum(courses.values().map(of));
    let mut ranked: Vec<(&u64, &Course)> = courses.iter().collect();
    ranked.sort_unstable_by_key(|(address, course)| {
        (Reverse(course.grown.bytes), Reverse(course.temporary.bytes), Reverse(course.freed.bytes), **address)
    });
    let mut namer = Namer::new(to.builder.sites(context.pid));
    let sites = ranked.into_iter().take(SITES).map(|(&address, course)| RangeSite {
        site: namer.name(address),
        grown_bytes: course.grown.bytes,
        grown_blocks: course.grown.blocks,
        freed_bytes: course.freed.bytes,
        temporary_bytes: course.temporary.bytes,
        temporary_blocks: course.temporary.blocks,
        survivors_bytes: course.survivors.bytes,
    });
    json(&Range {
        from_ns,
        to_ns,
        grown: sum(|course| course.grown),
        freed: sum(|course| course.freed),
        temporary: sum(|course| course.temporary),
        survivors: sum(|course| course.survivors),
        allocated: sum(|course| course.allocated),
        sites: sites.collect(),
    })
}

/// What became of the blocks of each call site between two states of a recording.
fn courses(from: &State, to: &State, pid: u32, limit: &Limit) -> Result<HashMap<u64, Course>, QueryError> {
    let (end_process, end) = to.process(pid)?;
    // The process may have begun only in between, under an id that another one had before; what it inherited then was
    // allocated before.
    let at = |state: &State| state.builder.heaps().index_of(pid);
    let begin = from.process(pid).ok().filter(|_| at(from) == at(to));
    let mut courses: HashMap<u64, Course> = HashMap::new();
    let mut turns = limit.turns();
    if let Some((_, begin)) = begin {
        for block in begin.blocks().iter() {
            turns.turn()?;
            courses.entry(site_of(begin, &block)).or_default().before.add(block.size);
        }
    }
    // Of these the state does not say whether they are live: their reallocation had begun and not ended.
    let under_way: HashSet<u64> =
        begin.iter().flat_map(|(process, _)| process.blocks_under_way()).map(|block| block.addr).collect();
    for block in end.blocks().iter() {
        turns.turn()?;
        let survives = match begin {
            Some((_, begin)) => match begin.blocks().get(block.addr) {
                Some(before) => is_same(&before, &block) && site_of(begin, &before) == site_of(end, &block),
                None => under_way.contains(&block.addr) && block.time <= from.at_ns,
            },
            None => block.time < end_process.started(),
        };
        let course = courses.entry(site_of(end, &block)).or_default();
        if survives {
            course.survivors.add(block.size);
            if begin.is_none_or(|(_, begin)| begin.blocks().get(block.addr).is_none()) {
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
    for (_, origin, totals) in begin.into_iter().flat_map(|(_, begin)| begin.origins()) {
        let allocated = &mut courses.entry(origin.site).or_default().allocated;
        let before = Amount { blocks: totals.allocations, bytes: totals.requested_bytes };
        *allocated = allocated.less(before);
    }
    for course in courses.values_mut() {
        course.freed = course.before.less(course.survivors);
        course.temporary = course.allocated.less(course.grown);
    }
    courses.retain(|_, course| {
        [course.grown, course.freed, course.survivors, course.allocated].iter().any(|a| a.blocks > 0)
    });
    Ok(courses)
}

fn is_same(before: &Block, block: &Block) -> bool {
    (before.time, before.size, before.thread) == (block.time, block.size, block.thread)
}

fn site_of(heap: &Heap, block: &Block) -> u64 {
    heap.origin(block.origin).map_or(0, |origin| origin.site)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareParameters {
    a: Moment,
    b: Moment,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Moment {
    source: usize,
    pid: u32,
    at_ns: u64,
}

#[derive(Serialize)]
struct Comparison {
    a: Summary,
    b: Summary,
    sites: Vec<ComparedSite>,
}

#[derive(Serialize)]
struct ComparedSite {
    #[serde(flatten)]
    site: Site,
    a_bytes: u64,
    b_bytes: u64,
    a_blocks: u64,
    b_blocks: u64,
}

/// What is the same call site in two processes: addresses are not, but places in files are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    File(String, u64),
    Address(u64),
}

pub(super) fn compare(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let CompareParameters { a, b } = parameters::take("compare", parameters)?;
    let state = |moment: Moment| context.states.at(Some(moment.source), moment.at_ns, context.limit);
    let (first, second) = (state(a)?, state(b)?);
    let mut sites: HashMap<Place, ComparedSite> = HashMap::new();
    let states: [(&State, u32); 2] = [(&first, a.pid), (&second, b.pid)];
    for (side, (state, pid)) in states.into_iter().enumerate() {
        for (address, live) in live_by_site(state, pid, context.limit)? {
            let found = state.builder.sites(pid).find(address);
            let place = match (&found.module, found.offset) {
                (Some(module), Some(offset)) => Place::File(module.clone(), offset),
                _ => Place::Address(address),
            };
            let site = sites.entry(place).or_insert_with(|| ComparedSite {
                site: found.into(),
                a_bytes: 0,
                b_bytes: 0,
                a_blocks: 0,
                b_blocks: 0,
            });
            let (bytes, blocks) = match side {
                0 => (&mut site.a_bytes, &mut site.a_blocks),
                _ => (&mut site.b_bytes, &mut site.b_blocks),
            };
            *bytes = bytes.wrapping_add(live.bytes);
            *blocks += live.blocks;
        }
    }
    let mut sites: Vec<(Place, ComparedSite)> = sites.into_iter().collect();
    sites.sort_by(|(one_place, one), (other_place, other)| {
        let size = |site: &ComparedSite| site.a_bytes.abs_diff(site.b_bytes);
        size(other).cmp(&size(one)).then_with(|| one_place.cmp(other_place))
    });
    sites.truncate(SITES);
    json(&Comparison {
        a: summary(&first, a.pid, context.limit)?,
        b: summary(&second, b.pid, context.limit)?,
        sites: sites.into_iter().map(|(_, site)| site).collect(),
    })
}

/// What each call site holds.
fn live_by_site(state: &State, pid: u32, limit: &Limit) -> Result<HashMap<u64, Amount>, QueryError> {
    let (_, heap) = state.process(pid)?;
    let mut sites: HashMap<u64, Amount> = HashMap::new();
    let mut turns = limit.turns();
    for block in heap.blocks().iter() {
        turns.turn()?;
        sites.entry(site_of(heap, &block)).or_default().add(block.size);
    }
    Ok(sites)
}
