//! What policies are asked.

use super::*;
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// A policy that says what it was asked, and checks that blocks are told apart.
#[derive(Clone, Debug, Default)]
struct Listener {
    said: Arc<Mutex<Vec<String>>>,
    live: HashMap<BlockId, u64>,
}

impl Listener {
    fn say(&self, text: String) {
        self.said.lock().expect("alone").push(text);
    }
}

impl Policy for Listener {
    fn name(&self) -> &'static str {
        "listener"
    }

    fn allocate(&mut self, _: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64> {
        assert_eq!(self.live.insert(block, request.size), None, "{block:?} is live");
        self.say(format!("{}={}@{observed:x}", block.0, request.size));
        Some(observed)
    }

    fn free(&mut self, _: &Caller, block: BlockId) {
        assert!(self.live.remove(&block).is_some(), "{block:?} is not live");
        self.say(format!("-{}", block.0));
    }

    fn reallocate(&mut self, _: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64> {
        assert!(self.live.insert(block, request.size).is_some(), "{block:?} is not live");
        self.say(format!("{}>{}@{observed:x}", block.0, request.size));
        Some(observed)
    }

    fn learn(&mut self, _: &Caller, fact: Fact<'_>) {
        self.say(format!("{fact:?}"));
    }

    fn footprint(&self) -> Footprint {
        Footprint::default()
    }

    fn contents(&self) -> Contents {
        Contents { requested: self.live.values().sum(), ..Contents::default() }
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }

    fn place_of(&self, _: BlockId) -> Option<Range<u64>> {
        None
    }

    fn fork(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}

fn event(tid: u32, op: Op) -> Event {
    Event { time: 0, pid: 1, tid, op }
}

fn alloc(addr: u64, size: u64) -> Op {
    Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 0, stack: 0 }
}

fn free(addr: u64) -> Op {
    Op::Free { function: Function::Free, addr, size: 0, site: 0 }
}

fn begin(old: u64, size: u64) -> Op {
    Op::ReallocBegin { function: Function::Realloc, old, size, site: 9 }
}

fn end(addr: u64, size: u64) -> Op {
    Op::ReallocEnd { function: Function::Realloc, addr, size, site: 9, stack: 0 }
}

#[track_caller]
fn check(events: &[(u32, Op)], expected: &[&str]) -> ModelHeap {
    let listener = Listener::default();
    let said = Arc::clone(&listener.said);
    let mut heap = ModelHeap::new(vec![Box::new(listener)]);
    for &(tid, op) in events {
        heap.apply(&event(tid, op));
    }
    assert_eq!(*said.lock().expect("alone"), expected);
    heap
}

#[test]
fn blocks_are_numbered_and_numbers_used_again() {
    let events = [(1, alloc(16, 5)), (1, alloc(32, 6)), (1, free(16)), (1, alloc(48, 7)), (1, free(0))];
    let heap = check(&events, &["0=5@10", "1=6@20", "-0", "0=7@30"]);
    assert_eq!((heap.live_blocks(), heap.oddities()), (2, Oddities::default()));
}

#[test]
fn a_block_keeps_its_number_when_resized() {
    let events = [(1, begin(0, 5)), (1, end(16, 5)), (1, begin(16, 8)), (2, alloc(16, 1)), (1, end(32, 8))];
    check(&events, &["0=5@10", "1=1@10", "0>8@20"]);
    check(&[(1, alloc(16, 5)), (1, begin(16, 0)), (1, end(0, 0))], &["0=5@10", "-0"]);
    let failed = [(1, alloc(16, 5)), (1, begin(16, 9)), (1, end(0, 9)), (1, free(16))];
    check(&failed, &["0=5@10", "Failed(Request { size: 9, align_log2: 0, function: Realloc })", "-0"]);
}

#[test]
fn what_is_missing_is_counted() {
    let heap =
        check(&[(1, alloc(16, 5)), (1, alloc(16, 6)), (1, free(64))], &["0=5@10", "-0", "1=6@10", "UnknownFree(64)"]);
    assert_eq!((heap.oddities().missed_frees, heap.oddities().unknown_blocks), (1, 1));
    let heap = check(
        &[(1, begin(64, 5)), (1, end(80, 5)), (1, Op::Gap { lost: 3 })],
        &["UnknownRealloc(64)", "0=5@50", "Gap(3)"],
    );
    assert_eq!((heap.oddities().unknown_blocks, heap.oddities().gaps, heap.oddities().lost_events), (1, 1, 3));
    let heap = check(
        &[(1, alloc(16, 5)), (1, end(16, 7)), (1, begin(16, 9)), (1, Op::ThreadExit)],
        &["0=5@10", "0>7@10", "-0", "ThreadExit"],
    );
    assert_eq!(heap.oddities().torn_reallocs, 2);
}

#[test]
fn forks_inherit_and_programs_begin_anew() {
    let mut models = Models::new(Box::new(|_, _| vec![Box::new(Listener::default())]));
    let of = |pid, op| Event { time: 0, pid, tid: pid, op };
    models.apply_all(&[of(1, alloc(16, 5)), of(1, Op::Fork { child: 2, flags: 0 }), of(1, free(16))]);
    models.apply_all(&[of(2, alloc(32, 7)), of(1, Op::Fork { child: 3, flags: 0x100 | 0x4000 }), of(3, alloc(48, 1))]);
    let requested = |models: &Models, pid| models.heap(pid).map(|heap| heap.policies()[0].contents().requested);
    assert_eq!([1, 2, 3, 4].map(|pid| requested(&models, pid)), [Some(1), Some(12), Some(1), None]);
    models.apply_all(&[of(3, Op::Exec), of(2, Op::Exec), of(2, alloc(16, 2)), of(1, Op::Exit { status: None })]);
    assert_eq!([1, 2, 3].map(|pid| requested(&models, pid)), [Some(1), Some(2), Some(0)]);
    models.apply_all(&[of(1, alloc(16, 9))]);
    assert_eq!(requested(&models, 1), Some(9), "the id was used again");
    let begun: Vec<(u32, u64)> = models.heaps().iter().map(|heap| (heap.pid, heap.execs)).collect();
    assert_eq!(begun, [(1, 0), (2, 0), (3, 1), (2, 1), (1, 0)]);
    models.apply_all(&[of(3, Op::Fork { child: 5, flags: 0x100 | 0x4000 }), of(5, Op::Exec)]);
    assert_eq!(models.heaps().last().map(|heap| (heap.pid, heap.execs)), Some((5, 1)), "its parent's are not its own");
}

fn any_op() -> impl Strategy<Value = Op> {
    let addr = (0u64..12).prop_map(|at| at * 16);
    let size = prop_oneof![0u64..4, Just(u64::MAX)];
    (0u8..8, addr, size).prop_map(|(kind, addr, size)| match kind {
        0..=2 => alloc(addr, size),
        3 | 4 => free(addr),
        5 => begin(addr, size),
        6 => end(addr, size),
        _ if size == 0 => Op::ThreadExit,
        _ => Op::Gap { lost: size },
    })
}

proptest! {
    #[test]
    fn any_stream_gives_possible_requests(ops in proptest::collection::vec((1u32..4, any_op()), 0..200), fork_at in 0usize..200) {
        let mut models = Models::new(Box::new(|_, _| vec![Box::new(Listener::default())]));
        for (at, &(tid, op)) in ops.iter().enumerate() {
            if at == fork_at {
                models.apply_all(&[event(tid, Op::Fork { child: 2, flags: 0 })]);
            }
            models.apply_all(&[event(tid, op), Event { pid: 2, ..event(tid, op) }]);
        }
    }
}
