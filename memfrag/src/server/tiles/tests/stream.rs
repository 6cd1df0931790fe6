//! Views of heaps that go on, as pages get them.

use super::oracle::{MS, World};
use crate::heap::Footprint;
use crate::server::tiles::code::tests::Page;
use crate::server::tiles::{Canvas, Class, Level, Mode, TILE_CELLS, ViewError, ViewRequest};
use crate::target::residency::PAGE;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time for everything, on whatever machine.
const AMPLE: Duration = Duration::from_mins(10);

const MODES: [Mode; 7] = [Mode::Occupancy, Mode::Heat, Mode::Age, Mode::Resident, Mode::Site, Mode::Thread, Mode::Size];

/// Where the blocks lie: around the border of two tables, a tile of level 0, and a cell of level 6.
const BASE: u64 = 0x40_0000_0000;

#[derive(Clone, Debug)]
enum Step {
    Alloc(u64, u64, u32, u64),
    Free(usize),
    Pass(u64),
    Look(Vec<(u64, u64)>),
    Frame,
}

fn step() -> impl Strategy<Value = Step> {
    let addr = || (0..4_u64, 0..80_u64).prop_map(|(table, at)| BASE - 0x28_0000 + (table << 21) + at * 0x1330);
    let size =
        prop_oneof![6 => 1..300_u64, 6 => 300..0x3000_u64, 3 => 0x3000..0x4_0000_u64, 1 => 0x4_0000..0x60_0000_u64];
    let runs = prop::collection::vec((0..2000_u64, 1..300_u64), 0..6);
    prop_oneof![
        12 => (addr(), size, 1..5_u32, 1..9_u64).prop_map(|(addr, size, tid, at)| Step::Alloc(addr, size, tid, at * 64)),
        8 => any::<usize>().prop_map(Step::Free),
        4 => (0..2500_u64).prop_map(Step::Pass),
        1 => runs.prop_map(Step::Look),
        5 => Just(Step::Frame),
    ]
}

/// The tiles of a level around [`BASE`]: a few at each side.
fn view(view: u16, mode: Mode, level: Level) -> ViewRequest {
    let at = BASE >> level.cell_bits() >> TILE_CELLS.trailing_zeros();
    let first = at.saturating_sub(20);
    // The tiles in which blocks begin at the lowest levels, and one that is asked for twice.
    let tiles = vec![(at, 1), (first, 60), (at, 2)];
    ViewRequest { view, mode, level, tiles }
}

/// Gets frames until nothing is left to be sent.
fn settle(world: &World, canvas: &mut Canvas, page: &mut Page, budget: Duration) {
    let look = world.residency();
    for _ in 0..10_000 {
        if let Some(frame) = canvas.frame(world.heap(), look.as_ref(), world.now, budget) {
            assert!(frame.bytes.len() <= 256 << 10);
            let (_, seq, time) = page.apply(&frame.bytes);
            assert_eq!((seq, time), (frame.seq, world.now));
        }
        if canvas.is_settled() {
            return;
        }
    }
    panic!("a view does not settle");
}

fn palette(canvas: &mut Canvas, known: &mut BTreeMap<Class, u8>) {
    if let Some(classes) = canvas.palette() {
        *known = classes.into_iter().map(|(value, class)| (class, value)).collect();
    }
}

fn levels() -> impl Strategy<Value = Level> {
    (-4..=12_i8).prop_map(|level| Level::new(level).expect("a level"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In every mode, at every level, with little time or much: what a page has made of its frames is what looking at
    /// every block gives.
    #[test]
    fn a_page_sees_what_is_there(
        steps in prop::collection::vec(step(), 1..60),
        mode in prop::sample::select(&MODES[..]),
        level in levels(),
        glibc in any::<bool>(),
        hurried in any::<bool>(),
    ) {
        let mut world = World::new(if glibc { Footprint::Glibc } else { Footprint::Requested });
        let mut canvas = Canvas::new();
        let request = view(7, mode, level);
        canvas.set_view(&request).expect("a view");
        let mut page = Page { view: 7, ..Page::default() };
        let budget = if hurried { Duration::ZERO } else { AMPLE };
        let mut known = BTreeMap::new();
        for step in steps {
            match step {
                Step::Alloc(addr, size, tid, caller) => world.alloc(addr, size, tid, caller),
                Step::Free(which) => world.free(which),
                Step::Pass(ms) => world.now += ms * MS,
                Step::Look(runs) => {
                    // A look at another moment than the one before.
                    world.now += MS;
                    let mut end = BASE - 0x28_0000;
                    let mut sorted = runs;
                    sorted.sort_unstable();
                    let mut apart = Vec::new();
                    for (start, pages) in sorted {
                        let start = (BASE - 0x28_0000 + start * PAGE).max(end);
                        end = start + pages * PAGE;
                        apart.push(start..end);
                    }
                    world.look(apart);
                }
                Step::Frame => {
                    settle(&world, &mut canvas, &mut page, budget);
                    palette(&mut canvas, &mut known);
                }
            }
        }
        // Beyond the time after which cells that change by themselves are drawn again, and beyond the look at classes.
        for _ in 0..20 {
            world.now += 500 * MS;
            settle(&world, &mut canvas, &mut page, budget);
            palette(&mut canvas, &mut known);
        }
        for &(first, count) in &request.tiles {
            for tile in first..first + u64::from(count) {
                let cells = page.tiles.get(&tile).copied().unwrap_or([0; TILE_CELLS]);
                world.check(mode, level, tile, &cells, &known);
            }
        }
    }
}

/// A world with two blocks of a page each.
fn small() -> World {
    let mut world = World::new(Footprint::Requested);
    world.alloc(BASE, PAGE, 1, 64);
    world.alloc(BASE + 2 * PAGE, PAGE / 2, 2, 128);
    world
}

fn cells(page: &Page, tile: u64) -> [u8; 4] {
    page.tiles.get(&tile).map_or([0; 4], |cells| [cells[0], cells[1], cells[2], cells[3]])
}

#[test]
fn only_what_has_changed_is_sent() {
    let mut world = small();
    let mut canvas = Canvas::new();
    canvas.set_view(&view(1, Mode::Occupancy, Level::new(0).expect("a level"))).expect("a view");
    let tile = BASE >> 24;
    let mut page = Page { view: 1, ..Page::default() };
    let budget = AMPLE;
    let frame = canvas.frame(world.heap(), None, world.now, budget).expect("two cells");
    assert_eq!(frame.bytes.len(), 20 + 9 + 2 + 2 * 3);
    page.apply(&frame.bytes);
    assert_eq!(cells(&page, tile), [255, 0, 129, 0]);
    assert!(canvas.frame(world.heap(), None, world.now, budget).is_none());
    // A freed page is shown as that for a second.
    world.free(0);
    page.apply(&canvas.frame(world.heap(), None, world.now, budget).expect("a cell").bytes);
    assert_eq!(cells(&page, tile), [2, 0, 129, 0]);
    world.now += 1000 * MS;
    assert!(canvas.frame(world.heap(), None, world.now, budget).is_none());
    world.now += MS;
    page.apply(&canvas.frame(world.heap(), None, world.now, budget).expect("a cell").bytes);
    assert_eq!(cells(&page, tile), [0, 0, 129, 0]);
    // What has vanished becomes 0, in one byte.
    world.free(0);
    world.now += 2000 * MS;
    let frame = canvas.frame(world.heap(), None, world.now, budget).expect("a cell");
    assert_eq!(frame.bytes.len(), 20 + 9 + 1);
    page.apply(&frame.bytes);
    assert_eq!(cells(&page, tile), [0; 4]);
}

#[test]
fn a_new_view_begins_with_nothing() {
    let world = small();
    let mut canvas = Canvas::new();
    let level = Level::new(0).expect("a level");
    let mut page = Page::default();
    for number in 1..3 {
        canvas.set_view(&view(number, Mode::Site, level)).expect("a view");
        settle(&world, &mut canvas, &mut page, AMPLE);
        assert_eq!(page.view, number);
        assert_eq!(cells(&page, BASE >> 24), [2, 0, 3, 0]);
        assert_eq!(canvas.palette(), Some(vec![(2, Class::Site(64)), (3, Class::Site(128))]));
        assert_eq!(canvas.palette(), None);
        assert_eq!(canvas.class(Mode::Site, 3), Some(Class::Site(128)));
    }
}

#[test]
fn another_heap_is_drawn_whole() {
    let (first, mut second) = (small(), small());
    second.free(0);
    let mut canvas = Canvas::new();
    canvas.set_view(&view(1, Mode::Size, Level::new(0).expect("a level"))).expect("a view");
    let mut page = Page { view: 1, ..Page::default() };
    settle(&first, &mut canvas, &mut page, AMPLE);
    assert_eq!(cells(&page, BASE >> 24), [10, 0, 9, 0]);
    settle(&second, &mut canvas, &mut page, AMPLE);
    assert_eq!(cells(&page, BASE >> 24), [0, 0, 9, 0]);
}

#[test]
fn views_have_bounds() {
    let level = Level::new(-4).expect("a level");
    let request = |tiles| ViewRequest { view: 1, mode: Mode::Age, level, tiles };
    let mut canvas = Canvas::new();
    assert_eq!(canvas.set_view(&request(vec![(0, 4096)])), Ok(()));
    assert_eq!(canvas.set_view(&request(vec![(0, 4096), (9000, 1)])), Err(ViewError::TooLarge));
    assert_eq!(canvas.set_view(&request(vec![(0, u32::MAX)])), Err(ViewError::TooLarge));
    for level in [-4, 0, 12].map(|level| Level::new(level).expect("a level")) {
        let request = |first| ViewRequest { view: 2, mode: Mode::Age, level, tiles: vec![(first, 2)] };
        assert_eq!(canvas.set_view(&request(level.tiles() - 2)), Ok(()));
        assert_eq!(canvas.set_view(&request(level.tiles() - 1)), Err(ViewError::Outside(level.tiles() - 1)));
        assert_eq!(canvas.set_view(&request(u64::MAX)), Err(ViewError::Outside(u64::MAX)));
        let world = small();
        assert!(canvas.frame(world.heap(), None, 0, AMPLE).is_none());
    }
}

#[test]
fn frames_are_not_larger_than_they_may_be_and_each_tile_gets_its_turn() {
    let mut world = World::new(Footprint::Requested);
    let tiles = 150_u64;
    // Cells that differ from their neighbours in each tile, so that it takes all of its bytes.
    let touch = |world: &mut World| {
        for at in 0..tiles * 8 {
            world.heaps.apply(&memfrag_common::Event {
                time: world.now,
                pid: 1,
                tid: 1,
                op: memfrag_common::Op::Alloc {
                    function: memfrag_common::Function::Malloc,
                    align_log2: 0,
                    addr: BASE + (at << 21) + 8,
                    size: 0x10_0000,
                    site: 1,
                    stack: 0,
                },
            });
        }
    };
    touch(&mut world);
    let mut canvas = Canvas::new();
    let level = Level::new(0).expect("a level");
    let request = ViewRequest { view: 1, mode: Mode::Occupancy, level, tiles: vec![(BASE >> 24, tiles as u32)] };
    canvas.set_view(&request).expect("a view");
    let mut page = Page { view: 1, ..Page::default() };
    let mut frames = 0;
    loop {
        let frame = canvas.frame(world.heap(), None, world.now, AMPLE).expect("more");
        assert!(frame.bytes.len() <= 256 << 10);
        page.apply(&frame.bytes);
        frames += 1;
        if canvas.is_settled() {
            break;
        }
        // The heap goes on; who waits is served before who was served.
        touch(&mut world);
        assert_eq!(page.tiles.len(), (frames * 63).min(150));
    }
    assert_eq!(page.tiles.len(), 150);
}
