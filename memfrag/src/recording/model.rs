//! What writer and reader both know about the heap while they go through a chunk, so that addresses become small.
//!
//! A block's free is written as the distance back to its allocation; an allocation as a guess that came true, where
//! one did: the block of that size freed last, the address right behind the last new block, the next slot of a slab.
//! The guesses only shorten the file. Both sides make them from what the chunk has said so far, so that a wrong
//! guess, a strange allocator or a senseless stream of events cost bytes and never correctness.

use memfrag_common::prefetch::prefetch;

/// No block.
pub(super) const NONE: u16 = u16::MAX;
/// Size classes; the last one takes everything larger, the first one blocks of unknown size.
const CLASSES: usize = 128;
/// Threads are told apart modulo this, enough to keep a few busy ones from spoiling each other's guesses.
const LANES: usize = 16;
/// How deep behind the block freed last an allocation's block is looked for.
pub(super) const DEPTH: usize = 4;

/// Where a block stands between the list of its class and the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not listed.
    Live,
    /// Listed, free.
    Free,
    /// Listed, but its memory is in use again; dropped from the list when it comes to the front.
    Reused,
    /// Was listed once; never will be again.
    Gone,
}

/// An address that the chunk has named, numbered by order.
#[derive(Clone, Copy, Debug)]
struct Block {
    addr: u64,
    next: u16,
    class: u8,
    place: Place,
}

/// What is known of one thread.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// First of the free blocks of each class.
    heads: [u16; CLASSES],
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
}

impl Lane {
    const NEW: Self = Self {
        heads: [NONE; CLASSES],
        last: [0; CLASSES],
        stride: [0; CLASSES],
        top: 0,
        freed: 0,
        freed_addr: 0,
        old: 0,
        resized: 0,
    };
}

/// The state.
#[derive(Debug)]
pub(super) struct Model {
    blocks: Vec<Block>,
    lanes: Box<[Lane]>,
}

/// Bytes that glibc takes for a request, which the other allocators' classes resemble well enough.
#[inline]
const fn footprint(size: u64) -> u64 {
    let rounded = size.wrapping_add(8 + 15) & !15;
    if rounded < 32 { 32 } else { rounded }
}

#[inline]
const fn class(footprint: u64) -> u8 {
    let class = footprint >> 4;
    if class < CLASSES as u64 { class as u8 } else { (CLASSES - 1) as u8 }
}

impl Model {
    pub(super) fn new() -> Self {
        Self { blocks: Vec::new(), lanes: vec![Lane::NEW; LANES].into_boxed_slice() }
    }

    /// Forgets everything: each chunk is read without the others.
    pub(super) fn reset(&mut self) {
        self.blocks.clear();
        self.lanes.fill(Lane::NEW);
    }

    /// How many blocks have been named.
    #[inline]
    pub(super) const fn count(&self) -> usize {
        self.blocks.len()
    }

    /// The address of a block, if there is one of that number.
    #[inline]
    pub(super) fn addr(&self, number: usize) -> Option<u64> {
        self.blocks.get(number).map(|block| block.addr)
    }

    /// Sends for the block of this number, if there is one.
    #[inline]
    pub(super) fn send_for(&self, number: u16) {
        if let Some(block) = self.blocks.get(usize::from(number)) {
            prefetch(block);
        }
    }

    /// The head of the list for `size`: its front, or a block that is about to be dropped from it.
    #[inline]
    pub(super) fn head(&self, thread: u16, size: u64) -> u16 {
        self.lanes[usize::from(thread) % LANES].heads[usize::from(class(footprint(size)))]
    }

    /// What is known of the thread of this number.
    #[inline]
    pub(super) fn lane(&mut self, thread: u16) -> &mut Lane {
        &mut self.lanes[usize::from(thread) % LANES]
    }

    /// Names a new block. An event names one at most, so that the numbers of a chunk fit.
    #[inline]
    fn add(&mut self, addr: u64, class: u8) -> u16 {
        let number = self.blocks.len() as u16;
        self.blocks.push(Block { addr, next: NONE, class, place: Place::Live });
        number
    }

    /// The free block at the front of the list for `size`.
    #[inline]
    pub(super) fn front(&mut self, thread: u16, size: u64) -> u16 {
        let class = usize::from(class(footprint(size)));
        self.front_of(thread, class)
    }

    /// The free block of unknown size that was freed last.
    #[inline]
    pub(super) fn front_unknown(&mut self, thread: u16) -> u16 {
        self.front_of(thread, 0)
    }

    #[inline]
    fn front_of(&mut self, thread: u16, class: usize) -> u16 {
        let head = &mut self.lanes[usize::from(thread) % LANES].heads[class];
        while let Some(block) = self.blocks.get_mut(usize::from(*head))
            && block.place == Place::Reused
        {
            block.place = Place::Gone;
            *head = block.next;
        }
        *head
    }

    /// The block `depth` places behind `number` in its list.
    #[inline]
    pub(super) fn behind(&self, number: u16, depth: usize) -> u16 {
        let mut number = number;
        for _ in 0..depth {
            let Some(block) = self.blocks.get(usize::from(number)) else { return NONE };
            number = block.next;
        }
        number
    }

    /// The next slot of a slab for `size`.
    #[inline]
    pub(super) fn next_slot(&mut self, thread: u16, size: u64) -> u64 {
        let class = usize::from(class(footprint(size)));
        let lane = self.lane(thread);
        lane.last[class].wrapping_add(lane.stride[class])
    }

    /// An allocation took the memory of the block `number`, which the chunk had named.
    #[inline]
    pub(super) fn reuse(&mut self, number: u16, size: u64) -> u16 {
        let block = &mut self.blocks[usize::from(number)];
        if block.place == Place::Free {
            block.place = Place::Reused;
        }
        let addr = block.addr;
        self.add(addr, class(footprint(size)))
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
        let lane = &mut self.lanes[usize::from(thread) % LANES];
        lane.freed = number;
        let block = &mut self.blocks[usize::from(number)];
        match block.place {
            Place::Live => {
                block.place = Place::Free;
                let head = &mut lane.heads[usize::from(block.class)];
                block.next = *head;
                *head = number;
            }
            Place::Reused => block.place = Place::Free,
            Place::Free | Place::Gone => {}
        }
    }

    /// A block that the chunk had not named was freed.
    #[inline]
    pub(super) fn free_unknown(&mut self, thread: u16, addr: u64) -> u16 {
        let number = self.add(addr, 0);
        self.lane(thread).freed_addr = addr;
        self.free(thread, number);
        number
    }
}
