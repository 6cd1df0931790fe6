//! `flame`: what call sites hold or did: by the stacks that lead to them where those were recorded, else by file and
//! function.

use super::parameters::{self, json};
use super::site::{Namer, Site};
use super::{Context, QueryError};
use crate::analysis::By;
use crate::heap::{Heap, OriginId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// Nodes of an answer.
const NODES: usize = 10_000;
/// Of these, sites: each may bring a function and a file of its own.
const SITES: usize = NODES / 3 - 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    measure: Measure,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Measure {
    /// Bytes requested for blocks that are live.
    Live,
    /// Free bytes that they keep resident.
    Stranded,
    /// Bytes requested since the trace began.
    Allocated,
    /// Those of them that are gone.
    Freed,
    /// Blocks allocated since the trace began.
    Count,
}

/// A frame, with those that it calls.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) value: u64,
    pub(super) children: Vec<Node>,
}

pub(super) fn flame(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Parameters { measure } = parameters::take("flame", parameters)?;
    let (process, heap) = context.state.process(context.pid)?;
    let by_call = match measure {
        Measure::Stranded => stranded(context)?,
        measure => counted(heap, measure, context)?,
    };
    let root = process.info().map_or_else(|| format!("pid {}", process.pid()), |info| info.comm.clone());
    json(&tree(root, by_call, &mut Namer::new(context.state.builder.sites(context.pid))))
}

/// A call site and the number of the stack that led to it, 0 for none.
type Call = (u64, u32);

/// What each call has of a measure that the heap counts.
fn counted(heap: &Heap, measure: Measure, context: &Context<'_>) -> Result<HashMap<Call, u64>, QueryError> {
    let mut live: Vec<u64> = vec![0; heap.origins().count()];
    let mut unknown = 0;
    if matches!(measure, Measure::Live | Measure::Freed) {
        let mut turns = context.limit.turns();
        for block in heap.blocks().iter() {
            turns.turn()?;
            *live.get_mut(block.origin.index()).unwrap_or(&mut unknown) += block.size;
        }
    }
    let mut calls: HashMap<Call, u64> = HashMap::new();
    for (id, origin, totals) in heap.origins() {
        let live = live.get(OriginId::index(id)).copied().unwrap_or(0);
        *calls.entry((origin.site, origin.stack)).or_default() += match measure {
            Measure::Live => live,
            Measure::Allocated => totals.requested_bytes,
            // What a fork handed down was never allocated here.
            Measure::Freed => totals.requested_bytes.saturating_sub(live),
            Measure::Count => totals.allocations,
            Measure::Stranded => 0,
        };
    }
    if unknown > 0 {
        *calls.entry((0, 0)).or_default() += unknown;
    }
    Ok(calls)
}

/// What each call keeps of free memory, at the last look at the pages.
fn stranded(context: &Context<'_>) -> Result<HashMap<Call, u64>, QueryError> {
    let Some((_, blame)) = context.state.builder.blame(Some(context.pid), By::Stack) else {
        return Err(QueryError::Unknown(
            "the recording does not tell which pages were resident until then, so nothing is known of stranded memory"
                .to_owned(),
        ));
    };
    context.limit.check()?;
    let program = blame.sites.iter().filter_map(|site| Some(((site.address?, site.stack), site.stranded_bytes)));
    Ok(program.collect())
}

/// Frames below those that call them; sites without a stack below functions below files. The smallest of too many
/// become one.
fn tree(name: String, by_call: HashMap<Call, u64>, namer: &mut Namer<'_>) -> Node {
    let mut calls: Vec<(Call, u64)> = by_call.into_iter().filter(|call| call.1 > 0).collect();
    calls.sort_unstable_by_key(|&(call, value)| (Reverse(value), call));
    let mut rest = calls.split_off(calls.len().min(SITES));
    let mut files: BTreeMap<String, BTreeMap<String, Vec<Node>>> = BTreeMap::new();
    let mut callers = Callers::default();
    for ((address, stack), value) in calls {
        match namer.stack(stack) {
            Some(frames) if callers.nodes + frames.len() <= NODES / 2 => {
                callers.add(&frames, value);
                continue;
            }
            // All of a stack, or nothing: a part of it would seem to have been called from elsewhere.
            Some(_) => {
                rest.push(((address, stack), value));
                continue;
            }
            None => {}
        }
        let Site { site, module, function, .. } = namer.name(address);
        let file = module.as_deref().map_or("(in no known file)", |path| path.rsplit('/').next().unwrap_or(path));
        let functions = files.entry(file.to_owned()).or_default();
        let function = function.unwrap_or_else(|| "(function unknown)".to_owned());
        functions.entry(function).or_default().push(Node { name: site, value, children: Vec::new() });
    }
    let mut children: Vec<Node> = files
        .into_iter()
        .map(|(file, functions)| {
            let functions = functions.into_iter().map(|(function, sites)| parent(function, sites));
            parent(file, functions.collect())
        })
        .collect();
    children.append(&mut callers.children());
    if !rest.is_empty() {
        let value = rest.iter().map(|call| call.1).sum();
        children.push(Node { name: format!("({} smaller call sites)", rest.len()), value, children: Vec::new() });
    }
    parent(name, children)
}

/// Frames and those that they call, the outermost on top.
#[derive(Default)]
struct Callers {
    inner: BTreeMap<String, Callers>,
    value: u64,
    /// Frames put in, of which some met.
    nodes: usize,
}

impl Callers {
    fn add(&mut self, frames: &[String], value: u64) {
        self.nodes += frames.len();
        let mut at = self;
        // Deep recursion is drawn as deep as it is: the page's own limit is on nodes.
        for frame in frames.iter().rev() {
            at = at.inner.entry(frame.clone()).or_default();
            at.value += value;
        }
    }

    fn children(self) -> Vec<Node> {
        let node = |(name, callers): (String, Self)| {
            let value = callers.value;
            Node { value, ..parent(name, callers.children()) }
        };
        self.inner.into_iter().map(node).collect()
    }
}

fn parent(name: String, mut children: Vec<Node>) -> Node {
    children.sort_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    Node { name, value: children.iter().map(|child| child.value).sum(), children }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_meet_where_they_have_the_same_callers() {
        let mut callers = Callers::default();
        let stack = |frames: &[&str]| frames.iter().map(ToString::to_string).collect::<Vec<_>>();
        callers.add(&stack(&["alloc", "left", "main"]), 10);
        callers.add(&stack(&["alloc", "right", "main"]), 5);
        callers.add(&stack(&["right", "main"]), 2);
        callers.add(&stack(&["alloc", "(callers unknown)"]), 1);
        let node = |name: &str, value, children| Node { name: name.to_owned(), value, children };
        let right = node("right", 7, vec![node("alloc", 5, Vec::new())]);
        let main = node("main", 17, vec![node("left", 10, vec![node("alloc", 10, Vec::new())]), right]);
        let unknown = node("(callers unknown)", 1, vec![node("alloc", 1, Vec::new())]);
        assert_eq!(parent("root".to_owned(), callers.children()), node("root", 18, vec![main, unknown]));
    }
}
