//! The process tree: which events belong to which heap, through fork, exec, exit and ids used again.

use super::blocks::Block;
use super::footprint::Footprint;
use super::hash::BuildWordHasher;
use super::origin::Origin;
use super::process::Process;
use super::snapshot::Snapshot;
use super::state::{Call, Heap};
use super::totals::Anomalies;
use crate::glibc::Layout;
use crate::target::{MemorySample, ProcessInfo};
use hashbrown::HashMap;
use memfrag_common::event::{CLONE_THREAD, CLONE_VM, Event, Op};

mod saved;

/// A fork that comes this many nanoseconds after the child's first event is a late report; a later one means that
/// the id was used again.
const LATE_FORK: u64 = 1_000_000_000;

/// How many events ahead the memory that an event needs is sent for.
const AHEAD: usize = 12;

/// The heaps of all traced processes, rebuilt from their events.
///
/// The state depends on nothing but the calls made: there is no clock and no I/O in it. Events of a process are taken
/// in the order in which they come; their times need not rise.
#[derive(Debug, Default)]
pub struct Heaps {
    processes: Vec<Process>,
    spaces: Vec<Heap>,
    by_pid: HashMap<u32, u32, BuildWordHasher>,
    /// The process of the last event.
    last: usize,
    /// Whether heaps that begin count how long their blocks live.
    counts_lifetimes: bool,
}

impl Heaps {
    /// All processes, in the order in which they were first seen.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The heap that a process of this tree acts on.
    pub fn heap(&self, process: &Process) -> &Heap {
        &self.spaces[process.heap]
    }

    /// Whether a process acts on a heap that is not its own: its parent's, as after `vfork`.
    pub fn shares_heap(&self, process: &Process) -> bool {
        process.parent.is_some_and(|parent| self.processes[parent].heap == process.heap)
    }

    /// The latest process under this id.
    pub fn find(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid).map(|&at| &self.processes[at as usize])
    }

    /// The index of the latest process under this id.
    pub fn index_of(&self, pid: u32) -> Option<usize> {
        self.by_pid.get(&pid).map(|&at| at as usize)
    }

    /// Who a process is, by its index. A forked one that was not looked at runs its parent's program.
    pub fn info(&self, at: usize) -> Option<&ProcessInfo> {
        let process = self.processes.get(at)?;
        process.info().or_else(|| {
            let parent = process.parent().filter(|_| process.execs() == 0)?;
            self.processes[parent].info()
        })
    }

    /// The anomalies of all heaps together.
    pub fn anomalies(&self) -> Anomalies {
        let mut sum = Anomalies::default();
        self.spaces.iter().for_each(|heap| sum.add(&heap.anomalies));
        sum
    }

    /// Live blocks of all heaps together.
    pub fn live_blocks(&self) -> u64 {
        self.spaces.iter().map(|heap| heap.live.blocks).sum()
    }

    /// Bytes that a copy by [`Self::share`] will keep once these heaps have gone on.
    pub fn own_bytes(&self) -> u64 {
        self.spaces.iter().map(Heap::own_bytes).sum()
    }

    /// Bytes of memory that the heaps take here.
    pub fn memory_bytes(&self) -> u64 {
        self.spaces.iter().map(Heap::memory_bytes).sum()
    }

    /// Takes over what was learned about a process. A start time other than the known one means that the id was used
    /// again: a new process begins.
    pub fn learn(&mut self, info: &ProcessInfo) {
        let at = match self.by_pid.get(&info.pid) {
            Some(&at) if !self.is_another(at as usize, info) => at as usize,
            Some(&at) => {
                self.end(at as usize, info.time, None);
                self.add(info.pid, info.time)
            }
            None => self.add(info.pid, info.time),
        };
        self.processes[at].learn(info);
    }

    fn is_another(&self, at: usize, info: &ProcessInfo) -> bool {
        let known = self.processes[at].info.as_ref().map_or(0, |known| known.start_ticks);
        known != 0 && info.start_ticks != 0 && known != info.start_ticks
    }

    /// Attaches a reading of a process's memory. Readings of unknown or ended processes are left aside.
    pub fn sample(&mut self, sample: &MemorySample) {
        let Some(&at) = self.by_pid.get(&sample.pid) else { return };
        let process = &mut self.processes[at as usize];
        if process.ended.is_none() {
            process.memory = Some(*sample);
            self.spaces[process.heap].sample(sample);
        }
    }

    /// Checks a process's heap against a walk of it, made at `time`, and mends it; see [`Heap::walked_at`]. Walks of
    /// unknown or ended processes are left aside.
    pub fn reconcile(&mut self, time: u64, pid: u32, layout: &Layout) {
        let Some(&at) = self.by_pid.get(&pid) else { return };
        let process = &self.processes[at as usize];
        if process.ended.is_none() {
            let threads = self.processes.iter().filter(|other| other.heap == process.heap).flat_map(Process::threads);
            let under_way: Vec<u64> = threads.flat_map(|thread| &thread.pending).map(|begun| begun.addr).collect();
            self.spaces[process.heap].reconcile(time, layout, &under_way);
        }
    }

    /// What a running process's heap holds now, kept while it goes on.
    pub fn snapshot(&mut self, pid: u32) -> Option<Snapshot> {
        let process = &self.processes[*self.by_pid.get(&pid)? as usize];
        process.ended.is_none().then(|| self.spaces[process.heap].snapshot())
    }

    /// Remembers what a running process's heap holds now, and forgets what was remembered of it before; false when there
    /// is no such process. Costs less than [`Self::snapshot`] where the heap is large and goes on.
    pub fn remember(&mut self, pid: u32) -> bool {
        let Some(&at) = self.by_pid.get(&pid) else { return false };
        let process = &self.processes[at as usize];
        let runs = process.ended.is_none();
        if runs {
            self.spaces[process.heap].remember(at as usize);
        }
        runs
    }

    /// What the heap of a process, by its index, held when it was remembered, those blocks that no event told of
    /// included, in order of their addresses. `None` when it was not since it became the program that it is.
    pub fn remembered(&self, process: usize) -> Option<Vec<Block>> {
        self.spaces[self.processes.get(process)?.heap].remembered(process)
    }

    /// A copy of all of it, as it is now. The tables of blocks and pages are shared until either side changes them, so
    /// that this takes time by 64 KiB regions in use, and memory only for what is changed later.
    #[must_use]
    pub fn share(&mut self) -> Self {
        Self {
            processes: self.processes.clone(),
            spaces: self.spaces.iter_mut().map(Heap::share).collect(),
            by_pid: self.by_pid.clone(),
            last: self.last,
            counts_lifetimes: self.counts_lifetimes,
        }
    }

    /// Counts from now on how long blocks live, in all heaps: see [`Heap::lifetimes`].
    pub fn count_lifetimes(&mut self) {
        self.counts_lifetimes = true;
        self.spaces.iter_mut().for_each(Heap::count_lifetimes);
    }

    /// Takes the rule by which the blocks of a process's heap take memory; those that it has are entered anew.
    pub fn set_footprint(&mut self, process: usize, footprint: Footprint) {
        if let Some(process) = self.processes.get(process) {
            self.spaces[process.heap].set_footprint(footprint);
        }
    }

    /// Keeps account, from now on, of what happens on the pages of the heap that a process acts on; see
    /// [`Heap::activity`]. Costs time by the live blocks, unless the heap is watched already. A heap that comes later,
    /// of a forked process or after `vfork` and `exec`, is watched when that is asked for.
    pub fn watch(&mut self, process: usize) {
        if let Some(process) = self.processes.get(process) {
            self.spaces[process.heap].watch();
        }
    }

    /// Ends what [`Self::watch`] began.
    pub fn unwatch(&mut self, process: usize) {
        if let Some(process) = self.processes.get(process) {
            self.spaces[process.heap].unwatch();
        }
    }

    /// Takes the next events into account: as [`Self::apply`] on each, but faster.
    pub fn apply_all(&mut self, events: &[Event]) {
        // Mostly all of them are of the process of the last event.
        let is_wide = self.processes.get(self.last).is_some_and(|process| self.spaces[process.heap].blocks().is_wide());
        for (at, event) in events.iter().enumerate() {
            // An event's own look-ups wait for one another, but those of different events need not.
            if is_wide && let Some((heap, addr)) = self.place_of(events.get(at + 2 * AHEAD)) {
                heap.blocks().send_for_region(addr);
            }
            if let Some((heap, addr)) = self.place_of(events.get(at + AHEAD)) {
                heap.send_for(addr);
            }
            self.apply(event);
        }
    }

    /// The heap and the address that a coming event is about.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "twice in the loop that all events go through, where a call is felt")]
    fn place_of(&self, event: Option<&Event>) -> Option<(&Heap, u64)> {
        let (event, addr) = event.and_then(|event| Some((event, event.block()?)))?;
        Some((self.heap_of(event.pid)?, addr))
    }

    /// The heap that the latest process under this id acts on.
    #[inline]
    fn heap_of(&self, pid: u32) -> Option<&Heap> {
        let last = self.processes.get(self.last).filter(|process| process.pid() == pid);
        last.or_else(|| self.find(pid)).map(|process| &self.spaces[process.heap])
    }

    /// Takes the next event into account.
    #[inline]
    pub fn apply(&mut self, event: &Event) {
        let &Event { time, pid, tid, op } = event;
        let at = self.process_of(pid, time);
        if self.processes[at].ended.is_some() {
            return self.after_exit(at, event);
        }
        let process = &mut self.processes[at];
        process.events += 1;
        let thread = process.thread(tid, time);
        thread.events += 1;
        let heap = &mut self.spaces[process.heap];
        heap.advance(time);
        match op {
            Op::Alloc { function, align_log2, addr, size, site, stack } => {
                let origin = Origin { site, stack, function, align_log2 };
                heap.alloc(&Call { time, tid, addr, size, origin });
            }
            Op::Free { addr: 0, .. } => {}
            Op::Free { function, addr, .. } => heap.free(time, function, addr),
            Op::ReallocBegin { old, size, site, .. } => {
                let block = heap.realloc_begin(old);
                let thread = process.thread(tid, time);
                if let Some(given_up) = thread.begin(old, block, size, site) {
                    heap.give_up(&given_up);
                }
            }
            Op::ReallocEnd { function, addr, size, site, stack } => {
                let thread = process.thread(tid, time);
                let mut begun = thread.end(size, site).into_iter();
                let own = begun.next();
                begun.for_each(|inner| heap.give_up(&inner));
                let origin = Origin { site, stack, function, align_log2: 0 };
                heap.realloc_end(own, &Call { time, tid, addr, size, origin });
            }
            Op::Mmap { size, .. } => heap.maps.mapped(size),
            Op::Munmap { size, .. } => heap.maps.unmapped(size),
            Op::MunmapFailed { size, .. } => heap.maps.not_unmapped(size),
            Op::MremapBegin { size, .. } => process.thread(tid, time).mremap = Some(size),
            Op::MremapEnd { addr, size } => {
                let begun = process.thread(tid, time).mremap.take();
                if let (Some(before), true) = (begun, addr != 0) {
                    heap.maps.remapped(before, size);
                }
            }
            Op::Brk { end } => heap.brk(tid, end),
            Op::Madvise { .. } => heap.maps.madvises += 1,
            Op::Gap { lost } => heap.gap(time, lost),
            Op::ThreadStart => process.start_thread(tid, time),
            Op::ThreadExit => {
                let thread = process.thread(tid, time);
                thread.ended.get_or_insert(time);
                for begun in std::mem::take(&mut thread.pending) {
                    heap.give_up(&begun);
                }
            }
            Op::Fork { child, flags } if flags & CLONE_THREAD != 0 => process.start_thread(child, time),
            Op::Fork { child, flags } => self.fork(at, time, child, flags),
            Op::Exec => self.exec(at, tid, time),
            Op::Exit { status } => self.end(at, time, status),
        }
    }

    /// The latest process under this id, which is new if there was none.
    #[inline]
    fn process_of(&mut self, pid: u32, time: u64) -> usize {
        if self.processes.get(self.last).is_none_or(|process| process.pid() != pid) {
            self.last = match self.by_pid.get(&pid) {
                Some(&at) => at as usize,
                None => self.add(pid, time),
            };
        }
        self.last
    }

    fn add(&mut self, pid: u32, time: u64) -> usize {
        self.begin(time);
        self.add_with_heap(pid, time, self.spaces.len() - 1)
    }

    /// A heap that begins with nothing.
    fn begin(&mut self, time: u64) {
        let mut heap = Heap::new(time);
        if self.counts_lifetimes {
            heap.count_lifetimes();
        }
        self.spaces.push(heap);
    }

    fn add_with_heap(&mut self, pid: u32, time: u64, heap: usize) -> usize {
        let at = self.processes.len();
        self.processes.push(Process::new(pid, time, heap));
        self.by_pid.insert(pid, at as u32);
        self.last = at;
        at
    }

    /// What comes under the id of a process that has ended: the tail of its own events, or those of a new process
    /// whose beginning was not reported.
    #[cold]
    fn after_exit(&mut self, at: usize, event: &Event) {
        let heap = &mut self.spaces[self.processes[at].heap];
        match event.op {
            Op::Gap { lost } => heap.gap(event.time, lost),
            Op::Exit { .. } | Op::ThreadExit | Op::Munmap { .. } | Op::MunmapFailed { .. } | Op::MremapEnd { .. } => {
                heap.anomalies.after_exit += 1;
            }
            _ => {
                self.add(event.pid, event.time);
                self.apply(event);
            }
        }
    }

    fn fork(&mut self, parent: usize, time: u64, child: u32, flags: u64) {
        let vm = flags & CLONE_VM != 0;
        let parents_heap = self.processes[parent].heap;
        let known = self.by_pid.get(&child).map(|&at| at as usize);
        let at = match known.map(|at| (at, &self.processes[at])) {
            // Announced by what `/proc` told about it, with nothing done yet: this is its beginning.
            Some((at, known)) if known.ended.is_none() && !known.forked && known.events == 0 => {
                self.spaces[known.heap].users = 0;
                at
            }
            Some((at, known))
                if known.ended.is_none() && !known.forked && at != parent && time < known.started() + LATE_FORK =>
            {
                // Its first events have gone to an empty heap; what it inherited cannot be put beneath them any more.
                self.spaces[known.heap].anomalies.late_forks += 1;
                self.processes[at].forked = true;
                self.processes[at].parent = Some(parent);
                return;
            }
            Some((at, known)) => {
                if known.ended.is_none() {
                    self.end(at, time, None);
                }
                self.add_with_heap(child, time, parents_heap)
            }
            None => self.add_with_heap(child, time, parents_heap),
        };
        let heap = if vm {
            self.spaces[parents_heap].users += 1;
            parents_heap
        } else {
            let copy = self.spaces[parents_heap].fork(time);
            self.spaces.push(copy);
            self.spaces.len() - 1
        };
        let process = &mut self.processes[at];
        process.forked = true;
        process.parent = Some(parent);
        process.heap = heap;
    }

    fn exec(&mut self, at: usize, tid: u32, time: u64) {
        let process = &mut self.processes[at];
        process.execs += 1;
        process.end_threads(time, Some(tid));
        let under_way = process.take_pending();
        let heap = &mut self.spaces[process.heap];
        heap.pasts.forget(at);
        if heap.users > 1 {
            heap.users -= 1;
            for begun in &under_way {
                heap.give_up(begun);
            }
            process.heap = self.spaces.len();
            self.begin(time);
        } else {
            heap.discard(&under_way);
        }
    }

    fn end(&mut self, at: usize, time: u64, status: Option<i32>) {
        let process = &mut self.processes[at];
        if process.ended.is_some() {
            return;
        }
        process.ended = Some(time);
        process.status = status;
        process.end_threads(time, None);
        let heap = &mut self.spaces[process.heap];
        heap.users -= 1;
        for begun in process.take_pending() {
            heap.anomalies.realloc_without_end += 1;
            heap.restore(&begun, time);
        }
        if heap.users == 0 {
            heap.rest();
        }
    }
}
