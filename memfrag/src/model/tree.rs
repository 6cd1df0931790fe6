//! The heaps of a process tree, each under policies of its own: fork, exec, exit, ids used again.

use super::heap::ModelHeap;
use super::policy::Policy;
use crate::glibc::Layout;
use memfrag_common::event::{CLONE_THREAD, CLONE_VM, Event, Op};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// What makes the policies of a heap: called for each heap that begins with nothing, with the process's id and how many
/// programs that process had run before.
pub type Factory = Box<dyn FnMut(u32, u64) -> Vec<Box<dyn Policy>> + Send>;

/// A process of the tree, or a program that it ran.
#[derive(Clone, Copy, Debug)]
struct Member {
    heap: usize,
    execs: u64,
    ended: bool,
    events: u64,
}

/// The heaps of all processes of a trace under the policies that a factory makes.
pub struct Models {
    factory: Factory,
    heaps: Vec<Modelled>,
    members: HashMap<u32, Member>,
}

/// A heap with its policies.
#[derive(Debug)]
pub struct Modelled {
    /// The process that began it, by `fork`, `exec` or its first event.
    pub pid: u32,
    /// How often that process had become another program before.
    pub execs: u64,
    /// The heap. It is dropped, and this `None`, when the process becomes another program.
    pub heap: Option<ModelHeap>,
    users: u32,
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models").field("heaps", &self.heaps).finish_non_exhaustive()
    }
}

impl Models {
    /// No process yet.
    pub fn new(factory: Factory) -> Self {
        Self { factory, heaps: Vec::new(), members: HashMap::new() }
    }

    /// A second set of heaps that is as this one and goes on by itself, with a factory that makes the same policies.
    #[must_use]
    pub fn copy(&self, factory: Factory) -> Self {
        let copy = |heap: &Modelled| Modelled { heap: heap.heap.as_ref().map(ModelHeap::copy), ..*heap };
        Self { factory, heaps: self.heaps.iter().map(copy).collect(), members: self.members.clone() }
    }

    /// The heap that the latest process under an id acts on, if there were events of it.
    pub fn heap(&self, pid: u32) -> Option<&ModelHeap> {
        self.members.get(&pid).and_then(|member| self.heaps[member.heap].heap.as_ref())
    }

    /// All heaps that there were and are, in the order in which they began.
    pub fn heaps(&self) -> &[Modelled] {
        &self.heaps
    }

    /// Takes a process's heap as it lay in memory.
    pub fn layout(&mut self, time: u64, pid: u32, layout: &Layout) {
        let member = self.member(pid);
        if let Some(heap) = &mut self.heaps[member.heap].heap {
            heap.layout(time, layout);
        }
    }

    /// Takes the next events into account.
    ///
    /// A thread's end is told by the kernel, when the allocator has already emptied its cache, and others may have used
    /// that memory. So an end counts from the last call of the thread on, as far as that is among `events`.
    pub fn apply_all(&mut self, events: &[Event]) {
        let done = last_calls(events);
        let mut last: Option<(u32, usize)> = None;
        let mut number = 0;
        while let Some(event) = events.get(number) {
            if is_of_the_tree(event) {
                number += 1;
                match event.op {
                    Op::Fork { child, flags } if flags & CLONE_THREAD == 0 => self.fork(event, child, flags),
                    Op::Exec => self.exec(event.pid),
                    Op::Exit { .. } => self.exit(event.pid),
                    _ => continue,
                }
                last = None;
                continue;
            }
            let at = match last {
                Some((pid, at)) if pid == event.pid => at,
                _ => self.place(event),
            };
            last = Some((event.pid, at));
            // All that follows for the same heap, as far as nothing else is to be done in between.
            let is_last = |number: usize| !done.is_empty() && done.contains(&number);
            let same = |&at: &usize| {
                let next = &events[at];
                next.pid == event.pid && !is_of_the_tree(next) && !is_last(at - 1)
            };
            let end = (number + 1..events.len()).find(|at| !same(at)).unwrap_or(events.len());
            if let Some(heap) = &mut self.heaps[at].heap {
                heap.apply_all(&events[number..end]);
                if is_last(end - 1) {
                    heap.thread_done(events[end - 1].time, events[end - 1].tid);
                }
            }
            number = end;
        }
    }

    /// The heap to which an event goes.
    fn place(&mut self, event: &Event) -> usize {
        if self.members.get(&event.pid).is_some_and(|member| member.ended) {
            let tail = matches!(
                event.op,
                Op::Gap { .. } | Op::ThreadExit | Op::Munmap { .. } | Op::MunmapFailed { .. } | Op::MremapEnd { .. }
            );
            if !tail {
                // The id is used again, and the beginning of the new process was not reported.
                self.members.remove(&event.pid);
            }
        }
        let at = self.member(event.pid).heap;
        if let Some(member) = self.members.get_mut(&event.pid) {
            member.events += 1;
        }
        at
    }

    fn member(&mut self, pid: u32) -> Member {
        if let Some(member) = self.members.get(&pid) {
            return *member;
        }
        let heap = self.begin(pid, 0);
        let member = Member { heap, execs: 0, ended: false, events: 0 };
        self.members.insert(pid, member);
        member
    }

    fn begin(&mut self, pid: u32, execs: u64) -> usize {
        let heap = ModelHeap::new((self.factory)(pid, execs));
        self.heaps.push(Modelled { pid, execs, heap: Some(heap), users: 1 });
        self.heaps.len() - 1
    }

    fn fork(&mut self, event: &Event, child: u32, flags: u64) {
        let from = self.member(event.pid).heap;
        if self.members.get(&child).is_some_and(|known| !known.ended && known.events > 0) {
            // Its first events came before this one; what it inherited cannot be put beneath them any more.
            return;
        }
        let heap = if flags & CLONE_VM != 0 {
            self.heaps[from].users += 1;
            from
        } else {
            let copy = self.heaps[from].heap.as_ref().map(ModelHeap::fork);
            self.heaps.push(Modelled { pid: child, execs: 0, heap: copy, users: 1 });
            self.heaps.len() - 1
        };
        if let Some(heap) = &mut self.heaps[heap].heap {
            heap.forked(event.time, child, event.tid, flags & CLONE_VM != 0);
        }
        self.members.insert(child, Member { heap, execs: 0, ended: false, events: 0 });
    }

    fn exec(&mut self, pid: u32) {
        let Member { heap: before, execs, .. } = self.member(pid);
        let execs = execs + 1;
        self.heaps[before].users -= 1;
        if self.heaps[before].users == 0 {
            self.heaps[before].heap = None;
        }
        let heap = self.begin(pid, execs);
        self.members.insert(pid, Member { heap, execs, ended: false, events: 0 });
    }

    fn exit(&mut self, pid: u32) {
        let member = self.member(pid);
        self.members.insert(pid, Member { ended: true, ..member });
    }
}

/// Whether an event is about the processes and not about a heap.
#[inline]
fn is_of_the_tree(event: &Event) -> bool {
    match event.op {
        Op::Fork { .. } | Op::Exec | Op::Exit { .. } => true,
        // The first thread ends with its process, whose memory the kernel takes as it is: nothing is freed.
        Op::ThreadExit => event.tid == event.pid,
        _ => false,
    }
}

/// The places of the last allocator calls of threads that end among these events.
fn last_calls(events: &[Event]) -> HashSet<usize> {
    let ends = |event: &Event| matches!(event.op, Op::ThreadExit) && event.tid != event.pid;
    if !events.iter().any(ends) {
        return HashSet::new();
    }
    let mut calls: HashMap<(u32, u32), usize> = HashMap::new();
    let mut done = HashSet::new();
    for (at, event) in events.iter().enumerate() {
        let thread = (event.pid, event.tid);
        if event.block().is_some() {
            calls.insert(thread, at);
        } else if ends(event) {
            done.extend(calls.remove(&thread));
        }
    }
    done
}
