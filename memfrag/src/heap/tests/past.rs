//! What is remembered of a heap against a list of its blocks, made when it was to be remembered.

use super::oracle::op;
use crate::glibc::layout::HEADER;
use crate::glibc::{Arena, Chunk, ChunkKind, Layout, Segment};
use crate::heap::{Block, Heaps, Process, Snapshot};
use memfrag_common::{Event, Op};
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Step {
    Apply(u32, u32, Op),
    Remember(u32),
    /// A walk finds a heap whose used chunks begin at the even or odd ones of the addresses that the events use.
    Walk(u32, bool),
    /// The state goes on as a copy of itself, which stays behind.
    Share,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (1..4_u32, 0..3_u32, op()).prop_map(|(pid, tid, op)| Step::Apply(pid, tid, op)),
        3 => (1..4_u32).prop_map(Step::Remember),
        1 => (1..4_u32, any::<bool>()).prop_map(|(pid, odd)| Step::Walk(pid, odd)),
        1 => Just(Step::Share),
    ]
}

fn layout(odd: bool) -> Layout {
    let kind = |place: u64| if (place % 2 == 1) == odd { ChunkKind::Used } else { ChunkKind::Free };
    let chunks = (0..20).map(|place| Chunk::new(2 * HEADER, kind(place))).collect();
    let segments = vec![Segment { range: 0..40 * HEADER, first: 0, chunks }];
    let arena = Arena { address: 1, is_main: true, system_bytes: 0, max_system_bytes: 0, segments };
    Layout { arenas: vec![arena], mapped: Vec::new() }
}

fn blocks(heaps: &Heaps, process: &Process) -> Vec<Block> {
    let heap = heaps.heap(process);
    Snapshot::merged(heap.blocks().sorted(), heap.older().sorted())
}

/// What was remembered of each process, by its index, as the program that it then was.
type Remembered = HashMap<usize, (u64, Vec<Block>)>;

fn are_as_remembered(heaps: &Heaps, expected: &Remembered) -> Result<(), TestCaseError> {
    for (&at, (execs, blocks)) in expected {
        // A fork that is told of late gives a process its heap anew.
        if heaps.processes()[at].execs() == *execs && heaps.remembers(at) {
            prop_assert_eq!(heaps.remembered(at), Some(blocks.clone()));
        }
        let mut saved = Vec::new();
        if heaps.remembers(at) {
            heaps.save_remembered(at, &mut saved);
            prop_assert!(!saved.is_empty());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn what_is_remembered_is_what_there_was(steps in prop::collection::vec(step(), 1..160)) {
        let mut heaps = Heaps::default();
        let mut expected = Remembered::new();
        let mut behind = Vec::new();
        for (time, step) in (1..).zip(steps) {
            let time = time * 30_000_000_000_u64;
            match step {
                Step::Apply(pid, tid, op) => heaps.apply(&Event { time, pid, tid, op }),
                Step::Remember(pid) => {
                    if heaps.remember(pid) {
                        let at = heaps.index_of(pid).expect("it was remembered");
                        let process = &heaps.processes()[at];
                        expected.insert(at, (process.execs(), blocks(&heaps, process)));
                        prop_assert!(heaps.remembers(at));
                    }
                }
                Step::Walk(pid, odd) => heaps.reconcile(time, pid, &layout(odd)),
                Step::Share => {
                    let stays = heaps.share();
                    behind.push((stays, expected.clone()));
                }
            }
            are_as_remembered(&heaps, &expected)?;
        }
        for (heaps, expected) in &behind {
            are_as_remembered(heaps, expected)?;
        }
    }
}
