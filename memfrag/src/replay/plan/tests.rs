use super::*;
use crate::model::{Listening, ModelHeap};
use memfrag_common::{Event, Op};
use proptest::prelude::*;
use std::collections::HashSet;

/// Steps by thread.
#[derive(Debug, Default)]
struct Kept(Vec<Vec<Step>>);

impl Steps for Kept {
    fn step(&mut self, thread: u32, step: Step) {
        let thread = thread as usize;
        if self.0.len() <= thread {
            self.0.resize(thread + 1, Vec::new());
        }
        self.0[thread].push(step);
    }
}

const PID: u32 = 100;

fn event(tid: u32, op: Op) -> Event {
    Event { time: 0, pid: PID, tid, op }
}

fn malloc(addr: u64, size: u64) -> Op {
    Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 1, stack: 0 }
}

fn free(addr: u64) -> Op {
    Op::Free { function: Function::Free, addr, size: 0, site: 1 }
}

/// The plan of some events; `None` is a reading of memory.
fn plan(events: &[Option<Event>]) -> (Planned, Vec<Vec<Step>>) {
    plan_of(events, Touched::default(), None)
}

/// The same with blocks written to in part, and an end.
fn plan_of(events: &[Option<Event>], touched: Touched, end: Option<u64>) -> (Planned, Vec<Vec<Step>>) {
    let planner = Planner::new(PID, touched, Kept::default());
    let mut heap = ModelHeap::new(vec![Listening::by(planner.clone())]);
    for event in events {
        match event {
            Some(event) => heap.apply(event),
            None => planner.sample(&MemorySample { pid: PID, ..MemorySample::default() }),
        }
    }
    drop(heap);
    if let Some(time) = end {
        planner.end(time);
    }
    let (result, Kept(mut steps)) = planner.finish().unwrap();
    steps.resize(result.threads as usize, Vec::new());
    (result, steps)
}

/// Goes through steps as threads would, the next one chosen by `dice`. Checks that slots are used as they may be, and
/// gives for each slot who touched it with what size, in order. Who makes a call is told to `made`.
fn execute(
    steps: &[Vec<Step>],
    dice: &mut impl FnMut(usize) -> usize,
    mut made: impl FnMut(usize),
) -> Vec<Vec<(usize, Option<u64>)>> {
    let mut at = vec![0; steps.len()];
    let mut done = vec![0_u64; steps.len()];
    let mut started = vec![false; steps.len()];
    started[0] = true;
    let mut slots: Vec<Option<u64>> = Vec::new();
    let mut touched: Vec<Vec<(usize, Option<u64>)>> = Vec::new();
    let mut taken = HashSet::new();
    loop {
        let ready: Vec<usize> = (0..steps.len())
            .filter(|&thread| {
                started[thread]
                    && steps[thread].get(at[thread]).is_some_and(|step| match *step {
                        Step::Wait { thread, done: wanted } => done[thread as usize] >= wanted,
                        Step::Join { thread } => at[thread as usize] == steps[thread as usize].len(),
                        _ => true,
                    })
            })
            .collect();
        if ready.is_empty() {
            break;
        }
        let thread = ready[dice(ready.len())];
        let step = steps[thread][at[thread]];
        at[thread] += 1;
        let mut touch = |slot: u32, size: Option<u64>, must_be_full: Option<bool>| {
            let slot = slot as usize;
            if slots.len() <= slot {
                slots.resize(slot + 1, None);
                touched.resize(slot + 1, Vec::new());
            }
            if let Some(full) = must_be_full {
                assert_eq!(slots[slot].is_some(), full, "slot {slot} by thread {thread}");
            }
            slots[slot] = size;
            touched[slot].push((thread, size));
            made(thread);
            done[thread] += 1;
        };
        match step {
            Step::Allocate { slot, size, .. } => touch(slot, Some(size), Some(false)),
            Step::Reallocate { slot, size } => touch(slot, Some(size), None),
            Step::Free { slot } => touch(slot, None, Some(true)),
            Step::Spawn { thread } => {
                assert!(!std::mem::replace(&mut started[thread as usize], true), "started twice");
            }
            Step::Sample { number } => {
                assert!(taken.insert(number));
                done[thread] += 1;
            }
            Step::End => {
                assert!(
                    (0..steps.len()).all(|other| {
                        let left = &steps[other][at[other]..];
                        left.iter().all(|step| matches!(step, Step::Wait { .. }))
                    }),
                    "calls follow the end"
                );
                done[thread] += 1;
            }
            Step::Join { .. } | Step::Wait { .. } | Step::Touch { .. } | Step::Pause { .. } => {}
        }
    }
    for (thread, steps) in steps.iter().enumerate() {
        assert_eq!(at[thread], steps.len(), "thread {thread} stands before {:?}", steps.get(at[thread]));
    }
    touched
}

#[test]
fn one_thread_keeps_its_order_and_its_slots() {
    let (planned, steps) = plan(&[
        Some(event(PID, malloc(0x1000, 10))),
        Some(event(PID, malloc(0x2000, 20))),
        Some(event(PID, free(0x1000))),
        Some(event(PID, malloc(0x3000, 30))),
        Some(event(PID, free(0x9000))),
    ]);
    let how = How::Malloc;
    let expected = [
        Step::Allocate { slot: 0, how, size: 10 },
        Step::Allocate { slot: 1, how, size: 20 },
        Step::Free { slot: 0 },
        Step::Allocate { slot: 0, how, size: 30 },
    ];
    assert_eq!(steps, [expected]);
    assert_eq!((planned.calls, planned.slots, planned.waits, planned.unknown), (4, 2, 0, 1));
}

#[test]
fn threads_wait_where_a_block_changes_hands_and_nowhere_else() {
    let (planned, steps) = plan(&[
        Some(event(PID, malloc(0x1000, 10))),
        Some(event(7, Op::ThreadStart)),
        Some(event(7, malloc(0x2000, 20))),
        Some(event(PID, malloc(0x3000, 30))),
        Some(event(7, free(0x3000))),
        Some(event(7, free(0x1000))),
        Some(event(7, Op::ThreadExit)),
        Some(event(PID, free(0x2000))),
    ]);
    let how = How::Malloc;
    let main = vec![
        Step::Allocate { slot: 0, how, size: 10 },
        Step::Spawn { thread: 1 },
        Step::Allocate { slot: 2, how, size: 30 },
        Step::Join { thread: 1 },
        Step::Free { slot: 1 },
    ];
    // The first block was there when the thread began, and the third's wait covers it too.
    let other = vec![
        Step::Allocate { slot: 1, how, size: 20 },
        Step::Wait { thread: 0, done: 2 },
        Step::Free { slot: 2 },
        Step::Free { slot: 0 },
    ];
    assert_eq!(steps, [main, other]);
    assert_eq!(planned.waits, 1);
}

#[test]
fn a_reading_is_of_one_moment_for_all() {
    let (_, steps) = plan(&[
        Some(event(7, Op::ThreadStart)),
        Some(event(8, Op::ThreadStart)),
        Some(event(7, malloc(0x1000, 10))),
        Some(event(8, malloc(0x2000, 20))),
        None,
        Some(event(7, malloc(0x3000, 30))),
    ]);
    let how = How::Malloc;
    assert_eq!(
        steps[2],
        [Step::Allocate { slot: 1, how, size: 20 }, Step::Wait { thread: 1, done: 1 }, Step::Sample { number: 0 },]
    );
    assert_eq!(steps[1][2..], [Step::Wait { thread: 2, done: 2 }, Step::Allocate { slot: 2, how, size: 30 }]);
}

#[test]
fn time_is_told_where_it_passes() {
    let at = |time, tid, op| Some(Event { time, pid: PID, tid, op });
    let ms = 1_000_000;
    let (_, steps) = plan_of(
        &[
            at(7 * ms, PID, malloc(0x1000, 10)),
            at(7 * ms + 999, PID, malloc(0x2000, 20)),
            at(9 * ms, PID, free(0x1000)),
            at(9 * ms, 7, malloc(0x3000, 30)),
        ],
        Touched::default(),
        Some(20 * ms),
    );
    let how = How::Malloc;
    let main = vec![
        Step::Allocate { slot: 0, how, size: 10 },
        Step::Allocate { slot: 1, how, size: 20 },
        Step::Pause { microseconds: 2000 },
        Step::Free { slot: 0 },
        Step::Spawn { thread: 1 },
        // It does not end before memory is read.
        Step::Wait { thread: 1, done: 2 },
    ];
    let other = vec![
        Step::Pause { microseconds: 2000 },
        Step::Allocate { slot: 2, how, size: 30 },
        Step::Pause { microseconds: 13_000 },
        Step::End,
    ];
    assert_eq!(steps, [main, other]);
}

/// Numbers below a bound, by a seed.
fn dice(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    }
}

#[test]
fn threads_without_anything_in_common_stay_abreast() {
    const THREADS: usize = 5;
    // Runs of one thread, as a scheduler makes them, and a last thread that calls seldom.
    let mut next = dice(11);
    let mut callers = Vec::new();
    while callers.len() < 30_000 {
        let thread = if next(50) == 0 { THREADS - 1 } else { next(THREADS - 1) };
        let length = if thread == THREADS - 1 { 1 } else { next(400) };
        callers.extend(std::iter::repeat_n(thread, length));
    }
    let events: Vec<_> = (0x1000_u64..)
        .step_by(16)
        .zip(&callers)
        .map(|(addr, &thread)| Some(event(PID + thread as u32, malloc(addr, 8))))
        .collect();
    let (_, steps) = plan_of(&events, Touched::default(), Some(0));
    // The plan numbers threads as they appear.
    let mut order = Vec::new();
    for thread in &callers {
        if !order.contains(thread) {
            order.push(*thread);
        }
    }
    let main = order.iter().position(|&thread| thread == 0).unwrap();
    order.remove(main);
    order.insert(0, 0);
    let two_strides = 2 * 256 * THREADS;
    let first: &mut dyn FnMut(usize) -> usize = &mut |_| 0;
    let last: &mut dyn FnMut(usize) -> usize = &mut |bound| bound - 1;
    let any: &mut dyn FnMut(usize) -> usize = &mut dice(5);
    for mut choose in [first, last, any] {
        let mut to_come: Vec<std::collections::VecDeque<usize>> =
            order.iter().map(|&thread| (0..callers.len()).filter(|&at| callers[at] == thread).collect()).collect();
        let mut furthest = 0;
        execute(&steps, &mut choose, |thread| {
            let made = to_come[thread].pop_front().unwrap();
            let oldest = to_come.iter().filter_map(|calls| calls.front()).min();
            furthest = furthest.max(oldest.map_or(0, |&oldest| made.saturating_sub(oldest)));
        });
        assert!(furthest < two_strides, "{furthest} calls ahead of the recorded order");
        assert!(furthest > 256, "nothing ran side by side");
    }
}

/// What a random program does next.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Allocate(u8, u16),
    Free(u8, prop::sample::Index),
    Resize(u8, prop::sample::Index, u16),
    End(u8),
    Read,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        6 => (0..5_u8, any::<u16>()).prop_map(|(thread, size)| Deed::Allocate(thread, size)),
        5 => (0..5_u8, any::<prop::sample::Index>()).prop_map(|(thread, which)| Deed::Free(thread, which)),
        2 => (0..5_u8, any::<prop::sample::Index>(), 1..u16::MAX)
            .prop_map(|(thread, which, size)| Deed::Resize(thread, which, size)),
        1 => (0..5_u8).prop_map(Deed::End),
        1 => Just(Deed::Read),
    ];
    prop::collection::vec(deed, 1..200)
}

proptest! {
    /// However threads are scheduled, each block sees what it saw in the recording, and nobody waits for ever.
    #[test]
    fn blocks_see_what_they_saw(deeds in deeds(), seed in any::<u64>()) {
        let mut events = Vec::new();
        let mut live: Vec<(u64, u64)> = Vec::new();
        // By block, in order: the sizes that it had, and `None` when it was freed.
        let mut lives: Vec<Vec<Option<u64>>> = Vec::new();
        // A thread that has ended has a successor under another id.
        let mut ids = [PID, 201, 202, 203, 204];
        for deed in deeds {
            match deed {
                Deed::Allocate(thread, size) => {
                    let number = lives.len() as u64;
                    events.push(Some(event(ids[usize::from(thread)], malloc(0x1000 + number * 16, size.into()))));
                    live.push((number, 0x1000 + number * 16));
                    lives.push(vec![Some(size.into())]);
                }
                Deed::Free(thread, which) if !live.is_empty() => {
                    let (number, addr) = live.swap_remove(which.index(live.len()));
                    events.push(Some(event(ids[usize::from(thread)], free(addr))));
                    lives[number as usize].push(None);
                }
                Deed::Resize(thread, which, size) if !live.is_empty() => {
                    let (number, addr) = live[which.index(live.len())];
                    let (function, size, site, tid) = (Function::Realloc, size.into(), 1, ids[usize::from(thread)]);
                    events.push(Some(event(tid, Op::ReallocBegin { function, old: addr, size, site })));
                    events.push(Some(event(tid, Op::ReallocEnd { function, addr, size, site, stack: 0 })));
                    lives[number as usize].push(Some(size));
                }
                Deed::End(thread) => {
                    events.push(Some(event(ids[usize::from(thread)], Op::ThreadExit)));
                    if thread > 0 {
                        ids[usize::from(thread)] += 10;
                    }
                }
                Deed::Read => events.push(None),
                Deed::Free(..) | Deed::Resize(..) => {}
            }
        }
        let (planned, steps) = plan_of(&events, Touched::default(), Some(0));
        prop_assert_eq!(steps.iter().flatten().filter(|step| **step == Step::End).count(), 1);
        let touched = execute(&steps, &mut dice(seed), |_| ());
        let calls: usize = lives.iter().map(Vec::len).sum();
        prop_assert_eq!(planned.calls, calls as u64);
        prop_assert_eq!(touched.len(), planned.slots as usize);
        // Slots are used again: cut each one's history where it was emptied, and compare the lives as a whole.
        let mut replayed: Vec<Vec<Option<u64>>> = Vec::new();
        for slot in touched {
            for part in slot.split_inclusive(|(_, size)| size.is_none()) {
                replayed.push(part.iter().map(|&(_, size)| size).collect());
            }
        }
        replayed.sort();
        lives.sort();
        prop_assert_eq!(replayed, lives);
    }
}
