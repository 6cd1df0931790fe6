//! The modes whose cells come from the pages: what is summed up for a cell, and which value that makes.

use super::cells::Cells;
use super::scene::{Scene, Segment, Table, heat_then, is_set, table_pages};
use crate::heap::{PageActivity, Record, Tick};
use crate::target::residency::PAGE;
use std::ops::Range;

/// A mode of pages.
///
/// What is the same for many pages, by blocks that fill them and by runs of resident pages, comes from
/// [`Self::stretches`]; the other pages come from their tables. The sum of a table stays right as time passes.
pub(super) trait Measure {
    /// What is summed up for a cell.
    type Sum: Copy + Default + std::fmt::Debug;

    /// Adds what does not come from tables.
    fn stretches(scene: &Scene<'_>, cells: &mut Cells<'_, Self::Sum>);

    /// Adds the pages of a table, those aside that [`Self::stretches`] has added.
    fn table(scene: &Scene<'_>, table: &Table<'_>, cells: &mut Cells<'_, Self::Sum>);

    /// Adds the sum of a part, which may have been made at an earlier moment.
    fn join(sum: &mut Self::Sum, part: &Self::Sum);

    /// The value of a cell of so many bytes, and when it changes without an event, where time alone does not change
    /// it steadily.
    fn value(scene: &Scene<'_>, sum: &Self::Sum, bytes: u64) -> (u8, Option<Tick>);
}

fn addresses(pages: &Range<u64>) -> Range<u64> {
    pages.start * PAGE..pages.end * PAGE
}

/// `whole` · `part` / `all`, rounded down, and at most `whole`.
pub(in crate::server) fn share(whole: u64, part: u64, all: u64) -> u8 {
    (u128::from(whole) * u128::from(part.min(all)) / u128::from(all)) as u8
}

/// The value of a heat.
#[expect(clippy::cast_sign_loss, reason = "heats are not negative, and the conversion stops at 255")]
pub(super) fn heat_value(heat: f32) -> u8 {
    (1.0 + 31.75 * (1.0 + heat).log2()) as u8
}

/// The value of an age in milliseconds.
#[expect(clippy::cast_sign_loss, reason = "ages are not negative, and the conversion stops at 255")]
pub(super) fn age_value(ms: u64) -> u8 {
    (1.0 + 8.0 * (1.0 + ms as f32).log2()) as u8
}

/// The pages of a table with what is known of each, those aside that blocks fill together with many others.
fn each_page(scene: &Scene<'_>, table: &Table<'_>, mut visit: impl FnMut(usize, &Record, &PageActivity)) {
    const NOTHING: (&Record, &PageActivity) = (&Record { bytes: 0, blocks: 0 }, &PageActivity::NONE);
    let filled = scene.filled_bits(table.number);
    let mut page = |at: usize, record, activity| {
        if !is_set(&filled, at) {
            visit(at, record, activity);
        }
    };
    match (table.records, table.activity) {
        (Some(records), Some(activities)) => {
            records.iter().zip(activities).enumerate().for_each(|(at, (record, activity))| page(at, record, activity));
        }
        (Some(records), None) => {
            records.iter().enumerate().for_each(|(at, record)| page(at, record, NOTHING.1));
        }
        (None, Some(activities)) => {
            activities.iter().enumerate().for_each(|(at, activity)| page(at, NOTHING.0, activity));
        }
        (None, None) => {}
    }
}

/// The segments over a table, page by page upwards.
struct Over<'a> {
    segments: Vec<(Range<u64>, &'a Segment)>,
    next: usize,
}

impl<'a> Over<'a> {
    fn new(scene: &'a Scene<'_>, table: u64) -> Self {
        Self { segments: scene.segments(&table_pages(table)).collect(), next: 0 }
    }

    #[inline]
    fn at(&mut self, page: u64) -> Option<&'a Segment> {
        while self.segments.get(self.next)?.0.end <= page {
            self.next += 1;
        }
        let (pages, segment) = &self.segments[self.next];
        pages.contains(&page).then_some(*segment)
    }
}

/// Mode `occupancy`.
#[derive(Debug)]
pub(super) struct Occupancy;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OccupancySum {
    live: u64,
    freed: Tick,
    used: bool,
    resident: bool,
}

impl Measure for Occupancy {
    type Sum = OccupancySum;

    fn stretches(scene: &Scene<'_>, cells: &mut Cells<'_, OccupancySum>) {
        let bytes = cells.bytes();
        let pages = bytes.start / PAGE..bytes.end / PAGE;
        for run in scene.resident(bytes) {
            cells.spread(run, |sum, _| sum.resident = true);
        }
        for filled in scene.filled(&pages) {
            cells.spread(addresses(&filled), |sum, bytes| {
                sum.live += bytes;
                sum.used = true;
            });
        }
        for (pages, segment) in scene.segments(&pages) {
            if segment.live || !scene.is_just_freed(segment.freed) {
                continue;
            }
            let mut free = |range| cells.spread(range, |sum, _| sum.freed = sum.freed.max(segment.freed));
            if scene.is_unseen(segment.freed) {
                free(addresses(&pages));
            } else {
                scene.resident(addresses(&pages)).for_each(free);
            }
        }
    }

    fn table(scene: &Scene<'_>, table: &Table<'_>, cells: &mut Cells<'_, OccupancySum>) {
        let first = table_pages(table.number).start;
        let resident = scene.resident_bits(table.number);
        each_page(scene, table, |at, record, activity| {
            if record.blocks > 0 {
                if let Some(sum) = cells.at((first + at as u64) * PAGE) {
                    sum.live += u64::from(record.bytes).min(PAGE);
                    sum.used = true;
                }
            } else if scene.is_just_freed(activity.freed)
                && (is_set(&resident, at) || scene.is_unseen(activity.freed))
                && let Some(sum) = cells.at((first + at as u64) * PAGE)
            {
                sum.freed = sum.freed.max(activity.freed);
            }
        });
    }

    fn join(sum: &mut OccupancySum, part: &OccupancySum) {
        sum.live += part.live;
        sum.freed = sum.freed.max(part.freed);
        sum.used |= part.used;
        sum.resident |= part.resident;
    }

    fn value(scene: &Scene<'_>, sum: &OccupancySum, bytes: u64) -> (u8, Option<Tick>) {
        if sum.used {
            (3 + share(252, sum.live, bytes), None)
        } else if scene.is_just_freed(sum.freed) {
            (2, Some(Scene::settles(sum.freed)))
        } else {
            (u8::from(sum.resident), None)
        }
    }
}

/// Mode `heat`.
#[derive(Debug)]
pub(super) struct Heat;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeatSum {
    heat: f32,
    at: Tick,
    used: bool,
}

impl HeatSum {
    fn hottest(&mut self, heat: f32, at: Tick) {
        // All cool at the same rate, so which one is hottest does not depend on when they are compared.
        let then = self.at.max(at);
        self.heat = heat_then(self.heat, self.at, then).max(heat_then(heat, at, then));
        self.at = then;
        self.used = true;
    }
}

impl Measure for Heat {
    type Sum = HeatSum;

    fn stretches(scene: &Scene<'_>, cells: &mut Cells<'_, HeatSum>) {
        let bytes = cells.bytes();
        let pages = bytes.start / PAGE..bytes.end / PAGE;
        for filled in scene.filled(&pages) {
            cells.spread(addresses(&filled), |sum, _| sum.used = true);
        }
        for (pages, segment) in scene.segments(&pages) {
            cells.spread(addresses(&pages), |sum, _| sum.hottest(segment.heat, scene.now));
        }
    }

    fn table(scene: &Scene<'_>, table: &Table<'_>, cells: &mut Cells<'_, HeatSum>) {
        let first = table_pages(table.number).start;
        let mut over = Over::new(scene, table.number);
        // Pages that a block fills have a heat of their own as well, from the small blocks that lay there before.
        let nothing = Record::default();
        for at in 0..crate::heap::TABLE_PAGES {
            let page = first + at as u64;
            let record = table.records.map_or(&nothing, |records| &records[at]);
            let activity = table.activity.map_or(&PageActivity::NONE, |activities| &activities[at]);
            if record.blocks == 0 && !activity.is_noted() {
                continue;
            }
            if let Some(sum) = cells.at(page * PAGE) {
                let of_segment = over.at(page).map_or(0.0, |segment| segment.heat);
                sum.hottest(activity.heat(scene.now) + of_segment, scene.now);
            }
        }
    }

    fn join(sum: &mut HeatSum, part: &HeatSum) {
        if part.used {
            sum.hottest(part.heat, part.at);
        }
    }

    fn value(scene: &Scene<'_>, sum: &HeatSum, _: u64) -> (u8, Option<Tick>) {
        (if sum.used { heat_value(heat_then(sum.heat, sum.at, scene.now)) } else { 0 }, None)
    }
}

/// Mode `age`.
#[derive(Debug)]
pub(super) struct Age;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AgeSum {
    allocated: Tick,
    used: bool,
}

impl Measure for Age {
    type Sum = AgeSum;

    fn stretches(scene: &Scene<'_>, cells: &mut Cells<'_, AgeSum>) {
        let bytes = cells.bytes();
        let pages = bytes.start / PAGE..bytes.end / PAGE;
        for filled in scene.filled(&pages) {
            cells.spread(addresses(&filled), |sum, _| sum.used = true);
        }
        for (pages, segment) in scene.segments(&pages).filter(|(_, segment)| segment.live) {
            cells.spread(addresses(&pages), |sum, _| sum.allocated = sum.allocated.max(segment.allocated));
        }
    }

    fn table(scene: &Scene<'_>, table: &Table<'_>, cells: &mut Cells<'_, AgeSum>) {
        let first = table_pages(table.number).start;
        let mut over = Over::new(scene, table.number);
        let filled = scene.filled_bits(table.number);
        let nothing = Record::default();
        for at in 0..crate::heap::TABLE_PAGES {
            let record = table.records.map_or(&nothing, |records| &records[at]);
            if record.blocks == 0 && !is_set(&filled, at) {
                continue;
            }
            let page = first + at as u64;
            if let Some(sum) = cells.at(page * PAGE) {
                let own = table.activity.map_or(Tick::NEVER, |activities| activities[at].allocated);
                let of_segment = over.at(page).map_or(Tick::NEVER, |segment| segment.allocated);
                sum.allocated = sum.allocated.max(own).max(of_segment);
                sum.used = true;
            }
        }
    }

    fn join(sum: &mut AgeSum, part: &AgeSum) {
        sum.allocated = sum.allocated.max(part.allocated);
        sum.used |= part.used;
    }

    fn value(scene: &Scene<'_>, sum: &AgeSum, _: u64) -> (u8, Option<Tick>) {
        (if sum.used { age_value(u64::from(sum.allocated.until(scene.now))) } else { 0 }, None)
    }
}

/// Mode `resident`.
#[derive(Debug)]
pub(super) struct Resident;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResidentSum {
    resident: u64,
    live: u64,
}

impl Measure for Resident {
    type Sum = ResidentSum;

    fn stretches(scene: &Scene<'_>, cells: &mut Cells<'_, ResidentSum>) {
        let bytes = cells.bytes();
        let pages = bytes.start / PAGE..bytes.end / PAGE;
        for run in scene.resident(bytes) {
            cells.spread(run, |sum, bytes| sum.resident += bytes);
        }
        for filled in scene.filled(&pages) {
            for run in scene.resident(addresses(&filled)) {
                cells.spread(run, |sum, bytes| sum.live += bytes);
            }
        }
    }

    fn table(scene: &Scene<'_>, table: &Table<'_>, cells: &mut Cells<'_, ResidentSum>) {
        let first = table_pages(table.number).start;
        let resident = scene.resident_bits(table.number);
        each_page(scene, table, |at, record, _| {
            if record.blocks > 0
                && is_set(&resident, at)
                && let Some(sum) = cells.at((first + at as u64) * PAGE)
            {
                sum.live += u64::from(record.bytes).min(PAGE);
            }
        });
    }

    fn join(sum: &mut ResidentSum, part: &ResidentSum) {
        sum.resident += part.resident;
        sum.live += part.live;
    }

    fn value(_: &Scene<'_>, sum: &ResidentSum, _: u64) -> (u8, Option<Tick>) {
        let free = sum.resident.saturating_sub(sum.live);
        (if sum.resident == 0 { 0 } else { 1 + share(254, free, sum.resident) }, None)
    }
}
