//! Pictures of a heap, as SVG: for `memfrag report --plots` and `--html`.
//!
//! | module | picture |
//! |---|---|
//! | `course` | resident and live bytes over time; what was requested in all |
//! | `pages` | how full the heap's addresses were over time |
//! | `sizes`, `lifetimes` | live blocks by thread and size; how long freed blocks lived |
//! | [`runs`] | replays over time, and by kind of mapping |
//! | `heatmap` | rows and columns of cells, by their share of the largest |
//! | `ink` | colours, in both themes |
//! | [`html`] | all of them in one page |
//! | [`png`] | any of them as pixels |

mod course;
mod heatmap;
pub mod html;
mod ink;
mod lifetimes;
mod pages;
pub mod png;
pub mod runs;
mod sizes;

use super::ReportBuilder;
use crate::analysis::strip::Strip;
use crate::heap::{Heap, Process};
use std::collections::BTreeMap;

/// Times at which the pages of the heaps are looked at.
const LOOKS: u64 = 160;
/// Processes that are drawn at most, those whose heaps were largest.
const MOST_DRAWN: usize = 4;
/// A process is drawn if its heap was not smaller than the largest by more than this factor.
const SMALLEST: u64 = 16;

/// A picture.
#[derive(Clone, Debug)]
pub struct Plot {
    /// A word for it, fit for a file's name.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// How to read it.
    pub words: String,
    /// An SVG document.
    pub svg: String,
}

/// What was drawn of a process.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The pictures, those first that say most.
    pub plots: Vec<Plot>,
}

/// Looks at the heaps while their events are taken, at times that are evenly spread.
#[derive(Clone, Debug)]
pub struct Looks {
    step: u64,
    next: u64,
    /// By the place of a process among all.
    strips: BTreeMap<usize, Strip>,
}

impl Looks {
    /// For a recording that goes on for so many nanoseconds.
    pub fn new(duration_ns: u64) -> Self {
        let step = duration_ns.div_ceil(LOOKS).max(1);
        Self { step, next: step, strips: BTreeMap::new() }
    }

    /// When the heaps are to be looked at next: with all events before that taken, and no others.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Time passes up to `time`, without an event since the last that the builder took: looks at the heaps for each of
    /// the times that have come.
    pub fn pass(&mut self, time: u64, builder: &ReportBuilder) {
        while self.next <= time {
            self.look(builder);
            self.next += self.step;
        }
    }

    fn look(&mut self, builder: &ReportBuilder) {
        let heaps = builder.heaps();
        let running = || heaps.processes().iter().enumerate().filter(|(_, process)| process.ended().is_none());
        let taken = |process: &Process| heaps.heap(process).pages().bytes();
        let largest = running().map(|(_, process)| taken(process)).max().unwrap_or(0);
        for (at, process) in running() {
            let own = !heaps.shares_heap(process);
            if own && (self.strips.contains_key(&at) || taken(process) >= (largest / SMALLEST).max(1)) {
                self.strips.entry(at).or_default().look(self.next, heaps.heap(process).pages());
            }
        }
    }
}

/// Draws the processes whose heaps were largest, at the state that the builder has come to, `now_ns` after the trace began.
pub fn draw(builder: &ReportBuilder, looks: &Looks, now_ns: u64) -> Vec<Drawn> {
    let heaps = builder.heaps();
    let peak = |process: &Process| heaps.heap(process).peak().live.bytes;
    let mut processes: Vec<(usize, &Process)> = heaps.processes().iter().enumerate().collect();
    processes.retain(|(_, process)| !heaps.shares_heap(process) && peak(process) > 0);
    processes.sort_by_key(|(_, process)| std::cmp::Reverse(peak(process)));
    let largest = processes.first().map_or(0, |(_, process)| peak(process));
    processes.retain(|(_, process)| peak(process) >= largest / SMALLEST);
    processes.truncate(MOST_DRAWN);
    let draw = |&(at, process): &(usize, &Process)| Drawn {
        pid: process.pid(),
        comm: process.info().map_or_else(String::new, |info| info.comm.clone()),
        plots: of(heaps.heap(process), looks.strips.get(&at), now_ns),
    };
    processes.iter().map(draw).collect()
}

fn of(heap: &Heap, strip: Option<&Strip>, now_ns: u64) -> Vec<Plot> {
    let plots = [
        course::memory(heap, now_ns),
        strip.and_then(pages::draw),
        course::requested(heap, now_ns),
        sizes::draw(heap),
        lifetimes::draw(heap),
    ];
    plots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
