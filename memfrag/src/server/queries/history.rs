//! `history`: who had an address, up to the cursor.

use super::parameters::{self, Address, json, within};
use super::site::{Namer, Origin, Site};
use super::{Context, QueryError, State};
use crate::heap::{Block, Heap};
use crate::recording::{EventsChunk, Picker};
use memfrag_common::{Event, Op};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    address: Address,
    limit: u64,
}

#[derive(Serialize)]
struct Answer {
    /// The last first.
    owners: Vec<Row>,
    /// Whether there were no others since the trace began.
    complete: bool,
}

#[derive(Serialize)]
struct Row {
    address: Address,
    size: u64,
    from_ns: u64,
    /// Null for the one that has it now.
    until_ns: Option<u64>,
    thread: Option<u32>,
    freed_by: Option<u32>,
    #[serde(flatten)]
    origin: Origin,
}

/// A block that had the address.
#[derive(Clone, Copy, Debug)]
struct Owner {
    addr: u64,
    size: u64,
    from: u64,
    thread: u32,
    site: u64,
    end: Option<End>,
}

/// How a block ended.
#[derive(Clone, Copy, Debug)]
struct End {
    time: u64,
    /// `None` when the process became another program, or when its free was not seen.
    by: Option<u32>,
    /// Whether a reallocation took it, which may yet fail.
    realloc: bool,
}

pub(super) fn history(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Parameters { address: Address(address), limit } = parameters::take("history", parameters)?;
    let limit = within("history", "limit", limit, 1..=200)? as usize;
    let (_, heap) = context.state.process(context.pid)?;
    let search = Search { address, lineage: Lineage::of(context.state, context.pid), limit: context.limit };
    let reader = &context.state.reader;
    let chunks: Vec<EventsChunk> = reader.events_chunks().collect();
    let (owners, complete) = search.owners(&chunks, &mut reader.pick(), heap, limit);
    let mut namer = Namer::new(context.state.builder.sites(context.pid));
    let mut rows: Vec<Row> = owners
        .into_iter()
        .map(|owner| Row {
            address: Address(owner.addr),
            size: owner.size,
            from_ns: owner.from,
            until_ns: owner.end.map(|end| end.time),
            thread: Some(owner.thread),
            freed_by: owner.end.and_then(|end| end.by),
            origin: namer.name(owner.site).into(),
        })
        .collect();
    // One that is older than the trace and still there came before all others, and no other came since.
    if rows.is_empty()
        && let Some(older) = holder(heap, address)
    {
        rows.push(Row {
            address: Address(older.addr),
            size: older.size,
            from_ns: older.time,
            until_ns: None,
            thread: None,
            freed_by: None,
            origin: Site::older().into(),
        });
    }
    json(&Answer { owners: rows, complete })
}

/// The block that has an address although no event told of it.
fn holder(heap: &Heap, address: u64) -> Option<Block> {
    let found = heap.overlapping(address..address.saturating_add(1));
    found.into_iter().find(|block| covers(block.addr, block.size, address) && heap.older().get(block.addr).is_some())
}

fn covers(addr: u64, size: u64, address: u64) -> bool {
    address.checked_sub(addr).is_some_and(|distance| distance < size.max(1))
}

/// A process and those that it was forked from, each with the times between which it had the heap.
struct Lineage {
    until: u64,
    /// Process id, first time, last time.
    stages: Vec<(u32, u64, u64)>,
}

impl Lineage {
    fn of(state: &State, pid: u32) -> Self {
        let heaps = state.builder.heaps();
        let mut stages = Vec::new();
        let (mut at, mut until) = (heaps.index_of(pid), state.at_ns);
        while let Some(process) = at.and_then(|at| heaps.processes().get(at)) {
            // A fork can be reported a little after the child's first events.
            let parent = process.parent().filter(|parent| Some(*parent) < at);
            stages.push((process.pid(), process.started(), until));
            (at, until) = (parent, process.started());
        }
        Self { until: state.at_ns, stages }
    }

    fn holds(&self, event: &Event) -> bool {
        event.time <= self.until
            && self.stages.iter().any(|&(pid, from, until)| event.pid == pid && (from..=until).contains(&event.time))
    }
}

struct Search<'a> {
    address: u64,
    lineage: Lineage,
    limit: &'a super::Limit,
}

impl Search<'_> {
    /// The owners, the last first, at most `most`, and whether these are all. Goes from the last chunk to the first:
    /// what is asked for is mostly near the end.
    fn owners(&self, chunks: &[EventsChunk], picker: &mut Picker<'_>, heap: &Heap, most: usize) -> (Vec<Owner>, bool) {
        let mut owners: Vec<Owner> = Vec::new();
        // The chunk in which the owner found before, which came later, begins.
        let mut next = chunks.len();
        for (at, chunk) in chunks.iter().enumerate().rev() {
            if !self.limit.has_time() {
                return (owners, false);
            }
            if chunk.first_time > self.lineage.until {
                continue;
            }
            let Some(events) = picker.read(chunk) else { continue };
            let mut found: Vec<Owner> = Vec::new();
            for event in events {
                self.pass(event, &mut found);
            }
            for owner in found.iter_mut().filter(|owner| owner.end.is_none()) {
                let is_live = heap.blocks().get(owner.addr).is_some_and(|block| block.time == owner.from);
                let until = chunks.len().min(next.saturating_add(1));
                if !is_live && !self.close(owner, chunks.get(at + 1..until).unwrap_or_default(), picker) {
                    return (owners, false);
                }
            }
            if !found.is_empty() {
                next = at;
            }
            for owner in found.into_iter().rev() {
                if owners.len() == most {
                    return (owners, false);
                }
                owners.push(owner);
            }
        }
        (owners, true)
    }

    /// Takes the next event of a chunk into account.
    fn pass(&self, event: &Event, found: &mut Vec<Owner>) {
        if !self.lineage.holds(event) {
            return;
        }
        // One that comes ends those before it, so that only the last ones can be open.
        for owner in found.iter_mut().rev().take(4) {
            Self::end(owner, event, self.address);
        }
        let (Op::Alloc { addr, size, site, .. } | Op::ReallocEnd { addr, size, site, .. }) = event.op else { return };
        if addr != 0 && covers(addr, size, self.address) {
            found.push(Owner { addr, size, from: event.time, thread: event.tid, site, end: None });
        }
    }

    /// Ends an owner where an event says so.
    fn end(owner: &mut Owner, event: &Event, address: u64) {
        let by = Some(event.tid);
        match (event.op, owner.end) {
            (Op::Free { addr, .. }, None) if addr == owner.addr => {
                owner.end = Some(End { time: event.time, by, realloc: false });
            }
            (Op::ReallocBegin { old, .. }, None) if old == owner.addr => {
                owner.end = Some(End { time: event.time, by, realloc: true });
            }
            // It failed, and the old block lives on.
            (Op::ReallocEnd { addr: 0, size, .. }, Some(end)) if size > 0 && end.realloc && end.by == by => {
                owner.end = None;
            }
            (Op::ReallocEnd { .. }, Some(end)) if end.realloc && end.by == by => {
                owner.end = Some(End { realloc: false, ..end });
            }
            (Op::Alloc { addr, size, .. } | Op::ReallocEnd { addr, size, .. }, None)
                if addr != 0 && covers(addr, size, address) =>
            {
                owner.end = Some(End { time: event.time, by: None, realloc: false });
            }
            (Op::Exec, None) => owner.end = Some(End { time: event.time, by: None, realloc: false }),
            _ => {}
        }
    }

    /// Looks in later chunks for the end of an owner; false when time runs out before.
    fn close(&self, owner: &mut Owner, chunks: &[EventsChunk], picker: &mut Picker<'_>) -> bool {
        for chunk in chunks {
            if !self.limit.has_time() {
                return false;
            }
            let Some(events) = picker.read(chunk) else { continue };
            for event in events.iter().filter(|event| self.lineage.holds(event)) {
                Self::end(owner, event, self.address);
                if owner.end.is_some_and(|end| !end.realloc) {
                    return true;
                }
            }
        }
        true
    }
}
