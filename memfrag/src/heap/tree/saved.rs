//! All heaps as a checkpoint holds them.

use super::{Heap, Heaps, Process, Snapshot};
use crate::recording::{Input, Saved, put};

/// Most blocks that the heaps of a checkpoint may have together, those that they share counted in each.
const MOST_BLOCKS: u64 = 1 << 27;

impl Heaps {
    /// Whether a checkpoint can hold these heaps: they [count how long blocks live](Self::count_lifetimes), and have not
    /// too many.
    pub(crate) fn can_be_saved(&self) -> bool {
        self.counts_lifetimes
            && self.spaces.iter().map(|heap| heap.blocks.len() + heap.older().len()).sum::<u64>() <= MOST_BLOCKS
    }

    /// Appends all of it, if [it can be](Self::can_be_saved); what [somebody watches](Self::watch) aside.
    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        let mut bases = vec![0; self.spaces.len()];
        for process in self.processes.iter().rev() {
            // A forked heap stands behind the one that it was copied from. 0 is none, 1 the first one.
            let base = process.parent.map_or(0, |parent| self.processes[parent].heap + 1);
            bases[process.heap] = if base <= process.heap { base } else { 0 };
        }
        put(out, self.spaces.len() as u64);
        for (space, base) in self.spaces.iter().zip(bases) {
            put(out, base as u64);
            space.save(base.checked_sub(1).map(|base| &self.spaces[base]), out);
        }
        self.processes.save(out);
    }

    /// What [`Self::save`] wrote; `None` when it is damaged, or no events lead to such a state.
    pub(crate) fn load(input: &mut Input<'_>) -> Option<Self> {
        let mut spaces: Vec<Heap> = Vec::new();
        let mut blocks = 0;
        for _ in 0..input.varint()? {
            let base = match usize::try_from(input.varint()?).ok()?.checked_sub(1) {
                None => None,
                Some(base) => Some(spaces.get_mut(base)?),
            };
            let space = Heap::load(input, base)?;
            blocks += space.blocks.len() + space.older().len();
            spaces.push(space);
            if blocks > MOST_BLOCKS {
                return None;
            }
        }
        let processes = Vec::<Process>::load(input)?;
        for process in &processes {
            let space = spaces.get_mut(process.heap)?;
            space.users += u32::from(process.ended.is_none());
            let pending = process.threads().iter().flat_map(|thread| &thread.pending);
            let fits = pending.filter_map(|begun| begun.old.as_ref()).all(|old| space.could_have(old));
            if !fits || process.parent.is_some_and(|parent| parent >= processes.len()) {
                return None;
            }
        }
        // Of processes under one id the last one counts.
        let by_pid = (0..).zip(&processes).map(|(at, process)| (process.pid(), at)).collect();
        Some(Self { processes, spaces, by_pid, last: usize::MAX, counts_lifetimes: true })
    }

    /// Appends a snapshot of a process's heap, which must have been taken since it became the program that it is.
    pub(crate) fn save_snapshot(&self, process: usize, snapshot: &Snapshot, out: &mut Vec<u8>) {
        self.spaces[self.processes[process].heap].save_snapshot(snapshot, out);
    }

    /// What [`Self::save_snapshot`] wrote.
    pub(crate) fn load_snapshot(&mut self, process: usize, input: &mut Input<'_>) -> Option<Snapshot> {
        self.spaces[self.processes.get(process)?.heap].load_snapshot(input)
    }

    /// Appends what is [remembered](Self::remember) of a process's heap, which must be something.
    pub(crate) fn save_remembered(&self, process: usize, out: &mut Vec<u8>) {
        self.spaces[self.processes[process].heap].save_remembered(process, out);
    }

    /// Remembers what [`Self::save_remembered`] wrote.
    pub(crate) fn load_remembered(&mut self, process: usize, input: &mut Input<'_>) -> Option<()> {
        self.spaces[self.processes.get(process)?.heap].load_remembered(process, input)
    }

    /// Whether anything is remembered of a process's heap.
    pub(crate) fn remembers(&self, process: usize) -> bool {
        self.spaces[self.processes[process].heap].remembers(process)
    }
}
