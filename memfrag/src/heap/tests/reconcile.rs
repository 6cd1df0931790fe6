//! Walks against streams of events that lack some.

use super::super::Heaps;
use crate::glibc::layout::{HEADER, chunk_bytes};
use crate::glibc::{Arena, Chunk, ChunkKind, Layout, Segment};
use crate::target::ProcessInfo;
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;
use std::collections::BTreeMap;

const FIRST: u64 = 0x10_0000;
/// Every block has a place of this many bytes.
const PLACE: u64 = 0x400;

/// What a program did, and whether the trace was told.
#[derive(Clone, Debug)]
struct Step {
    place: u64,
    size: u64,
    told: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (0..30_u64, 1..900_u64, prop::bool::weighted(0.9)).prop_map(|(place, size, told)| Step { place, size, told })
}

const fn address(place: u64) -> u64 {
    FIRST + place * PLACE + HEADER
}

/// The heap in which these blocks (size by place) are in use, and all else is free.
fn layout(blocks: &BTreeMap<u64, u64>) -> Layout {
    let mut chunks = Vec::new();
    let mut free = 0;
    for place in 0..30 {
        match blocks.get(&place) {
            Some(&size) => {
                if free > 0 {
                    chunks.push(Chunk::new(free, ChunkKind::Free));
                }
                chunks.push(Chunk::new(chunk_bytes(size), ChunkKind::Used));
                free = PLACE - chunk_bytes(size);
            }
            None => free += PLACE,
        }
    }
    chunks.push(Chunk::new(free, ChunkKind::Top));
    let range = FIRST..FIRST + 30 * PLACE;
    let segments = vec![Segment { range, first: FIRST, chunks }];
    let arena = Arena { address: 1, is_main: true, system_bytes: 0, max_system_bytes: 0, segments };
    Layout { arenas: vec![arena], mapped: Vec::new() }
}

/// Does one step to the program's blocks, and tells the trace if it is to know.
fn apply(step: &Step, time: u64, blocks: &mut BTreeMap<u64, u64>, heaps: Option<&mut Heaps>) {
    let addr = address(step.place);
    let op = if blocks.remove(&step.place).is_some() {
        Op::Free { function: Function::Free, addr, size: 0, site: 1 }
    } else {
        blocks.insert(step.place, step.size);
        Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size: step.size, site: 2, stack: 0 }
    };
    if let Some(heaps) = heaps.filter(|_| step.told) {
        heaps.apply(&Event { time, pid: 7, tid: 7, op });
    }
}

proptest! {
    #[test]
    fn a_walk_mends_what_was_lost(
        before in prop::collection::vec(step(), 0..40),
        during in prop::collection::vec(step(), 0..60),
        after in prop::collection::vec(step(), 0..60),
    ) {
        let mut heaps = Heaps::default();
        heaps.learn(&ProcessInfo { pid: 7, ..ProcessInfo::default() });
        let mut blocks = BTreeMap::new();
        for step in &before {
            apply(step, 0, &mut blocks, None);
        }
        heaps.reconcile(1, 7, &layout(&blocks));
        let older = blocks.clone();
        {
            let heap = heaps.heap(&heaps.processes()[0]);
            prop_assert_eq!(heap.older_amount().blocks, older.len() as u64);
            prop_assert_eq!(heap.anomalies(), super::super::Anomalies::default());
        }
        for step in &during {
            apply(step, 5, &mut blocks, Some(&mut heaps));
        }
        heaps.reconcile(10, 7, &layout(&blocks));
        for step in &after {
            apply(&Step { told: true, ..step.clone() }, 15, &mut blocks, Some(&mut heaps));
        }

        let heap = heaps.heap(&heaps.processes()[0]);
        let mut known: Vec<u64> = heap.blocks().iter().chain(heap.older().iter()).map(|block| block.addr).collect();
        known.sort_unstable();
        let truth: Vec<u64> = blocks.keys().map(|&place| address(place)).collect();
        prop_assert_eq!(known, truth);
        prop_assert_eq!(heap.live().blocks, heap.blocks().iter().count() as u64);
        let bytes: u64 = heap.older().iter().map(|block| block.size).sum();
        prop_assert_eq!(heap.older_amount().bytes, bytes);
        let taken = heap.blocks().iter().chain(heap.older().iter());
        let taken: u64 = taken.map(|block| heap.pages().footprint().bytes(block.addr, block.size)).sum();
        prop_assert_eq!(heap.pages().bytes(), taken);
        // After the walk every free and every allocation was told, so none is unmatched.
        let lost = during.iter().filter(|step| !step.told).count() as u64;
        let anomalies = heap.anomalies();
        let named = anomalies.missed_frees + anomalies.missed_allocations + anomalies.unmatched_frees;
        prop_assert!(named <= 2 * lost, "{anomalies:?} of {lost} lost");
        prop_assert!(lost > 0 || named == 0);
    }
}

fn alloc(time: u64, place: u64) -> Event {
    let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr: address(place), size: 10, site: 2, stack: 0 };
    Event { time, pid: 7, tid: 7, op }
}

/// A heap of one process, walked while nothing was in it.
fn walked_empty() -> Heaps {
    let mut heaps = Heaps::default();
    heaps.learn(&ProcessInfo { pid: 7, ..ProcessInfo::default() });
    heaps.reconcile(1, 7, &layout(&BTreeMap::new()));
    heaps
}

#[test]
fn one_lost_event_is_named() {
    let mut heaps = walked_empty();
    heaps.apply(&alloc(2, 0));
    // Place 1 was allocated, place 0 freed, and nobody told.
    heaps.reconcile(3, 7, &layout(&BTreeMap::from([(1, 10)])));
    let anomalies = heaps.anomalies();
    assert_eq!((anomalies.missed_frees, anomalies.missed_allocations), (1, 1));
    let heap = heaps.heap(&heaps.processes()[0]);
    assert_eq!((heap.live().blocks, heap.older_amount().blocks), (0, 1));
}

/// A thread was stopped between the return of malloc and the event that tells of it.
#[test]
fn an_event_on_its_way_is_not_lost() {
    let mut heaps = walked_empty();
    heaps.reconcile(3, 7, &layout(&BTreeMap::from([(4, 10)])));
    heaps.apply(&alloc(4, 4));
    assert_eq!(heaps.anomalies(), super::super::Anomalies::default());
    let heap = heaps.heap(&heaps.processes()[0]);
    assert_eq!((heap.live().blocks, heap.older_amount().blocks), (1, 0));
}

/// The old block of a reallocation under way is in use, and neither live nor lost.
#[test]
fn a_reallocation_under_way_keeps_its_block() {
    let mut heaps = walked_empty();
    heaps.apply(&alloc(2, 4));
    let begin = Op::ReallocBegin { function: Function::Realloc, old: address(4), size: 20, site: 3 };
    heaps.apply(&Event { time: 3, pid: 7, tid: 7, op: begin });
    heaps.reconcile(4, 7, &layout(&BTreeMap::from([(4, 10)])));
    let end = Op::ReallocEnd { function: Function::Realloc, addr: address(4), size: 20, site: 3, stack: 0 };
    heaps.apply(&Event { time: 5, pid: 7, tid: 7, op: end });
    assert_eq!(heaps.anomalies(), super::super::Anomalies::default());
    let heap = heaps.heap(&heaps.processes()[0]);
    assert_eq!((heap.live().blocks, heap.live().bytes, heap.older_amount().blocks), (1, 20, 0));
}
