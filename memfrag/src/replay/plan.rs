//! From requests to steps: which thread does what, and what it has to wait for.

mod strides;

use super::survey::{Kinds, Touched, in_use};
use crate::glibc::Layout;
use crate::model::{BlockId, Caller, Fact, Listener, Request};
use crate::target::MemorySample;
use memfrag_common::Function;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use strides::{Done, Strides};

/// How a block is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `malloc`.
    Malloc,
    /// `calloc`.
    Calloc,
    /// `memalign` with the alignment's base-2 logarithm.
    Aligned(u8),
}

/// One thing that a thread of a replay does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Allocates into a slot that is empty.
    Allocate {
        /// The slot.
        slot: u32,
        /// By which call.
        how: How,
        /// Bytes.
        size: u64,
    },
    /// Resizes what is in a slot, with `realloc`; an empty slot is a null pointer.
    Reallocate {
        /// The slot.
        slot: u32,
        /// Bytes.
        size: u64,
    },
    /// Frees what is in a slot, which is empty then.
    Free {
        /// The slot.
        slot: u32,
    },
    /// Starts a thread.
    Spawn {
        /// The thread.
        thread: u32,
    },
    /// Waits until a thread has ended.
    Join {
        /// The thread.
        thread: u32,
    },
    /// Waits until a thread has done so much.
    Wait {
        /// The thread.
        thread: u32,
        /// Allocations, reallocations, frees, samples and the end, from its start.
        done: u64,
    },
    /// Reads the replay's own memory: here the recording has a reading of the program's.
    Sample {
        /// The reading's number, from 0.
        number: u32,
    },
    /// The next block of this thread is written to only in part.
    Touch {
        /// Pages, from its beginning.
        pages: u64,
    },
    /// What follows was not done earlier than this.
    Pause {
        /// Microseconds since the first call.
        microseconds: u64,
    },
    /// All that was recorded is done: reads the replay's own memory for the last time.
    End,
}

/// Takes the steps of a plan, those of each thread in their order.
pub trait Steps: Send {
    /// The next step of a thread.
    fn step(&mut self, thread: u32, step: Step);
}

/// How far apart in time the calls of a thread must be for the plan to tell, in nanoseconds.
const PAUSE: u64 = 1_000_000;

/// A reading of the recorded program's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Nanoseconds since the trace began.
    pub time: u64,
    /// Resident bytes.
    pub rss: u64,
    /// Resident anonymous bytes.
    pub rss_anon: u64,
}

/// What a plan came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Threads, the first of which is the program's main one.
    pub threads: u32,
    /// Slots.
    pub slots: u32,
    /// Calls of the allocator.
    pub calls: u64,
    /// Times that one thread waits for another.
    pub waits: u64,
    /// Blocks from before the trace, put there first.
    pub older: u64,
    /// Frees and reallocations of blocks that nothing is known of: left out.
    pub unknown: u64,
    /// Events lost in the recording.
    pub lost: u64,
    /// Blocks that are written to only in part, as they were seen to be resident.
    pub sparse: u64,
    /// Live blocks that did not fit into the bounds of a compact plan.
    pub left_out: u64,
    /// Readings of the recorded program's memory.
    pub readings: Vec<Reading>,
    /// Which of them growth is counted from: the last one before the program's first call, by when what its loader made
    /// is there, or the first one of all.
    pub base: usize,
    /// Its resident bytes by kind of mapping, when its pages were looked at last.
    pub kinds: Option<Kinds>,
}

/// Where a block is, and the call that used it last.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: u32,
    user: u32,
    done: u64,
}

#[derive(Debug, Default)]
struct Thread {
    /// Calls and samples so far.
    done: u64,
    /// Slots that it was the last to use.
    slots: Vec<u32>,
    /// What it knows other threads to have done.
    known: HashMap<u32, u64>,
    /// Samples that it knows to be taken.
    samples: usize,
    /// The stride of its last call.
    stride: u64,
    /// The time that its steps have come to, since the first call.
    time: u64,
    ended: bool,
}

/// Makes a plan out of the requests of one heap.
///
/// Each thread keeps its own order. It waits for another one only before it touches a block that the other one was the
/// last to touch, and a slot is used again only by the thread that emptied it, so that no other block ties threads to each
/// other. Beyond that, none gets far ahead of the others ([`strides`]), and where memory is read all wait, so that the
/// reading is of the same moment for all of them. Every wait is for what is earlier in the recording: waits in a circle
/// cannot be.
#[derive(Debug)]
struct Plan<S> {
    steps: S,
    planned: Planned,
    threads: Vec<Thread>,
    /// Running threads by the ids that they had.
    by_id: HashMap<u32, u32>,
    /// Who made the last call.
    latest: u32,
    strides: Strides,
    /// Who took the last sample, and what it had done then.
    sampled: (u32, u64),
    /// Threads that have ended, which the next caller joins.
    to_join: Vec<u32>,
    /// By the block's number; `None` while there is no such block.
    places: Vec<Option<Place>>,
    /// Blocks from before, by their address.
    older: HashMap<u64, Place>,
    /// A block from before that is about to be resized.
    resized: Option<Place>,
    /// How much of blocks was seen resident.
    touched: Touched,
    /// Blocks allocated and resized so far, those from before aside.
    serial: u64,
    /// When the first call was made.
    first: Option<u64>,
}

impl<S: Steps> Plan<S> {
    /// No call yet; only the main thread, whose id is the process's.
    fn new(pid: u32, touched: Touched, steps: S) -> Self {
        Self {
            touched,
            serial: 0,
            first: None,
            steps,
            planned: Planned::default(),
            threads: vec![Thread::default()],
            by_id: HashMap::from([(pid, 0)]),
            latest: 0,
            strides: Strides::new(),
            sampled: (0, 0),
            to_join: Vec::new(),
            places: Vec::new(),
            older: HashMap::new(),
            resized: None,
        }
    }

    /// Starts a thread, where the last call was made.
    fn begin_thread(&mut self, id: u32) -> u32 {
        let (thread, parent) = (self.threads.len() as u32, self.latest);
        self.steps.step(parent, Step::Spawn { thread });
        let by = &self.threads[parent as usize];
        let known = HashMap::from([(parent, by.done)]);
        self.threads.push(Thread { known, samples: by.samples, ..Thread::default() });
        self.by_id.insert(id, thread);
        thread
    }

    /// The thread with an id, started where the last call was made if it has not been seen.
    fn thread(&mut self, id: u32) -> u32 {
        let known = self.by_id.get(&id).copied();
        let thread = known.unwrap_or_else(|| self.begin_thread(id));
        while let Some(ended) = self.to_join.pop() {
            self.steps.step(thread, Step::Join { thread: ended });
            let slots = std::mem::take(&mut self.threads[ended as usize].slots);
            let done = self.threads[ended as usize].done;
            let mine = &mut self.threads[thread as usize];
            mine.slots.extend(slots);
            mine.known.insert(ended, done);
        }
        if self.threads[thread as usize].samples < self.planned.readings.len() {
            self.threads[thread as usize].samples = self.planned.readings.len();
            let (sampler, done) = self.sampled;
            self.wait(thread, sampler, done);
        }
        self.latest = thread;
        thread
    }

    /// Has a thread wait until it is abreast of the others, before its first call of a stride.
    fn keep_abreast(&mut self, thread: u32) {
        let stride = self.strides.number();
        if std::mem::replace(&mut self.threads[thread as usize].stride, stride) != stride {
            for (other, done) in self.strides.required().to_vec() {
                self.wait(thread, other, done);
            }
        }
    }

    /// The thread that calls, when it does.
    fn caller(&mut self, caller: &Caller) -> u32 {
        let thread = self.thread(caller.thread);
        self.keep_abreast(thread);
        self.pass(thread, caller.time);
        thread
    }

    /// Time has passed until a thread does what comes next.
    fn pass(&mut self, thread: u32, time: u64) {
        let since = time.saturating_sub(*self.first.get_or_insert(time));
        let last = &mut self.threads[thread as usize].time;
        if since >= last.saturating_add(PAUSE) {
            *last = since;
            self.steps.step(thread, Step::Pause { microseconds: since / 1000 });
        }
    }

    /// A block is about to be allocated or resized: it may be one that is written to only in part.
    fn touch(&mut self, thread: u32, caller: &Caller, size: u64) {
        self.serial += 1;
        if let Some(pages) = self.touched.pages(self.serial, caller.site, size) {
            self.planned.sparse += 1;
            self.steps.step(thread, Step::Touch { pages });
        }
    }

    /// Counts a call of a thread on a slot.
    fn called(&mut self, thread: u32, slot: u32) -> Place {
        self.planned.calls += 1;
        let done = &mut self.threads[thread as usize].done;
        *done += 1;
        let place = Place { slot, user: thread, done: *done };
        self.strides.called(|| running(&self.by_id, &self.threads));
        place
    }

    /// Has a thread wait for what another one does, unless it knows that it is done.
    fn wait(&mut self, thread: u32, on: u32, done: u64) {
        if on == thread {
            return;
        }
        let known = self.threads[thread as usize].known.entry(on).or_insert(0);
        if *known < done {
            *known = done;
            self.planned.waits += 1;
            self.steps.step(thread, Step::Wait { thread: on, done });
        }
    }

    fn slot(&mut self, thread: u32) -> u32 {
        self.threads[thread as usize].slots.pop().unwrap_or_else(|| {
            self.planned.slots += 1;
            self.planned.slots - 1
        })
    }

    fn allocate(&mut self, thread: u32, request: &Request) -> Place {
        if let Some(place) = self.resized.take() {
            return self.reallocate(thread, place, request.size);
        }
        let slot = self.slot(thread);
        let size = request.size;
        let step = match request.function {
            Function::Calloc => Step::Allocate { slot, how: How::Calloc, size },
            Function::Realloc | Function::Reallocarray => Step::Reallocate { slot, size },
            Function::Valloc | Function::Pvalloc => {
                Step::Allocate { slot, how: How::Aligned(request.align_log2.max(12)), size }
            }
            _ if request.align_log2 > 0 => Step::Allocate { slot, how: How::Aligned(request.align_log2), size },
            _ => Step::Allocate { slot, how: How::Malloc, size },
        };
        self.steps.step(thread, step);
        self.called(thread, slot)
    }

    fn reallocate(&mut self, thread: u32, place: Place, size: u64) -> Place {
        self.wait(thread, place.user, place.done);
        self.steps.step(thread, Step::Reallocate { slot: place.slot, size });
        self.called(thread, place.slot)
    }

    fn free(&mut self, thread: u32, place: Place) {
        self.wait(thread, place.user, place.done);
        self.steps.step(thread, Step::Free { slot: place.slot });
        self.called(thread, place.slot);
        self.threads[thread as usize].slots.push(place.slot);
    }

    fn put(&mut self, block: BlockId, place: Place) {
        if self.places.len() <= block.index() {
            self.places.resize(block.index() + 1, None);
        }
        self.places[block.index()] = Some(place);
    }

    fn take(&mut self, block: BlockId) -> Option<Place> {
        self.places.get_mut(block.index())?.take()
    }

    /// A heap as it lay in memory before the first call: its blocks are put there first, in the order of their
    /// addresses.
    fn begin_with(&mut self, layout: &Layout) {
        for (address, size) in in_use(layout) {
            if let Some(pages) = self.touched.older_pages(address) {
                self.planned.sparse += 1;
                self.steps.step(0, Step::Touch { pages });
            }
            let request = Request { size, align_log2: 0, function: Function::Malloc };
            let place = self.allocate(0, &request);
            self.older.insert(address, place);
            self.planned.older += 1;
        }
    }

    fn learn(&mut self, caller: &Caller, fact: Fact<'_>) {
        match fact {
            Fact::ThreadStart => {
                self.thread(caller.thread);
            }
            Fact::ThreadExit => self.exit(caller.thread),
            Fact::UnknownFree(addr) => match self.older.remove(&addr) {
                Some(place) => {
                    let thread = self.caller(caller);
                    self.free(thread, place);
                }
                None => self.planned.unknown += 1,
            },
            Fact::UnknownRealloc(addr) => {
                self.resized = self.older.remove(&addr);
                self.planned.unknown += u64::from(self.resized.is_none());
            }
            Fact::Gap(lost) => self.planned.lost = self.planned.lost.saturating_add(lost),
            Fact::Layout(layout) if self.planned.calls == 0 => self.begin_with(layout),
            Fact::Failed(_)
            | Fact::Forked { .. }
            | Fact::Brk(_)
            | Fact::Mapped { .. }
            | Fact::Unmapped { .. }
            | Fact::Layout(_) => {}
        }
    }

    /// A thread ends. The main one stays: the others end with it.
    fn exit(&mut self, id: u32) {
        let Some(&thread) = self.by_id.get(&id).filter(|&&thread| thread > 0) else { return };
        self.by_id.remove(&id);
        self.threads[thread as usize].ended = true;
        self.to_join.push(thread);
        if self.latest == thread {
            let running = self.threads.iter().rposition(|thread| !thread.ended).unwrap_or(0);
            self.latest = running as u32;
        }
    }

    /// The thread that made the last call waits for what all others have done until `time`.
    fn gather(&mut self, time: u64) -> u32 {
        let sampler = self.latest;
        for other in 0..self.threads.len() {
            self.wait(sampler, other as u32, self.threads[other].done);
        }
        if self.first.is_some() {
            self.pass(sampler, time);
        }
        sampler
    }

    /// Nothing follows. Threads that have not ended do so only when memory has been read: an allocator may take back
    /// what an ending thread holds.
    fn end(&mut self, time: u64) {
        let last = self.gather(time);
        self.steps.step(last, Step::End);
        self.threads[last as usize].done += 1;
        let done = self.threads[last as usize].done;
        for other in 0..self.threads.len() {
            if !self.threads[other].ended {
                self.wait(other as u32, last, done);
            }
        }
    }

    fn sample(&mut self, sample: &MemorySample) {
        let sampler = self.gather(sample.time);
        let number = self.planned.readings.len() as u32;
        self.steps.step(sampler, Step::Sample { number });
        let thread = &mut self.threads[sampler as usize];
        thread.done += 1;
        thread.samples = number as usize + 1;
        self.sampled = (sampler, thread.done);
        let reading = Reading { time: sample.time, rss: sample.rss, rss_anon: sample.rss_anon };
        self.planned.readings.push(reading);
        if self.planned.calls == 0 {
            self.planned.base = number as usize;
        }
    }
}

/// What each running thread has done, in the threads' order.
fn running(by_id: &HashMap<u32, u32>, threads: &[Thread]) -> Vec<Done> {
    let mut running: Vec<Done> = by_id.values().map(|&thread| (thread, threads[thread as usize].done)).collect();
    running.sort_unstable();
    running
}

/// A plan in the making, which listens to the requests of one heap. The child of a fork is another program's matter.
#[derive(Debug)]
pub struct Planner<S>(Arc<Mutex<Plan<S>>>);

impl<S> Clone for Planner<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Steps> Planner<S> {
    /// A plan for the heap of the process `pid`, whose blocks are written to as far as they were `touched`. Its steps go
    /// to `steps`.
    pub fn new(pid: u32, touched: Touched, steps: S) -> Self {
        Self(Arc::new(Mutex::new(Plan::new(pid, touched, steps))))
    }

    fn plan(&self) -> MutexGuard<'_, Plan<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recorded program's memory was read now.
    pub fn sample(&self, sample: &MemorySample) {
        self.plan().sample(sample);
    }

    /// Nothing more comes; the recording went on until `time`.
    pub fn end(&self, time: u64) {
        self.plan().end(time);
    }

    /// Calls planned so far.
    pub fn calls(&self) -> u64 {
        self.plan().planned.calls
    }

    /// What the plan came to, and who took its steps. `None` while a copy of the planner is still in use.
    pub fn finish(self) -> Option<(Planned, S)> {
        let plan = Arc::into_inner(self.0)?.into_inner().unwrap_or_else(PoisonError::into_inner);
        let threads = plan.threads.len() as u32;
        Some((Planned { threads, ..plan.planned }, plan.steps))
    }
}

impl<S: Steps + std::fmt::Debug + 'static> Listener for Planner<S> {
    fn allocated(&mut self, caller: &Caller, block: BlockId, request: &Request, _observed: u64) {
        let mut plan = self.plan();
        let thread = plan.caller(caller);
        plan.touch(thread, caller, request.size);
        let place = plan.allocate(thread, request);
        plan.put(block, place);
    }

    fn freed(&mut self, caller: &Caller, block: BlockId) {
        let mut plan = self.plan();
        if let Some(place) = plan.take(block) {
            let thread = plan.caller(caller);
            plan.free(thread, place);
        }
    }

    fn resized(&mut self, caller: &Caller, block: BlockId, request: &Request, _observed: u64) {
        let mut plan = self.plan();
        let thread = plan.caller(caller);
        plan.touch(thread, caller, request.size);
        let place = match plan.take(block) {
            Some(place) => plan.reallocate(thread, place, request.size),
            None => plan.allocate(thread, request),
        };
        plan.put(block, place);
    }

    fn learned(&mut self, caller: &Caller, fact: Fact<'_>) {
        self.plan().learn(caller, fact);
    }
}

#[cfg(test)]
mod tests;
