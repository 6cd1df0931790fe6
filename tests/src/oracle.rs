//! The heap that a list of events amounts to, worked out the plain way: a map for each process. It is there to catch
//! events out of order, missing or doubled, and shares no code with memfrag's own reconstruction.

use memfrag_common::event::{CLONE_VM, Event, Op};
use std::collections::HashMap;

/// A block as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Bytes requested.
    pub size: u64,
    /// Return address of the call that made it.
    pub site: u64,
    /// The process had it from its parent.
    inherited: bool,
}

/// The blocks alive in one address space, by address.
pub type Heap = HashMap<u64, Block>;

/// What a list of events amounts to.
#[derive(Debug, Default)]
pub struct Oracle {
    heaps: Vec<Heap>,
    /// Which heap each process uses; a `vfork` child uses its parent's.
    of: HashMap<u32, usize>,
    /// The old block of each thread's reallocation in flight.
    moving: HashMap<(u32, u32), Option<(u64, Block)>>,
    /// What cannot be, in words.
    pub contradictions: Vec<String>,
}

impl Oracle {
    /// Goes through the events in their order.
    pub fn new(events: &[Event]) -> Self {
        let mut oracle = Self::default();
        for event in events {
            oracle.apply(event);
        }
        oracle
    }

    /// The heap of a process at the end.
    pub fn heap(&self, pid: u32) -> Option<&Heap> {
        self.of.get(&pid).map(|&index| &self.heaps[index])
    }

    fn index(&mut self, pid: u32) -> usize {
        *self.of.entry(pid).or_insert_with(|| {
            self.heaps.push(Heap::new());
            self.heaps.len() - 1
        })
    }

    fn add(&mut self, event: &Event, addr: u64, block: Block) {
        let index = self.index(event.pid);
        let before = self.heaps[index].insert(addr, block);
        // What the parent's other threads did around a fork may have happened on either side of it.
        if let Some(before) = before
            && !before.inherited
        {
            self.contradictions.push(format!("{event:x?} gives a block that is alive: {before:x?}"));
        }
    }

    fn remove(&mut self, event: &Event, addr: u64) -> Option<Block> {
        let index = self.index(event.pid);
        let block = self.heaps[index].remove(&addr);
        if block.is_none() {
            self.contradictions.push(format!("{event:x?} ends a block that is not alive"));
        }
        block
    }

    fn apply(&mut self, event: &Event) {
        let thread = (event.pid, event.tid);
        match event.op {
            Op::Alloc { addr, size, site, .. } if addr != 0 => {
                self.add(event, addr, Block { size, site, inherited: false });
            }
            Op::Free { addr, .. } => {
                self.remove(event, addr);
            }
            Op::ReallocBegin { old, .. } => {
                let block = if old == 0 { None } else { self.remove(event, old).map(|block| (old, block)) };
                // A call left by a jump has no end; its old block stays gone here.
                self.moving.insert(thread, block);
            }
            Op::ReallocEnd { addr, size, site, .. } => match self.moving.remove(&thread) {
                None => self.contradictions.push(format!("{event:x?} ends what had not begun")),
                Some(_) if addr != 0 => self.add(event, addr, Block { size, site, inherited: false }),
                Some(Some((old, block))) if size != 0 => {
                    let index = self.index(event.pid);
                    self.heaps[index].insert(old, block);
                }
                Some(_) => {}
            },
            Op::Fork { child, flags } => {
                let parent = self.index(event.pid);
                if flags & CLONE_VM != 0 {
                    self.of.insert(child, parent);
                } else {
                    let mut copy = self.heaps[parent].clone();
                    for block in copy.values_mut() {
                        block.inherited = true;
                    }
                    self.heaps.push(copy);
                    self.of.insert(child, self.heaps.len() - 1);
                }
            }
            Op::Exec => {
                self.heaps.push(Heap::new());
                self.of.insert(event.pid, self.heaps.len() - 1);
            }
            Op::Gap { lost } => self.contradictions.push(format!("{lost} events are missing before {event:x?}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memfrag_common::Function;

    fn event(pid: u32, op: Op) -> Event {
        Event { time: 0, pid, tid: pid, op }
    }
    fn malloc(addr: u64, size: u64) -> Op {
        Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: 1, stack: 0 }
    }
    fn free(addr: u64) -> Op {
        Op::Free { function: Function::Free, addr, size: 0, site: 1 }
    }
    fn begin(old: u64, size: u64) -> Op {
        Op::ReallocBegin { function: Function::Realloc, old, size, site: 1 }
    }
    fn end(addr: u64, size: u64) -> Op {
        Op::ReallocEnd { function: Function::Realloc, addr, size, site: 1, stack: 0 }
    }

    fn blocks(ops: &[Op]) -> (Vec<(u64, u64)>, usize) {
        let events: Vec<Event> = ops.iter().map(|&op| event(1, op)).collect();
        let oracle = Oracle::new(&events);
        let mut blocks: Vec<_> = oracle.heap(1).unwrap().iter().map(|(&addr, block)| (addr, block.size)).collect();
        blocks.sort_unstable();
        (blocks, oracle.contradictions.len())
    }

    #[test]
    fn reallocations_move_fail_and_free() {
        assert_eq!(blocks(&[malloc(16, 5), begin(16, 9), end(32, 9)]), (vec![(32, 9)], 0));
        assert_eq!(blocks(&[malloc(16, 5), begin(16, 9), end(0, 9)]), (vec![(16, 5)], 0));
        assert_eq!(blocks(&[malloc(16, 5), begin(16, 0), end(0, 0)]), (vec![], 0));
        assert_eq!(blocks(&[begin(0, 7), end(16, 7)]), (vec![(16, 7)], 0));
    }

    #[test]
    fn contradictions_are_found() {
        assert_eq!(blocks(&[malloc(16, 5), malloc(16, 6)]).1, 1);
        assert_eq!(blocks(&[malloc(16, 5), free(16), free(16)]).1, 1);
        assert_eq!(blocks(&[malloc(16, 5), end(16, 6)]).1, 1);
    }

    #[test]
    fn a_child_has_a_copy_and_exec_forgets() {
        let events = [
            event(1, malloc(16, 5)),
            event(1, Op::Fork { child: 2, flags: 0 }),
            event(2, free(16)),
            event(1, free(16)),
            event(1, malloc(32, 5)),
            event(1, Op::Exec),
            event(1, malloc(32, 6)),
        ];
        let oracle = Oracle::new(&events);
        assert!(oracle.contradictions.is_empty(), "{:?}", oracle.contradictions);
        assert!(oracle.heap(2).unwrap().is_empty());
        assert_eq!(oracle.heap(1).unwrap()[&32].size, 6);
    }
}
