//! Which value stands for which class.

use super::mode::Mode;
use crate::heap::{Activity, Block, Heap, OriginId, size_class};
use std::collections::HashMap;

/// Live blocks whose class has no value of its own.
pub(super) const OTHER: u8 = 1;
/// The first value of a class.
const FIRST: u8 = 2;

/// A class of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Allocated by calls with this return address.
    Site(u64),
    /// Allocated by the thread of this id.
    Thread(u32),
    /// Of a size in this class; see [`size_class`].
    Size(usize),
    /// No event told of them: mostly older than the trace. In the modes of call sites and threads.
    Older,
}

impl Class {
    /// Smallest and largest size of a class of sizes.
    pub fn sizes(class: usize) -> (u64, u64) {
        let highest = |class: usize| if class < 60 { 16 << class } else { u64::MAX };
        (if class == 0 { 0 } else { highest(class - 1) + 1 }, highest(class))
    }
}

/// The values of blocks, as they are now.
#[derive(Debug, Default)]
pub(super) struct Values {
    mode: Option<Mode>,
    by_origin: Vec<u8>,
    by_thread: HashMap<u32, u8>,
    older: u8,
}

impl Values {
    #[inline]
    pub(super) fn of(&self, block: &Block) -> u8 {
        let is_older = block.origin == OriginId::UNSEEN;
        match self.mode {
            Some(Mode::Site | Mode::Thread) if is_older => self.older,
            Some(Mode::Site) => self.by_origin.get(block.origin.index()).copied().unwrap_or(OTHER),
            Some(Mode::Thread) => self.by_thread.get(&block.thread).copied().unwrap_or(OTHER),
            _ => FIRST + size_class(block.size) as u8,
        }
    }
}

/// What a refresh has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Classes that were among the others have values of their own now.
    Added,
    /// A value stands for another class now.
    Replaced,
}

/// The classes of a mode that have values of their own. A class keeps its value until one that had none holds more than
/// twice as much.
#[derive(Debug)]
pub(super) struct Palette {
    mode: Mode,
    classes: Vec<Class>,
    places: HashMap<Class, usize>,
    most: usize,
    is_news: bool,
    /// Origins and threads when it was made.
    known: (usize, usize),
    pub(super) values: Values,
}

impl Palette {
    pub(super) fn new(mode: Mode) -> Self {
        Self::with(mode, usize::from(u8::MAX - FIRST) + 1)
    }

    fn with(mode: Mode, most: usize) -> Self {
        let values = Values { mode: Some(mode), older: OTHER, ..Values::default() };
        Self { mode, classes: Vec::new(), places: HashMap::new(), most, is_news: true, known: (0, 0), values }
    }

    /// The classes with their values, upwards.
    pub(super) fn classes(&self) -> impl Iterator<Item = (u8, Class)> + '_ {
        let is_size = self.mode == Mode::Size;
        let value = move |(at, class): (usize, &Class)| match *class {
            Class::Size(size) if is_size => (FIRST + size as u8, *class),
            _ => (FIRST + at as u8, *class),
        };
        self.classes.iter().enumerate().map(value)
    }

    /// Whether the classes have changed since this was asked last.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// A new view begins, to which the classes are news.
    pub(super) fn renew(&mut self) {
        self.is_news = true;
    }

    /// Whether there are calls or threads that were not there at the last refresh.
    pub(super) fn is_outgrown(&self, heap: &Heap, activity: &Activity) -> bool {
        self.known != (heap.origins().size_hint().0, activity.classes().threads().size_hint().0)
    }

    /// Takes what is live now into account.
    pub(super) fn refresh(&mut self, heap: &Heap, activity: &Activity) -> Change {
        let live = activity.classes();
        self.known = (heap.origins().size_hint().0, live.threads().size_hint().0);
        let mut ranked: HashMap<Class, u64> = HashMap::new();
        let mut add = |class, amount: crate::heap::Amount| {
            if amount.blocks > 0 {
                *ranked.entry(class).or_default() += amount.bytes;
            }
        };
        let older = live.origin(OriginId::UNSEEN);
        match self.mode {
            Mode::Site => {
                add(Class::Older, older);
                heap.origins().for_each(|(id, origin, _)| add(Class::Site(origin.site), live.origin(id)));
            }
            Mode::Thread => {
                add(Class::Older, older);
                live.threads().filter(|&(tid, _)| tid != 0 || older.blocks == 0).for_each(|(tid, amount)| {
                    add(Class::Thread(tid), amount);
                });
            }
            _ => live.sizes().iter().enumerate().for_each(|(class, &amount)| add(Class::Size(class), amount)),
        }
        let change = if self.mode == Mode::Size { self.add_sizes(&ranked) } else { self.rank(&ranked) };
        self.is_news |= change != Change::None;
        self.assign(heap);
        change
    }

    /// The values of sizes are always the same; which ones occur is news.
    fn add_sizes(&mut self, live: &HashMap<Class, u64>) -> Change {
        let before = self.classes.len();
        self.classes.extend(live.keys().filter(|&class| !self.places.contains_key(class)));
        self.classes.sort_unstable();
        self.places = self.classes.iter().enumerate().map(|(at, &class)| (class, at)).collect();
        if self.classes.len() > before { Change::Added } else { Change::None }
    }

    fn rank(&mut self, live: &HashMap<Class, u64>) -> Change {
        let mut new: Vec<(u64, Class)> = live
            .iter()
            .filter(|(class, _)| !self.places.contains_key(class))
            .map(|(&class, &bytes)| (bytes, class))
            .collect();
        new.sort_unstable_by_key(|&(bytes, class)| (std::cmp::Reverse(bytes), class));
        let mut change = Change::None;
        let mut new = new.into_iter().peekable();
        while let Some((_, class)) = new.next_if(|_| self.classes.len() < self.most) {
            self.places.insert(class, self.classes.len());
            self.classes.push(class);
            change = Change::Added;
        }
        let mut weakest: Vec<(u64, usize)> = match new.peek() {
            Some(_) => {
                let bytes = |class| live.get(class).copied().unwrap_or(0);
                self.classes.iter().enumerate().map(|(at, class)| (bytes(class), at)).collect()
            }
            None => Vec::new(),
        };
        weakest.sort_unstable();
        for ((bytes, class), (least, at)) in new.zip(weakest) {
            if bytes / 2 <= least {
                break;
            }
            self.places.remove(&self.classes[at]);
            self.places.insert(class, at);
            self.classes[at] = class;
            change = Change::Replaced;
        }
        change
    }

    fn assign(&mut self, heap: &Heap) {
        let value = |class| self.places.get(&class).map_or(OTHER, |&at| FIRST + at as u8);
        self.values.older = value(Class::Older);
        match self.mode {
            Mode::Site => {
                self.values.by_origin = heap.origins().map(|(_, origin, _)| value(Class::Site(origin.site))).collect();
            }
            Mode::Thread => {
                let threads = self.classes.iter().filter_map(|class| match *class {
                    Class::Thread(tid) => Some((tid, value(*class))),
                    _ => None,
                });
                self.values.by_thread = threads.collect();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Heaps;
    use memfrag_common::{Event, Function, Op};

    fn alloc(heaps: &mut Heaps, addr: u64, size: u64, caller: u64) {
        let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: caller, stack: 0 };
        heaps.apply(&Event { time: 1, pid: 1, tid: 1, op });
    }

    fn refresh(palette: &mut Palette, heaps: &Heaps) -> (Change, Vec<(u8, Class)>) {
        let heap = heaps.heap(&heaps.processes()[0]);
        let change = palette.refresh(heap, heap.activity().expect("watched"));
        (change, palette.classes().collect())
    }

    #[test]
    fn a_class_keeps_its_value_until_another_holds_far_more() {
        let mut heaps = Heaps::default();
        alloc(&mut heaps, 0x1000, 100, 1);
        alloc(&mut heaps, 0x2000, 50, 2);
        alloc(&mut heaps, 0x3000, 60, 3);
        heaps.watch(0);
        let mut palette = Palette::with(Mode::Site, 2);
        let before = vec![(2, Class::Site(1)), (3, Class::Site(3))];
        assert_eq!(refresh(&mut palette, &heaps), (Change::Added, before.clone()));
        assert!(palette.take_news() && !palette.take_news());
        alloc(&mut heaps, 0x4000, 71, 2);
        assert_eq!(refresh(&mut palette, &heaps), (Change::None, before));
        assert!(!palette.take_news());
        alloc(&mut heaps, 0x5000, 1, 2);
        let after = vec![(2, Class::Site(1)), (3, Class::Site(2))];
        assert_eq!(refresh(&mut palette, &heaps), (Change::Replaced, after));
        let heap = heaps.heap(&heaps.processes()[0]);
        let value = |addr| palette.values.of(&heap.blocks().get(addr).expect("live"));
        assert_eq!([0x1000, 0x2000, 0x3000, 0x4000].map(value), [2, 3, OTHER, 3]);
    }

    #[test]
    fn sizes_have_the_same_values_everywhere() {
        let mut heaps = Heaps::default();
        alloc(&mut heaps, 0x1000, 100, 1);
        heaps.watch(0);
        let mut palette = Palette::new(Mode::Size);
        assert_eq!(refresh(&mut palette, &heaps), (Change::Added, vec![(5, Class::Size(3))]));
        alloc(&mut heaps, 0x2000, 3, 1);
        assert_eq!(refresh(&mut palette, &heaps), (Change::Added, vec![(2, Class::Size(0)), (5, Class::Size(3))]));
        assert_eq!([0, 3, 60].map(Class::sizes), [(0, 16), (65, 128), ((16 << 59) + 1, u64::MAX)]);
    }
}
