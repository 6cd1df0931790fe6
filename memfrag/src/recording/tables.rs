//! The tables that a chunk carries with it: which threads and which calls its columns name by number.

use super::chunk::MAX_EVENTS;
use super::varint::{Input, fold, put, unfold};
use memfrag_common::{Function, Kind};
use std::collections::HashMap;

/// What makes two events "the same call": all but thread, time, size and address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// Return address.
    site: u64,
    /// Kind, function, alignment, whether sized, and the stack, from the lowest byte up: two words compare quickly.
    what: u64,
}

impl Call {
    /// The call of an allocator function. `sized` tells whether a size is recorded with each event; only frees may
    /// do without, when theirs is 0.
    #[inline]
    pub(super) const fn new(
        kind: Kind,
        function: Function,
        align_log2: u8,
        sized: bool,
        site: u64,
        stack: u32,
    ) -> Self {
        let what = kind as u64 | (function as u64) << 8 | (align_log2 as u64) << 16 | (sized as u64) << 24;
        Self { site, what: what | (stack as u64) << 32 }
    }

    /// What all other events of a kind have in common.
    pub(super) const fn other(kind: Kind) -> Self {
        Self { site: 0, what: kind as u64 }
    }

    const fn stack(self) -> u32 {
        (self.what >> 32) as u32
    }
}

/// A call and what was seen of it last.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallEntry {
    pub(super) call: Call,
    /// The size of the last event.
    pub(super) size: u64,
}

/// The writer's numbering of calls, by order of appearance.
#[derive(Debug)]
pub(super) struct CallTable {
    /// Open addressing: generation in the upper half, number in the lower, so that starting anew touches nothing.
    slots: Box<[u32]>,
    /// How many of the slots are in use, as a power of two: few, while there are few calls, so that they are in the cache.
    used_log2: u32,
    generation: u16,
    pub(super) entries: Vec<CallEntry>,
}

/// Slots of the table: twice the most calls, so that a search always ends. At first it is much smaller.
const SLOTS_LOG2: u32 = 17;
const FIRST_LOG2: u32 = 9;
const _: () = assert!((1 << SLOTS_LOG2) > 2 * MAX_EVENTS);

impl CallTable {
    pub(super) fn new() -> Self {
        let slots = vec![0; 1 << SLOTS_LOG2].into_boxed_slice();
        Self { slots, used_log2: FIRST_LOG2, generation: 1, entries: Vec::new() }
    }

    /// Starts anew, with as many slots as this chunk's calls would have needed.
    pub(super) fn reset(&mut self) {
        let needed = (2 * self.entries.len() + 1).ilog2() + 1;
        self.used_log2 = needed.clamp(FIRST_LOG2, SLOTS_LOG2);
        self.entries.clear();
        self.empty();
    }

    fn empty(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.slots.fill(0);
            self.generation = 1;
        }
    }

    /// The call's number, a new one if it has none.
    #[inline]
    pub(super) fn number(&mut self, call: Call) -> u16 {
        let at = match self.find(call) {
            Ok(number) => return number,
            Err(at) => at,
        };
        self.add(call, at)
    }

    /// The call's number, or the slot where it belongs.
    #[inline]
    fn find(&self, call: Call) -> Result<u16, usize> {
        let mixed = (call.site ^ call.what.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut at = (mixed >> (64 - self.used_log2)) as usize;
        loop {
            let slot = self.slots[at];
            if slot >> 16 != u32::from(self.generation) {
                return Err(at);
            }
            let number = slot as u16;
            if self.entries[usize::from(number)].call == call {
                return Ok(number);
            }
            at = (at + 1) & ((1 << self.used_log2) - 1);
        }
    }

    #[cold]
    #[inline(never)]
    fn add(&mut self, call: Call, at: usize) -> u16 {
        let number = self.entries.len() as u16;
        self.entries.push(CallEntry { call, size: 0 });
        if 2 * self.entries.len() > 1 << self.used_log2 {
            self.grow();
        } else {
            self.slots[at] = u32::from(self.generation) << 16 | u32::from(number);
        }
        number
    }

    /// Uses four times as many slots, if there are.
    #[cold]
    fn grow(&mut self) {
        self.used_log2 = (self.used_log2 + 2).min(SLOTS_LOG2);
        self.empty();
        for number in 0..self.entries.len() {
            if let Err(at) = self.find(self.entries[number].call) {
                self.slots[at] = u32::from(self.generation) << 16 | number as u32;
            }
        }
    }
}

/// The writer's numbering of threads.
#[derive(Debug)]
pub(super) struct ThreadTable {
    /// Process and thread, with the number of their events.
    pub(super) entries: Vec<(u32, u32, u32)>,
    /// Where a thread was found last, by the low bits of its id.
    recent: [u16; 256],
    numbers: HashMap<(u32, u32), u16>,
}

impl ThreadTable {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), recent: [0; 256], numbers: HashMap::new() }
    }

    pub(super) fn reset(&mut self) {
        self.entries.clear();
        self.numbers.clear();
    }

    /// The thread's number, a new one if it has none.
    #[inline]
    pub(super) fn number(&mut self, pid: u32, tid: u32) -> u16 {
        let recent = &mut self.recent[(tid & 0xff) as usize];
        if let Some(&(p, t, _)) = self.entries.get(usize::from(*recent))
            && (p, t) == (pid, tid)
        {
            return *recent;
        }
        let number = *self.numbers.entry((pid, tid)).or_insert_with(|| {
            self.entries.push((pid, tid, 0));
            (self.entries.len() - 1) as u16
        });
        *recent = number;
        number
    }
}

/// Appends both tables.
pub(super) fn encode(threads: &ThreadTable, calls: &CallTable, out: &mut Vec<u8>) {
    put(out, threads.entries.len() as u64);
    let mut last = (0u32, 0u32);
    for &(pid, tid, _) in &threads.entries {
        put(out, fold(u64::from(pid).wrapping_sub(u64::from(last.0))));
        put(out, fold(u64::from(tid).wrapping_sub(u64::from(last.1))));
        last = (pid, tid);
    }
    put(out, calls.entries.len() as u64);
    let (mut site, mut stack) = (0u64, 0u32);
    for CallEntry { call, .. } in &calls.entries {
        out.extend((call.what as u32).to_le_bytes());
        put(out, fold(call.site.wrapping_sub(site)));
        put(out, fold(u64::from(call.stack()).wrapping_sub(u64::from(stack))));
        (site, stack) = (call.site, call.stack());
    }
}

/// A call as the reader knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownCall {
    pub(super) kind: Kind,
    /// [`Function::Malloc`] for kinds that have none.
    pub(super) function: Function,
    pub(super) align_log2: u8,
    pub(super) sized: bool,
    pub(super) stack: u32,
    pub(super) site: u64,
    /// The size of the last event.
    pub(super) size: u64,
}

/// Replaces the tables by those in `bytes`; `None` when they are damaged or name a kind or function that is unknown.
pub(super) fn decode(bytes: &[u8], threads: &mut Vec<(u32, u32)>, calls: &mut Vec<KnownCall>) -> Option<()> {
    threads.clear();
    calls.clear();
    let mut input = Input::new(bytes);
    let mut last = (0u32, 0u32);
    for _ in 0..input.varint()? {
        let pid = u32::try_from(u64::from(last.0).wrapping_add(unfold(input.varint()?))).ok()?;
        let tid = u32::try_from(u64::from(last.1).wrapping_add(unfold(input.varint()?))).ok()?;
        last = (pid, tid);
        threads.push(last);
    }
    let (mut site, mut stack) = (0u64, 0u32);
    for _ in 0..input.varint()? {
        let [kind, function, align_log2, sized] = input.array()?;
        site = site.wrapping_add(unfold(input.varint()?));
        stack = u32::try_from(u64::from(stack).wrapping_add(unfold(input.varint()?))).ok()?;
        let kind = Kind::from_u8(kind)?;
        let function = match kind {
            Kind::Alloc | Kind::Free | Kind::ReallocBegin | Kind::ReallocEnd => Function::from_u8(function)?,
            _ => Function::Malloc,
        };
        calls.push(KnownCall { kind, function, align_log2, sized: sized != 0, stack, site, size: 0 });
    }
    let fits = threads.len() <= MAX_EVENTS && calls.len() <= MAX_EVENTS;
    (input.is_empty() && fits).then_some(())
}
