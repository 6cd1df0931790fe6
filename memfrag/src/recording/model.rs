//! What writer and reader both know about the heap while they go through a chunk, so that addresses become small.
//!
//! A block's free is written as the distance back to its allocation; an allocation as a guess that came true, where
//! one did: one of the blocks of that size freed last, the address right behind the last new block, the next slot of a
//! slab. The guesses only shorten the file. Both sides make them from what the chunk has said so far, so that a wrong
//! guess, a strange allocator or a senseless stream of events cost bytes and never correctness.

use memfrag_common::prefetch::prefetch;

/// Size classes; the last one takes everything larger, the first one blocks of unknown size.
const CLASSES: usize = 128;
/// Threads are told apart modulo this, enough to keep a few busy ones from spoiling each other's guesses.
const LANES: usize = 16;
/// How deep in a stack an allocation's block is looked for.
pub(super) const DEPTH: usize = 8;
/// How many blocks a stack holds: when it is full, the older half is forgotten.
const STACK: usize = 64;

/// The class of blocks whose size is not known.
pub(super) const UNKNOWN: u8 = 0;

/// The blocks of a class that were freed last, the latest on top.
///
/// A block whose memory was taken otherwise stays where it is: to look for it would cost more than it misleads.
#[derive(Clone, Copy, Debug)]
struct Stack {
    length: u16,
    numbers: [u16; STACK],
}

impl Stack {
    const EMPTY: Self = Self { length: 0, numbers: [0; STACK] };

    #[inline]
    fn push(&mut self, number: u16) {
        if usize::from(self.length) >= STACK {
            self.numbers.copy_within(STACK / 2.., 0);
            self.length = STACK as u16 / 2;
        }
        self.numbers[usize::from(self.length) % STACK] = number;
        self.length += 1;
    }

    /// The block `depth` below the top.
    #[inline]
    fn get(&self, depth: usize) -> Option<u16> {
        let at = usize::from(self.length).checked_sub(depth + 1)?;
        self.numbers.get(at).copied()
    }

    /// How far below the top a block lies, if it is not far.
    #[inline]
    fn find(&self, number: u16) -> Option<usize> {
        let top = usize::from(self.length).min(STACK);
        self.numbers[top.saturating_sub(DEPTH)..top].iter().rev().position(|&at| at == number)
    }

    /// Takes out the block `depth` below the top, which is there.
    #[inline]
    fn take(&mut self, depth: usize) {
        let length = usize::from(self.length);
        if depth > 0 {
            self.numbers.copy_within(length - depth..length, length - depth - 1);
        }
        self.length -= 1;
    }
}

/// What is known of one thread.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// The blocks of each class that the thread freed last.
    stacks: Box<[Stack]>,
    /// Address of the last new block of each class.
    last: [u64; CLASSES],
    /// Its distance from the one before.
    stride: [u64; CLASSES],
    /// Right behind the last new block.
    pub(super) top: u64,
    /// Number of the block freed last.
    pub(super) freed: u16,
    /// The last freed address that the chunk had not named before.
    pub(super) freed_addr: u64,
    /// The old block of the thread's last reallocation.
    pub(super) old: u64,
    /// The size asked for in the thread's last reallocation.
    pub(super) resized: u64,
    /// Whether the chunk has an event of the thread.
    used: bool,
}

impl Lane {
    fn new() -> Self {
        Self {
            stacks: vec![Stack::EMPTY; CLASSES].into_boxed_slice(),
            last: [0; CLASSES],
            stride: [0; CLASSES],
            top: 0,
            freed: 0,
            freed_addr: 0,
            old: 0,
            resized: 0,
            used: false,
        }
    }
}

/// The state.
#[derive(Debug)]
pub(super) struct Model {
    /// The addresses that the chunk has named, numbered by order.
    addrs: Vec<u64>,
    /// The class of each.
    classes: Vec<u8>,
    lanes: Box<[Lane]>,
}

/// Bytes that glibc takes for a request, which the other allocators' classes resemble well enough.
#[inline]
pub(super) const fn footprint(size: u64) -> u64 {
    let rounded = size.wrapping_add(8 + 15) & !15;
    if rounded < 32 { 32 } else { rounded }
}

#[inline]
const fn class(footprint: u64) -> u8 {
    let class = footprint >> 4;
    if class < CLASSES as u64 { class as u8 } else { (CLASSES - 1) as u8 }
}

/// The class of the blocks of a size.
#[inline]
pub(super) const fn class_of(size: u64) -> u8 {
    class(footprint(size))
}

impl Model {
    pub(super) fn new() -> Self {
        Self { addrs: Vec::new(), classes: Vec::new(), lanes: (0..LANES).map(|_| Lane::new()).collect() }
    }

    /// Forgets everything: each chunk is read without the others.
    pub(super) fn reset(&mut self) {
        self.addrs.clear();
        self.classes.clear();
        for lane in self.lanes.iter_mut().filter(|lane| lane.used) {
            for stack in &mut lane.stacks {
                stack.length = 0;
            }
            lane.last = [0; CLASSES];
            lane.stride = [0; CLASSES];
            (lane.top, lane.freed, lane.freed_addr, lane.old, lane.resized) = (0, 0, 0, 0, 0);
            lane.used = false;
        }
    }

    /// How many blocks have been named.
    #[inline]
    pub(super) const fn count(&self) -> usize {
        self.addrs.len()
    }

    /// The address of a block, if there is one of that number.
    #[inline]
    pub(super) fn addr(&self, number: usize) -> Option<u64> {
        self.addrs.get(number).copied()
    }

    /// The class of a block that there is.
    #[inline]
    pub(super) fn class(&self, number: u16) -> u8 {
        self.classes[usize::from(number)]
    }

    /// Sends for the block of this number, if there is one.
    #[inline]
    pub(super) fn send_for(&self, number: u16) {
        if let Some(addr) = self.addrs.get(usize::from(number)) {
            prefetch(addr);
        }
    }

    /// What is known of the thread of this number.
    #[inline]
    pub(super) fn lane(&mut self, thread: u16) -> &mut Lane {
        let lane = &mut self.lanes[usize::from(thread) % LANES];
        lane.used = true;
        lane
    }

    /// Names a new block. An event names one at most, so that the numbers of a chunk fit.
    #[inline]
    fn add(&mut self, addr: u64, class: u8) -> u16 {
        let number = self.addrs.len() as u16;
        self.addrs.push(addr);
        self.classes.push(class);
        number
    }

    /// The block `depth` below the top of the thread's stack of a class.
    #[inline]
    pub(super) fn recent(&mut self, thread: u16, class: u8, depth: usize) -> Option<u16> {
        self.lane(thread).stacks[usize::from(class) % CLASSES].get(depth)
    }

    /// How far below the top of the thread's stack of a class a block lies; it is taken out. `None` when it is deep
    /// down or not there.
    #[inline]
    pub(super) fn take_recent(&mut self, thread: u16, class: u8, number: u16) -> Option<usize> {
        let stack = &mut self.lane(thread).stacks[usize::from(class) % CLASSES];
        let depth = stack.find(number)?;
        stack.take(depth);
        Some(depth)
    }

    /// Takes out the block that [`Model::recent`] gave.
    #[inline]
    pub(super) fn drop_recent(&mut self, thread: u16, class: u8, depth: usize) {
        self.lane(thread).stacks[usize::from(class) % CLASSES].take(depth);
    }

    /// The next slot of a slab for `size`.
    #[inline]
    pub(super) fn next_slot(&mut self, thread: u16, size: u64) -> u64 {
        let class = usize::from(class_of(size));
        let lane = self.lane(thread);
        lane.last[class].wrapping_add(lane.stride[class])
    }

    /// An allocation took the memory of the block `number`, which the chunk had named.
    #[inline]
    pub(super) fn reuse(&mut self, number: u16, size: u64) -> u16 {
        let addr = self.addrs[usize::from(number)];
        self.add(addr, class_of(size))
    }

    /// An allocation took memory at an address that the chunk had not named, or that was guessed.
    #[inline]
    pub(super) fn fresh(&mut self, thread: u16, addr: u64, size: u64) -> u16 {
        let footprint = footprint(size);
        let class = class(footprint);
        let lane = self.lane(thread);
        let index = usize::from(class);
        lane.top = addr.wrapping_add(footprint);
        lane.stride[index] = addr.wrapping_sub(lane.last[index]);
        lane.last[index] = addr;
        self.add(addr, class)
    }

    /// The block `number` was freed.
    #[inline]
    pub(super) fn free(&mut self, thread: u16, number: u16) {
        let class = self.classes[usize::from(number)];
        let lane = self.lane(thread);
        lane.freed = number;
        lane.stacks[usize::from(class) % CLASSES].push(number);
    }

    /// The block freed last by the thread was not, after all: a reallocation has left it in its place.
    #[inline]
    pub(super) fn take_back(&mut self, thread: u16, number: u16) {
        let class = self.classes[usize::from(number)];
        let stack = &mut self.lane(thread).stacks[usize::from(class) % CLASSES];
        if stack.get(0) == Some(number) {
            stack.take(0);
        }
    }

    /// A block that the chunk had not named was freed.
    #[inline]
    pub(super) fn free_unknown(&mut self, thread: u16, addr: u64) -> u16 {
        let number = self.add(addr, UNKNOWN);
        self.lane(thread).freed_addr = addr;
        self.free(thread, number);
        number
    }
}
