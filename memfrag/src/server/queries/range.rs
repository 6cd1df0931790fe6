//! `range` and `compare`: what two states have in common, and what not.

use super::parameters::{self, json, wrong};
use super::report::{Summary, summary};
use super::site::{Namer, Site};
use super::{Context, Limit, QueryError, State};
use crate::analysis::between::{self, Course};
use crate::report::compare::{Beside, side_by_side};
use crate::report::model::Amount;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::HashMap;

/// Call sites in an answer.
const SITES: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeParameters {
    from_ns: u64,
    to_ns: u64,
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
    let sum = Course::sum(courses.values());
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
        grown: sum.grown.into(),
        freed: sum.freed.into(),
        temporary: sum.temporary.into(),
        survivors: sum.survivors.into(),
        allocated: sum.allocated.into(),
        sites: sites.collect(),
    })
}

/// What became of the blocks of each call site between two states of a recording.
fn courses(from: &State, to: &State, pid: u32, limit: &Limit) -> Result<HashMap<u64, Course>, QueryError> {
    let end = to.process(pid)?;
    // The process may have begun only in between, under an id that another one had before.
    let at = |state: &State| state.builder.heaps().index_of(pid);
    let begin = from.process(pid).ok().filter(|_| at(from) == at(to));
    let mut turns = limit.turns();
    between::courses(begin, from.at_ns, end, || turns.turn())
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

pub(super) fn compare(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let CompareParameters { a, b } = parameters::take("compare", parameters)?;
    let state = |moment: Moment| context.states.at(Some(moment.source), moment.at_ns, context.limit);
    let (first, second) = (state(a)?, state(b)?);
    let live = |state: &State, pid| {
        let mut turns = context.limit.turns();
        between::live_by_site(state.process(pid)?.1, || turns.turn())
    };
    let (live_a, live_b) = (live(&first, a.pid)?, live(&second, b.pid)?);
    let rows = side_by_side([(first.builder.sites(a.pid), live_a), (second.builder.sites(b.pid), live_b)]);
    let sites = rows.into_iter().take(SITES).map(|Beside { site, a, b }| ComparedSite {
        site: site.into(),
        a_bytes: a.bytes,
        b_bytes: b.bytes,
        a_blocks: a.blocks,
        b_blocks: b.blocks,
    });
    json(&Comparison {
        a: summary(&first, a.pid, context.limit)?,
        b: summary(&second, b.pid, context.limit)?,
        sites: sites.collect(),
    })
}
