//! The merge against an oracle that looks at every ring for every record, first under arbitrary limits, then under
//! the watermarks of simulated passes.

use super::*;
use crate::capture::Sink;
use crate::capture::preload::clock::Ticker;
use crate::capture::preload::output::Output;
use crate::capture::preload::watermark::Watermark;
use crate::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::Function;
use memfrag_common::event::{Event, Op};
use memfrag_common::ring::{Producer, RingHeader, Slot};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// The process.
const PID: u32 = 4711;

/// Any stack pointer does.
const FRAME: u64 = 64;

const KINDS: [Kind; 7] =
    [Kind::Alloc, Kind::Free, Kind::ReallocBegin, Kind::ReallocEnd, Kind::ThreadStart, Kind::Brk, Kind::Gap];

/// A ring in this process's memory, with the producer's side of it.
struct Thread {
    header: Box<RingHeader>,
    slots: Vec<Slot>,
    producer: Producer,
}

impl Thread {
    fn new(slots: usize) -> Self {
        let header = Box::new(RingHeader::default());
        let slots: Vec<Slot> = (0..slots).map(|_| Slot::default()).collect();
        let thread = Self { header, slots, producer: Producer::default() };
        // SAFETY: header and slots live as long as the producer and are never moved.
        unsafe { thread.producer.attach(&raw const *thread.header, thread.slots.as_ptr(), thread.slots.len() as u64) };
        thread
    }

    /// The consumer's side, which must not be used once the thread is dropped.
    fn ring(&self) -> Ring {
        // SAFETY: the tests keep their threads for as long as their rings.
        unsafe { Ring::new(&raw const *self.header, self.slots.as_ptr(), self.slots.len() as u64, PID) }
    }

    /// Pushes a record whose fields all tell which it is. `false` when there was no room.
    fn push(&self, id: u64, kind: Kind, stamp: u64) -> bool {
        self.producer.refresh();
        let fields = packed::pack(&record(id, kind)).expect("small numbers");
        self.producer.push(FRAME, fields, || stamp).is_ok()
    }
}

/// A record whose fields tell that it is number `id`.
fn record(id: u64, kind: Kind) -> Record {
    let function = Function::Malloc as u8;
    Record { kind: kind as u8, function, addr: id, size: id << 8, site: id, pid: PID, ..Record::default() }
}

/// A record that the oracle knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    id: u64,
    /// Lifted to that of the ring's record before.
    stamp: u64,
    takes: bool,
}

impl Known {
    fn rank(&self) -> (u64, bool) {
        (self.stamp, !self.takes)
    }
}

/// What the oracle knows of a ring.
#[derive(Debug, Default)]
struct Queue {
    unread: VecDeque<Known>,
    /// How many of them the consumer has seen.
    seen: usize,
    read: u64,
    last: u64,
}

impl Queue {
    fn pushed(&mut self, id: u64, kind: Kind, stamp: u64) -> u64 {
        self.last = self.last.max(stamp);
        let takes = [Kind::Free, Kind::ReallocBegin, Kind::ThreadStart].contains(&kind);
        self.unread.push_back(Known { id, stamp: self.last, takes });
        self.last
    }

    fn first(&self) -> Option<Known> {
        self.unread.front().copied().filter(|_| self.seen > 0)
    }
}

/// What the sink was told: of each event the number, and the time.
#[derive(Debug, Default)]
struct Told(Vec<(u64, u64)>);

impl Sink for Told {
    fn events(&mut self, events: &[Event]) {
        let number = |event: &Event| match event.op {
            Op::Brk { end } => end,
            Op::ThreadStart | Op::Gap { .. } => u64::from(event.tid),
            _ => event.block().expect("a call"),
        };
        self.0.extend(events.iter().map(|event| (number(event), event.time)));
    }
    fn process(&mut self, _: &ProcessInfo) {}
    fn mappings(&mut self, _: u64, _: u32, _: &[Mapping]) {}
    fn memory(&mut self, _: &MemorySample) {}
}

/// The merger and what comes behind it, watched by the oracle.
struct Watched {
    merger: Merger,
    output: Output,
    told: Told,
    queues: Vec<Queue>,
    /// Every record released, with the time at which it is to be told.
    released: Vec<(u64, u64)>,
    late: Vec<u64>,
}

impl Watched {
    fn new(rings: usize) -> Self {
        Self {
            merger: Merger::default(),
            output: Output::new(Ticker::of_nanoseconds()),
            told: Told::default(),
            queues: std::iter::repeat_with(Queue::default).take(rings).collect(),
            released: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Releases and checks. `rings` holds the consumer's sides, each with the number of its queue.
    fn release(&mut self, rings: &mut [(usize, Ring)], limit: u64, most: u64) {
        let mut released = Vec::new();
        let (output, told) = (&mut self.output, &mut self.told);
        let mut readable: Vec<&mut Ring> = rings.iter_mut().map(|(_, ring)| ring).collect();
        let count = self.merger.release(&mut readable, limit, most, |record, stamp| {
            released.push((*record, stamp));
            output.record(record, stamp, told);
        });
        assert_eq!(count, released.len() as u64);
        assert!(count <= most);
        for (found, stamp) in released {
            let id = found.addr;
            let kind = Kind::from_u8(found.kind).expect("one of those pushed");
            assert_eq!(found, Record { time: found.time, tid: found.tid, ..record(id, kind) }, "torn");
            let least = self.queues.iter().filter_map(Queue::first).min_by_key(Known::rank).expect("something to read");
            let from = |queue: &&mut Queue| queue.first().is_some_and(|first| first.id == id);
            let queue = self.queues.iter_mut().find(from).expect("the record is the next of a ring");
            let first = queue.first().expect("it has just been found");
            assert_eq!(first.rank(), least.rank(), "{first:?} was taken, but {least:?} comes before it");
            assert_eq!(stamp, first.stamp);
            assert!(stamp <= limit, "{first:?} is above {limit}");
            queue.unread.pop_front();
            queue.seen -= 1;
            queue.read += 1;
            let time = self.released.last().map_or(0, |&(_, time)| time);
            if stamp < time {
                self.late.push(id);
            }
            self.released.push((id, stamp.max(time)));
        }
        if count < most {
            let left = self.queues.iter().filter_map(Queue::first).find(|first| first.stamp <= limit);
            assert_eq!(left, None, "left behind, though not above {limit}");
        }
        for (index, ring) in rings {
            let queue = &self.queues[*index];
            let given_back = ring.header().tail.0.load(Relaxed);
            assert_eq!((ring.tail, given_back), (queue.read, queue.read), "slots read and given back");
        }
    }

    /// That everything pushed has been told, each record once, with the late ones counted.
    fn check_all_told(&mut self, pushed: u64) {
        self.output.flush(&mut self.told);
        assert_eq!(self.told.0, self.released);
        assert_eq!(self.output.late, self.late.len() as u64);
        assert_eq!(self.output.unknown, 0);
        let mut ids: Vec<u64> = self.released.iter().map(|&(id, _)| id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..pushed).collect::<Vec<_>>());
    }
}

#[derive(Clone, Debug)]
enum Action {
    Push {
        thread: usize,
        kind: Kind,
        stamp: u64,
    },
    /// With the rings of `seen` looked at anew, the others as they were in the pass before.
    Pass {
        limit: u64,
        most: u64,
        seen: usize,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    // Few stamps, so that many are equal; they grow in the course of time, though not steadily.
    let push = (0..5usize, prop::sample::select(&KINDS[..]), 0..6u64).prop_map(|(thread, kind, stamp)| Action::Push {
        thread,
        kind,
        stamp,
    });
    let most = prop_oneof![Just(u64::MAX), 0..6u64];
    let pass = (0..9u64, most, 0..32usize).prop_map(|(limit, most, seen)| Action::Pass { limit, most, seen });
    prop::collection::vec(prop_oneof![5 => push, 1 => pass], 0..120).prop_map(|mut actions| {
        for (at, action) in actions.iter_mut().enumerate() {
            let (Action::Push { stamp: time, .. } | Action::Pass { limit: time, .. }) = action;
            *time += at as u64 / 8;
        }
        actions
    })
}

proptest! {
    #[test]
    fn under_any_limits_records_come_in_the_order_of_the_oracle(actions in actions()) {
        let threads: Vec<Thread> = (0..5).map(|_| Thread::new(16)).collect();
        let mut rings: Vec<(usize, Ring)> = threads.iter().map(Thread::ring).enumerate().collect();
        let mut watched = Watched::new(threads.len());
        let mut pushed = 0;
        for action in actions {
            match action {
                Action::Push { thread, kind, stamp } => {
                    if threads[thread].push(pushed, kind, stamp) {
                        watched.queues[thread].pushed(pushed, kind, stamp);
                        pushed += 1;
                    }
                }
                Action::Pass { limit, most, seen } => {
                    for (index, ring) in rings.iter_mut().filter(|(index, _)| seen >> index & 1 == 1) {
                        ring.head = ring.header().observe().1;
                        watched.queues[*index].seen = watched.queues[*index].unread.len();
                    }
                    watched.release(&mut rings, limit, most);
                }
            }
        }
        for (index, ring) in &mut rings {
            ring.head = ring.header().observe().1;
            watched.queues[*index].seen = watched.queues[*index].unread.len();
        }
        watched.release(&mut rings, u64::MAX, u64::MAX);
        watched.check_all_told(pushed);
    }
}

/// No store takes so long to be seen.
const SLACK: u64 = 5;

/// From when on a thread at work is taken for a stopped one.
const STOPPED: u64 = 40;

/// What may happen next in the simulation. All but the first two are done by a thread.
#[derive(Clone, Debug)]
enum Step {
    /// Time goes by, or not: some clocks are coarse.
    Tick(u64),
    /// The consumer looks at so many more rings, and after the last of them releases no more than `most`.
    Look {
        rings: usize,
        most: u64,
    },
    /// Takes a stamp. The consumer sees that there is a thread at work now, or as late as a store may be seen.
    Stamp {
        kind: Kind,
        hidden: bool,
    },
    /// A handler interrupts before the record is there, and pushes one of its own.
    Interrupt(Kind),
    Push,
    /// Dies, perhaps at work.
    End,
}

/// A record that is stamped and not yet pushed.
#[derive(Clone, Copy, Debug)]
struct Pending {
    kind: Kind,
    stamp: u64,
    hidden: bool,
    /// When the pass began that first saw the thread like this.
    since: Option<u64>,
    /// It took so long that the consumer gave up waiting.
    stopped: bool,
}

/// A thread of the simulated program.
struct Actor {
    thread: Thread,
    /// The consumer can see that the ring is there.
    joined: bool,
    ended: bool,
    pending: Option<Pending>,
}

struct Simulation {
    actors: Vec<Actor>,
    /// In the order in which the consumer came to know them.
    rings: Vec<(usize, Ring)>,
    watched: Watched,
    clock: u64,
    last_pass: u64,
    /// The pass under way: its beginning, its watermark, the ring to be looked at next.
    pass: Option<(u64, Watermark, usize)>,
    /// The highest watermark up to which was released.
    passed: u64,
    pushed: u64,
    /// Records that came although the consumer had promised that none would: of threads taken for stopped ones.
    excused: Vec<u64>,
}

impl Simulation {
    fn new(threads: usize) -> Self {
        let actor = || Actor { thread: Thread::new(256), joined: false, ended: false, pending: None };
        Self {
            actors: std::iter::repeat_with(actor).take(threads).collect(),
            rings: Vec::new(),
            watched: Watched::new(threads),
            clock: 1,
            last_pass: 0,
            pass: None,
            passed: 0,
            pushed: 0,
            excused: Vec::new(),
        }
    }

    fn step(&mut self, who: usize, step: &Step) {
        if let Step::Look { rings, most } = step {
            return self.look(*rings, *most);
        }
        if let Step::Tick(ticks) = step {
            self.clock += ticks;
            return;
        }
        let actor = &mut self.actors[who];
        match (step, actor.pending) {
            _ if actor.ended => {}
            (Step::Stamp { kind, hidden }, None) => {
                if !actor.joined {
                    actor.thread.header.owner.0.born.store(self.clock, Relaxed);
                }
                let pending = Pending { kind: *kind, stamp: self.clock, hidden: true, since: None, stopped: false };
                actor.pending = Some(pending);
                if !hidden {
                    self.reveal(who);
                }
            }
            (Step::Interrupt(kind), Some(pending)) => {
                self.reveal(who);
                self.push(who, *kind, self.clock, pending.stopped);
                self.actors[who].thread.producer.hold(FRAME);
                self.actors[who].pending = Some(Pending { hidden: false, since: None, ..pending });
            }
            (Step::Push, Some(pending)) => {
                self.reveal(who);
                self.push(who, pending.kind, pending.stamp, pending.stopped);
                self.actors[who].pending = None;
            }
            (Step::End, _) => {
                actor.ended = true;
                actor.pending = None;
            }
            _ => {}
        }
    }

    /// The consumer can now see that a thread is at work.
    fn reveal(&mut self, who: usize) {
        let actor = &mut self.actors[who];
        actor.thread.producer.hold(FRAME);
        if let Some(pending) = &mut actor.pending {
            pending.hidden = false;
        }
        if !actor.joined {
            actor.joined = true;
            self.rings.push((who, actor.thread.ring()));
        }
    }

    /// Commits a record; the ring is idle afterwards.
    fn push(&mut self, who: usize, kind: Kind, stamp: u64, stopped: bool) {
        let thread = &self.actors[who].thread;
        thread.producer.let_go(0);
        if thread.push(self.pushed, kind, stamp) {
            let lifted = self.watched.queues[who].pushed(self.pushed, kind, stamp);
            if stopped {
                self.excused.push(self.pushed);
            } else {
                // It may still be seen by a pass under way, but not by those whose watermarks are known.
                assert!(lifted > self.passed, "record {} came at {lifted}, after {}", self.pushed, self.passed);
            }
            self.pushed += 1;
        }
    }

    fn look(&mut self, rings: usize, most: u64) {
        if self.pass.is_none() {
            self.clock = self.clock.max(self.last_pass + SLACK);
            self.pass = Some((self.clock, Watermark::new(self.last_pass, self.clock, STOPPED), 0));
        }
        let Some((begin, mut watermark, first)) = self.pass.take() else { return };
        for who in 0..self.actors.len() {
            if self.actors[who].pending.is_some_and(|pending| pending.hidden && pending.stamp + SLACK <= begin) {
                self.reveal(who);
            }
        }
        let end = self.rings.len().min(first.saturating_add(rings));
        for (who, ring) in &mut self.rings[first..end] {
            let actor = &mut self.actors[*who];
            assert!(watermark.observe(ring, actor.ended));
            self.watched.queues[*who].seen = self.watched.queues[*who].unread.len();
            if let Some(pending) = actor.pending.as_mut().filter(|pending| !pending.hidden) {
                pending.stopped |= begin - *pending.since.get_or_insert(begin) >= STOPPED;
            }
        }
        if end < self.rings.len() {
            self.pass = Some((begin, watermark, end));
            return;
        }
        for queue in &self.watched.queues {
            let unseen = queue.unread.iter().skip(queue.seen).filter(|known| !self.excused.contains(&known.id));
            for known in unseen {
                assert!(known.stamp > watermark.stamp(), "{known:?} came after a look that led to {watermark:?}");
            }
        }
        self.watched.release(&mut self.rings, watermark.stamp(), most);
        self.passed = self.passed.max(watermark.stamp());
        self.last_pass = begin;
    }

    /// All threads end, and the consumer reads what they left.
    fn finish(&mut self) {
        for who in 0..self.actors.len() {
            self.step(who, &Step::End);
        }
        for _ in 0..3 {
            self.clock += 1;
            self.look(usize::MAX, u64::MAX);
        }
        self.watched.check_all_told(self.pushed);
        let surprise = self.watched.late.iter().find(|id| !self.excused.contains(id));
        assert_eq!(surprise, None, "late without having been stopped");
    }
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let kind = || prop::sample::select(&KINDS[..]);
    let most = prop_oneof![3 => Just(u64::MAX), 1 => 0..4u64];
    let step = prop_oneof![
        4 => (0..3u64).prop_map(Step::Tick),
        1 => (0..30u64).prop_map(Step::Tick),
        6 => (1..5usize, most).prop_map(|(rings, most)| Step::Look { rings, most }),
        8 => (kind(), any::<bool>()).prop_map(|(kind, hidden)| Step::Stamp { kind, hidden }),
        2 => kind().prop_map(Step::Interrupt),
        8 => Just(Step::Push),
        1 => (0..4u8).prop_map(|dice| if dice == 0 { Step::End } else { Step::Push }),
    ];
    prop::collection::vec((0..4usize, step), 0..160)
}

proptest! {
    #[test]
    fn nothing_comes_below_the_watermark_but_of_stopped_threads(steps in steps()) {
        let mut simulation = Simulation::new(4);
        for (who, step) in &steps {
            simulation.step(*who, step);
        }
        simulation.finish();
    }
}

#[test]
fn a_record_of_a_stopped_thread_is_counted_as_late() {
    let mut simulation = Simulation::new(2);
    let all = Step::Look { rings: usize::MAX, most: u64::MAX };
    let stamp = Step::Stamp { kind: Kind::Free, hidden: false };
    let before_and_after = [
        (0, stamp.clone()),
        (0, all.clone()),
        (0, Step::Tick(STOPPED)),
        (1, stamp),
        (1, Step::Push),
        (0, Step::Tick(SLACK)),
        (0, all.clone()),
        (0, all),
        (0, Step::Push),
    ];
    for (who, step) in &before_and_after {
        simulation.step(*who, step);
    }
    simulation.finish();
    assert_eq!(simulation.watched.late, [1]);
}

#[test]
fn slots_are_given_back_before_a_long_run_is_over() {
    let thread = Thread::new(8192);
    for id in 0..8000 {
        assert!(thread.push(id, Kind::Alloc, id));
    }
    let mut ring = thread.ring();
    ring.head = 8000;
    let mut taken = 0;
    Merger::default().release(&mut [&mut ring], u64::MAX, u64::MAX, |_, _| {
        taken += 1;
        let given_back = thread.header.tail.0.load(Relaxed);
        assert!(taken - given_back <= RELEASE_EVERY, "{taken} taken, {given_back} given back");
    });
    assert_eq!((taken, thread.header.tail.0.load(Relaxed)), (8000, 8000));
}

#[test]
fn indices_without_sense_are_passed_over_and_the_ring_goes_on() {
    for nonsense in [17, 1 << 40, u64::MAX - 3] {
        let thread = Thread::new(16);
        let mut rings = [(0, thread.ring())];
        thread.header.producer.0.head.store(nonsense, Release);
        let mut watermark = Watermark::new(9, 10, STOPPED);
        assert!(!watermark.observe(&mut rings[0].1, false));
        assert_eq!(watermark.stamp(), 9);
        let release = |ring: &mut Ring| {
            let mut ids = Vec::new();
            Merger::default().release(&mut [ring], u64::MAX, u64::MAX, |record, _| ids.push(record.addr));
            ids
        };
        assert!(release(&mut rings[0].1).is_empty(), "what lay there is no record");
        assert!(thread.push(7, Kind::Alloc, 11), "there is room again");
        assert!(thread.push(8, Kind::Alloc, 12));
        assert!(Watermark::new(20, 21, STOPPED).observe(&mut rings[0].1, false));
        assert_eq!(release(&mut rings[0].1), [7, 8]);
    }
}

#[test]
fn a_thread_at_work_anew_is_waited_for_anew() {
    let thread = Thread::new(16);
    let mut ring = thread.ring();
    let mut pass = |before: u64| {
        let mut watermark = Watermark::new(before, before + SLACK, STOPPED);
        assert!(watermark.observe(&mut ring, false));
        watermark.stamp()
    };
    thread.producer.hold(FRAME);
    assert_eq!(pass(10), 0);
    assert_eq!(pass(10 + STOPPED), 10 + STOPPED, "stopped");
    thread.producer.let_go(0);
    assert_eq!(pass(20 + STOPPED), 20 + STOPPED);
    thread.producer.hold(FRAME);
    assert_eq!(pass(30 + STOPPED), 0, "at work again, with no record since");
}

#[test]
fn a_thread_that_waits_for_room_is_not_stopped() {
    let thread = Thread::new(16);
    let mut rings = [(0, thread.ring())];
    for stamp in 1..=16 {
        assert!(thread.push(stamp, Kind::Alloc, stamp));
    }
    thread.producer.hold(FRAME);
    let pass = |rings: &mut [(usize, Ring)], before: u64| {
        let mut watermark = Watermark::new(before, before + SLACK, STOPPED);
        assert!(watermark.observe(&mut rings[0].1, false));
        watermark.stamp()
    };
    for round in 1..5 {
        assert_eq!(pass(&mut rings, 100 + round * STOPPED), 15, "its next record has the stamp 16 or a later one");
    }
    Merger::default().release(&mut [&mut rings[0].1], 15, u64::MAX, |_, _| ());
    assert_eq!(pass(&mut rings, 101 + 4 * STOPPED), 15, "there is room: from now on it is waited for");
    assert_eq!(pass(&mut rings, 101 + 5 * STOPPED), 101 + 5 * STOPPED, "stopped");
}
