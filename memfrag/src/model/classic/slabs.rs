//! Slabs: runs of memory that are divided into places of one size class.

use super::driven::{Free, Place};
use std::collections::{BTreeMap, BTreeSet};

/// A size class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    /// Its number, from 0.
    pub(super) number: usize,
    /// Bytes of a place.
    pub(super) size: u64,
    /// Bytes of a slab.
    pub(super) slab: u64,
}

/// Size classes at equal distances within each doubling, from 16 bytes on. The class of a size: its number and bytes.
pub(super) fn class_of(size: u64, each_doubling: u64) -> (usize, u64) {
    let steps = each_doubling.trailing_zeros();
    let granules = size.max(1).div_ceil(16);
    // Up to as many granules as there are classes in a doubling, each has a class of its own.
    let shift = (64 - (granules - 1).leading_zeros()).saturating_sub(steps + 1);
    let rounded = granules.div_ceil(1 << shift);
    let number = u64::from(shift) * each_doubling + rounded;
    (number as usize, (rounded << shift) * 16)
}

#[derive(Clone, Debug)]
struct Slab {
    class: Class,
    used: u64,
    /// A bit for each place that is free.
    free: Vec<u64>,
}

impl Slab {
    fn new(class: Class) -> Self {
        let places = class.slab / class.size;
        let mut free = vec![u64::MAX; places.div_ceil(64) as usize];
        if let (Some(last), 1..) = (free.last_mut(), places % 64) {
            *last = (1 << (places % 64)) - 1;
        }
        Self { class, used: 0, free }
    }

    fn places(&self) -> u64 {
        self.class.slab / self.class.size
    }

    /// Takes the lowest free place.
    fn take(&mut self) -> Option<u64> {
        let word = self.free.iter().position(|&word| word != 0)?;
        let bit = self.free[word].trailing_zeros();
        self.free[word] &= !(1 << bit);
        self.used += 1;
        Some(word as u64 * 64 + u64::from(bit))
    }
}

/// What was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    /// A place in a slab that has others in use.
    Place,
    /// The last place of a slab, which is now whoever's it was before.
    Slab { start: u64, bytes: u64 },
    /// Nothing of any slab.
    Unknown,
}

/// All slabs. Where they lie, whoever owns them decides.
#[derive(Clone, Debug, Default)]
pub(super) struct Slabs {
    by_start: BTreeMap<u64, Slab>,
    /// By class, the slabs with a free place; the lowest is used first.
    open: Vec<BTreeSet<u64>>,
    free: u64,
    places: u64,
    largest: BTreeMap<u64, u64>,
}

impl Slabs {
    /// Takes a place of a class, out of a slab that `obtain` gives the address of where none has one.
    pub(super) fn place(&mut self, class: Class, obtain: impl FnOnce() -> Option<u64>) -> Option<Place> {
        if self.open.len() <= class.number {
            self.open.resize(class.number + 1, BTreeSet::new());
        }
        let start = if let Some(&start) = self.open[class.number].first() {
            start
        } else {
            let start = obtain()?;
            let slab = Slab::new(class);
            self.count(class.size, slab.places(), true);
            self.by_start.insert(start, slab);
            self.open[class.number].insert(start);
            start
        };
        let slab = self.by_start.get_mut(&start)?;
        let place = slab.take()?;
        if slab.used == slab.places() {
            self.open[class.number].remove(&start);
        }
        self.count(class.size, 1, false);
        Some(Place { start: start + place * class.size, taken: class.size })
    }

    /// Gives a place back. A slab of which that was the last one is gone then.
    pub(super) fn release(&mut self, place: Place) -> Released {
        let Some((&start, slab)) = self.by_start.range_mut(..=place.start).next_back() else {
            return Released::Unknown;
        };
        let class = slab.class;
        if place.start >= start + class.slab {
            return Released::Unknown;
        }
        let at = (place.start - start) / class.size;
        slab.free[(at / 64) as usize] |= 1 << (at % 64);
        slab.used -= 1;
        let (is_empty, places) = (slab.used == 0, slab.places());
        self.count(class.size, 1, true);
        self.open[class.number].insert(start);
        if !is_empty {
            return Released::Place;
        }
        self.open[class.number].remove(&start);
        self.by_start.remove(&start);
        self.count(class.size, places, false);
        Released::Slab { start, bytes: class.slab }
    }

    pub(super) fn free(&self) -> Free {
        Free {
            bytes: self.free,
            holes: self.places,
            largest: self.largest.last_key_value().map_or(0, |(&size, _)| size),
        }
    }

    /// Counts free places that come or go.
    fn count(&mut self, size: u64, places: u64, come: bool) {
        let of_size = self.largest.entry(size).or_default();
        if come {
            *of_size += places;
            self.places += places;
            self.free += places * size;
        } else {
            *of_size -= places;
            self.places -= places;
            self.free -= places * size;
        }
        if self.largest.get(&size) == Some(&0) {
            self.largest.remove(&size);
        }
    }
}
