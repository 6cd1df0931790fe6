//! Which heap of a recording is replayed.

use crate::recording::{Item, Reader};
use memfrag_common::event::{CLONE_THREAD, CLONE_VM, Op};
use std::collections::HashMap;

/// A program that a recorded process ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Process id.
    pub pid: u32,
    /// How many programs the process had run before this one in the recording.
    pub execs: u64,
    /// How many earlier processes of the same id had run as many programs and begun another.
    pub namesakes: u64,
    /// Its name, where the recording tells.
    pub comm: String,
    /// Calls of the allocator.
    pub calls: u64,
    /// How often it was looked at which of its pages were resident.
    pub looks: u64,
    /// The process it was forked from, when its heap began as a copy of that one's.
    pub copied_from: Option<u32>,
}

/// All programs of a recording that called the allocator, the busiest first.
pub fn candidates(reader: &Reader) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = Vec::new();
    let mut current: HashMap<u32, usize> = HashMap::new();
    let mut names: HashMap<u32, String> = HashMap::new();
    let mut so_far: HashMap<(u32, u64), u64> = HashMap::new();
    let mut begin = |all: &mut Vec<Candidate>, pid, execs| {
        let namesakes = so_far.entry((pid, execs)).or_default();
        all.push(Candidate { pid, execs, namesakes: *namesakes, ..Candidate::default() });
        *namesakes += 1;
        all.len() - 1
    };
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        match item {
            Item::Process(process) => {
                let at = *current.entry(process.pid).or_insert_with(|| begin(&mut all, process.pid, 0));
                // The note of a program that a process has just become can come a little before its exec.
                if all[at].comm.is_empty() || all[at].calls == 0 {
                    all[at].comm.clone_from(&process.comm);
                }
                names.insert(process.pid, process.comm);
            }
            Item::Residency(look) => {
                if let Some(&at) = current.get(&look.pid) {
                    all[at].looks += 1;
                }
            }
            Item::Events(events) => {
                for event in events {
                    match event.op {
                        Op::Alloc { .. } | Op::Free { .. } | Op::ReallocEnd { .. } => {
                            let at = *current.entry(event.pid).or_insert_with(|| begin(&mut all, event.pid, 0));
                            all[at].calls += 1;
                        }
                        Op::Fork { flags, .. } if flags & CLONE_THREAD != 0 => {}
                        // Until it becomes another program, what it calls is its parent's.
                        Op::Fork { child, flags } if flags & CLONE_VM != 0 => {
                            current.remove(&child);
                        }
                        Op::Fork { child, .. } => {
                            let copied_from = Some(event.pid);
                            all.push(Candidate { pid: child, copied_from, ..Candidate::default() });
                            current.insert(child, all.len() - 1);
                        }
                        Op::Exec => {
                            let execs = current.get(&event.pid).map_or(0, |&at| all[at].execs) + 1;
                            let at = begin(&mut all, event.pid, execs);
                            all[at].comm = names.get(&event.pid).cloned().unwrap_or_default();
                            current.insert(event.pid, at);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    all.retain(|candidate| candidate.calls > 0);
    all.sort_by_key(|candidate| std::cmp::Reverse(candidate.calls));
    all
}
