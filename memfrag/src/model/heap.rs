//! One heap under a set of policies: from addresses to numbered blocks.

use super::live::Live;
use super::policy::{BlockId, Caller, Fact, Policy, Request, Step};
use crate::analysis::Spread;
use crate::glibc::Layout;
use crate::heap::MAX_SIZE;
use memfrag_common::{Event, Op};
use std::ops::Range;

/// Reallocations that a thread has begun; of more the oldest has lost its end.
const MAX_BEGUN: usize = 4;

/// How many events before an event its block's number is sent for.
const FAR: usize = 24;
/// How many events before a free which step of [`Policy::send_for`] is taken.
const STEPS: [(usize, Step); 3] = [(15, Step::Block), (10, Step::Place), (5, Step::Around)];
/// Events whose blocks are known beforehand: as many as the first step is ahead, and the one under way.
const KNOWN: usize = 16;

/// What the stream of one heap held that a complete one would not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Frees and reallocations of blocks that no event had told of.
    pub unknown_blocks: u64,
    /// Blocks that were allocated where another one was still live: its free is missing.
    pub missed_frees: u64,
    /// Ends of reallocations without a beginning, and beginnings without an end.
    pub torn_reallocs: u64,
    /// Gaps in the stream.
    pub gaps: u64,
    /// Events lost in them.
    pub lost_events: u64,
}

/// A reallocation that has begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    thread: u32,
    /// The old block's address, 0 for none.
    old: u64,
    /// The old block, when it was known.
    block: Option<BlockId>,
    size: u64,
    site: u64,
}

/// Passes the events of one heap on to policies, all in one go.
#[derive(Debug)]
pub struct ModelHeap {
    policies: Vec<Box<dyn Policy>>,
    /// The live blocks by their real address.
    live: Live,
    /// Numbers of blocks that are gone.
    unused: Vec<BlockId>,
    begun: Vec<Begun>,
    numbers: u32,
    oddities: Oddities,
}

impl ModelHeap {
    /// An empty heap.
    pub fn new(policies: Vec<Box<dyn Policy>>) -> Self {
        Self {
            policies,
            live: Live::default(),
            unused: Vec::new(),
            begun: Vec::new(),
            numbers: 0,
            oddities: Oddities::default(),
        }
    }

    /// The policies.
    pub fn policies(&self) -> &[Box<dyn Policy>] {
        &self.policies
    }

    /// Blocks that are live.
    pub fn live_blocks(&self) -> u64 {
        self.live.len() as u64
    }

    /// What a complete stream would not have shown.
    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// The live block at a real address.
    pub fn block_at(&self, addr: u64) -> Option<BlockId> {
        self.live.get(addr)
    }

    /// The copy with which a forked process begins. Only the thread that forked goes on in it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut copy = Self {
            policies: self.policies.iter().map(|policy| policy.fork()).collect(),
            live: self.live.clone(),
            unused: self.unused.clone(),
            begun: Vec::new(),
            numbers: self.numbers,
            oddities: Oddities::default(),
        };
        // What other threads were about to resize stays as it was.
        for begun in &self.begun {
            if let Some(block) = begun.block
                && copy.live.get(begun.old).is_none()
            {
                copy.live.insert(begun.old, block);
            }
        }
        copy
    }

    /// A second heap that is as this one, with copies of its policies, to go on by itself.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            policies: self.policies.iter().map(|policy| policy.fork()).collect(),
            live: self.live.clone(),
            unused: self.unused.clone(),
            begun: self.begun.clone(),
            ..*self
        }
    }

    /// Where a policy has put the blocks, in no order: those that are live, and those that are being resized.
    pub fn places<'a>(&'a self, policy: &'a dyn Policy) -> impl Iterator<Item = Range<u64>> + 'a {
        let resized = self.begun.iter().filter_map(|begun| begun.block);
        self.live.blocks().chain(resized).filter_map(|block| policy.place_of(block))
    }

    /// The heap as it lies in a policy's own addresses. Of one that gives none it is what blocks take, packed at the
    /// beginning of what it holds. Takes time by the number of blocks.
    pub fn spread(&self, policy: &dyn Policy) -> Spread {
        let held = policy.held();
        if !held.is_empty() {
            return Spread::new(held, self.places(policy).collect());
        }
        let whole = |bytes: u64| if bytes > 0 { std::iter::once(0..bytes).collect() } else { Vec::new() };
        Spread::new(whole(policy.footprint().now), whole(policy.contents().taken))
    }

    /// The most blocks that were live at once.
    pub fn most_blocks(&self) -> u64 {
        u64::from(self.numbers)
    }

    /// Says that the heap is now that of a new process too, whose first thread is `thread`.
    pub fn forked(&mut self, time: u64, thread: u32, parent_thread: u32, shared: bool) {
        self.tell(&Caller { time, thread, ..Caller::default() }, Fact::Forked { parent_thread, shared });
    }

    /// Says that a thread makes no calls any more; its [`Op::ThreadExit`] may come later.
    pub fn thread_done(&mut self, time: u64, thread: u32) {
        self.tell(&Caller { time, thread, ..Caller::default() }, Fact::ThreadExit);
    }

    /// Takes the heap as it lay in memory.
    pub fn layout(&mut self, time: u64, layout: &Layout) {
        self.tell(&Caller { time, ..Caller::default() }, Fact::Layout(layout));
    }

    /// Takes the next events into account.
    pub fn apply_all(&mut self, events: &[Event]) {
        let mut ahead = [None; KNOWN];
        for (at, event) in events.iter().enumerate() {
            self.look_ahead(events, at, &mut ahead);
            self.apply(event);
        }
    }

    /// Sends for what later ones of these events will read. An event's own look-ups wait for one another: where its block
    /// is told, what a policy knows of the block, what lies around it. Those of different events need not.
    ///
    /// `ahead` has the blocks that the next events free, as far as they are looked up.
    #[inline]
    fn look_ahead(&self, events: &[Event], at: usize, ahead: &mut [Option<BlockId>; KNOWN]) {
        if let Some(addr) = events.get(at + FAR).and_then(Event::block) {
            self.live.send_for(addr);
        }
        ahead[(at + STEPS[0].0) % KNOWN] = match events.get(at + STEPS[0].0) {
            Some(Event { op: Op::Free { addr, .. }, .. }) => self.live.get(*addr),
            _ => None,
        };
        for (distance, step) in STEPS {
            if let Some(block) = ahead[(at + distance) % KNOWN] {
                self.policies.iter().for_each(|policy| policy.send_for(block, step));
            }
        }
    }

    /// Takes the next event into account. Those of the process tree have no meaning here.
    #[inline]
    pub fn apply(&mut self, event: &Event) {
        let &Event { time, tid: thread, op, .. } = event;
        let plain = Caller { time, thread, site: 0, stack: 0 };
        match op {
            Op::Alloc { function, align_log2, addr, size, site, stack } => {
                let request = Request { size: size.min(MAX_SIZE), align_log2, function };
                self.allocate(&Caller { site, stack, ..plain }, &request, addr);
            }
            Op::Free { addr, site, .. } if addr != 0 => self.free(&Caller { site, ..plain }, addr),
            Op::ReallocBegin { old, size, site, .. } => {
                let block = self.live.remove(old);
                let mine = self.begun.iter().filter(|begun| begun.thread == thread).count();
                if mine >= MAX_BEGUN
                    && let Some(at) = self.begun.iter().position(|begun| begun.thread == thread)
                {
                    let oldest = self.begun.remove(at);
                    self.give_up(&plain, &oldest);
                }
                self.begun.push(Begun { thread, old, block, size, site });
            }
            Op::ReallocEnd { function, addr, size, site, stack } => {
                let begun = self.end(&plain, size, site);
                let request = Request { size: size.min(MAX_SIZE), align_log2: 0, function };
                self.reallocate(&Caller { site, stack, ..plain }, begun, &request, addr);
            }
            Op::ThreadStart => self.tell(&plain, Fact::ThreadStart),
            Op::ThreadExit => {
                while let Some(at) = self.begun.iter().position(|begun| begun.thread == thread) {
                    let begun = self.begun.swap_remove(at);
                    self.give_up(&plain, &begun);
                }
                self.tell(&plain, Fact::ThreadExit);
            }
            Op::Mmap { addr, size, fd, .. } => self.tell(&plain, Fact::Mapped { addr, size, is_file: fd >= 0 }),
            Op::Munmap { addr, size } => self.tell(&plain, Fact::Unmapped { addr, size }),
            Op::MunmapFailed { addr, size } => self.tell(&plain, Fact::Mapped { addr, size, is_file: false }),
            Op::Brk { end } => self.tell(&plain, Fact::Brk(end)),
            Op::Gap { lost } => {
                self.oddities.gaps += 1;
                self.oddities.lost_events = self.oddities.lost_events.saturating_add(lost);
                self.tell(&plain, Fact::Gap(lost));
            }
            Op::Free { .. }
            | Op::MremapBegin { .. }
            | Op::MremapEnd { .. }
            | Op::Madvise { .. }
            | Op::Fork { .. }
            | Op::Exec
            | Op::Exit { .. } => {}
        }
    }

    fn tell(&mut self, caller: &Caller, fact: Fact<'_>) {
        self.policies.iter_mut().for_each(|policy| policy.learn(caller, fact));
    }

    #[inline]
    fn allocate(&mut self, caller: &Caller, request: &Request, addr: u64) {
        if addr == 0 {
            return self.tell(caller, Fact::Failed(*request));
        }
        let block = self.unused.pop().unwrap_or_else(|| {
            self.numbers += 1;
            BlockId(self.numbers - 1)
        });
        self.enter(caller, addr, block);
        for policy in &mut self.policies {
            policy.allocate(caller, block, request, addr);
        }
    }

    /// A block becomes live at an address. One that was there must have been freed unseen.
    #[inline]
    fn enter(&mut self, caller: &Caller, addr: u64, block: BlockId) {
        if let Some(missed) = self.live.insert(addr, block) {
            self.oddities.missed_frees += 1;
            self.release(caller, missed);
        }
    }

    #[inline]
    fn free(&mut self, caller: &Caller, addr: u64) {
        if let Some(block) = self.live.remove(addr) {
            self.release(caller, block);
        } else {
            self.oddities.unknown_blocks += 1;
            self.tell(caller, Fact::UnknownFree(addr));
        }
    }

    #[inline]
    fn release(&mut self, caller: &Caller, block: BlockId) {
        self.policies.iter_mut().for_each(|policy| policy.free(caller, block));
        self.unused.push(block);
    }

    /// The beginning of the reallocation that ends: the innermost of the same call.
    fn end(&mut self, caller: &Caller, wanted: u64, site: u64) -> Option<Begun> {
        let by_caller = |begun: &Begun| begun.thread == caller.thread;
        let found = self.begun.iter().rposition(|begun| by_caller(begun) && begun.size == wanted && begun.site == site);
        let Some(at) = found else {
            self.oddities.torn_reallocs += 1;
            return None;
        };
        let ended = self.begun.remove(at);
        // Those that the thread began later can no longer end.
        while let Some(later) = self.begun.iter().skip(at).position(by_caller) {
            let begun = self.begun.remove(at + later);
            self.give_up(caller, &begun);
        }
        Some(ended)
    }

    /// A reallocation will not end: its old block counts as freed.
    fn give_up(&mut self, caller: &Caller, begun: &Begun) {
        self.oddities.torn_reallocs += 1;
        if let Some(block) = begun.block {
            self.release(caller, block);
        }
    }

    fn reallocate(&mut self, caller: &Caller, begun: Option<Begun>, request: &Request, addr: u64) {
        let old = begun.and_then(|begun| begun.block);
        let had_old = begun.is_none_or(|begun| begun.old != 0);
        match (old, addr) {
            // Freed, as `realloc(block, 0)` does.
            (Some(block), 0) if request.size == 0 => self.release(caller, block),
            // Failed: the old block lives on, unless its address was handed out again.
            (Some(block), 0) => {
                if let (Some(begun), false) = (begun, begun.is_none_or(|begun| self.live.get(begun.old).is_some())) {
                    self.live.insert(begun.old, block);
                } else {
                    self.release(caller, block);
                }
                self.tell(caller, Fact::Failed(*request));
            }
            (None, 0) => {
                if request.size > 0 || !had_old {
                    self.tell(caller, Fact::Failed(*request));
                } else if let Some(begun) = begun {
                    self.oddities.unknown_blocks += 1;
                    self.tell(caller, Fact::UnknownFree(begun.old));
                }
            }
            (Some(block), addr) => {
                self.enter(caller, addr, block);
                for policy in &mut self.policies {
                    policy.reallocate(caller, block, request, addr);
                }
            }
            (None, addr) => {
                if let Some(begun) = begun.filter(|begun| begun.old != 0) {
                    self.oddities.unknown_blocks += 1;
                    self.tell(caller, Fact::UnknownRealloc(begun.old));
                }
                // Without its beginning, a block found at the new address is most likely the old one.
                match self.live.get(addr).filter(|_| begun.is_none()) {
                    Some(block) => {
                        for policy in &mut self.policies {
                            policy.reallocate(caller, block, request, addr);
                        }
                    }
                    None => self.allocate(caller, request, addr),
                }
            }
        }
    }
}
