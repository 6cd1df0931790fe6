use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn occupancy(bytes: u64, blocks: u64) -> Occupancy {
    Occupancy { bytes, blocks }
}

fn runs(pages: &Pages) -> Vec<(u64, u64, Occupancy)> {
    pages.runs(0..u64::MAX).map(|run| (run.address, run.pages, run.each)).collect()
}

#[test]
fn a_block_lies_on_each_page_that_it_touches() {
    let mut pages = Pages::default();
    pages.add(0x1ff8, 16);
    pages.add(0x2800, 0x1000);
    let expected =
        [(0x1000, 1, occupancy(8, 1)), (0x2000, 1, occupancy(8 + 0x800, 2)), (0x3000, 1, occupancy(0x800, 1))];
    assert_eq!(runs(&pages), expected);
    assert_eq!((pages.bytes(), pages.in_use()), (16 + 0x1000, 3));
    pages.remove(0x1ff8, 16);
    assert_eq!(pages.get(0x2000), occupancy(0x800, 1));
    assert_eq!(pages.in_use(), 2);
}

#[test]
fn a_huge_block_costs_no_more_than_a_large_one() {
    let mut pages = Pages::default();
    pages.add(0x1_0000_0800, 1 << 44);
    let expected = [
        (0x1_0000_0000, 1, occupancy(0x800, 1)),
        (0x1_0000_1000, (1 << 32) - 1, occupancy(PAGE, 1)),
        (0x1_0000_0000 + (1 << 44), 1, occupancy(0x800, 1)),
    ];
    assert_eq!(runs(&pages), expected);
    assert_eq!(pages.in_use(), (1 << 32) + 1);
    assert!(pages.memory_bytes() < 20_000, "{}", pages.memory_bytes());
    assert_eq!(
        pages.runs(0x2_0000_0fff..0x2_0000_2000).map(|run| (run.address, run.pages)).collect::<Vec<_>>(),
        [(0x2_0000_0000, 2)]
    );
    pages.remove(0x1_0000_0800, 1 << 44);
    assert_eq!(runs(&pages), []);
    assert_eq!((pages.bytes(), pages.in_use()), (0, 0));
}

#[test]
fn the_last_page_of_all_can_be_in_use() {
    let mut pages = Pages::default();
    pages.add(u64::MAX - 20, 16);
    pages.add(u64::MAX - (1 << 30), u64::MAX);
    let last = u64::MAX / PAGE * PAGE;
    assert_eq!(pages.get(u64::MAX).blocks, 2);
    assert_eq!(pages.runs(0..u64::MAX).last().map(|run| (run.address, run.pages)), Some((last, 1)));
}

#[test]
fn memory_comes_back_after_a_peak() {
    let mut pages = Pages::default();
    for number in 0..1000 {
        pages.add(number << 21, 100);
    }
    let peak = pages.memory_bytes();
    for number in 0..1000 {
        pages.remove(number << 21, 100);
    }
    assert!(pages.memory_bytes() * 10 < peak, "{} of {peak}", pages.memory_bytes());
}

#[derive(Clone, Debug)]
enum Change {
    Add(usize, u64, u64),
    Remove(usize, usize),
    Fork(usize),
    Drop(usize),
}

fn change() -> impl Strategy<Value = Change> {
    // A few places close to each other and to the borders of tables, and sizes from nothing to tables.
    let addr = || (0..4_u64, 0..80_u64).prop_map(|(table, at)| ((table + 1) << 21) - 0x8000 + at * 0x330);
    let size = prop_oneof![1 => Just(0), 8 => 1..0x3000_u64, 3 => 0x3000..0x4_0000_u64, 1 => 0x4_0000..0x80_0000_u64];
    prop_oneof![
        8 => (any::<usize>(), addr(), size).prop_map(|(on, addr, size)| Change::Add(on, addr, size)),
        6 => (any::<usize>(), any::<usize>()).prop_map(|(on, block)| Change::Remove(on, block)),
        1 => any::<usize>().prop_map(Change::Fork),
        1 => any::<usize>().prop_map(Change::Drop),
    ]
}

/// What blocks take of each page, counted page by page.
fn counted(footprint: Footprint, blocks: &BTreeMap<u64, u64>) -> BTreeMap<u64, Occupancy> {
    let mut pages: BTreeMap<u64, Occupancy> = BTreeMap::new();
    for (&addr, &size) in blocks {
        let taken = Some(footprint.of(addr, size)).filter(|taken| !taken.is_empty()).unwrap_or(0..0);
        for page in taken.start / PAGE..taken.end.div_ceil(PAGE) {
            let start = page * PAGE;
            let each = pages.entry(start).or_default();
            each.bytes += taken.end.min(start + PAGE) - taken.start.max(start);
            each.blocks += 1;
        }
    }
    pages
}

proptest! {
    /// Whatever was added, removed and forked: each page is as full as counting makes it. Blocks overlap, as they do
    /// where frees were missed.
    #[test]
    fn equal_a_count_of_every_page(
        glibc in any::<bool>(),
        changes in prop::collection::vec(change(), 1..120),
        window in (0..0x100_0000_u64, 0..0x100_0000_u64),
    ) {
        let footprint = if glibc { Footprint::Glibc } else { Footprint::Requested };
        let mut first = Pages::default();
        first.set_footprint(footprint, std::iter::empty());
        let mut spaces = vec![(first, BTreeMap::new())];
        for change in changes {
            let count = spaces.len();
            match change {
                Change::Add(on, addr, size) => {
                    let (pages, blocks) = &mut spaces[on % count];
                    if let Some(closed) = blocks.insert(addr, size) {
                        pages.remove(addr, closed);
                    }
                    pages.add(addr, size);
                }
                Change::Remove(on, block) => {
                    let (pages, blocks) = &mut spaces[on % count];
                    if let Some((&addr, &size)) = blocks.iter().nth(block % blocks.len().max(1)) {
                        blocks.remove(&addr);
                        pages.remove(addr, size);
                    }
                }
                Change::Fork(on) if count < 4 => {
                    let (pages, blocks) = &mut spaces[on % count];
                    let child = (pages.fork(), blocks.clone());
                    spaces.push(child);
                }
                Change::Drop(on) if count > 1 => drop(spaces.swap_remove(on % count)),
                Change::Fork(_) | Change::Drop(_) => {}
            }
        }
        for (pages, blocks) in &spaces {
            let expected = counted(footprint, blocks);
            let each = |run: PageRun| (0..run.pages).map(move |page| (run.address + page * PAGE, run.each));
            let told: Vec<_> = pages.runs(0..u64::MAX).flat_map(each).collect();
            prop_assert_eq!(&told, &expected.iter().map(|(&page, &each)| (page, each)).collect::<Vec<_>>());
            let (start, end) = (window.0.min(window.1), window.0.max(window.1));
            let within: Vec<_> = pages.runs(start..end).flat_map(each).collect();
            let touched = |page: u64| page < end && page + PAGE > start;
            prop_assert_eq!(within, told.into_iter().filter(|(page, _)| touched(*page)).collect::<Vec<_>>());
            prop_assert!(pages.in_use() >= expected.len() as u64);
            for (&page, &each) in &expected {
                prop_assert_eq!(pages.get(page + 1), each);
            }
        }
    }
}
