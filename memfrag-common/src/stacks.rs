//! The table of stacks: every stack that a session meets, once, as a tree in shared memory.
//!
//! A stack is a path from the outermost frame inwards, and paths share their beginnings: a node is a return address
//! below another node, and the number of a stack is that of its innermost node. Numbers hold for the whole session,
//! in whichever process: a forked child goes on with those that its parent had.
//!
//! Any number of threads of any number of processes add nodes at the same time, and none ever waits for another one. A
//! node is written whole, then its number is put into an empty place of the index by one exchange; who loses that
//! race for the same node leaves an unused copy behind. A process that is killed in between leaves a node that is
//! never finished, which the reader passes over.
//!
//! The index has levels, each larger than the one before, of buckets that fill a cache line each. A level's bucket is
//! used once that of the level before is full, and nothing is ever taken out, so a search that meets an empty place
//! has its answer. Small programs touch the first level alone.

#[cfg(not(loom))]
use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
#[cfg(loom)]
use loom::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Most nodes of a session.
pub const NODES: u32 = 1 << 22;

/// Buckets of each level of the index, powers of two. There are more places in all than nodes.
pub const LEVELS: [u32; 4] = [1 << 10, 1 << 13, 1 << 16, 1 << 19];

/// Places of a bucket.
pub const PLACES: usize = 8;

/// The address of the node that stands above all frames of a stack whose outer frames are not known.
pub const UNKNOWN: u64 = 0;

/// In a node's second word: it is whole.
const WHOLE: u64 = 1 << 63;

/// How many nodes have been handed out, their numbers beginning with 1.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Handed(AtomicU32);

/// A return address below another node.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Node {
    address: AtomicU64,
    /// The node above, 0 for none, and [`WHOLE`].
    parent: AtomicU64,
}

/// A cache line of the index. A place is 0, or a node's number with bits of its hash above.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket([AtomicU64; PLACES]);

/// A node as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The node's number.
    pub number: u32,
    /// The number of the node that called, less than its own; 0 for the outermost frame.
    pub parent: u32,
    /// Return address, or [`UNKNOWN`].
    pub address: u64,
}

/// There is no room for another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The table, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    handed: &'a Handed,
    levels: [&'a [Bucket]; LEVELS.len()],
    nodes: &'a [Node],
}

impl<'a> Table<'a> {
    /// The table made of these parts, which were all zero at first. Levels have a power of two of buckets each.
    pub const fn new(handed: &'a Handed, levels: [&'a [Bucket]; LEVELS.len()], nodes: &'a [Node]) -> Self {
        Self { handed, levels, nodes }
    }

    /// The number of the node for `address` below `parent`.
    ///
    /// # Errors
    ///
    /// When there is no room for a new one.
    pub fn intern(&self, parent: u32, address: u64) -> Result<u32, Full> {
        let hash = hash(parent, address);
        let tag = hash >> 32 << 32;
        let mut own = None;
        for (level, buckets) in self.levels.iter().enumerate() {
            // Each level spreads by other bits, so that nodes that crowd one bucket part in the next.
            let at = (hash.rotate_left(level as u32 * 13) as usize) & (buckets.len() - 1);
            for place in &buckets[at].0 {
                let mut value = place.load(Acquire);
                if value == 0 {
                    let number = match own {
                        Some(number) => number,
                        None => self.write(parent, address)?,
                    };
                    own = Some(number);
                    match place.compare_exchange(0, tag | u64::from(number), Release, Acquire) {
                        Ok(_) => return Ok(number),
                        Err(other) => value = other,
                    }
                }
                if value & !u64::from(u32::MAX) == tag && self.is(value as u32, parent, address) {
                    return Ok(value as u32);
                }
            }
        }
        Err(Full)
    }

    /// The node of this number; `None` when there is none, or none that is whole.
    pub fn get(&self, number: u32) -> Option<Frame> {
        let node = self.nodes.get(number.checked_sub(1)? as usize)?;
        let parent = node.parent.load(Acquire);
        let address = node.address.load(Relaxed);
        let known = parent & WHOLE != 0 && (parent as u32) < number;
        known.then_some(Frame { number, parent: parent as u32, address })
    }

    /// How many nodes have been handed out: their numbers are 1 to this. Those that a record of this session names,
    /// as far as it has been seen, are among them and whole.
    pub fn handed(&self) -> u32 {
        self.handed.0.load(Acquire).min(self.nodes.len() as u32)
    }

    fn write(&self, parent: u32, address: u64) -> Result<u32, Full> {
        // Asked first, so that the count does not run away when there is no more room.
        if self.handed.0.load(Relaxed) as usize >= self.nodes.len() {
            return Err(Full);
        }
        let before = self.handed.0.fetch_add(1, Relaxed);
        let node = self.nodes.get(before as usize).ok_or(Full)?;
        node.address.store(address, Relaxed);
        node.parent.store(u64::from(parent) | WHOLE, Release);
        Ok(before + 1)
    }

    fn is(&self, number: u32, parent: u32, address: u64) -> bool {
        self.get(number).is_some_and(|frame| frame.parent == parent && frame.address == address)
    }
}

const fn hash(parent: u32, address: u64) -> u64 {
    // The finaliser of MurmurHash3: the tag and each level take other bits of it.
    let mixed = address ^ (parent as u64).rotate_left(40);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 33
}

/// Bytes of the file that holds a session's table: the count, the levels, the nodes.
pub const BYTES: usize = NODES_OFFSET + NODES as usize * size_of::<NodeBytes>();
const LEVELS_OFFSET: usize = 4096;
const NODES_OFFSET: usize = {
    let (mut at, mut level) = (LEVELS_OFFSET, 0);
    while level < LEVELS.len() {
        at += LEVELS[level] as usize * 64;
        level += 1;
    }
    at
};
type NodeBytes = [u64; 2];

#[cfg(not(loom))]
const _: () = assert!(size_of::<Node>() == size_of::<NodeBytes>() && size_of::<Bucket>() == 64);

#[cfg(not(loom))]
#[allow(
    clippy::cast_ptr_alignment,
    reason = "mappings are page-aligned, and the parts follow each other in whole lines"
)]
impl Table<'_> {
    /// The table in a file that was mapped.
    ///
    /// # Safety
    ///
    /// `base` is page-aligned, and [`BYTES`] behind it stay mapped, readable and writable, for ever after.
    pub unsafe fn at(base: *mut u8) -> Self {
        let mut offset = LEVELS_OFFSET;
        let levels = LEVELS.map(|buckets| {
            let first = base.wrapping_add(offset).cast::<Bucket>();
            offset += buckets as usize * size_of::<Bucket>();
            // SAFETY: inside the mapping, as `NODES_OFFSET` adds up the same; all of it atomic, and zero is valid.
            unsafe { core::slice::from_raw_parts(first, buckets as usize) }
        });
        let first = base.wrapping_add(offset).cast::<Node>();
        // SAFETY: as above.
        let nodes = unsafe { core::slice::from_raw_parts(first, NODES as usize) };
        // SAFETY: the mapping begins with the count.
        Self { handed: unsafe { &*base.cast::<Handed>() }, levels, nodes }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
