//! Events into columns: all that the capturing thread does for an event.

use super::chunk::{ChunkHeader, EventsSummary, MAX_EVENTS, kind};
use super::columns::{Draft, column};
use super::model::{Model, UNKNOWN, class_of};
use super::tables::{self, Call, CallTable, ThreadTable};
use super::varint::{fold, put};
use memfrag_common::{Event, Kind, Op};
use std::collections::BTreeMap;

mod haste;
mod known;

use known::Known;

/// What the byte in the column of allocations says.
pub(super) mod alloc {
    use super::super::model::DEPTH;

    /// From here on, a block of this size: so many places below the one freed last.
    pub(crate) const RECENT: u8 = 0;
    /// From here on, the same among the blocks of unknown size.
    pub(crate) const UNKNOWN_RECENT: u8 = RECENT + DEPTH as u8;
    /// Right behind the last new block.
    pub(crate) const TOP: u8 = UNKNOWN_RECENT + DEPTH as u8;
    /// The next slot of a slab.
    pub(crate) const SLOT: u8 = TOP + 1;
    /// From here on, a distance in named blocks.
    pub(crate) const NEAR: u8 = SLOT + 1;
    /// The old block of this reallocation.
    pub(crate) const OLD: u8 = 251;
    /// Null.
    pub(crate) const NULL: u8 = 252;
    /// A longer distance in named blocks.
    pub(crate) const FAR: u8 = 253;
    /// A difference of three bytes, in units of 16, from right behind the last new block.
    pub(crate) const NEW: u8 = 254;
    /// Any other difference from there.
    pub(crate) const WIDE: u8 = 255;
    /// The longest near distance.
    pub(crate) const NEAREST: usize = (OLD - NEAR) as usize;
}

/// What the byte in the column of frees says.
pub(super) mod free {
    /// From 0 on: steps from the block freed last, less this.
    pub(crate) const STEPS: i32 = 16;
    /// From here on, a distance in named blocks.
    pub(crate) const NEAR: u8 = 2 * STEPS as u8;
    /// Null.
    pub(crate) const NULL: u8 = 252;
    /// A longer distance in named blocks.
    pub(crate) const FAR: u8 = 253;
    /// A difference of three bytes, in units of 16, from the last freed address that had not been named.
    pub(crate) const NEW: u8 = 254;
    /// Any other difference from there.
    pub(crate) const WIDE: u8 = 255;
    /// The longest near distance.
    pub(crate) const NEAREST: usize = (NULL - NEAR) as usize;
}

/// How many events ahead the memory that an event needs is sent for: first where its block is noted, then the block.
const AHEAD: usize = 6;

/// Events of a chunk that is written in haste: few enough for its columns to be in the cache still when they are written.
pub(super) const MAX_IN_HASTE: usize = 16 << 10;

/// Two bytes in the columns of times and sizes that send the reader to the wide column.
pub(super) const ESCAPE: u64 = 0xffff;

/// A chunk's worth of events, ready to be packed.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) draft: Draft,
    /// Speed matters more than bytes.
    pub(super) in_haste: bool,
    pub(super) header: ChunkHeader,
    pub(super) meta: Vec<u8>,
}

/// Turns events into columns.
#[derive(Debug)]
pub(super) struct Encoder {
    draft: Draft,
    model: Model,
    known: Known,
    calls: CallTable,
    threads: ThreadTable,
    events: usize,
    first_time: u64,
    last_time: u64,
    time: u64,
    current: (u32, u32),
    thread: u16,
    run: u32,
    kinds: [u32; Kind::Gap as usize + 1],
    other_addr: u64,
    /// From here on, to the end of the chunk, addresses are not looked up.
    in_haste: bool,
    /// The next chunk begins like that.
    behind: bool,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self {
            draft: Draft::new(),
            model: Model::new(),
            known: Known::new(),
            calls: CallTable::new(),
            threads: ThreadTable::new(),
            events: 0,
            first_time: u64::MAX,
            last_time: 0,
            time: 0,
            current: (0, 0),
            thread: 0,
            run: 0,
            kinds: [0; Kind::Gap as usize + 1],
            other_addr: 0,
            in_haste: false,
            behind: false,
        }
    }

    /// How many events wait.
    pub(super) const fn len(&self) -> usize {
        self.events
    }

    /// How many more fit the chunk.
    pub(super) const fn room(&self) -> usize {
        let most = if self.in_haste { MAX_IN_HASTE } else { MAX_EVENTS };
        most.saturating_sub(self.events)
    }

    /// The earliest time among the waiting events.
    pub(super) const fn first_time(&self) -> u64 {
        self.first_time
    }

    /// Says whether the programs are faster than what is made of their events.
    pub(super) const fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
        self.in_haste |= behind;
    }

    /// Takes events, for which there must be room.
    pub(super) fn push_all(&mut self, events: &[Event]) {
        if self.in_haste {
            return self.push_all_in_haste(events);
        }
        for (at, event) in events.iter().enumerate() {
            // Each event's own look-ups wait for one another, but those of different events need not.
            if let Some(addr) = events.get(at + 2 * AHEAD).and_then(Event::block) {
                self.known.send_for(addr);
            }
            if let Some(later) = events.get(at + AHEAD) {
                self.send_for_blocks(later);
            }
            self.push::<false>(event);
        }
    }

    /// Sends for the blocks that an event further on will probably need.
    #[inline]
    fn send_for_blocks(&self, event: &Event) {
        if let Some(addr) = event.block() {
            self.model.send_for(self.known.latest(addr));
        }
    }

    /// Takes one event, for which there must be room.
    #[inline]
    fn push<const IN_HASTE: bool>(&mut self, event: &Event) {
        self.put_thread(event.pid, event.tid);
        self.put_time(event.time);
        self.events += 1;
        match event.op {
            Op::Alloc { function, align_log2, addr, size, site, stack } => {
                let call = Call::new(Kind::Alloc, function, align_log2, true, site, stack);
                let number = self.put_call(Kind::Alloc, call);
                self.put_size(number, size, None);
                self.put_alloc::<IN_HASTE>(addr, size, false);
            }
            Op::Free { function, addr, size, site } => {
                let call = Call::new(Kind::Free, function, 0, size != 0, site, 0);
                let number = self.put_call(Kind::Free, call);
                if size != 0 {
                    self.put_size(number, size, None);
                }
                self.put_free::<IN_HASTE>(addr);
            }
            Op::ReallocBegin { function, old, size, site } => {
                let call = Call::new(Kind::ReallocBegin, function, 0, true, site, 0);
                let number = self.put_call(Kind::ReallocBegin, call);
                self.put_size(number, size, None);
                self.put_free::<IN_HASTE>(old);
                let lane = self.model.lane(self.thread);
                lane.old = old;
                lane.resized = size;
            }
            Op::ReallocEnd { function, addr, size, site, stack } => {
                let call = Call::new(Kind::ReallocEnd, function, 0, true, site, stack);
                let number = self.put_call(Kind::ReallocEnd, call);
                let resized = self.model.lane(self.thread).resized;
                self.put_size(number, size, Some(resized));
                self.put_alloc::<IN_HASTE>(addr, size, true);
            }
            op => self.put_other(op),
        }
    }

    /// Gives the waiting events away as a chunk and starts anew with the room of `draft`.
    pub(super) fn seal(&mut self, draft: Draft, first_event: u64) -> Sealed {
        self.end_run();
        tables::encode(&self.threads, &self.calls, &mut self.draft.rare.bytes[column::TABLES]);
        let mut processes = BTreeMap::new();
        for &(pid, _, count) in &self.threads.entries {
            *processes.entry(pid).or_insert(0) += count;
        }
        let header = ChunkHeader {
            kind: kind::EVENTS,
            items: self.events as u32,
            first_time: self.first_time,
            last_time: self.last_time,
            first_event,
            ..ChunkHeader::default()
        };
        let meta = EventsSummary::encode(&self.kinds, &processes);
        let draft = std::mem::replace(&mut self.draft, draft);
        self.draft.clear();
        let in_haste = self.in_haste;
        self.reset();
        Sealed { draft, in_haste, header, meta }
    }

    fn reset(&mut self) {
        self.model.reset();
        self.known.reset();
        self.calls.reset();
        self.threads.reset();
        self.events = 0;
        self.first_time = u64::MAX;
        self.last_time = 0;
        self.time = 0;
        self.run = 0;
        self.kinds.fill(0);
        self.other_addr = 0;
        self.in_haste = self.behind;
    }

    fn end_run(&mut self) {
        if self.run > 0 {
            let out = &mut self.draft.rare.bytes[column::THREADS];
            put(out, u64::from(self.thread));
            put(out, u64::from(self.run - 1));
            self.threads.entries[usize::from(self.thread)].2 += self.run;
            self.run = 0;
        }
    }

    #[inline]
    fn put_thread(&mut self, pid: u32, tid: u32) {
        if self.run == 0 || self.current != (pid, tid) {
            self.begin_run(pid, tid);
        }
        self.run += 1;
    }

    #[inline(never)]
    fn begin_run(&mut self, pid: u32, tid: u32) {
        self.end_run();
        self.current = (pid, tid);
        self.thread = self.threads.number(pid, tid);
    }

    #[inline]
    fn put_time(&mut self, time: u64) {
        self.first_time = self.first_time.min(time);
        self.last_time = self.last_time.max(time);
        let step = time.wrapping_sub(self.time);
        self.time = time;
        if step < ESCAPE {
            self.draft.times.push(step as u16);
        } else {
            self.draft.times.push(ESCAPE as u16);
            put(&mut self.draft.rare.bytes[column::TIME_WIDE], fold(step));
        }
    }

    #[inline]
    fn put_call(&mut self, kind: Kind, call: Call) -> u16 {
        self.kinds[kind as usize] += 1;
        let number = self.calls.number(call);
        self.draft.calls.push(number);
        number
    }

    /// 0 where the size is the expected one: that of the reallocation's beginning, or the call's last.
    #[inline]
    fn put_size(&mut self, call: u16, size: u64, expected: Option<u64>) {
        let entry = &mut self.calls.entries[usize::from(call)];
        let expected = expected.unwrap_or(entry.size);
        entry.size = size;
        if size == expected {
            self.draft.sizes.push(0);
        } else if size < ESCAPE - 1 {
            self.draft.sizes.push(size as u16 + 1);
        } else {
            self.draft.sizes.push(ESCAPE as u16);
            put(&mut self.draft.rare.bytes[column::SIZE_WIDE], size);
        }
    }

    /// The distance to the block `number`, which has been named.
    #[inline]
    const fn distance(&self, number: u16) -> usize {
        self.model.count() - number as usize
    }

    /// The difference of an address from another one: in three columns from `column` on, if it fits. Returns the byte
    /// that says so, or the one that says that it did not.
    #[inline]
    fn put_new(&mut self, column: usize, difference: u64, new: u8, wide: u8) -> u8 {
        let units = fold((difference.cast_signed() >> 4).cast_unsigned());
        if difference.trailing_zeros() >= 4 && units < 1 << 24 {
            let draft = &mut self.draft;
            let out = if column == column::ALLOC_NEW { &mut draft.alloc_new } else { &mut draft.free_new };
            out.push(units as u32);
            new
        } else {
            put(&mut self.draft.rare.bytes[column::NEW_WIDE], fold(difference));
            wide
        }
    }

    #[inline]
    fn put_alloc<const IN_HASTE: bool>(&mut self, addr: u64, size: u64, realloc: bool) {
        let thread = self.thread;
        if addr == 0 {
            self.draft.allocs.push(alloc::NULL);
            return;
        }
        if IN_HASTE {
            return self.put_alloc_in_haste(addr, size);
        }
        let lane = self.model.lane(thread);
        if realloc && lane.old == addr {
            let freed = lane.freed;
            self.draft.allocs.push(alloc::OLD);
            let number = if self.model.addr(usize::from(freed)) == Some(addr) {
                self.model.take_back(thread, freed);
                self.model.reuse(freed, size)
            } else {
                self.model.fresh(thread, addr, size)
            };
            self.known.insert(addr, number);
            return;
        }
        let top = lane.top;
        let number = if let Some(number) = self.known.find(addr, &self.model) {
            self.put_earlier(number, size);
            self.model.reuse(number, size)
        } else {
            let token = if addr == top {
                alloc::TOP
            } else if addr == self.model.next_slot(thread, size) {
                alloc::SLOT
            } else {
                self.put_new(column::ALLOC_NEW, addr.wrapping_sub(top), alloc::NEW, alloc::WIDE)
            };
            self.draft.allocs.push(token);
            self.model.fresh(thread, addr, size)
        };
        self.known.insert(addr, number);
    }

    /// An allocation took the memory of a block that the chunk has named.
    #[inline]
    fn put_earlier(&mut self, number: u16, size: u64) {
        let (class, first) = match self.model.class(number) {
            UNKNOWN => (UNKNOWN, alloc::UNKNOWN_RECENT),
            _ => (class_of(size), alloc::RECENT),
        };
        if let Some(depth) = self.model.take_recent(self.thread, class, number) {
            self.draft.allocs.push(first + depth as u8);
            return;
        }
        let distance = self.distance(number);
        if distance <= alloc::NEAREST {
            self.draft.allocs.push(alloc::NEAR + (distance - 1) as u8);
        } else {
            self.draft.allocs.push(alloc::FAR);
            self.draft.far.push(distance as u16);
        }
    }

    #[inline]
    fn put_free<const IN_HASTE: bool>(&mut self, addr: u64) {
        let thread = self.thread;
        if addr == 0 {
            self.draft.frees.push(free::NULL);
            return;
        }
        if IN_HASTE {
            return self.put_free_in_haste(addr);
        }
        if let Some(number) = self.known.find(addr, &self.model) {
            let steps = i32::from(number) - i32::from(self.model.lane(thread).freed);
            let distance = self.distance(number);
            if (-free::STEPS..free::STEPS).contains(&steps) {
                self.draft.frees.push((steps + free::STEPS).cast_unsigned() as u8);
            } else if distance <= free::NEAREST {
                self.draft.frees.push(free::NEAR + (distance - 1) as u8);
            } else {
                self.draft.frees.push(free::FAR);
                self.draft.far.push(distance as u16);
            }
            self.model.free(thread, number);
        } else {
            let difference = addr.wrapping_sub(self.model.lane(thread).freed_addr);
            let token = self.put_new(column::FREE_NEW, difference, free::NEW, free::WIDE);
            self.draft.frees.push(token);
            let number = self.model.free_unknown(thread, addr);
            self.known.insert(addr, number);
        }
    }

    /// An event that is no call of the allocator. There are few, so plain numbers will do.
    #[cold]
    fn put_other(&mut self, op: Op) {
        let (kind, addr, numbers) = match op {
            Op::Fork { child, flags } => (Kind::Fork, None, [Some(u64::from(child)), Some(flags), None, None]),
            Op::Exec => (Kind::Exec, None, [None; 4]),
            Op::Exit { status } => {
                let status = status.map_or(0, |status| u64::from(status.cast_unsigned()) + 1);
                (Kind::Exit, None, [Some(status), None, None, None])
            }
            Op::ThreadStart => (Kind::ThreadStart, None, [None; 4]),
            Op::ThreadExit => (Kind::ThreadExit, None, [None; 4]),
            Op::Mmap { addr, size, protection, flags, fd } => {
                let fd = fold(i64::from(fd).cast_unsigned());
                let numbers = [Some(size), Some(u64::from(protection)), Some(u64::from(flags)), Some(fd)];
                (Kind::Mmap, Some(addr), numbers)
            }
            Op::Munmap { addr, size } => (Kind::Munmap, Some(addr), [Some(size), None, None, None]),
            Op::MunmapFailed { addr, size } => (Kind::MunmapFailed, Some(addr), [Some(size), None, None, None]),
            Op::MremapBegin { addr, size } => (Kind::MremapBegin, Some(addr), [Some(size), None, None, None]),
            Op::MremapEnd { addr, size } => (Kind::MremapEnd, Some(addr), [Some(size), None, None, None]),
            Op::Brk { end } => (Kind::Brk, Some(end), [None; 4]),
            Op::Madvise { addr, size, advice } => {
                (Kind::Madvise, Some(addr), [Some(size), Some(u64::from(advice)), None, None])
            }
            Op::Gap { lost } => (Kind::Gap, None, [Some(lost), None, None, None]),
            // Those of the allocator never get here.
            Op::Alloc { .. } | Op::Free { .. } | Op::ReallocBegin { .. } | Op::ReallocEnd { .. } => return,
        };
        self.put_call(kind, Call::other(kind));
        let out = &mut self.draft.rare.bytes[column::OTHER];
        if let Some(addr) = addr {
            put(out, fold(addr.wrapping_sub(self.other_addr)));
            self.other_addr = addr;
        }
        numbers.into_iter().flatten().for_each(|number| put(out, number));
    }
}
