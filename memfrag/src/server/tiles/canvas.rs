//! What one page is shown of a heap, and what it was sent of that.

use super::blocks::{Row, draw_as_pages, draw_classes, draw_fine};
use super::code::{Tile as Drawn, Writer};
use super::kept::Kept;
use super::measure::{Age, Heat, Measure, Occupancy, Resident};
use super::mode::{Level, Mode, TILE_CELLS};
use super::pages::{draw, joins_tables, sum_of};
use super::palette::{Change, Class, Palette, Values};
use super::scene::Scene;
use crate::analysis::ResidentPages;
use crate::heap::{Activity, Heap, Tick};
use crate::target::Residency;
use crate::target::residency::PAGE;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Tiles of a view at most.
pub const MAX_TILES: usize = 4096;

/// Bytes that a frame should not exceed.
const MAX_FRAME: usize = 256 << 10;

/// How long cells that change without events may stay as they are, in nanoseconds.
const AGED: u64 = 400_000_000;

/// What a page wants to see: the `view` message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRequest {
    /// Its number.
    pub view: u16,
    /// What the cells say.
    pub mode: Mode,
    /// How much memory a cell stands for.
    pub level: Level,
    /// The tiles: number of the first one, and how many.
    pub tiles: Vec<(u64, u32)>,
}

/// Why a view cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ViewError {
    /// It has more tiles than are drawn at once.
    #[error("a view has at most {MAX_TILES} tiles")]
    TooLarge,
    /// There is no address space there.
    #[error("tile {0} lies outside of the address space")]
    Outside(u64),
}

/// Changed cells, for a page.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its number, one more each time.
    pub seq: u32,
    /// The binary message.
    pub bytes: Vec<u8>,
}

/// A tile of the view.
#[derive(Debug)]
struct Tile {
    number: u64,
    /// What was sent; nothing yet is all 0.
    sent: Option<Box<Drawn>>,
    /// The last change of the heap that it shows.
    shows: u64,
    /// Whether all of it is to be drawn.
    is_stale: bool,
    /// Number of the look at the heap for which it was drawn last.
    turn: u64,
    /// The time of the cursor then.
    time: u64,
    /// When a cell changes without an event.
    until: Option<Tick>,
}

/// Sums of tables for one of the modes that take them.
#[derive(Debug)]
enum Sums {
    Occupancy(Kept<<Occupancy as Measure>::Sum>),
    Heat(Kept<<Heat as Measure>::Sum>),
    Age(Kept<<Age as Measure>::Sum>),
    Resident(Kept<<Resident as Measure>::Sum>),
    Classes(Kept<Row>),
}

/// Does the same with the sums of each mode of pages.
macro_rules! of_pages {
    ($sums:expr, $kept:ident, $measure:ident => $do:expr) => {
        match $sums {
            Sums::Occupancy($kept) => {
                type $measure = Occupancy;
                Some($do)
            }
            Sums::Heat($kept) => {
                type $measure = Heat;
                Some($do)
            }
            Sums::Age($kept) => {
                type $measure = Age;
                Some($do)
            }
            Sums::Resident($kept) => {
                type $measure = Resident;
                Some($do)
            }
            Sums::Classes(_) => None,
        }
    };
}

impl Sums {
    fn new(mode: Mode) -> Self {
        match mode {
            Mode::Occupancy => Self::Occupancy(Kept::default()),
            Mode::Heat => Self::Heat(Kept::default()),
            Mode::Age => Self::Age(Kept::default()),
            Mode::Resident => Self::Resident(Kept::default()),
            Mode::Site | Mode::Thread | Mode::Size => Self::Classes(Kept::default()),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Classes(rows) => rows.clear(),
            sums => {
                of_pages!(sums, kept, M => {
                    let kept: &mut Kept<<M as Measure>::Sum> = kept;
                    kept.clear();
                });
            }
        }
    }

    fn changed(&mut self, changes: &[(Range<u64>, u64)], seen: u64) {
        match self {
            Self::Classes(rows) => rows.changed(changes, seen),
            sums => {
                of_pages!(sums, kept, M => {
                    let kept: &mut Kept<<M as Measure>::Sum> = kept;
                    kept.changed(changes, seen);
                });
            }
        }
    }

    /// Whether they are wanted at a level.
    fn serve(&self, level: Level) -> bool {
        level.has_pages() && (matches!(self, Self::Classes(_)) || joins_tables(level))
    }
}

/// What a page sees of a heap.
///
/// It remembers what the page was sent, and for each tile up to which change of the heap. [`Self::frame`] draws what
/// changed since, within a time, the tiles first that were drawn longest ago; what does not fit into a frame comes with
/// the next one. The heap should be [watched](crate::heap::Heaps::watch): else all of the view is drawn each time.
#[derive(Debug)]
pub struct Canvas {
    view: u16,
    mode: Mode,
    level: Level,
    tiles: Vec<Tile>,
    /// The pages of all tiles, and what lies between them.
    pages: Range<u64>,
    sums: Sums,
    palettes: [Palette; 3],
    /// Which heap was drawn last.
    heap: Option<Arc<()>>,
    /// The last change that the sums have seen.
    summed: u64,
    /// The resident pages, and when they were looked at in which process.
    resident: Option<(ResidentPages, u64, u32)>,
    /// How often was drawn.
    turn: u64,
    seq: u32,
    is_settled: bool,
}

impl Default for Canvas {
    fn default() -> Self {
        Self::new()
    }
}

impl Canvas {
    /// A canvas without a view.
    pub fn new() -> Self {
        Self {
            view: 0,
            mode: Mode::Occupancy,
            level: Level::default(),
            tiles: Vec::new(),
            pages: 0..0,
            sums: Sums::new(Mode::Occupancy),
            palettes: [Mode::Site, Mode::Thread, Mode::Size].map(Palette::new),
            heap: None,
            summed: 0,
            resident: None,
            turn: 0,
            seq: 0,
            is_settled: true,
        }
    }

    /// Shows something else. As the protocol has it, nothing was sent of the new view.
    ///
    /// # Errors
    /// When it has too many tiles, or some where no program has memory; the view stays what it was.
    pub fn set_view(&mut self, request: &ViewRequest) -> Result<(), ViewError> {
        let level = request.level;
        let mut numbers = Vec::new();
        for &(first, count) in &request.tiles {
            if numbers.len() + count as usize > MAX_TILES {
                return Err(ViewError::TooLarge);
            }
            if first >= level.tiles() || u64::from(count) > level.tiles() - first {
                return Err(ViewError::Outside(first));
            }
            numbers.extend(first..first + u64::from(count));
        }
        let mut seen = std::collections::HashSet::with_capacity(numbers.len());
        numbers.retain(|number| seen.insert(*number));
        let pages = numbers.iter().map(|&number| level.pages(number));
        self.pages = pages.reduce(|all, next| all.start.min(next.start)..all.end.max(next.end)).unwrap_or(0..0);
        let new = |number| Tile { number, sent: None, shows: 0, is_stale: true, turn: 0, time: 0, until: None };
        self.tiles = numbers.into_iter().map(new).collect();
        if (self.mode, self.level) != (request.mode, level) {
            self.sums = Sums::new(request.mode);
            self.summed = 0;
        }
        if request.mode.has_palette() {
            self.palette_mut(request.mode).renew();
        }
        (self.view, self.mode, self.level) = (request.view, request.mode, level);
        self.is_settled = false;
        Ok(())
    }

    /// The number of the view.
    pub fn view(&self) -> u16 {
        self.view
    }

    /// What its cells say.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the page was sent all there was when a frame was asked for last; if not, the rest comes with the next.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// The classes of the mode with their values, if they have changed since this was asked last, or with the view. To be
    /// sent before the frame that was drawn last.
    pub fn palette(&mut self) -> Option<Vec<(u8, Class)>> {
        let mode = self.mode;
        let palette = mode.has_palette().then(|| self.palette_mut(mode))?;
        palette.take_news().then(|| palette.classes().collect())
    }

    /// The class that a value of a mode stands for.
    pub fn class(&self, mode: Mode, value: u8) -> Option<Class> {
        let palette = self.palettes.get(palette_of(mode)?)?;
        palette.classes().find(|class| class.0 == value).map(|class| class.1)
    }

    fn palette_mut(&mut self, mode: Mode) -> &mut Palette {
        &mut self.palettes[palette_of(mode).unwrap_or(0)]
    }

    /// Draws what has changed of the view, in about the time given, as of `now` (the time of the cursor, nanoseconds since
    /// the trace began). `look` is the last look at the process's resident pages. `None` when nothing has to be sent.
    pub fn frame(&mut self, heap: &Heap, look: Option<&Residency>, now: u64, budget: Duration) -> Option<Frame> {
        let began = Instant::now();
        self.turn += 1;
        self.take_heap(heap);
        self.take_look(look);
        self.take_palette(heap);
        let changes = self.take_changes(heap);
        self.mark_aged(now);
        let mut due: Vec<(usize, Vec<Range<u64>>)> = Vec::new();
        let upto = heap.activity().map_or(0, Activity::changes);
        for (at, tile) in self.tiles.iter_mut().enumerate() {
            let parts =
                if tile.is_stale { vec![Level::cells(tile.number)] } else { changed_cells(self.level, tile, &changes) };
            if parts.is_empty() {
                tile.shows = upto;
            } else {
                due.push((at, parts));
            }
        }
        self.is_settled = true;
        if due.is_empty() {
            return None;
        }
        due.sort_by_key(|(at, _)| self.tiles[*at].turn);
        let mut writer = Writer::new(self.level, self.view, self.seq.wrapping_add(1), now);
        self.draw(heap, now, due, (began, budget), upto, &mut writer);
        if writer.tiles() == 0 {
            return None;
        }
        self.seq = self.seq.wrapping_add(1);
        Some(Frame { seq: self.seq, bytes: writer.finish() })
    }

    /// Another heap, or one that was built anew: nothing is known of its changes.
    fn take_heap(&mut self, heap: &Heap) {
        let identity = heap.activity().map(|activity| Arc::clone(activity.identity()));
        let is_same = match (&self.heap, &identity) {
            (Some(known), Some(identity)) => Arc::ptr_eq(known, identity),
            _ => false,
        };
        if !is_same {
            self.heap = identity;
            self.sums.clear();
            self.summed = 0;
            self.tiles.iter_mut().for_each(|tile| tile.is_stale = true);
        }
    }

    fn take_look(&mut self, look: Option<&Residency>) {
        let known = self.resident.as_ref().map(|(_, time, pid)| (*time, *pid));
        if known == look.map(|look| (look.time, look.pid)) {
            return;
        }
        self.resident = look.map(|look| (ResidentPages::new(look), look.time, look.pid));
        if self.mode.takes_residency() {
            self.sums.clear();
            self.tiles.iter_mut().for_each(|tile| tile.is_stale = true);
        }
    }

    /// The pages that changed since the view was drawn, as far as any tile does not show that.
    fn take_changes(&mut self, heap: &Heap) -> Vec<(Range<u64>, u64)> {
        let Some(activity) = heap.activity() else { return Vec::new() };
        let fresh = self.tiles.iter().filter(|tile| !tile.is_stale).map(|tile| tile.shows).min();
        let since = fresh.unwrap_or(activity.changes()).min(self.summed);
        let changes = activity.changed_since(since).unwrap_or_else(|| {
            self.tiles.iter_mut().for_each(|tile| tile.is_stale = true);
            vec![(0..u64::MAX, activity.changes())]
        });
        self.sums.changed(&changes, self.summed);
        self.summed = activity.changes();
        changes
    }

    /// Tiles with cells that time alone has changed.
    fn mark_aged(&mut self, now: u64) {
        let (ages, tick) = (self.mode.ages(), Tick::at(now));
        for tile in &mut self.tiles {
            let has_aged = ages && tile.sent.is_some() && tile.time.abs_diff(now) >= AGED;
            tile.is_stale |= has_aged || tile.until.is_some_and(|until| until <= tick);
        }
    }

    /// Gives classes values, and says so to the rows that this concerns.
    fn take_palette(&mut self, heap: &Heap) {
        /// Frames between two looks at which classes are largest.
        const PAUSE: u64 = 16;
        let (Some(activity), Sums::Classes(rows)) = (heap.activity(), &mut self.sums) else { return };
        let Some(palette) = palette_of(self.mode).and_then(|at| self.palettes.get_mut(at)) else { return };
        if !palette.is_outgrown(heap, activity) && !self.turn.is_multiple_of(PAUSE) {
            return;
        }
        match palette.refresh(heap, activity) {
            Change::None => return,
            Change::Added if self.level.has_pages() => rows.expire(|row| row.has_others),
            _ => rows.expire(|_| true),
        }
        self.tiles.iter_mut().for_each(|tile| tile.is_stale = true);
    }

    /// Draws the tiles that are due, as many as time and the frame have room for.
    fn draw(
        &mut self,
        heap: &Heap,
        now: u64,
        due: Vec<(usize, Vec<Range<u64>>)>,
        (began, budget): (Instant, Duration),
        upto: u64,
        writer: &mut Writer,
    ) {
        let resident = self.resident.as_ref().map(|(pages, time, _)| (pages, *time));
        let with_blocks = Scene::takes_blocks(self.mode, self.level.has_pages());
        let scene = Scene::new(heap, resident, now, &self.pages, with_blocks);
        let values = &self.palettes[palette_of(self.mode).unwrap_or(0)].values;
        let serves = self.sums.serve(self.level);
        if serves {
            let mut tables: Vec<u64> =
                self.tiles.iter().flat_map(|tile| scene.tables(&self.level.pages(tile.number))).copied().collect();
            tables.sort_unstable();
            tables.dedup();
            // The other half is for the tiles.
            refresh(&mut self.sums, &scene, self.level, values, &tables, began + budget / 2);
        }
        let first = due[0].0;
        for (at, parts) in due {
            if at != first && began.elapsed() >= budget {
                self.is_settled = false;
                break;
            }
            let tile = &mut self.tiles[at];
            let before = tile.sent.as_deref().copied().unwrap_or([0; TILE_CELLS]);
            let mut after = before;
            let all = Level::cells(tile.number);
            let is_whole = parts == [all.clone()];
            let mut until = tile.until.filter(|_| !is_whole);
            for cells in parts {
                let out = &mut after[(cells.start - all.start) as usize..(cells.end - all.start) as usize];
                let changes = draw_cells(&scene, self.mode, self.level, cells, &self.sums, values, out);
                until = [until, changes].into_iter().flatten().min();
            }
            if !writer.add(tile.number, &before, &after, MAX_FRAME) {
                self.is_settled = false;
                break;
            }
            if before != after {
                tile.sent = Some(Box::new(after));
            }
            let is_done = !serves || are_fresh(&self.sums, scene.tables(&self.level.pages(tile.number)));
            self.is_settled &= is_done;
            tile.is_stale = !is_done;
            tile.shows = upto;
            (tile.turn, tile.time, tile.until) = (self.turn, now, until);
        }
    }
}

fn palette_of(mode: Mode) -> Option<usize> {
    [Mode::Site, Mode::Thread, Mode::Size].iter().position(|&of| of == mode)
}

/// The cells of a tile on changed pages that it does not show yet.
fn changed_cells(level: Level, tile: &Tile, changes: &[(Range<u64>, u64)]) -> Vec<Range<u64>> {
    let pages = level.pages(tile.number);
    let first = changes.partition_point(|(changed, _)| changed.end <= pages.start);
    let touching = changes[first..].iter().take_while(|(changed, _)| changed.start < pages.end);
    let mut cells: Vec<Range<u64>> = Vec::new();
    for (changed, _) in touching.filter(|(_, change)| *change > tile.shows) {
        if !level.has_pages() {
            return vec![Level::cells(tile.number)];
        }
        let each = level.cell_bytes() / PAGE;
        let start = changed.start.max(pages.start) / each;
        let end = changed.end.min(pages.end).div_ceil(each);
        match cells.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => cells.push(start..end),
        }
    }
    cells
}

/// Works out what tables sum up to, as far as there is time.
fn refresh(sums: &mut Sums, scene: &Scene<'_>, level: Level, values: &Values, tables: &[u64], deadline: Instant) {
    match sums {
        Sums::Classes(rows) => {
            rows.refresh(tables, deadline, |table| Row::new(scene, level, values, table));
        }
        sums => {
            of_pages!(sums, kept, M => {
                let kept: &mut Kept<<M as Measure>::Sum> = kept;
                kept.refresh(tables, deadline, |table| sum_of::<M>(scene, table));
            });
        }
    }
}

/// Whether what these tables sum up to is known.
fn are_fresh(sums: &Sums, tables: &[u64]) -> bool {
    match sums {
        Sums::Classes(rows) => rows.are_fresh(tables),
        sums => of_pages!(sums, kept, M => {
            let kept: &Kept<<M as Measure>::Sum> = kept;
            kept.are_fresh(tables)
        })
        .unwrap_or(true),
    }
}

/// Draws cells, and says when they change without an event.
fn draw_cells(
    scene: &Scene<'_>,
    mode: Mode,
    level: Level,
    cells: Range<u64>,
    sums: &Sums,
    values: &Values,
    out: &mut [u8],
) -> Option<Tick> {
    if !level.has_pages() {
        return match mode {
            Mode::Heat => draw_as_pages::<Heat>(scene, level, &cells, out),
            Mode::Resident => draw_as_pages::<Resident>(scene, level, &cells, out),
            _ => draw_fine(scene, mode, level, cells, values, out),
        };
    }
    match sums {
        Sums::Classes(rows) => {
            draw_classes(scene, level, &cells, rows, values, out);
            None
        }
        sums => of_pages!(sums, kept, M => {
            let kept: &Kept<<M as Measure>::Sum> = kept;
            draw::<M>(scene, level, cells, kept, out)
        })
        .flatten(),
    }
}
