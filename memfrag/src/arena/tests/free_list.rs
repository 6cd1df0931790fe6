//! The free list against first fit by its definition.

use crate::arena::free_list::{FreeList, Hole, NotTaken};
use crate::arena::oracle::Oracle;
use proptest::prelude::*;

/// A step of a random program.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Bytes, and the logarithm of the alignment.
    Allocate(u64, u32),
    /// The block of which number, modulo how many there are.
    Free(usize),
}

fn steps(largest: u64) -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![4 => 0..200_u64, 2 => 0..largest / 16, 1 => 0..largest];
    let align = prop_oneof![6 => Just(4_u32), 1 => 0..13_u32];
    let step = prop_oneof![
        5 => (size, align).prop_map(|(size, align)| Step::Allocate(size, align)),
        4 => any::<usize>().prop_map(Step::Free),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 40 } else { 600 })
}

/// Both do the same; every address is compared, and the list is checked after each step.
fn run(range: std::ops::Range<u64>, steps: &[Step], check_each: usize) {
    let mut oracle = Oracle::new(range.clone());
    let mut list = FreeList::new(range);
    let mut live: Vec<(u64, u64)> = Vec::new();
    for (number, &step) in steps.iter().enumerate() {
        match step {
            Step::Allocate(size, align) => {
                let place = list.allocate(size, 1 << align);
                assert_eq!(place, oracle.first_fit(size, 1 << align), "step {number}: {step:?}");
                if let Some(place) = place {
                    oracle.put(place, size);
                    live.push((place, size));
                }
            }
            Step::Free(_) if live.is_empty() => {}
            Step::Free(which) => {
                let (place, size) = live.swap_remove(which % live.len());
                oracle.blocks.remove(&place);
                list.release(place, size).unwrap();
                assert!(list.release(place, size).is_err(), "a second time");
            }
        }
        if number % check_each == 0 {
            list.check();
            let holes: Vec<_> = list.holes().map(|hole| hole.start..hole.end()).collect();
            assert_eq!(holes, oracle.gaps().collect::<Vec<_>>(), "step {number}: {step:?}");
        }
    }
    for (place, size) in live.drain(..) {
        list.release(place, size).unwrap();
    }
    list.check();
    assert_eq!((list.len(), list.largest()), (1, list.free()), "everything freed is one hole");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 100 }))]

    #[test]
    fn every_address_is_that_of_first_fit(base in 0..1000_u64, steps in steps(4096)) {
        run(base * 16..base * 16 + 32_768, &steps, 1);
    }

    #[test]
    fn also_where_there_is_always_room(steps in steps(1 << 20)) {
        run(0..1 << 40, &steps, 1);
    }

    /// Single holes of one granule make the tree deep; taking ranges by address is what re-anchoring does.
    #[test]
    fn any_range_can_be_taken_and_given_back(places in prop::collection::vec((0..3000_u64, 1..4_u64), 1..if cfg!(miri) { 60 } else { 2500 })) {
        let mut list = FreeList::new(0..3000 * 16);
        let mut free = vec![true; 3000];
        let mut taken = Vec::new();
        for (at, granules) in places {
            let range = at as usize..(at + granules).min(3000) as usize;
            let size = range.len() as u64 * 16;
            if list.take(at * 16, size) {
                prop_assert!(free[range.clone()].iter().all(|&free| free));
                free[range].fill(false);
                taken.push((at, size));
            } else {
                prop_assert!(!free[range].iter().all(|&free| free));
                let (at, size) = taken.swap_remove(at as usize % taken.len());
                list.release(at * 16, size).unwrap();
                free[at as usize..(at + size / 16) as usize].fill(true);
            }
        }
        list.check();
        for (at, &free) in free.iter().enumerate() {
            prop_assert_eq!(list.hole_at(at as u64 * 16 + 7).is_some(), free);
        }
        prop_assert_eq!(list.free(), free.iter().filter(|&&free| free).count() as u64 * 16);
    }
}

/// Free ranges by their definition: a sorted list, in which everything is searched for from below.
#[derive(Default)]
struct Ranges(Vec<std::ops::Range<u64>>);

impl Ranges {
    /// Takes a part of the range of this number.
    fn cut(&mut self, number: usize, start: u64, end: u64) {
        let whole = self.0[number].clone();
        let rests = [whole.start..start, end..whole.end].into_iter().filter(|rest| !rest.is_empty());
        self.0.splice(number..=number, rests);
    }

    fn allocate(&mut self, from: u64, size: u64, align: u64) -> Option<u64> {
        let fits = |range: &std::ops::Range<u64>| {
            let place = u128::from(range.start).next_multiple_of(u128::from(align));
            (range.start >= from && place + u128::from(size) <= u128::from(range.end)).then_some(place as u64)
        };
        let (number, place) = self.0.iter().enumerate().find_map(|(number, range)| Some((number, fits(range)?)))?;
        self.cut(number, place, place + size);
        Some(place)
    }

    fn take(&mut self, start: u64, size: u64) -> bool {
        let holds = |range: &std::ops::Range<u64>| range.contains(&start) && range.end - start >= size;
        let Some(number) = self.0.iter().position(holds) else { return false };
        self.cut(number, start, start + size);
        true
    }

    fn release(&mut self, start: u64, size: u64) -> bool {
        let Some(end) = start.checked_add(size) else { return false };
        if self.0.iter().any(|range| range.start < end && start < range.end) {
            return false;
        }
        let (touching, mut others): (Vec<_>, Vec<_>) =
            self.0.drain(..).partition(|range| range.end == start || range.start == end);
        let start = touching.iter().map(|range| range.start).min().unwrap_or(start).min(start);
        let end = touching.iter().map(|range| range.end).max().unwrap_or(end).max(end);
        others.push(start..end);
        others.sort_by_key(|range| range.start);
        self.0 = others;
        true
    }
}

/// A step anywhere in the addresses.
#[derive(Clone, Copy, Debug)]
enum Far {
    Release(u64, u64),
    Take(u64, u64),
    /// From an address on, bytes, and the logarithm of the alignment.
    Allocate(u64, u64, u32),
}

fn far_steps() -> impl Strategy<Value = Vec<Far>> {
    // Few places, close together and far apart, at the ends and at the borders of what parts of the addresses hold.
    let near =
        prop::sample::select(vec![0, 1 << 14, (1 << 18) - 512, 1 << 26, (1 << 36) - 1024, 1 << 47, 1 << 63, !0 << 14]);
    let address = move || (near.clone(), 0..900_u64).prop_map(|(near, granule)| near + granule * 16);
    let size = || {
        prop_oneof![
            6 => (1..200_u64).prop_map(|granules| granules * 16),
            2 => (1..5000_u64).prop_map(|granules| granules * 16),
            1 => (20..62_u32).prop_map(|log2| 1 << log2),
        ]
    };
    let step = prop_oneof![
        4 => (address(), size()).prop_map(|(start, size)| Far::Release(start, size)),
        2 => (address(), size()).prop_map(|(start, size)| Far::Take(start, size)),
        4 => (prop_oneof![Just(0), address()], size(), prop_oneof![3 => Just(0), 1 => 0..50_u32])
            .prop_map(|(from, size, align)| Far::Allocate(from, size, align)),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 40 } else { 300 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]

    #[test]
    fn ranges_lie_anywhere_and_have_any_size(steps in far_steps()) {
        let mut list = FreeList::new(64..64);
        let mut ranges = Ranges::default();
        for step in steps {
            match step {
                Far::Release(start, size) => {
                    let released = list.release(start, size);
                    prop_assert_eq!(released.is_ok(), ranges.release(start, size), "{:?}", step);
                    if let Ok(hole) = released {
                        prop_assert!(ranges.0.contains(&(hole.start..hole.end())));
                    }
                }
                Far::Take(start, size) => {
                    prop_assert_eq!(list.take(start, size), ranges.take(start, size), "{:?}", step);
                }
                Far::Allocate(from, size, align) => {
                    let place = list.allocate_from(from, size, 1 << align);
                    prop_assert_eq!(place, ranges.allocate(from, size, 1 << align), "{:?}", step);
                }
            }
            list.check();
            let holes: Vec<_> = list.holes().map(|hole| hole.start..hole.end()).collect();
            prop_assert_eq!(&holes, &ranges.0, "{:?}", step);
            for range in &ranges.0 {
                for at in [range.start.wrapping_sub(1), range.start, range.end - 1, range.end] {
                    let found = list.hole_at(at).map(|hole| hole.start..hole.end());
                    prop_assert_eq!(found, ranges.0.iter().find(|range| range.contains(&at)).cloned());
                }
            }
        }
    }
}

#[test]
fn addresses_within_a_granule() {
    let mut list = FreeList::new(1001..2010);
    assert_eq!(list.holes().collect::<Vec<_>>(), [Hole { start: 1008, size: 992 }], "whole granules alone");
    assert!(!list.take(1009, 16));
    assert_eq!(list.allocate(1, 1), Some(1008));
    assert!(list.release(1009, 1).is_err());
    assert_eq!(list.hole_at(1023), None);
    assert_eq!(list.release(1008, 1), Ok(Hole { start: 1008, size: 992 }));
    assert!(FreeList::new(17..47).is_empty());
    list.check();
}

#[test]
#[cfg_attr(miri, ignore = "too long")]
fn a_million_steps_in_a_heap_that_stays_full() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let steps: Vec<_> = (0..1_000_000)
        .map(|_| match random(2) {
            0 => Step::Free(random(1 << 32) as usize),
            _ => Step::Allocate(random(400), if random(10) == 0 { random(10) as u32 } else { 4 }),
        })
        .collect();
    run(0..12_000, &steps, 100);
}

#[test]
fn holes_in_any_number() {
    const HOLES: u64 = if cfg!(miri) { 300 } else { 20_000 };
    let mut list = FreeList::new(0..HOLES * 32);
    while list.allocate(16, 16).is_some() {}
    assert!(list.is_empty());
    // In an order that is neither up nor down.
    for hole in 0..HOLES {
        list.release(hole * 7919 % HOLES * 32, 16).unwrap();
    }
    list.check();
    assert_eq!((list.len() as u64, list.largest()), (HOLES, 16));
    assert_eq!(list.allocate(17, 16), None);
    for hole in 0..HOLES {
        assert_eq!(list.allocate(1, 16), Some(hole * 32));
    }
    list.check();
    assert!(list.is_empty());
}

#[test]
fn what_is_free_cannot_be_freed() {
    let mut list = FreeList::new(0..1024);
    assert_eq!(list.release(0, 16), Err(NotTaken { range: (0, 16) }));
    assert_eq!(list.allocate(64, 16), Some(0));
    assert!(list.release(48, 32).is_err(), "half of it is in use");
    assert!(list.release(u64::MAX - 15, 32).is_err(), "no such addresses");
    assert!(list.release(0, u64::MAX).is_err());
    list.release(0, 64).unwrap();
    list.check();
}

#[test]
fn the_ends_of_the_addresses() {
    let mut list = FreeList::new(u64::MAX - 4095..u64::MAX);
    assert_eq!(list.allocate(u64::MAX, 16), None);
    assert_eq!(list.allocate(u64::MAX - 15, 16), None);
    assert_eq!(list.allocate(16, 1 << 63), None);
    assert!(list.allocate(1024, 4096).is_some());
    list.check();
    let mut list = FreeList::new(64..64);
    assert_eq!(list.allocate(0, 1), None);
    list.release(1024, 64).unwrap();
    assert_eq!(list.allocate(0, 1), Some(1024), "a list grows by what it is given");
}
