//! A naive second implementation of the map: each cell by looking at every block, every page and every event.

use crate::heap::{Footprint, Heap, Heaps, size_class};
use crate::server::tiles::{Class, Level, Mode, TILE_CELLS};
use crate::target::ProcessInfo;
use crate::target::residency::{PAGE, Region, RegionKind, Residency};
use memfrag_common::{Event, Function, Op};
use std::collections::BTreeMap;
use std::ops::Range;

pub(super) const MS: u64 = 1_000_000;

/// A block as the oracle knows it.
#[derive(Clone, Copy, Debug)]
struct Known {
    size: u64,
    time: u64,
    tid: u32,
    site: u64,
}

/// A heap, and a list of all that happened to it since it was watched.
#[derive(Debug)]
pub(super) struct World {
    pub(super) heaps: Heaps,
    footprint: Footprint,
    live: BTreeMap<u64, Known>,
    /// What happened: when, where, and whether a block came.
    log: Vec<(u64, Range<u64>, bool)>,
    /// The resident pages, and when they were looked at.
    look: Option<(u64, Vec<Range<u64>>)>,
    pub(super) now: u64,
}

impl World {
    pub(super) fn new(footprint: Footprint) -> Self {
        let mut heaps = Heaps::default();
        heaps.learn(&ProcessInfo { pid: 1, ..ProcessInfo::default() });
        heaps.set_footprint(0, footprint);
        heaps.watch(0);
        Self { heaps, footprint, live: BTreeMap::new(), log: Vec::new(), look: None, now: 0 }
    }

    pub(super) fn heap(&self) -> &Heap {
        self.heaps.heap(&self.heaps.processes()[0])
    }

    pub(super) fn alloc(&mut self, addr: u64, size: u64, tid: u32, caller: u64) {
        let taken = self.footprint.of(addr, size);
        let overlaps = |(&other, known): (&u64, &Known)| {
            let other = self.footprint.of(other, known.size);
            other.start < taken.end && taken.start < other.end
        };
        if taken.is_empty() || self.live.iter().any(overlaps) {
            return;
        }
        let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: caller, stack: 0 };
        self.heaps.apply(&Event { time: self.now, pid: 1, tid, op });
        self.live.insert(addr, Known { size, time: self.now, tid, site: caller });
        self.log.push((self.now, taken, true));
    }

    pub(super) fn free(&mut self, which: usize) {
        let Some((&addr, &known)) = self.live.iter().nth(which % self.live.len().max(1)) else { return };
        let op = Op::Free { function: Function::Free, addr, size: 0, site: 0 };
        self.heaps.apply(&Event { time: self.now, pid: 1, tid: 1, op });
        self.live.remove(&addr);
        self.log.push((self.now, self.footprint.of(addr, known.size), false));
    }

    /// Somebody looks which pages are resident.
    pub(super) fn look(&mut self, mut runs: Vec<Range<u64>>) {
        runs.sort_unstable_by_key(|run| run.start);
        self.look = Some((self.now, runs));
    }

    pub(super) fn residency(&self) -> Option<Residency> {
        let (time, runs) = self.look.as_ref()?;
        let regions = runs.iter().map(|run| Region {
            range: run.clone(),
            kind: RegionKind::Anonymous,
            resident_bytes: run.end - run.start,
            swapped_bytes: 0,
            resident: vec![run.clone()],
        });
        Some(Residency { time: *time, pid: 1, regions: regions.collect() })
    }

    fn blocks(&self) -> impl Iterator<Item = (Range<u64>, &Known)> {
        self.live.iter().map(|(&addr, known)| (self.footprint.of(addr, known.size), known))
    }

    fn is_resident(&self, page: u64) -> bool {
        let runs = self.look.as_ref().map_or(&[][..], |look| &look.1);
        runs.iter().any(|run| run.contains(&(page * PAGE)))
    }

    /// The pages of a range on which anything could be: all others are alike, and empty.
    fn pages(&self, range: &Range<u64>) -> Vec<u64> {
        let of_log = self.log.iter().map(|entry| &entry.1);
        let of_look = self.look.iter().flat_map(|look| &look.1);
        let mut pages: Vec<u64> = of_log
            .chain(of_look)
            .map(|of| of.start.max(range.start)..of.end.min(range.end))
            .filter(|of| of.start < of.end)
            .flat_map(|of| of.start / PAGE..(of.end - 1) / PAGE + 1)
            .collect();
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    fn live_on(&self, page: u64) -> u64 {
        let bytes = page * PAGE..(page + 1) * PAGE;
        self.blocks().map(|(taken, _)| overlap(&taken, &bytes)).sum()
    }

    /// What was noted of a page: its heat, its last allocation, and when it was last freed to empty.
    fn noted(&self, page: u64) -> Option<(f64, u64, Option<u64>)> {
        let bytes = page * PAGE..(page + 1) * PAGE;
        let (mut heat, mut allocated, mut freed, mut blocks) = (0.0, 0, None, 0);
        for (time, _, adds) in self.log.iter().filter(|entry| overlap(&entry.1, &bytes) > 0) {
            heat += 0.5_f64.powf((tick(self.now) - tick(*time)) as f64 / 4000.0);
            if *adds {
                blocks += 1;
                allocated = *time;
            } else {
                blocks -= 1;
                if blocks == 0 {
                    freed = Some(*time);
                }
            }
        }
        (heat > 0.0).then_some((heat, allocated, freed))
    }

    fn is_just_freed(&self, page: u64) -> bool {
        let Some((_, _, Some(freed))) = self.noted(page) else { return false };
        let unseen = self.look.as_ref().is_none_or(|(time, _)| tick(freed) > tick(*time));
        self.live_on(page) == 0 && tick(self.now) - tick(freed) <= 1000 && (unseen || self.is_resident(page))
    }

    /// The values that a cell may have: one, but for what floating point rounds one way or the other.
    pub(super) fn cell(&self, mode: Mode, level: Level, cell: u64, palette: &BTreeMap<Class, u8>) -> Range<u64> {
        let bytes = cell << level.cell_bits()..(cell + 1) << level.cell_bits();
        let of_pages = level.number() >= 0;
        let page = bytes.start / PAGE;
        let pages = if of_pages { self.pages(&bytes) } else { vec![page] };
        let here: Vec<(u64, &Known)> =
            self.blocks().map(|(taken, known)| (overlap(&taken, &bytes), known)).filter(|part| part.0 > 0).collect();
        let exactly = |value: u64| value..value + 1;
        let floor = |value: f64| (1..=255_u64).take_while(|&least| least as f64 <= value).count().max(1) as u64;
        let about = |value: f64| floor(value - 1e-3)..floor(value + 1e-3) + 1;
        match mode {
            Mode::Occupancy if !here.is_empty() => {
                let live: u64 = here.iter().map(|part| part.0).sum();
                exactly(3 + 252 * live / level.cell_bytes())
            }
            Mode::Occupancy if pages.iter().any(|&page| self.is_just_freed(page)) => exactly(2),
            Mode::Occupancy => exactly(u64::from(pages.iter().any(|&page| self.is_resident(page)))),
            Mode::Heat => {
                let heats = pages.iter().filter_map(|&page| self.noted(page)).map(|noted| noted.0);
                heats.reduce(f64::max).map_or(exactly(0), |heat| about(1.0 + 31.75 * (1.0 + heat).log2()))
            }
            Mode::Age if here.is_empty() => exactly(0),
            Mode::Age => {
                let ms = if of_pages {
                    let used = pages.iter().filter(|&&page| self.live_on(page) > 0);
                    let newest = used.filter_map(|&page| self.noted(page)).map(|noted| noted.1).max().unwrap_or(0);
                    tick(self.now) - tick(newest)
                } else {
                    (self.now - here.iter().map(|part| part.1.time).max().unwrap_or(0)) / MS
                };
                about(1.0 + 8.0 * (1.0 + ms as f64).log2())
            }
            Mode::Resident => {
                let resident: Vec<u64> = pages.into_iter().filter(|&page| self.is_resident(page)).collect();
                let free: u64 = resident.iter().map(|&page| PAGE - self.live_on(page)).sum();
                exactly(if resident.is_empty() { 0 } else { 1 + 254 * free / (PAGE * resident.len() as u64) })
            }
            Mode::Site | Mode::Thread | Mode::Size => {
                let mut sums: BTreeMap<u8, u64> = BTreeMap::new();
                for (bytes, known) in here {
                    let class = match mode {
                        Mode::Site => Class::Site(known.site),
                        Mode::Thread => Class::Thread(known.tid),
                        _ => Class::Size(size_class(known.size)),
                    };
                    *sums.entry(palette.get(&class).copied().unwrap_or(1)).or_default() += bytes;
                }
                let most = sums.into_iter().rev().max_by_key(|sum| sum.1);
                exactly(most.map_or(0, |most| u64::from(most.0)))
            }
        }
    }

    /// Compares a tile with what it should be.
    pub(super) fn check(&self, mode: Mode, level: Level, tile: u64, cells: &[u8], palette: &BTreeMap<Class, u8>) {
        let first = tile * TILE_CELLS as u64;
        let mut is_empty = [true; TILE_CELLS];
        for of in self.log.iter().map(|entry| &entry.1).chain(self.look.iter().flat_map(|look| &look.1)) {
            let pages = of.start / PAGE * PAGE..of.end.div_ceil(PAGE) * PAGE;
            let start = (pages.start >> level.cell_bits()).max(first);
            let end = (((pages.end - 1) >> level.cell_bits()) + 1).min(first + TILE_CELLS as u64);
            if start < end {
                is_empty[(start - first) as usize..(end - first) as usize].fill(false);
            }
        }
        let mut last = None;
        for (cell, &value) in (first..).zip(cells) {
            if is_empty[(cell - first) as usize] {
                assert_eq!(value, 0, "{mode:?} {level:?}: cell {cell:#x} is empty");
                continue;
            }
            let expected = self.cell(mode, level, cell, palette);
            assert!(
                expected.contains(&u64::from(value)),
                "{mode:?} {level:?}: cell {cell:#x} is {value}, not {expected:?} (the one before {last:?})"
            );
            last = Some(value);
        }
    }
}

fn tick(time: u64) -> u64 {
    time / MS
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}
