//! A naive second implementation of the rules, and random streams of events to compare the two.
//!
//! The oracle keeps ordered maps and copies them whole at a fork; its sums are worked out anew from a log of what
//! happened to each block. It knows nothing of regions, sharing, caches or indices.

use crate::heap::{Block, Footprint, Heap, Heaps, Occupancy};
use crate::target::residency::PAGE;
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// What a block is known by: size, birth, thread, site.
type Facts = (u64, u64, u32, u64);

#[derive(Clone, Debug, Default)]
struct Space {
    live: BTreeMap<u64, Facts>,
    log: Vec<Entry>,
    peak: (u64, u64, u64),
    users: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    Allocated(u64),
    Reallocated(u64),
    Freed,
    /// Bytes that are gone.
    Gone(u64),
    Inherited(u64),
    Discarded(u64),
    Unmatched,
    UnmatchedRealloc,
    Missed,
    NoBegin,
    NoEnd,
    Conflict,
    Gap(u64),
    Tail,
}

impl Space {
    fn place(&mut self, time: u64, addr: u64, facts: Facts, expected_dead: bool) {
        if let Some(old) = self.live.insert(addr, facts) {
            self.log.push(Entry::Gone(old.0));
            if expected_dead {
                self.log.push(Entry::Missed);
            }
        }
        self.note_peak(time);
    }

    fn restore(&mut self, time: u64, addr: u64, old: Facts) {
        let holder = *self.live.entry(addr).or_insert(old);
        if holder == old {
            self.note_peak(time);
        } else {
            self.log.extend([Entry::Conflict, Entry::Gone(old.0)]);
        }
    }

    fn note_peak(&mut self, time: u64) {
        let bytes = self.live.values().map(|facts| facts.0).sum();
        if bytes > self.peak.2 {
            self.peak = (time, self.live.len() as u64, bytes);
        }
    }
}

struct Actor {
    pid: u32,
    ended: bool,
    space: Rc<RefCell<Space>>,
    pending: Vec<(u32, u64, Option<Facts>, u64, u64)>,
    /// Thread ids in order of their first event.
    seen: Vec<u32>,
}

#[derive(Default)]
struct Oracle {
    actors: Vec<Actor>,
}

impl Oracle {
    fn latest(&self, pid: u32) -> Option<usize> {
        self.actors.iter().rposition(|actor| actor.pid == pid)
    }

    fn add(&mut self, pid: u32, space: Space) -> usize {
        let space = Rc::new(RefCell::new(Space { users: 1, ..space }));
        self.actors.push(Actor { pid, ended: false, space, pending: Vec::new(), seen: Vec::new() });
        self.actors.len() - 1
    }

    fn end(&mut self, at: usize, time: u64) {
        let actor = &mut self.actors[at];
        actor.ended = true;
        let mut space = actor.space.borrow_mut();
        space.users -= 1;
        // What is put back first may set the peak: that goes by threads.
        actor.pending.sort_by_key(|pending| actor.seen.iter().position(|&tid| tid == pending.0));
        for (_, addr, old, ..) in std::mem::take(&mut actor.pending) {
            space.log.push(Entry::NoEnd);
            if let Some(old) = old {
                space.restore(time, addr, old);
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "all rules in one place, to be read against the state's")]
    fn apply(&mut self, event: &Event) {
        let &Event { time, pid, tid, op } = event;
        let mut at =
            self.latest(pid).unwrap_or_else(|| self.add(pid, Space { peak: (time, 0, 0), ..Space::default() }));
        if self.actors[at].ended {
            match op {
                Op::Gap { lost } => return self.actors[at].space.borrow_mut().log.push(Entry::Gap(lost)),
                Op::Exit { .. } | Op::ThreadExit => {
                    return self.actors[at].space.borrow_mut().log.push(Entry::Tail);
                }
                _ => at = self.add(pid, Space { peak: (time, 0, 0), ..Space::default() }),
            }
        }
        let actor = &mut self.actors[at];
        if !actor.seen.contains(&tid) {
            actor.seen.push(tid);
        }
        let shared = Rc::clone(&actor.space);
        let mut space = shared.borrow_mut();
        match op {
            Op::Alloc { addr, size, site, .. } if addr != 0 => {
                space.log.push(Entry::Allocated(size));
                space.place(time, addr, (size, time, tid, site), true);
            }
            Op::Free { addr, .. } if addr != 0 => {
                space.log.push(Entry::Freed);
                let entry = space.live.remove(&addr).map_or(Entry::Unmatched, |facts| Entry::Gone(facts.0));
                space.log.push(entry);
            }
            Op::ReallocBegin { old, size, site, .. } => {
                let block = space.live.remove(&old);
                if old != 0 && block.is_none() {
                    space.log.push(Entry::UnmatchedRealloc);
                }
                if actor.pending.iter().filter(|pending| pending.0 == tid).count() == 4 {
                    let first = actor.pending.iter().position(|pending| pending.0 == tid).expect("four");
                    let (_, _, old, ..) = actor.pending.remove(first);
                    space.log.push(Entry::NoEnd);
                    space.log.extend(old.map(|facts| Entry::Gone(facts.0)));
                }
                actor.pending.push((tid, old, block, size, site));
            }
            Op::ReallocEnd { addr, size, site, .. } => {
                let mut begun = None;
                while actor.pending.iter().any(|p| (p.0, p.3, p.4) == (tid, size, site)) && begun.is_none() {
                    let last = actor.pending.iter().rposition(|pending| pending.0 == tid).expect("at least one");
                    let pending = actor.pending.remove(last);
                    if (pending.3, pending.4) == (size, site) {
                        begun = Some(pending);
                    } else {
                        space.log.push(Entry::NoEnd);
                        space.log.extend(pending.2.map(|facts| Entry::Gone(facts.0)));
                    }
                }
                if begun.is_none() {
                    space.log.push(Entry::NoBegin);
                }
                let fresh = begun.is_some_and(|begun| begun.1 == 0);
                let old = begun.and_then(|begun| begun.2);
                if addr != 0 {
                    space.log.push(if fresh { Entry::Allocated(size) } else { Entry::Reallocated(size) });
                    space.log.extend(old.map(|facts| Entry::Gone(facts.0)));
                    space.place(time, addr, (size, time, tid, site), begun.is_some());
                } else if size == 0 && !fresh {
                    space.log.push(Entry::Freed);
                    space.log.extend(old.map(|facts| Entry::Gone(facts.0)));
                } else if let (Some(begun), Some(old)) = (begun, old) {
                    space.restore(time, begun.1, old);
                }
            }
            Op::Gap { lost } => space.log.push(Entry::Gap(lost)),
            Op::ThreadExit => {
                let (own, others) = actor.pending.iter().partition(|pending| pending.0 == tid);
                actor.pending = others;
                let own: Vec<(u32, u64, Option<Facts>, u64, u64)> = own;
                for (_, _, old, ..) in own {
                    space.log.push(Entry::NoEnd);
                    space.log.extend(old.map(|facts| Entry::Gone(facts.0)));
                }
            }
            Op::Fork { child, flags } => {
                drop(space);
                if let Some(known) = self.latest(child).filter(|&known| !self.actors[known].ended) {
                    self.end(known, time);
                }
                let live = shared.borrow().live.clone();
                let bytes = live.values().map(|facts| facts.0).sum();
                let peak = (time, live.len() as u64, bytes);
                let copy = Space { live, log: vec![Entry::Inherited(bytes)], peak, users: 1 };
                let new = self.add(child, copy);
                if flags & 0x100 != 0 {
                    shared.borrow_mut().users += 1;
                    self.actors[new].space = shared;
                }
            }
            Op::Exec => {
                let pending = std::mem::take(&mut actor.pending);
                if space.users > 1 {
                    space.users -= 1;
                    for (_, _, old, ..) in pending {
                        space.log.push(Entry::NoEnd);
                        space.log.extend(old.map(|facts| Entry::Gone(facts.0)));
                    }
                    let fresh = Space { users: 1, peak: (time, 0, 0), ..Space::default() };
                    actor.space = Rc::new(RefCell::new(fresh));
                } else {
                    let bytes: u64 = space.live.values().map(|facts| facts.0).sum();
                    let under_way: u64 = pending.iter().filter_map(|pending| pending.2).map(|facts| facts.0).sum();
                    space.log.push(Entry::Discarded(bytes + under_way));
                    space.live.clear();
                }
            }
            Op::Exit { .. } => {
                drop(space);
                self.end(at, time);
            }
            _ => {}
        }
    }
}

/// Everything of a heap that both can tell, as one value.
#[derive(Debug, PartialEq)]
struct Told {
    live: Vec<(u64, Facts)>,
    /// allocations, frees, reallocations, requested, freed.
    totals: [u64; 5],
    inherited: u64,
    discarded: u64,
    peak: (u64, u64, u64),
    /// unmatched frees and reallocs, missed frees, no begin, no end, conflicts, tail events, gaps, lost.
    anomalies: [u64; 9],
}

impl Told {
    fn by_oracle(space: &Space) -> Self {
        let sum = |pick: &dyn Fn(&Entry) -> Option<u64>| space.log.iter().filter_map(pick).sum::<u64>();
        let count = |wanted: Entry| space.log.iter().filter(|&&entry| entry == wanted).count() as u64;
        let bytes = |e: &Entry| if let Entry::Allocated(b) | Entry::Reallocated(b) = e { Some(*b) } else { None };
        let ones = |allocated: bool| {
            sum(&|e| match e {
                Entry::Allocated(_) => Some(u64::from(allocated)),
                Entry::Reallocated(_) => Some(u64::from(!allocated)),
                _ => None,
            })
        };
        Self {
            live: space.live.iter().map(|(addr, facts)| (*addr, *facts)).collect(),
            totals: [
                ones(true),
                count(Entry::Freed),
                ones(false),
                sum(&bytes),
                sum(&|e| if let Entry::Gone(b) = e { Some(*b) } else { None }),
            ],
            inherited: sum(&|e| if let Entry::Inherited(b) = e { Some(*b) } else { None }),
            discarded: sum(&|e| if let Entry::Discarded(b) = e { Some(*b) } else { None }),
            peak: space.peak,
            anomalies: [
                count(Entry::Unmatched),
                count(Entry::UnmatchedRealloc),
                count(Entry::Missed),
                count(Entry::NoBegin),
                count(Entry::NoEnd),
                count(Entry::Conflict),
                count(Entry::Tail),
                sum(&|e| matches!(e, Entry::Gap(_)).then_some(1)),
                sum(&|e| if let Entry::Gap(lost) = e { Some(*lost) } else { None }),
            ],
        }
    }

    fn by_heap(heap: &Heap) -> Self {
        let facts = |b: &Block| (b.addr, (b.size, b.time, b.thread, heap.origin(b.origin).expect("known").site));
        let mut live: Vec<_> = heap.blocks().iter().map(|block| facts(&block)).collect();
        live.sort_unstable();
        let (t, a, peak) = (heap.totals(), heap.anomalies(), heap.peak());
        Self {
            live,
            totals: [t.allocations, t.frees, t.reallocations, t.requested_bytes, t.freed_bytes],
            inherited: heap.inherited().bytes,
            discarded: heap.discarded().bytes,
            peak: (peak.time, peak.live.blocks, peak.live.bytes),
            anomalies: [
                a.unmatched_frees,
                a.unmatched_reallocs,
                a.missed_frees,
                a.realloc_without_begin,
                a.realloc_without_end,
                a.restore_conflicts,
                a.after_exit,
                a.gaps,
                a.lost_events,
            ],
        }
    }
}

/// The pages as they are kept against the same worked out from the blocks, whatever they went through.
fn pages_equal_a_sweep(heap: &Heap) -> Result<(), TestCaseError> {
    let footprint = heap.pages().footprint();
    let taken: Vec<_> = heap.blocks().iter().map(|block| footprint.of(block.addr, block.size)).collect();
    // Between two neighbouring boundaries all pages are alike.
    let rounded = |at: u64| [at / PAGE, at.div_ceil(PAGE)];
    let mut turns: Vec<u64> = taken.iter().flat_map(|range| [range.start, range.end]).flat_map(rounded).collect();
    turns.sort_unstable();
    turns.dedup();
    let mut expected = Vec::new();
    for pair in turns.windows(2) {
        let first = pair[0] * PAGE..pair[0] * PAGE + PAGE;
        let on_page = |range: &Range<u64>| range.end.min(first.end).saturating_sub(range.start.max(first.start));
        let bytes: u64 = taken.iter().map(on_page).sum();
        let blocks = taken.iter().filter(|range| on_page(range) > 0).count() as u64;
        if blocks > 0 {
            expected.push((first.start, pair[1] - pair[0], Occupancy { bytes, blocks }));
        }
    }
    let spread = |runs: Vec<(u64, u64, Occupancy)>| {
        let mut merged: Vec<(u64, u64, Occupancy)> = Vec::new();
        for (start, pages, each) in runs {
            match merged.last_mut() {
                Some(last) if last.0 + last.1 * PAGE == start && last.2 == each => last.1 += pages,
                _ => merged.push((start, pages, each)),
            }
        }
        merged
    };
    let runs: Vec<_> = heap.pages().runs(0..u64::MAX).map(|run| (run.address, run.pages, run.each)).collect();
    for &(address, _, each) in &runs {
        prop_assert_eq!(heap.pages().get(address + 7), each);
        prop_assert_eq!(heap.overlapping(address..address + PAGE).len() as u64, each.blocks);
    }
    prop_assert_eq!(spread(runs), spread(expected));
    prop_assert_eq!(heap.pages().bytes(), taken.iter().map(|range| range.end - range.start).sum::<u64>());
    Ok(())
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    // Few addresses, so that they collide; some in one region, some far away; null now and then.
    let addr = || prop_oneof![1 => Just(0), 12 => (1..24_u64).prop_map(|n| n * 16), 3 => (1..4_u64).prop_map(|n| (n << 30) + 16)];
    let size = || prop_oneof![1 => Just(0), 6 => 1..5_u64, 2 => 1..1_u64 << 18, 2 => 1..1_u64 << 40];
    let caller = || 1..3_u64;
    let function = Function::Realloc;
    prop_oneof![
        12 => (addr(), size(), caller()).prop_map(|(addr, size, site)| {
            Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site, stack: 0 }
        }),
        8 => addr().prop_map(|addr| Op::Free { function: Function::Free, addr, size: 0, site: 0 }),
        6 => (addr(), size(), caller()).prop_map(move |(old, size, site)| Op::ReallocBegin { function, old, size, site }),
        6 => (addr(), size(), caller()).prop_map(move |(addr, size, site)| {
            Op::ReallocEnd { function, addr, size, site, stack: 0 }
        }),
        1 => (1..5_u32, prop_oneof![2 => Just(17), 1 => Just(0x4111)]).prop_map(|(child, flags)| Op::Fork { child, flags }),
        1 => Just(Op::Exec),
        1 => Just(Op::Exit { status: None }),
        1 => Just(Op::ThreadExit),
        1 => (0..9_u64).prop_map(|lost| Op::Gap { lost }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn equals_the_oracle(
        steps in prop::collection::vec((1..5_u32, 0..3_u32, op()), 1..120),
        learned in 0..120_usize,
    ) {
        let mut heaps = Heaps::default();
        let mut oracle = Oracle::default();
        // Half a minute apart, so that every fork of a known id is a new process.
        let event = |(time, (pid, tid, op))| Event { time: time * 30_000_000_000_u64, pid, tid, op };
        let events: Vec<Event> = (1..).zip(steps).map(event).collect();
        let (before, after) = events.split_at(events.len().min(learned));
        heaps.apply_all(before);
        (0..heaps.processes().len()).for_each(|process| heaps.set_footprint(process, Footprint::Glibc));
        heaps.apply_all(after);
        for event in &events {
            oracle.apply(event);
        }
        prop_assert_eq!(heaps.processes().len(), oracle.actors.len());
        for (process, actor) in heaps.processes().iter().zip(&oracle.actors) {
            prop_assert_eq!(process.pid(), actor.pid);
            prop_assert_eq!(process.ended().is_some(), actor.ended);
            let heap = heaps.heap(process);
            prop_assert_eq!(Told::by_heap(heap), Told::by_oracle(&actor.space.borrow()));
            prop_assert_eq!(heap.live().blocks, heap.blocks().len());
            pages_equal_a_sweep(heap)?;
        }
        // What was requested is live, gone or under way: on every heap, however damaged its stream.
        for process in heaps.processes().iter().filter(|process| !heaps.shares_heap(process)) {
            let (heap, same) = (heaps.heap(process), |other: &&crate::heap::Process| {
                std::ptr::eq(heaps.heap(other), heaps.heap(process))
            });
            let under_way: u64 = heaps.processes().iter().filter(same).map(|p| p.under_way().bytes).sum();
            let totals = heap.totals();
            prop_assert_eq!(
                heap.inherited().bytes + totals.requested_bytes,
                totals.freed_bytes + heap.discarded().bytes + heap.live().bytes + under_way
            );
        }
    }
}
