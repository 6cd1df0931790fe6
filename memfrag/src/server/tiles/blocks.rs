//! Draws the cells that come from the blocks themselves: those below level 0, and those that name classes.

use super::cells::Cells;
use super::kept::Kept;
use super::measure::{Measure, Occupancy, age_value, share};
use super::mode::{Level, Mode};
use super::pages;
use super::palette::{OTHER, Values};
use super::scene::{Scene, table_pages};
use super::sweep::sweep;
use crate::heap::{Block, Tick};
use crate::target::residency::PAGE;
use std::ops::Range;

/// The blocks of which a part lies in a range, with the memory that they take, upwards.
fn blocks_in(scene: &Scene<'_>, range: &Range<u64>) -> Vec<(Range<u64>, Block)> {
    let footprint = scene.heap.pages().footprint();
    let small = scene.heap.small_overlapping(range.clone());
    let mut found: Vec<_> = small.map(|block| (footprint.of(block.addr, block.size), block)).collect();
    found.extend(scene.large(range).cloned());
    // Two or three sorted runs.
    found.sort_by_key(|(taken, _)| taken.start);
    found
}

/// Draws cells of a level below 0.
pub(super) fn draw_fine(
    scene: &Scene<'_>,
    mode: Mode,
    level: Level,
    cells: Range<u64>,
    values: &Values,
    out: &mut [u8],
) -> Option<Tick> {
    let bytes = level.bytes(&cells);
    let found = blocks_in(scene, &bytes);
    let place = |run: Range<u64>| (run.start - cells.start) as usize..(run.end - cells.start) as usize;
    out.fill(0);
    match mode {
        Mode::Occupancy => {
            let until = draw_empty(scene, level, &cells, out);
            sweep(&found, cells.clone(), level.cell_bits(), |run, parts| {
                let live = parts.iter().map(|part| part.0).sum();
                out[place(run)].fill(3 + share(252, live, level.cell_bytes()));
            });
            until
        }
        Mode::Age => {
            sweep(&found, cells.clone(), level.cell_bits(), |run, parts| {
                let newest = parts.iter().map(|part| part.1.time).max().unwrap_or(0);
                out[place(run)].fill(age_value(scene.time.saturating_sub(newest) / 1_000_000));
            });
            None
        }
        Mode::Site | Mode::Thread | Mode::Size => {
            let found: Vec<_> = found.into_iter().map(|(taken, block)| (taken, values.of(&block))).collect();
            let mut sums = Sums::default();
            sweep(&found, cells.clone(), level.cell_bits(), |run, parts| {
                out[place(run)].fill(sums.most(parts.iter().copied()));
            });
            None
        }
        Mode::Heat | Mode::Resident => None,
    }
}

/// Gives the cells of pages without a block the value of the page, and those of resident pages with blocks what they are
/// where none of these lies.
fn draw_empty(scene: &Scene<'_>, level: Level, cells: &Range<u64>, out: &mut [u8]) -> Option<Tick> {
    let each = PAGE / level.cell_bytes();
    let first = cells.start / each;
    let pages = first..cells.end.div_ceil(each);
    let zero = Level::new(0)?;
    let mut of_pages = vec![0; (pages.end - pages.start) as usize];
    let until = pages::draw::<Occupancy>(scene, zero, pages.clone(), &Kept::default(), &mut of_pages);
    let mut resident = vec![false; of_pages.len()];
    let mut at = Cells::new(first, zero.cell_bits(), &mut resident);
    for run in scene.resident(zero.bytes(&pages)) {
        at.spread(run, |resident, _| *resident = true);
    }
    for (cell, out) in cells.clone().zip(out) {
        let page = (cell / each - first) as usize;
        *out = if of_pages[page] > 2 { u8::from(resident[page]) } else { of_pages[page] };
    }
    until
}

/// Gives cells below level 0 the values of their pages.
pub(super) fn draw_as_pages<M: Measure>(
    scene: &Scene<'_>,
    level: Level,
    cells: &Range<u64>,
    out: &mut [u8],
) -> Option<Tick> {
    let each = PAGE / level.cell_bytes();
    let pages = cells.start / each..cells.end.div_ceil(each);
    let mut of_pages = vec![0; (pages.end - pages.start) as usize];
    let until = pages::draw::<M>(scene, Level::new(0)?, pages.clone(), &Kept::default(), &mut of_pages);
    for (cell, out) in cells.clone().zip(out) {
        *out = of_pages[(cell / each - pages.start) as usize];
    }
    until
}

/// What the blocks of a table make of it, by class.
#[derive(Debug)]
pub(super) struct Row {
    /// The values of its cells; where a cell takes several tables, the bytes of each value that small blocks take.
    cells: Vec<u8>,
    sums: Vec<(u8, u64)>,
    /// Whether blocks were among them whose class has no value of its own.
    pub(super) has_others: bool,
}

impl Row {
    /// The row of a table for cells of a level from 0 on.
    pub(super) fn new(scene: &Scene<'_>, level: Level, values: &Values, table: u64) -> Self {
        let pages = table_pages(table);
        let bytes = pages.start * PAGE..pages.end * PAGE;
        let mut has_others = false;
        let mut value = |block: &Block| {
            let value = values.of(block);
            has_others |= value == OTHER;
            value
        };
        let mut sums = Sums::default();
        if pages::joins_tables(level) {
            let footprint = scene.heap.pages().footprint();
            for block in scene.heap.small_overlapping(bytes.clone()) {
                let taken = footprint.of(block.addr, block.size);
                sums.add(value(&block), taken.end.min(bytes.end) - taken.start.max(bytes.start));
            }
            return Self { cells: Vec::new(), sums: sums.take(), has_others };
        }
        let found: Vec<_> = blocks_in(scene, &bytes).into_iter().map(|(taken, block)| (taken, value(&block))).collect();
        let range = bytes.start >> level.cell_bits()..bytes.end >> level.cell_bits();
        let mut cells = vec![0; (range.end - range.start) as usize];
        sweep(&found, range.clone(), level.cell_bits(), |run, parts| {
            let most = sums.most(parts.iter().copied());
            cells[(run.start - range.start) as usize..(run.end - range.start) as usize].fill(most);
        });
        Self { cells, sums: Vec::new(), has_others }
    }
}

/// Draws cells of classes of a level from 0 on, from the rows that are kept.
pub(super) fn draw_classes(
    scene: &Scene<'_>,
    level: Level,
    cells: &Range<u64>,
    rows: &Kept<Row>,
    values: &Values,
    out: &mut [u8],
) {
    let bytes = level.bytes(cells);
    let pages = bytes.start / PAGE..bytes.end / PAGE;
    let large: Vec<_> = scene.large(&bytes).map(|(taken, block)| (taken.clone(), values.of(block))).collect();
    let place = |run: Range<u64>| (run.start - cells.start) as usize..(run.end - cells.start) as usize;
    let mut sums = Sums::default();
    out.fill(0);
    if pages::joins_tables(level) {
        // Parts of cells: by cell, value, bytes.
        let mut parts: Vec<(u64, u8, u64)> = Vec::new();
        sweep(&large, cells.clone(), level.cell_bits(), |run, found| {
            out[place(run.clone())].fill(sums.most(found.iter().map(|part| (part.0, part.1))));
            parts.extend(run.clone().flat_map(|cell| found.iter().map(move |&(bytes, value)| (cell, value, bytes))));
        });
        for &table in scene.tables(&pages) {
            let cell = (table_pages(table).start * PAGE) >> level.cell_bits();
            let row = rows.get(table).into_iter().flat_map(|row| &row.sums);
            parts.extend(row.map(|&(value, bytes)| (cell, value, bytes)));
        }
        parts.sort_unstable_by_key(|part| part.0);
        for of_cell in parts.chunk_by(|a, b| a.0 == b.0) {
            out[(of_cell[0].0 - cells.start) as usize] = sums.most(of_cell.iter().map(|part| (part.2, part.1)));
        }
        return;
    }
    sweep(&large, cells.clone(), level.cell_bits(), |run, parts| {
        out[place(run)].fill(sums.most(parts.iter().copied()));
    });
    for &table in scene.tables(&pages) {
        let Some(row) = rows.get(table) else { continue };
        let first = (table_pages(table).start * PAGE) >> level.cell_bits();
        for (cell, &value) in (first..).zip(&row.cells).filter(|(cell, _)| cells.contains(cell)) {
            out[(cell - cells.start) as usize] = value;
        }
    }
}

/// Bytes by value.
#[derive(Debug)]
struct Sums {
    bytes: [u64; 256],
    used: Vec<u8>,
}

impl Default for Sums {
    fn default() -> Self {
        Self { bytes: [0; 256], used: Vec::new() }
    }
}

impl Sums {
    #[inline]
    fn add(&mut self, value: u8, bytes: u64) {
        let sum = &mut self.bytes[usize::from(value)];
        if *sum == 0 && bytes > 0 {
            self.used.push(value);
        }
        *sum += bytes;
    }

    /// The sums, which begin anew.
    fn take(&mut self) -> Vec<(u8, u64)> {
        self.used.drain(..).map(|value| (value, std::mem::take(&mut self.bytes[usize::from(value)]))).collect()
    }

    /// The value with most bytes, the lowest of several; 0 for nothing.
    fn most(&mut self, mut parts: impl ExactSizeIterator<Item = (u64, u8)>) -> u8 {
        if parts.len() == 1 {
            return parts.next().map_or(0, |part| part.1);
        }
        parts.for_each(|(bytes, value)| self.add(value, bytes));
        let sums = self.used.drain(..).map(|value| (std::mem::take(&mut self.bytes[usize::from(value)]), value));
        sums.max_by_key(|&(bytes, value)| (bytes, std::cmp::Reverse(value))).map_or(0, |most| most.1)
    }
}
