//! The holes of a free list, in order of address: a B-tree in which each node knows the largest hole below it.
//!
//! The leftmost hole of at least a given size is found on one way down, since a subtree whose largest hole is too small
//! is passed over as a whole. Nodes are merged when they run nearly empty, and not kept half full: a free list that
//! shrinks grows again at the same place.

use allocator_api2::alloc::{Allocator, Global};
use allocator_api2::vec::Vec;

/// Entries of a node.
const FAN: usize = 32;
/// A node with fewer entries is merged with a neighbour, if both fit into [`ROOMY`] entries.
const SPARSE: usize = FAN / 4;
/// The most entries of a node that two were merged into, so that it is not split again at once.
const ROOMY: usize = FAN * 3 / 4;
/// The most levels. A level is added by splits alone, each of which takes half a node of entries from below, so that
/// this many would need more than 2⁶⁰ insertions.
const DEEPEST: usize = 16;

/// A free range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first address.
    pub start: u64,
    /// Bytes, never 0.
    pub size: u64,
}

impl Hole {
    /// The address behind the last one.
    pub const fn end(self) -> u64 {
        self.start + self.size
    }

    /// Where a block of `size` bytes, aligned to a power of two, lies lowest in this hole; `None` when it does not fit.
    #[inline]
    pub(super) fn place(self, size: u64, align: u64) -> Option<u64> {
        let place = self.start.checked_add(align - 1)? & !(align - 1);
        (place.checked_add(size)? <= self.end()).then_some(place)
    }
}

/// In a leaf each entry is a hole. Above, it is a child: the first address and the size of the largest hole in it.
#[derive(Clone, Debug)]
struct Node {
    len: usize,
    start: [u64; FAN],
    size: [u64; FAN],
    child: [u32; FAN],
}

/// One of a node's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    start: u64,
    size: u64,
    child: u32,
}

impl Node {
    const EMPTY: Self = Self { len: 0, start: [0; FAN], size: [0; FAN], child: [0; FAN] };

    fn entry(&self, at: usize) -> Entry {
        Entry { start: self.start[at], size: self.size[at], child: self.child[at] }
    }

    fn set(&mut self, at: usize, entry: Entry) {
        (self.start[at], self.size[at], self.child[at]) = (entry.start, entry.size, entry.child);
    }

    fn insert(&mut self, at: usize, entry: Entry) {
        self.start.copy_within(at..self.len, at + 1);
        self.size.copy_within(at..self.len, at + 1);
        self.child.copy_within(at..self.len, at + 1);
        self.len += 1;
        self.set(at, entry);
    }

    fn remove(&mut self, at: usize) {
        self.start.copy_within(at + 1..self.len, at);
        self.size.copy_within(at + 1..self.len, at);
        self.child.copy_within(at + 1..self.len, at);
        self.len -= 1;
    }

    /// Takes over the entries of `other` from `from` on, behind its own.
    fn append(&mut self, other: &Self, from: usize) {
        let (to, count) = (self.len, other.len - from);
        self.start[to..to + count].copy_from_slice(&other.start[from..other.len]);
        self.size[to..to + count].copy_from_slice(&other.size[from..other.len]);
        self.child[to..to + count].copy_from_slice(&other.child[from..other.len]);
        self.len += count;
    }

    /// Entries that begin at or before an address.
    fn upto(&self, address: u64) -> usize {
        self.start[..self.len].partition_point(|&start| start <= address)
    }

    fn largest(&self) -> u64 {
        self.size[..self.len].iter().copied().max().unwrap_or(0)
    }
}

/// The way from the root to a hole. It holds until the tree changes by more than [`Holes::set`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    /// Of each level from the root down: the node, and the entry in it.
    steps: [(u32, u32); DEEPEST],
}

impl Spot {
    const NOWHERE: Self = Self { steps: [(0, 0); DEEPEST] };

    fn node(&self, level: usize) -> usize {
        self.steps[level].0 as usize
    }

    fn at(&self, level: usize) -> usize {
        self.steps[level].1 as usize
    }
}

/// Holes by address. None touches or overlaps another one; whoever inserts sees to that.
#[derive(Clone, Debug)]
pub(super) struct Holes<A: Allocator = Global> {
    nodes: Vec<Node, A>,
    /// Nodes that are not in use.
    spare: Vec<u32, A>,
    root: u32,
    /// Levels above the leaves.
    height: usize,
    len: usize,
}

impl<A: Allocator + Clone> Holes<A> {
    pub(super) fn new_in(tables: A) -> Self {
        let mut nodes = Vec::new_in(tables.clone());
        nodes.push(Node::EMPTY);
        Self { nodes, spare: Vec::new_in(tables), root: 0, height: 0, len: 0 }
    }
}

impl<A: Allocator> Holes<A> {
    /// The number of holes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The size of the largest hole, 0 without any.
    pub(super) fn largest(&self) -> u64 {
        self.nodes[self.root as usize].largest()
    }

    /// The hole at a place that was found.
    pub(super) fn get(&self, spot: &Spot) -> Hole {
        let (node, at) = (&self.nodes[spot.node(self.height)], spot.at(self.height));
        Hole { start: node.start[at], size: node.size[at] }
    }

    /// The last hole that begins at or before an address.
    pub(super) fn at_or_before(&self, address: u64) -> Option<Spot> {
        let (spot, count) = self.descend(address);
        (count > 0).then_some(spot)
    }

    /// The first hole of all.
    pub(super) fn first(&self) -> Option<Spot> {
        let mut spot = Spot::NOWHERE;
        self.leftmost(&mut spot, 0, self.root);
        (self.len > 0).then_some(spot)
    }

    /// The hole behind one.
    pub(super) fn next(&self, spot: &Spot) -> Option<Spot> {
        let mut next = *spot;
        for level in (0..=self.height).rev() {
            let (node, at) = (next.node(level), next.at(level) + 1);
            if at < self.nodes[node].len {
                next.steps[level].1 = at as u32;
                if level < self.height {
                    self.leftmost(&mut next, level + 1, self.nodes[node].child[at]);
                }
                return Some(next);
            }
        }
        None
    }

    /// The leftmost hole, among those that begin at `from` or later, into which an aligned block fits, and where it
    /// would lie. With an alignment above that of every hole some that are large enough may still be passed over.
    pub(super) fn first_fit(&self, from: u64, size: u64, align: u64) -> Option<(Spot, u64)> {
        let mut spot = Spot::NOWHERE;
        let place = self.seek(&mut spot, 0, self.root, from, size, align)?;
        Some((spot, place))
    }

    /// Changes a hole, which keeps its place in the order.
    pub(super) fn set(&mut self, spot: &Spot, hole: Hole) {
        let (id, at) = (spot.node(self.height), spot.at(self.height));
        let before = self.nodes[id].size[at];
        self.nodes[id].set(at, Entry { start: hole.start, size: hole.size, child: 0 });
        if !self.is_hidden(spot, at, before.max(hole.size), before) {
            self.refresh(spot, self.height);
        }
    }

    /// Adds a hole.
    pub(super) fn insert(&mut self, hole: Hole)
    where
        A: Clone,
    {
        let (spot, count) = self.descend(hole.start);
        self.len += 1;
        let mut level = self.height;
        let mut at = count;
        let mut entry = Entry { start: hole.start, size: hole.size, child: 0 };
        loop {
            let id = spot.node(level);
            if self.nodes[id].len < FAN {
                self.nodes[id].insert(at, entry);
                if level < self.height || !self.is_hidden(&spot, at, hole.size, 0) {
                    self.refresh(&spot, level);
                }
                return;
            }
            let right = self.split(id);
            let half = self.nodes[id].len;
            let (node, at_in_it) = if at <= half { (id, at) } else { (right as usize, at - half) };
            self.nodes[node].insert(at_in_it, entry);
            let (left, right) = (self.summary(id as u32), self.summary(right));
            if level == 0 {
                let mut root = Node::EMPTY;
                root.insert(0, left);
                root.insert(1, right);
                self.root = self.add(root);
                self.height += 1;
                assert!(self.height < DEEPEST, "fewer than 2^60 holes were ever inserted");
                return;
            }
            level -= 1;
            self.nodes[spot.node(level)].set(spot.at(level), left);
            (at, entry) = (spot.at(level) + 1, right);
        }
    }

    /// Takes a hole out.
    pub(super) fn remove(&mut self, spot: &Spot) {
        self.len -= 1;
        let mut level = self.height;
        let mut at = spot.at(level);
        loop {
            let id = spot.node(level);
            self.nodes[id].remove(at);
            let Some(above) = level.checked_sub(1) else { break };
            let parent = spot.node(above);
            at = spot.at(above);
            if self.nodes[id].len == 0 {
                self.spare.push(id as u32);
            } else if let Some((left, right)) = self.pair(parent, at) {
                let (keep, gone) = (self.nodes[parent].child[left], self.nodes[parent].child[right]);
                let other = std::mem::replace(&mut self.nodes[gone as usize], Node::EMPTY);
                self.nodes[keep as usize].append(&other, 0);
                self.spare.push(gone);
                let summary = self.summary(keep);
                self.nodes[parent].set(left, summary);
                at = right;
            } else {
                self.refresh(spot, level);
                return;
            }
            level = above;
        }
        while self.height > 0 && self.nodes[self.root as usize].len == 1 {
            self.spare.push(self.root);
            self.root = self.nodes[self.root as usize].child[0];
            self.height -= 1;
        }
    }

    /// The children at `at` and beside it, when the former has run nearly empty and both fit into one node.
    fn pair(&self, parent: usize, at: usize) -> Option<(usize, usize)> {
        let parent = &self.nodes[parent];
        let len = |at: usize| self.nodes[parent.child[at] as usize].len;
        if len(at) >= SPARSE {
            return None;
        }
        let fits = |left: usize, right: usize| (len(left) + len(right) <= ROOMY).then_some((left, right));
        let with_next = if at + 1 < parent.len { fits(at, at + 1) } else { None };
        with_next.or_else(|| fits(at.checked_sub(1)?, at))
    }

    /// The way down to where an address belongs, and how many holes of the leaf begin at or before it. The last step
    /// is to the last of these.
    fn descend(&self, address: u64) -> (Spot, usize) {
        let mut spot = Spot::NOWHERE;
        let mut id = self.root;
        for level in 0..self.height {
            let node = &self.nodes[id as usize];
            let at = node.upto(address).saturating_sub(1);
            spot.steps[level] = (id, at as u32);
            id = node.child[at];
        }
        let count = self.nodes[id as usize].upto(address);
        spot.steps[self.height] = (id, count.saturating_sub(1) as u32);
        (spot, count)
    }

    fn leftmost(&self, spot: &mut Spot, level: usize, mut id: u32) {
        for step in &mut spot.steps[level..=self.height] {
            *step = (id, 0);
            id = self.nodes[id as usize].child[0];
        }
    }

    fn seek(&self, spot: &mut Spot, level: usize, id: u32, from: u64, size: u64, align: u64) -> Option<u64> {
        let node = &self.nodes[id as usize];
        let leaf = level == self.height;
        let mut at = match (from, leaf) {
            (0, _) => 0,
            (_, true) => node.start[..node.len].partition_point(|&start| start < from),
            (_, false) => node.upto(from).saturating_sub(1),
        };
        while at < node.len {
            if node.size[at] >= size {
                spot.steps[level] = (id, at as u32);
                let place = if leaf {
                    Hole { start: node.start[at], size: node.size[at] }.place(size, align)
                } else {
                    self.seek(spot, level + 1, node.child[at], from, size, align)
                };
                if place.is_some() {
                    return place;
                }
            }
            at += 1;
        }
        None
    }

    /// Whether the node above a leaf says the same after an entry has changed: it is not the first one, at most
    /// `largest` before and after, and before it was not the largest of the leaf.
    fn is_hidden(&self, spot: &Spot, at: usize, largest: u64, before: u64) -> bool {
        let Some(above) = self.height.checked_sub(1) else { return true };
        let known = self.nodes[spot.node(above)].size[spot.at(above)];
        at > 0 && largest <= known && before < known
    }

    fn summary(&self, id: u32) -> Entry {
        let node = &self.nodes[id as usize];
        Entry { start: node.start[0], size: node.largest(), child: id }
    }

    /// Corrects what the nodes above a level say of the one that changed there.
    fn refresh(&mut self, spot: &Spot, level: usize) {
        for level in (0..level).rev() {
            let entry = self.summary(spot.node(level + 1) as u32);
            let (node, at) = (&mut self.nodes[spot.node(level)], spot.at(level));
            if node.entry(at) == entry {
                return;
            }
            node.set(at, entry);
        }
    }

    /// Moves the upper half of a full node into a new one, which is returned.
    fn split(&mut self, id: usize) -> u32 {
        let mut upper = Node::EMPTY;
        upper.append(&self.nodes[id], FAN / 2);
        self.nodes[id].len = FAN / 2;
        self.add(upper)
    }

    fn add(&mut self, node: Node) -> u32 {
        if let Some(id) = self.spare.pop() {
            self.nodes[id as usize] = node;
            return id;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Panics when the tree contradicts itself.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut holes = 0;
        let mut nodes = 0;
        let mut end = None;
        self.check_below(self.root, 0, &mut holes, &mut nodes, &mut end);
        assert_eq!(holes, self.len);
        assert_eq!(nodes + self.spare.len(), self.nodes.len(), "a node is in the tree or spare");
    }

    #[cfg(test)]
    fn check_below(&self, id: u32, level: usize, holes: &mut usize, nodes: &mut usize, end: &mut Option<u64>) {
        let node = &self.nodes[id as usize];
        *nodes += 1;
        assert!(node.len <= FAN && (node.len > 0 || level == 0));
        for at in 0..node.len {
            if level < self.height {
                assert_eq!(node.entry(at), self.summary(node.child[at]));
                self.check_below(node.child[at], level + 1, holes, nodes, end);
            } else {
                *holes += 1;
                assert!(node.size[at] > 0);
                assert!(end.is_none_or(|end| end < node.start[at]), "holes neither touch nor overlap");
                *end = Some(node.start[at] + node.size[at]);
            }
        }
    }
}
