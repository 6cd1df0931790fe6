//! `events`: a recording's events, page by page.

use super::parameters::{self, Address, json, within, wrong};
use super::site::{Namer, Site};
use super::{Context, Limit, QueryError};
use crate::recording::EventsChunk;
use memfrag_common::{Event, Op};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::time::Duration;

/// Events in an answer.
const MOST: u64 = 500;
/// Where few events are wanted ones, what was found after so long is the answer; `next` tells where to go on.
const SEARCH: Duration = Duration::from_millis(1500);
/// Kinds of events, as they are called.
const OPS: [&str; 17] = [
    "alloc",
    "free",
    "realloc_begin",
    "realloc",
    "fork",
    "exec",
    "exit",
    "thread_start",
    "thread_exit",
    "mmap",
    "munmap",
    "munmap_failed",
    "mremap_begin",
    "mremap",
    "brk",
    "madvise",
    "gap",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    from: u64,
    count: u64,
    pid: Option<u32>,
    ops: Option<Vec<String>>,
    address: Option<Address>,
}

#[derive(Serialize)]
struct Answer {
    /// In the recording, those that are not wanted among them.
    total: u64,
    events: Vec<Row>,
    /// Where to go on; null at the end.
    next: Option<u64>,
    /// Whether events between these were left out. Never so here: the answer is cut instead.
    sampled: bool,
}

#[derive(Serialize)]
struct Row {
    n: u64,
    time_ns: u64,
    pid: u32,
    tid: u32,
    op: &'static str,
    /// The allocator's.
    function: Option<&'static str>,
    /// Of a block, or of memory.
    address: Option<Address>,
    /// Bytes; of a gap, the events lost.
    size: Option<u64>,
    /// Where it was called; empty for what nobody calls.
    site: String,
    site_address: Option<Address>,
    module: Option<String>,
    offset: Option<u64>,
    file: Option<String>,
    line: Option<u32>,
}

struct Wanted {
    pid: Option<u32>,
    ops: Option<Vec<&'static str>>,
    address: Option<u64>,
}

impl Wanted {
    fn is_everything(&self) -> bool {
        self.pid.is_none() && self.ops.is_none() && self.address.is_none()
    }

    fn takes(&self, event: &Event) -> bool {
        self.pid.is_none_or(|pid| pid == event.pid)
            && self.address.is_none_or(|address| event.block() == Some(address))
            && self.ops.as_ref().is_none_or(|ops| ops.contains(&name(&event.op)))
    }
}

pub(super) fn events(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Parameters { from, count, pid, ops, address } = parameters::take("events", parameters)?;
    let count = within("events", "count", count, 1..=MOST)? as usize;
    let ops = ops.map(|ops| ops.iter().map(|op| known(op)).collect::<Result<Vec<_>, _>>()).transpose()?;
    let wanted = Wanted { pid, ops, address: address.map(|address| address.0) };
    let reader = &context.state.reader;
    let chunks: Vec<EventsChunk> = reader.events_chunks().collect();
    let end = |chunk: &EventsChunk| chunk.first_event + u64::from(chunk.events);
    let total = chunks.last().map_or(0, end);
    let first = chunks.partition_point(|chunk| end(chunk) <= from);
    let search = Limit::new(SEARCH);
    let mut namers: HashMap<u32, Namer<'_>> = HashMap::new();
    let mut picker = reader.pick();
    let mut rows = Vec::with_capacity(count);
    let mut next = None;
    'chunks: for chunk in &chunks[first..] {
        context.limit.check()?;
        if !search.has_time() {
            next = Some(chunk.first_event.max(from));
            break;
        }
        // A chunk tells of which processes its events are, without being unpacked.
        let may_hold = |pid| {
            let summary = reader.summary(chunk);
            summary.is_none_or(|summary| summary.processes.iter().any(|process| process.0 == pid))
        };
        if !wanted.is_everything() && wanted.pid.is_some_and(|pid| !may_hold(pid)) {
            continue;
        }
        // Damaged ones are passed over here as everywhere; the source tells how much is damaged.
        let Some(events) = picker.read(chunk) else { continue };
        for (n, event) in (chunk.first_event..).zip(events).filter(|(n, _)| *n >= from) {
            if !wanted.takes(event) {
                continue;
            }
            if rows.len() == count {
                next = Some(n);
                break 'chunks;
            }
            let namer = namers.entry(event.pid);
            let namer = namer.or_insert_with(|| Namer::new(context.state.builder.sites(event.pid)));
            rows.push(row(n, event, namer));
        }
    }
    json(&Answer { total, events: rows, next, sampled: false })
}

fn known(op: &str) -> Result<&'static str, QueryError> {
    OPS.into_iter().find(|known| *known == op).ok_or_else(|| wrong("events", &format!("there is no op {op:?}")))
}

const fn name(op: &Op) -> &'static str {
    OPS[match op {
        Op::Alloc { .. } => 0,
        Op::Free { .. } => 1,
        Op::ReallocBegin { .. } => 2,
        Op::ReallocEnd { .. } => 3,
        Op::Fork { .. } => 4,
        Op::Exec => 5,
        Op::Exit { .. } => 6,
        Op::ThreadStart => 7,
        Op::ThreadExit => 8,
        Op::Mmap { .. } => 9,
        Op::Munmap { .. } => 10,
        Op::MunmapFailed { .. } => 11,
        Op::MremapBegin { .. } => 12,
        Op::MremapEnd { .. } => 13,
        Op::Brk { .. } => 14,
        Op::Madvise { .. } => 15,
        Op::Gap { .. } => 16,
    }]
}

fn row(n: u64, event: &Event, namer: &mut Namer<'_>) -> Row {
    let (function, caller) = match event.op {
        Op::Alloc { function, site, .. }
        | Op::Free { function, site, .. }
        | Op::ReallocBegin { function, site, .. }
        | Op::ReallocEnd { function, site, .. } => (Some(function.name()), Some(site)),
        _ => (None, None),
    };
    let (address, size) = match event.op {
        Op::Alloc { addr, size, .. }
        | Op::Free { addr, size, .. }
        | Op::ReallocBegin { old: addr, size, .. }
        | Op::ReallocEnd { addr, size, .. }
        | Op::Mmap { addr, size, .. }
        | Op::Munmap { addr, size }
        | Op::MunmapFailed { addr, size }
        | Op::MremapBegin { addr, size }
        | Op::MremapEnd { addr, size }
        | Op::Madvise { addr, size, .. } => (Some(addr), Some(size)),
        Op::Brk { end } => (Some(end), None),
        Op::Gap { lost } => (None, Some(lost)),
        Op::Fork { .. } | Op::Exec | Op::Exit { .. } | Op::ThreadStart | Op::ThreadExit => (None, None),
    };
    let Site { site, address: site_address, module, offset, function: _, file, line } =
        caller.map_or_else(|| Site::none(""), |caller| namer.name(caller));
    Row {
        n,
        time_ns: event.time,
        pid: event.pid,
        tid: event.tid,
        op: name(&event.op),
        function,
        address: address.map(Address),
        size,
        site,
        site_address,
        module,
        offset,
        file,
        line,
    }
}
