//! Meshing, as Mesh does it (Powers and others, 2019): spans of one size class with their blocks at random places; spans
//! whose blocks do not collide come to share their memory, and keep their addresses.
//!
//! Spans are looked through at most every tenth of a second, and of a class only once an eighth of its spans has seen a
//! free since.

use super::driven::{Free, Place, Placer};
use super::extents::Extents;
use super::slabs::class_of;
use crate::analysis::metrics::mesh::{Span as Bits, Spans};
use crate::model::policy::Caller;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Classes in a doubling.
const STEPS: u64 = 4;
/// The largest request that lies in a span.
const SMALL: u64 = 16 << 10;
/// The fewest places of a span; the most are 256.
const LEAST_PLACES: u64 = 8;
const MOST_PLACES: u64 = 256;
const PAGE: u64 = 4096;
/// Time from one meshing to the next.
const PERIOD_NS: u64 = 100_000_000;

/// Memory that is divided into places of one size, and the addresses under which it is seen.
#[derive(Clone, Debug)]
struct Span {
    class: usize,
    size: u64,
    bytes: u64,
    places: u64,
    used: u64,
    bits: Bits,
    starts: Vec<u64>,
    /// Where it stands among those of its class that have a free place.
    open_at: Option<usize>,
}

/// A size class.
#[derive(Clone, Debug, Default)]
struct Class {
    /// Spans with a free place, in no order.
    open: Vec<usize>,
    /// The one from which places are taken.
    current: Option<usize>,
    spans: usize,
    freed: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Mesh {
    extents: Extents,
    /// Spans by number; the numbers of those that are gone are used again.
    spans: Vec<Span>,
    unused: Vec<usize>,
    by_start: BTreeMap<u64, usize>,
    classes: Vec<Class>,
    /// Bytes of addresses that have no memory of their own.
    shared: u64,
    /// Free places by their size.
    free: HashMap<u64, u64>,
    meshed: u64,
    random: u64,
}

impl Mesh {
    pub(super) fn new() -> Self {
        Self {
            extents: Extents::new(0),
            spans: Vec::new(),
            unused: Vec::new(),
            by_start: BTreeMap::new(),
            classes: Vec::new(),
            shared: 0,
            free: HashMap::new(),
            meshed: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// The class of a size, and bytes of a place and of a span.
    fn class(size: u64, align: u64) -> Option<(usize, u64, u64)> {
        let wanted = if align <= 16 { size } else { size.max(align).checked_next_power_of_two()? };
        if wanted > SMALL || align > PAGE {
            return None;
        }
        let (class, size) = class_of(wanted, STEPS);
        Some((class, size, (size * LEAST_PLACES).next_multiple_of(PAGE)))
    }

    /// A number below `limit`; the same ones in every run.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(limit)) >> 64) as u64
    }

    /// The span from which the next place of a class is taken.
    fn open_span(&mut self, time: u64, class: usize, size: u64, bytes: u64) -> Option<usize> {
        if self.classes.len() <= class {
            self.classes.resize(class + 1, Class::default());
        }
        if let Some(current) = self.classes[class].current {
            return Some(current);
        }
        let others = self.classes[class].open.len() as u64;
        let span = if others > 0 {
            let at = self.below(others) as usize;
            self.classes[class].open[at]
        } else {
            let start = self.extents.take(time, bytes, PAGE)?;
            let places = (bytes / size).min(MOST_PLACES);
            let span =
                Span { class, size, bytes, places, used: 0, bits: Bits::default(), starts: vec![start], open_at: None };
            *self.free.entry(size).or_default() += places;
            let number = self.unused.pop().unwrap_or(self.spans.len());
            if number == self.spans.len() {
                self.spans.push(span);
            } else {
                self.spans[number] = span;
            }
            self.by_start.insert(start, number);
            self.classes[class].spans += 1;
            self.open(number);
            number
        };
        self.classes[class].current = Some(span);
        Some(span)
    }

    fn open(&mut self, number: usize) {
        let class = &mut self.classes[self.spans[number].class];
        self.spans[number].open_at = Some(class.open.len());
        class.open.push(number);
    }

    fn close(&mut self, number: usize) {
        let class = &mut self.classes[self.spans[number].class];
        class.current.take_if(|current| *current == number);
        let Some(at) = self.spans[number].open_at.take() else { return };
        class.open.swap_remove(at);
        if let Some(&moved) = class.open.get(at) {
            self.spans[moved].open_at = Some(at);
        }
    }

    /// A span without blocks goes, with all its addresses.
    fn end(&mut self, time: u64, number: usize) {
        self.close(number);
        let span = &mut self.spans[number];
        let starts = std::mem::take(&mut span.starts);
        self.shared -= span.bytes * (starts.len() as u64 - 1);
        for start in starts {
            self.by_start.remove(&start);
            self.extents.release(time, start, span.bytes);
        }
        self.classes[span.class].spans -= 1;
        self.count(number, |free, places| free - places);
        self.unused.push(number);
    }

    /// Enters a change of the free places of a span's size: of so many, or all of the span.
    fn count(&mut self, number: usize, change: impl Fn(u64, u64) -> u64) {
        let Span { size, places, .. } = self.spans[number];
        let free = self.free.entry(size).or_default();
        *free = change(*free, places);
        if *free == 0 {
            self.free.remove(&size);
        }
    }

    /// Lets spans share memory that can, where enough has been freed.
    fn mesh(&mut self, time: u64) {
        self.meshed = time;
        for class in 0..self.classes.len() {
            let known = &mut self.classes[class];
            if known.freed * 8 < known.spans || known.open.len() < 2 {
                continue;
            }
            known.freed = 0;
            let open = known.open.clone();
            let bits: Vec<Bits> = open.iter().map(|&number| self.spans[number].bits).collect();
            let pairs = Spans::from(bits).pairs();
            for (one, other) in pairs {
                self.join(open[one as usize], open[other as usize]);
            }
        }
    }

    /// Two spans share memory from now on.
    fn join(&mut self, kept: usize, other: usize) {
        let (more, bits, used) =
            (std::mem::take(&mut self.spans[other].starts), self.spans[other].bits, self.spans[other].used);
        self.close(other);
        for &start in &more {
            self.by_start.insert(start, kept);
        }
        self.shared += self.spans[other].bytes;
        self.classes[self.spans[other].class].spans -= 1;
        // The places of both were there, and only those of one are.
        self.count(other, |free, places| free - places);
        self.unused.push(other);
        let span = &mut self.spans[kept];
        span.starts.extend(more);
        span.bits.iter_mut().zip(bits).for_each(|(word, more)| *word |= more);
        span.used += used;
        if span.used == span.places {
            self.close(kept);
        }
    }
}

impl Placer for Mesh {
    fn place(&mut self, caller: &Caller, size: u64, align: u64) -> Option<Place> {
        let Some((class, taken, bytes)) = Self::class(size, align) else {
            let taken = Extents::rounded(size)?;
            let start = self.extents.take(caller.time, taken, align)?;
            return Some(Place { start, taken });
        };
        let number = self.open_span(caller.time, class, taken, bytes)?;
        let nth = self.below(self.spans[number].places - self.spans[number].used);
        let span = &mut self.spans[number];
        let is_free = |place: &u64| span.bits[(place / 64) as usize] >> (place % 64) & 1 == 0;
        let place = (0..span.places).filter(is_free).nth(nth as usize)?;
        span.bits[(place / 64) as usize] |= 1 << (place % 64);
        span.used += 1;
        let start = span.starts[0] + place * taken;
        if span.used == span.places {
            self.close(number);
        }
        self.count(number, |free, _| free - 1);
        Some(Place { start, taken })
    }

    fn release(&mut self, caller: &Caller, place: Place) {
        let found = self.by_start.range(..=place.start).next_back().map(|(&start, &number)| (start, number));
        let Some((start, number)) = found.filter(|&(start, number)| place.start < start + self.spans[number].bytes)
        else {
            self.extents.release(caller.time, place.start, place.taken);
            return;
        };
        let span = &mut self.spans[number];
        let at = (place.start - start) / span.size;
        span.bits[(at / 64) as usize] &= !(1 << (at % 64));
        span.used -= 1;
        let (class, is_empty, was_full) = (span.class, span.used == 0, span.open_at.is_none());
        self.classes[class].freed += 1;
        self.count(number, |free, _| free + 1);
        if is_empty {
            self.end(caller.time, number);
        } else if was_full {
            self.open(number);
        }
        if caller.time.saturating_sub(self.meshed) >= PERIOD_NS {
            self.mesh(caller.time);
        }
    }

    fn resize(&mut self, place: Place, size: u64) -> Option<u64> {
        let taken = match Self::class(size, 16) {
            Some((_, size, _)) => size,
            None => Extents::rounded(size)?,
        };
        (taken == place.taken).then_some(taken)
    }

    fn held(&self) -> u64 {
        self.extents.held() - self.shared
    }

    fn free(&self) -> Free {
        Free {
            bytes: self.free.iter().map(|(size, places)| size * places).sum(),
            holes: self.free.values().sum(),
            largest: self.free.keys().copied().max().unwrap_or(0),
        }
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        self.extents.ranges()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Fills spans, frees all but every 16th block, and waits for the next meshing.
    fn thinned(mesh: &mut Mesh) -> Vec<Place> {
        let now = Caller::default();
        let places: Vec<Place> = (0..64 * 256).filter_map(|_| mesh.place(&now, 16, 16)).collect();
        assert_eq!(mesh.held(), 64 * PAGE);
        let later = Caller { time: PERIOD_NS, ..now };
        let (kept, freed): (Vec<_>, Vec<_>) = places.into_iter().enumerate().partition(|(number, _)| number % 16 == 0);
        let kept: Vec<Place> = kept.into_iter().map(|(_, place)| place).collect();
        for (_, place) in freed {
            mesh.release(&now, place);
        }
        // The last free comes later, and finds that it is time.
        let last = mesh.place(&later, 16, 16).expect("there is room");
        mesh.release(&later, last);
        kept
    }

    #[test]
    fn spans_with_few_blocks_share_memory_and_keep_their_addresses() {
        let mut mesh = Mesh::new();
        let kept = thinned(&mut mesh);
        // 16 blocks in each of 64 spans of 256 places: two of them mesh in a third of all tries.
        assert!(mesh.held() <= 40 * PAGE, "{} pages", mesh.held() / PAGE);
        let mut memory = HashSet::new();
        for place in &kept {
            let (&start, &number) = mesh.by_start.range(..=place.start).next_back().expect("in a span");
            let at = (place.start - start) / 16;
            assert!(memory.insert((number, at)), "two blocks in one place");
            assert!(mesh.spans[number].bits[(at / 64) as usize] >> (at % 64) & 1 == 1);
        }
        let later = Caller { time: PERIOD_NS, ..Caller::default() };
        for place in kept {
            mesh.release(&later, place);
        }
        assert_eq!((mesh.held(), mesh.free()), (0, Free::default()));
    }

    #[test]
    fn nothing_is_meshed_before_its_time() {
        let mut mesh = Mesh::new();
        let now = Caller { time: PERIOD_NS - 1, ..Caller::default() };
        let places: Vec<Place> = (0..1024).filter_map(|_| mesh.place(&now, 16, 16)).collect();
        places.iter().skip(1).step_by(2).for_each(|place| mesh.release(&now, *place));
        assert_eq!(mesh.held(), 4 * PAGE);
    }
}
