//! The tree of a free list: which words there are, found by their numbers, and the largest hole below each node.
//!
//! A node has sixteen places, and stands for a part of the addresses as large as that of all nodes of its level: the
//! leaf of a word and the place in it are bits of the word's number. Nothing is searched for and nothing is balanced.
//! The root stands for no more than it must, so that the levels are few where the addresses lie close together.
//! Nodes without a hole are taken out.

use super::word::Word;
use allocator_api2::alloc::{Allocator, Global};
use allocator_api2::vec::Vec;
use memfrag_common::prefetch::prefetch;
use std::cmp::Ordering;

/// Places of a node.
pub(super) const FAN: usize = 16;
const FAN_BITS: u32 = FAN.trailing_zeros();
/// No node.
pub(super) const NONE: u32 = u32::MAX;

/// Sizes up to this one are told apart by [`Maxima`], 32 GiB of granules. It is signed because the oldest x86-64
/// compares only such numbers four at a time.
const LARGEST_TOLD: i32 = i32::MAX;

/// The size of the largest hole in each place of a node, in granules and at most [`LARGEST_TOLD`]; 0 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Maxima([i32; FAN]);

/// A size as [`Maxima`] hold it.
#[inline]
fn told(size: u64) -> i32 {
    i32::try_from(size).unwrap_or(LARGEST_TOLD)
}

impl Maxima {
    const EMPTY: Self = Self([0; FAN]);

    /// The places with a hole of this size, as bits.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn at_least(&self, size: i32) -> u32 {
        // SAFETY: every x86-64 processor has SSE2.
        unsafe { self.at_least_by_fours(size) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "sse2")]
    fn at_least_by_fours(&self, size: i32) -> u32 {
        use std::arch::x86_64 as sse;
        let below = sse::_mm_set1_epi32(size - 1);
        let [a, b, c, d] = [0, 4, 8, 12].map(|at| {
            // SAFETY: four of the sixteen numbers, at a multiple of 16 bytes.
            let sizes = unsafe { sse::_mm_load_si128(self.0[at..at + 4].as_ptr().cast()) };
            sse::_mm_cmpgt_epi32(sizes, below)
        });
        let places = sse::_mm_packs_epi16(sse::_mm_packs_epi32(a, b), sse::_mm_packs_epi32(c, d));
        sse::_mm_movemask_epi8(places).cast_unsigned()
    }

    /// The places with a hole of this size, as bits.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    fn at_least(&self, size: i32) -> u32 {
        self.0.iter().enumerate().fold(0, |places, (place, &largest)| places | u32::from(largest >= size) << place)
    }

    #[inline]
    fn largest(&self) -> i32 {
        self.0.iter().fold(0, |largest, &size| largest.max(size))
    }
}

/// Words next to each other.
#[derive(Clone, Debug)]
struct Leaf {
    maxima: Maxima,
    words: [Word; FAN],
}

/// Nodes next to each other, [`NONE`] where there are no holes.
#[derive(Clone, Debug)]
struct Branch {
    maxima: Maxima,
    child: [u32; FAN],
}

impl Leaf {
    const EMPTY: Self = Self { maxima: Maxima::EMPTY, words: [Word::EMPTY; FAN] };
}

impl Branch {
    const EMPTY: Self = Self { maxima: Maxima::EMPTY, child: [NONE; FAN] };
}

/// Nodes of one kind, by number.
#[derive(Clone, Debug)]
struct Nodes<T, A: Allocator> {
    all: Vec<T, A>,
    /// The branch above each, [`NONE`] above the root.
    above: Vec<u32, A>,
    /// Those that are not in use.
    spare: Vec<u32, A>,
}

impl<T, A: Allocator + Clone> Nodes<T, A> {
    fn new_in(tables: A) -> Self {
        Self { all: Vec::new_in(tables.clone()), above: Vec::new_in(tables.clone()), spare: Vec::new_in(tables) }
    }
}

impl<T, A: Allocator> Nodes<T, A> {
    fn add(&mut self, node: T, above: u32) -> u32 {
        if let Some(id) = self.spare.pop() {
            (self.all[id as usize], self.above[id as usize]) = (node, above);
            return id;
        }
        self.all.push(node);
        self.above.push(above);
        (self.all.len() - 1) as u32
    }

    #[inline]
    fn get(&self, id: u32) -> &T {
        &self.all[id as usize]
    }

    #[inline]
    fn get_mut(&mut self, id: u32) -> &mut T {
        &mut self.all[id as usize]
    }
}

/// A leaf, and which words it holds. It is there until a hole is taken out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    id: u32,
    /// That of its words without the last bits.
    number: u64,
}

impl Found {
    /// The number of the word at a place of the leaf.
    #[inline]
    pub(super) const fn word(self, place: usize) -> u64 {
        self.number << FAN_BITS | place as u64
    }

    /// The place of a word, if it is in this leaf.
    #[inline]
    pub(super) fn place(self, word: u64) -> Option<usize> {
        (word >> FAN_BITS == self.number).then_some(word as usize % FAN)
    }
}

/// The number of the node so many levels above one.
#[inline]
const fn above(number: u64, levels: usize) -> u64 {
    number >> (FAN_BITS * levels as u32)
}

/// The place in the branch of a level through which the way to a leaf goes.
#[inline]
const fn through(leaf: u64, level: usize) -> usize {
    above(leaf, level - 1) as usize % FAN
}

/// The words in which holes begin.
#[derive(Clone, Debug)]
pub(super) struct Radix<A: Allocator = Global> {
    leaves: Nodes<Leaf, A>,
    branches: Nodes<Branch, A>,
    /// [`NONE`] without any hole.
    root: u32,
    /// The root's number among the nodes of its level.
    number: u64,
    /// The root's level, 0 for a leaf.
    height: usize,
}

impl<A: Allocator + Clone> Radix<A> {
    pub(super) fn new_in(tables: A) -> Self {
        Self {
            leaves: Nodes::new_in(tables.clone()),
            branches: Nodes::new_in(tables),
            root: NONE,
            number: 0,
            height: 0,
        }
    }
}

impl<A: Allocator> Radix<A> {
    /// The word at a place of a leaf.
    #[inline]
    pub(super) fn word(&self, leaf: Found, place: usize) -> Word {
        self.leaves.get(leaf.id).words[place]
    }

    /// Sends for a word of a leaf, and for what the leaf knows of all.
    #[inline]
    pub(super) fn send_for(&self, leaf: Found, place: usize) {
        let leaf = self.leaves.get(leaf.id);
        prefetch(&leaf.maxima);
        prefetch(&leaf.words[place]);
    }

    /// The leaf of a word, if there is one.
    #[inline]
    pub(super) fn leaf(&self, word: u64) -> Option<Found> {
        let number = word >> FAN_BITS;
        if self.root == NONE || above(number, self.height) != self.number {
            return None;
        }
        let mut id = self.root;
        for level in (1..=self.height).rev() {
            id = self.branches.get(id).child[through(number, level)];
            if id == NONE {
                return None;
            }
        }
        Some(Found { id, number })
    }

    /// The leaf of a word, which is made if there is none. It must get a hole then.
    pub(super) fn make_leaf(&mut self, word: u64) -> Found {
        let number = word >> FAN_BITS;
        if self.root == NONE {
            self.root = self.leaves.add(Leaf::EMPTY, NONE);
            (self.number, self.height) = (number, 0);
        }
        while above(number, self.height) != self.number {
            let mut root = Branch::EMPTY;
            let place = self.number as usize % FAN;
            root.child[place] = self.root;
            root.maxima.0[place] = self.maxima(self.height, self.root).largest();
            let root = self.branches.add(root, NONE);
            self.set_above(self.height, self.root, root);
            self.root = root;
            self.number >>= FAN_BITS;
            self.height += 1;
        }
        let mut id = self.root;
        for level in (1..=self.height).rev() {
            let place = through(number, level);
            let mut child = self.branches.get(id).child[place];
            if child == NONE {
                child = if level > 1 { self.branches.add(Branch::EMPTY, id) } else { self.leaves.add(Leaf::EMPTY, id) };
                self.branches.get_mut(id).child[place] = child;
            }
            id = child;
        }
        Found { id, number }
    }

    /// The leftmost word with a hole of at least this many granules. Only for sizes that the tree [tells](Self::tells).
    #[inline]
    pub(super) fn first_fit(&self, size: u64) -> Option<(Found, usize)> {
        let wanted = told(size);
        let (mut id, mut number) = (self.root, self.number);
        if id == NONE {
            return None;
        }
        for _ in 0..self.height {
            let branch = self.branches.get(id);
            let place = first(branch.maxima.at_least(wanted))?;
            number = number << FAN_BITS | place as u64;
            id = branch.child[place];
        }
        let place = first(self.leaves.get(id).maxima.at_least(wanted))?;
        Some((Found { id, number }, place))
    }

    /// Whether [`Self::first_fit`] answers for this size. For others there is [`Self::seek`].
    #[inline]
    pub(super) const fn tells(size: u64) -> bool {
        size <= LARGEST_TOLD as u64
    }

    /// Asks for each word from `from` on, upwards, of whose holes the largest may have this many granules, until there is
    /// an answer.
    #[inline]
    pub(super) fn seek<T>(
        &self,
        from: u64,
        size: u64,
        mut ask: impl FnMut(Found, usize, Word) -> Option<T>,
    ) -> Option<T> {
        let root = Some(self.root).filter(|&root| root != NONE)?;
        self.seek_below(self.height, root, self.number, from, told(size), &mut ask)
    }

    fn seek_below<T>(
        &self,
        level: usize,
        id: u32,
        number: u64,
        from: u64,
        wanted: i32,
        ask: &mut impl FnMut(Found, usize, Word) -> Option<T>,
    ) -> Option<T> {
        let begin = above(from, level).saturating_sub(number << FAN_BITS);
        if begin >= FAN as u64 {
            return None;
        }
        let mut places = self.maxima(level, id).at_least(wanted) & (!0 << begin);
        while let Some(place) = first(places) {
            places &= places - 1;
            let found = if level == 0 {
                ask(Found { id, number }, place, self.leaves.get(id).words[place])
            } else {
                let child = self.branches.get(id).child[place];
                self.seek_below(level - 1, child, number << FAN_BITS | place as u64, from, wanted, ask)
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The last word before this one in which holes begin.
    pub(super) fn last_before(&self, word: u64) -> Option<(Found, usize)> {
        let leaf = word >> FAN_BITS;
        let mut id = Some(self.root).filter(|&root| root != NONE)?;
        let mut number = self.number;
        match above(leaf, self.height).cmp(&number) {
            Ordering::Less => return None,
            Ordering::Greater => return Some(self.last_below(self.height, id, number)),
            Ordering::Equal => {}
        }
        // Of what lies aside of the way to the word, and before it, the lowest.
        let mut aside = None;
        for level in (1..=self.height).rev() {
            let branch = self.branches.get(id);
            let place = through(leaf, level);
            if let Some(before) = last(branch.maxima.at_least(1) & !(!0 << place)) {
                aside = Some((level - 1, branch.child[before], number << FAN_BITS | before as u64));
            }
            number = number << FAN_BITS | place as u64;
            id = branch.child[place];
            if id == NONE {
                break;
            }
        }
        if id != NONE
            && let Some(place) = last(self.leaves.get(id).maxima.at_least(1) & !(!0 << (word as usize % FAN)))
        {
            return Some((Found { id, number }, place));
        }
        aside.map(|(level, id, number)| self.last_below(level, id, number))
    }

    /// The last word below a node.
    fn last_below(&self, level: usize, mut id: u32, mut number: u64) -> (Found, usize) {
        for _ in 0..level {
            let branch = self.branches.get(id);
            let place = last(branch.maxima.at_least(1)).unwrap_or(0);
            number = number << FAN_BITS | place as u64;
            id = branch.child[place];
        }
        (Found { id, number }, last(self.leaves.get(id).maxima.at_least(1)).unwrap_or(0))
    }

    /// Granules of the largest hole, 0 without any.
    pub(super) fn largest(&self) -> u64 {
        match self.root {
            NONE => 0,
            root => match self.maxima(self.height, root).largest() {
                LARGEST_TOLD => {
                    let mut largest = 0;
                    self.seek(0, LARGEST_TOLD as u64, |_, _, word| {
                        largest = word.largest().max(largest);
                        None::<()>
                    });
                    largest
                }
                largest => u64::from(largest.unsigned_abs()),
            },
        }
    }

    #[inline]
    fn maxima(&self, level: usize, id: u32) -> &Maxima {
        if level == 0 { &self.leaves.get(id).maxima } else { &self.branches.get(id).maxima }
    }

    fn set_above(&mut self, level: usize, id: u32, branch: u32) {
        let above = if level == 0 { &mut self.leaves.above } else { &mut self.branches.above };
        above[id as usize] = branch;
    }

    /// Makes granules of a word one hole: see [`Word::cover`].
    #[inline]
    pub(super) fn cover(&mut self, leaf: Found, place: usize, at: u32, size: u64) {
        let node = self.leaves.get_mut(leaf.id);
        node.words[place].cover(at, size);
        // What was covered was smaller.
        let (before, after) = (node.maxima.0[place], told(size));
        if after > before {
            node.maxima.0[place] = after;
            self.grown(leaf, after);
        }
    }

    /// Takes a hole out of its word.
    #[inline]
    pub(super) fn uncover(&mut self, leaf: Found, place: usize, at: u32, size: u64) {
        self.shrink(leaf, place, (at, size), 0, (0, 0));
    }

    /// Makes a hole one or two smaller ones of the same word, the first of `front` granules where it begins and one of
    /// `rest` at `behind`, neither if it has none.
    #[inline]
    pub(super) fn shrink(
        &mut self,
        leaf: Found,
        place: usize,
        (at, size): (u32, u64),
        front: u64,
        (behind, rest): (u32, u64),
    ) {
        let node = self.leaves.get_mut(leaf.id);
        let word = &mut node.words[place];
        word.uncover(at, size);
        if front > 0 {
            word.cover(at, front);
        }
        if rest > 0 {
            word.cover(behind, rest);
        }
        let before = node.maxima.0[place];
        if told(size) == before {
            let after = told(node.words[place].largest());
            if after < before {
                node.maxima.0[place] = after;
                self.shrunk(leaf, before);
            }
        }
    }

    /// A leaf has a hole of a size that its place had not: says so to those above, as far as that is news.
    #[inline]
    fn grown(&mut self, leaf: Found, size: i32) {
        let mut above = self.leaves.above[leaf.id as usize];
        for level in 1..=self.height {
            let known = &mut self.branches.get_mut(above).maxima.0[through(leaf.number, level)];
            if *known >= size {
                return;
            }
            *known = size;
            above = self.branches.above[above as usize];
        }
    }

    /// A hole of this size, the largest of its place in a leaf, is smaller or gone: says so to those above, as far as it
    /// was the largest.
    #[inline]
    fn shrunk(&mut self, leaf: Found, before: i32) {
        let mut id = leaf.id;
        let mut above = self.leaves.above[id as usize];
        for level in 1..=self.height {
            let place = through(leaf.number, level);
            if self.branches.get(above).maxima.0[place] > before {
                return;
            }
            let after = self.maxima(level - 1, id).largest();
            if after == before {
                return;
            }
            let branch = self.branches.get_mut(above);
            branch.maxima.0[place] = after;
            if after == 0 {
                branch.child[place] = NONE;
                self.drop_node(level - 1, id);
            }
            id = above;
            above = self.branches.above[id as usize];
        }
        self.lower();
    }

    fn drop_node(&mut self, level: usize, id: u32) {
        if level == 0 {
            self.leaves.spare.push(id);
        } else {
            self.branches.spare.push(id);
        }
    }

    /// A root that has nothing to tell apart goes.
    fn lower(&mut self) {
        while self.root != NONE {
            let places = self.maxima(self.height, self.root).at_least(1);
            if places == 0 {
                self.drop_node(self.height, self.root);
                self.root = NONE;
            } else if self.height > 0 && places.is_power_of_two() {
                let place = places.trailing_zeros() as usize;
                let child = self.branches.get(self.root).child[place];
                self.drop_node(self.height, self.root);
                self.root = child;
                self.set_above(self.height - 1, child, NONE);
                self.number = self.number << FAN_BITS | place as u64;
                self.height -= 1;
            } else {
                return;
            }
        }
    }

    /// Panics when the tree contradicts itself.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut nodes = (0, 0);
        if self.root != NONE {
            assert!(self.height < 14, "a word's number has 54 bits");
            let largest = self.check_below(self.height, self.root, NONE, &mut nodes);
            assert!(largest > 0, "a root without holes");
        }
        assert_eq!(nodes.0 + self.leaves.spare.len(), self.leaves.all.len(), "a leaf is in the tree or spare");
        assert_eq!(nodes.1 + self.branches.spare.len(), self.branches.all.len(), "a branch is in the tree or spare");
    }

    #[cfg(test)]
    fn check_below(&self, level: usize, id: u32, above: u32, nodes: &mut (usize, usize)) -> i32 {
        let largest = if level == 0 {
            nodes.0 += 1;
            assert_eq!(self.leaves.above[id as usize], above);
            let leaf = self.leaves.get(id);
            leaf.words.map(|word| told(word.largest()))
        } else {
            nodes.1 += 1;
            assert_eq!(self.branches.above[id as usize], above);
            let children = self.branches.get(id).child;
            children.map(|child| if child == NONE { 0 } else { self.check_below(level - 1, child, id, nodes) })
        };
        assert_eq!(self.maxima(level, id).0, largest);
        if level > 0 {
            let is_there = self.branches.get(id).child.map(|child| child != NONE);
            assert_eq!(largest.map(|largest| largest > 0), is_there, "no node without holes");
        }
        self.maxima(level, id).largest()
    }
}

/// The first of some places, given as bits.
#[inline]
fn first(places: u32) -> Option<usize> {
    (places != 0).then(|| places.trailing_zeros() as usize)
}

/// The last of some places, given as bits.
#[inline]
fn last(places: u32) -> Option<usize> {
    (places != 0).then(|| places.ilog2() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]
        #[test]
        fn places_are_found_by_their_sizes(
            sizes in prop::array::uniform16(prop_oneof![0..4_i32, Just(LARGEST_TOLD - 1), Just(LARGEST_TOLD)]),
            wanted in prop_oneof![1..5_i32, Just(LARGEST_TOLD - 1), Just(LARGEST_TOLD)],
        ) {
            let places = Maxima(sizes).at_least(wanted);
            for (place, &size) in sizes.iter().enumerate() {
                prop_assert_eq!(places >> place & 1 == 1, size >= wanted);
            }
            prop_assert_eq!(places >> FAN, 0);
            prop_assert_eq!(Some(Maxima(sizes).largest()), sizes.into_iter().max());
        }
    }
}
