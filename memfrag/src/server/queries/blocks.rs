//! `blocks`: the live blocks of a class, and how a block goes out.

use super::parameters::{self, Address, json, within, wrong};
use super::site::{Namer, Origin, Site};
use super::{Class, Context, QueryError};
use crate::glibc::layout::{HEADER, chunk_bytes};
use crate::heap::{Block, Footprint, Heap, OriginId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Blocks in an answer.
const MOST: u64 = 5000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    by: Kind,
    value: Option<Which>,
    address: Option<Address>,
    limit: u64,
}

/// Which class of a kind.
#[derive(Deserialize)]
#[serde(untagged)]
enum Which {
    /// As in the palette of the map.
    Cell(u8),
    /// As blame calls it: `thread 4711`, `33 to 64 B`.
    Name(String),
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Site,
    Thread,
    Size,
}

/// A live block.
#[derive(Debug, Serialize)]
pub(super) struct Live {
    address: Address,
    size: u64,
    /// What the program may use of it, where the allocator's rule is known.
    usable: Option<u64>,
    time_ns: u64,
    age_ns: u64,
    /// Null for blocks that no event told of.
    thread: Option<u32>,
    older: bool,
    #[serde(flatten)]
    origin: Origin,
    /// The frames of the call, its site first; absent where only the caller was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<Vec<Site>>,
}

#[derive(Serialize)]
struct Answer {
    blocks: Vec<Live>,
    total: u64,
}

/// Describes blocks of a heap.
#[derive(Debug)]
pub(super) struct Describer<'a> {
    heap: &'a Heap,
    now: u64,
    namer: Namer<'a>,
}

impl<'a> Describer<'a> {
    pub(super) fn new(context: &Context<'a>, heap: &'a Heap) -> Self {
        Self { heap, now: context.state.at_ns, namer: Namer::new(context.state.builder.sites(context.pid)) }
    }

    /// The block with the whole stack of its call.
    pub(super) fn whole(&mut self, block: &Block) -> Live {
        let stack = self.heap.origin(block.origin).map_or(0, |origin| origin.stack);
        let frames = if block.origin == OriginId::UNSEEN { None } else { self.namer.frames(stack) };
        Live { frames, ..self.block(block) }
    }

    pub(super) fn block(&mut self, block: &Block) -> Live {
        let older = block.origin == OriginId::UNSEEN;
        let origin = self.heap.origin(block.origin).filter(|_| !older);
        Live {
            address: Address(block.addr),
            size: block.size,
            usable: if older {
                Some(block.size)
            } else {
                usable(self.heap.pages().footprint(), block.addr, block.size)
            },
            time_ns: block.time,
            age_ns: self.now.saturating_sub(block.time),
            thread: (!older).then_some(block.thread),
            older,
            frames: None,
            origin: origin.map_or_else(Site::older, |origin| self.namer.name(origin.site)).into(),
        }
    }
}

/// What `malloc_usable_size` says of a block.
pub(super) fn usable(footprint: Footprint, addr: u64, size: u64) -> Option<u64> {
    match footprint {
        Footprint::Requested => None,
        Footprint::Glibc if Footprint::is_mapped(addr, size) => Some(footprint.bytes(addr, size) - HEADER),
        Footprint::Glibc => Some(chunk_bytes(size) - HEADER / 2),
    }
}

pub(super) fn blocks(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Parameters { by, value, address, limit } = parameters::take("blocks", parameters)?;
    let limit = within("blocks", "limit", limit, 1..=MOST)? as usize;
    let (_, heap) = context.state.process(context.pid)?;
    let class = class(by, value, address, context)?;
    let of_site: Vec<bool> = match class {
        Class::Site(site) => heap.origins().map(|(_, origin, _)| origin.site == site).collect(),
        _ => Vec::new(),
    };
    let wanted = |block: &Block| match class {
        Class::Site(_) => of_site.get(block.origin.index()).copied().unwrap_or(false),
        Class::Thread(thread) => block.thread == thread,
        Class::Size(least, most) => (least..=most).contains(&block.size),
        Class::Older => false,
    };
    // The smallest of the largest so far is on top.
    let mut largest: BinaryHeap<Reverse<(u64, Reverse<u64>)>> = BinaryHeap::with_capacity(limit + 1);
    let mut total = 0;
    let mut turns = context.limit.turns();
    let older = heap.older().iter().filter(|_| class == Class::Older);
    for block in heap.blocks().iter().filter(wanted).chain(older) {
        turns.turn()?;
        total += 1;
        largest.push(Reverse((block.size, Reverse(block.addr))));
        if largest.len() > limit {
            largest.pop();
        }
    }
    let mut describer = Describer::new(context, heap);
    let found = largest.into_sorted_vec().into_iter();
    let blocks =
        found.filter_map(|Reverse((_, Reverse(addr)))| heap.blocks().get(addr).or_else(|| heap.older().get(addr)));
    json(&Answer { blocks: blocks.map(|block| describer.block(&block)).collect(), total })
}

fn class(by: Kind, value: Option<Which>, address: Option<Address>, context: &Context<'_>) -> Result<Class, QueryError> {
    let mode = match by {
        Kind::Site => "site",
        Kind::Thread => "thread",
        Kind::Size => "size",
    };
    match (value, address) {
        (None, Some(Address(site))) if by == Kind::Site => Ok(Class::Site(site)),
        (Some(Which::Name(name)), None) => named(by, &name).ok_or_else(|| {
            let name: String = name.chars().take(40).collect();
            wrong("blocks", &format!("there is no {mode} {name:?}"))
        }),
        (Some(Which::Cell(value)), None) => {
            let palette = context.palette.and_then(|palette| palette.class(mode, value));
            palette.ok_or_else(|| wrong("blocks", &format!("the palette of {mode} has no class {value}")))
        }
        (None, Some(_)) => Err(wrong("blocks", "an address is one of a call site, and by is not site")),
        _ => Err(wrong("blocks", "takes either value or address")),
    }
}

/// A class by the name that blame has for it.
fn named(by: Kind, name: &str) -> Option<Class> {
    match by {
        Kind::Thread => name.strip_prefix("thread ")?.parse().ok().map(Class::Thread),
        Kind::Size => {
            let sizes = name.strip_suffix(" B")?;
            let (least, most) = match sizes.strip_prefix("up to ") {
                Some(most) => ("0", most),
                None => sizes.split_once(" to ")?,
            };
            Some(Class::Size(least.parse().ok()?, most.parse().ok()?))
        }
        Kind::Site => None,
    }
}
