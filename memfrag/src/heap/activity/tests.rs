use super::*;
use crate::heap::{Heaps, OriginId};
use crate::target::ProcessInfo;
use crate::target::residency::PAGE;
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;
use std::collections::BTreeMap;

const MS: u64 = 1_000_000;

fn heaps(footprint: Footprint) -> Heaps {
    let mut heaps = Heaps::default();
    heaps.learn(&ProcessInfo { pid: 1, ..ProcessInfo::default() });
    heaps.set_footprint(0, footprint);
    heaps
}

fn alloc(heaps: &mut Heaps, time: u64, addr: u64, size: u64) {
    let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: addr % 3, stack: 0 };
    heaps.apply(&Event { time, pid: 1, tid: 1 + (addr % 2) as u32, op });
}

fn free(heaps: &mut Heaps, time: u64, addr: u64) {
    heaps.apply(&Event { time, pid: 1, tid: 1, op: Op::Free { function: Function::Free, addr, size: 0, site: 0 } });
}

fn activity(heaps: &Heaps) -> &Activity {
    heaps.heap(&heaps.processes()[0]).activity().expect("watched")
}

/// All that is known of a page, whether it was noted by itself or in a span: heat, last allocation, last free to empty.
fn page(activity: &Activity, page: u64, now: Tick) -> (f32, Tick, Tick) {
    let own = activity.table(page >> TABLE_BITS).map(|pages| pages[page as usize % TABLE_PAGES]).unwrap_or_default();
    let spans = activity.spans().filter(|(span, ..)| span.contains(&page)).map(|(_, _, of)| *of);
    spans.chain([own]).fold((0.0, Tick::NEVER, Tick::NEVER), |sum, of| {
        (sum.0 + of.heat(now), sum.1.max(of.allocated), sum.2.max(of.freed))
    })
}

#[test]
fn heat_halves_every_four_seconds() {
    let mut heaps = heaps(Footprint::Requested);
    heaps.watch(0);
    for at in 0..8 {
        alloc(&mut heaps, 1000 * MS, 0x10_0000 + at * 16, 16);
    }
    // In hundredths.
    let heat = |heaps: &Heaps, ms: u64| (page(activity(heaps), 0x100, Tick::at(ms * MS)).0 * 100.0).round() as i64;
    assert_eq!([1000, 5000, 9000, 21_000].map(|ms| heat(&heaps, ms)), [800, 400, 200, 25]);
    free(&mut heaps, 9000 * MS, 0x10_0000);
    assert_eq!([9000, 13_000].map(|ms| heat(&heaps, ms)), [300, 150]);
    // However long ago: it was used.
    assert!(page(activity(&heaps), 0x100, Tick::at(4_000_000_000 * MS)).0 > 0.0);
}

#[test]
fn a_table_that_was_emptied_and_dropped_has_changed() {
    let mut heaps = heaps(Footprint::Requested);
    heaps.watch(0);
    let tables = 8000_u64;
    for table in 1..=tables {
        alloc(&mut heaps, table, table << 21, 64);
    }
    let seen = activity(&heaps).changes();
    assert_eq!(activity(&heaps).changed_since(seen), Some(Vec::new()));
    for table in 1..=tables {
        free(&mut heaps, tables + table, table << 21);
    }
    // Either the tables are still known to have changed, or everything has.
    if let Some(changed) = activity(&heaps).changed_since(seen) {
        assert_eq!(changed.iter().map(|(pages, _)| pages.end - pages.start).sum::<u64>(), tables << TABLE_BITS);
    }
    // New tables make room by letting old ones go, and then it may be any page.
    for table in tables + 1..3 * tables {
        alloc(&mut heaps, table, table << 21, 64);
        free(&mut heaps, table, table << 21);
    }
    assert_eq!(activity(&heaps).changed_since(seen), None);
    let bytes = activity(&heaps).memory_bytes();
    assert!(bytes < 64 << 20, "{bytes}");
    assert_eq!(activity(&heaps).changed_since(activity(&heaps).changes()), Some(Vec::new()));
}

#[test]
fn large_blocks_that_come_and_go_cost_little() {
    let mut heaps = heaps(Footprint::Requested);
    heaps.watch(0);
    for round in 0..20_000_u64 {
        alloc(&mut heaps, round, 1 << 40, (1 << 40) + round * PAGE);
        free(&mut heaps, round, 1 << 40);
    }
    assert!(activity(&heaps).spans().count() <= 2 * DEAD_SPANS);
    assert!(activity(&heaps).memory_bytes() < 64 << 20, "{}", activity(&heaps).memory_bytes());
}

#[test]
fn a_program_that_is_replaced_leaves_nothing_behind() {
    let mut heaps = heaps(Footprint::Requested);
    heaps.watch(0);
    alloc(&mut heaps, 1, 0x10_0000, 64);
    let before = Arc::clone(activity(&heaps).identity());
    heaps.apply(&Event { time: 2, pid: 1, tid: 1, op: Op::Exec });
    let after = activity(&heaps);
    assert!(!Arc::ptr_eq(&before, after.identity()));
    assert_eq!((after.tables().count(), after.classes().origin(OriginId::new(0)).blocks), (0, 0));
    // A forked process is watched only when somebody asks for that.
    heaps.apply(&Event { time: 3, pid: 1, tid: 1, op: Op::Fork { child: 2, flags: 0 } });
    let child = heaps.find(2).expect("forked");
    assert!(heaps.heap(child).activity().is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Alloc(u64, u64),
    Free(usize),
    Pass(u64),
    Watch,
    Share,
    Footprint(bool),
    Mark,
}

fn step() -> impl Strategy<Value = Step> {
    let addr = || (0..3_u64, 0..60_u64).prop_map(|(table, at)| ((table + 1) << 21) - 0x8000 + at * 0x330);
    let size = prop_oneof![8 => 1..0x3000_u64, 3 => 0x3000..0x4_0000_u64, 1 => 0x4_0000..0x60_0000_u64];
    prop_oneof![
        10 => (addr(), size).prop_map(|(addr, size)| Step::Alloc(addr, size)),
        8 => any::<usize>().prop_map(Step::Free),
        4 => (0..9000_u64).prop_map(Step::Pass),
        1 => Just(Step::Watch),
        1 => Just(Step::Share),
        1 => any::<bool>().prop_map(Step::Footprint),
        2 => Just(Step::Mark),
    ]
}

/// What happened on a page, noted one by one: the times of all that is counted for its heat, of the last allocation, and
/// when it was last freed to empty.
#[derive(Clone, Debug, Default)]
struct Noted {
    times: Vec<u64>,
    allocated: u64,
    freed: Option<u64>,
    changed: u64,
}

fn pages_of(footprint: Footprint, addr: u64, size: u64) -> Range<u64> {
    let taken = footprint.of(addr, size);
    if taken.is_empty() { 0..0 } else { taken.start / PAGE..(taken.end - 1) / PAGE + 1 }
}

/// The blocks that are live when the pages are entered anew: when they were allocated is remembered of their pages.
fn enter(log: &mut BTreeMap<u64, Noted>, live: &BTreeMap<u64, (u64, u64)>, footprint: Footprint) {
    for (&addr, &(size, time)) in live {
        for page in pages_of(footprint, addr, size) {
            let noted = log.entry(page).or_default();
            noted.allocated = noted.allocated.max(time);
        }
    }
}

proptest! {
    /// Whatever is allocated, freed, copied, and watched from whenever on: each page has the heat, the times and the
    /// changes of a log.
    #[test]
    fn equals_a_log_of_each_page(steps in prop::collection::vec(step(), 1..100)) {
        let mut footprint = Footprint::Requested;
        let mut heaps = heaps(footprint);
        let mut live: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut log: BTreeMap<u64, Noted> = BTreeMap::new();
        let (mut watched, mut now, mut mark, mut marked) = (false, 0, None, 0_u64);
        for (number, step) in (1_u64..).zip(steps) {
            let touch = |log: &mut BTreeMap<u64, Noted>, live: &BTreeMap<u64, (u64, u64)>, addr, size, adds: bool| {
                if !watched {
                    return;
                }
                for page in pages_of(footprint, addr, size) {
                    let noted = log.entry(page).or_default();
                    noted.times.push(now);
                    noted.changed = number;
                    if adds {
                        noted.allocated = now;
                    } else if !live.iter().any(|(&addr, of)| pages_of(footprint, addr, of.0).contains(&page)) {
                        noted.freed = Some(now);
                    }
                }
            };
            match step {
                Step::Alloc(addr, size) => {
                    // Blocks do not overlap: when one that large spans did was freed is not told exactly.
                    let taken = footprint.of(addr, size);
                    let overlaps = |(&other, of): (&u64, &(u64, u64))| {
                        let other = footprint.of(other, of.0);
                        other.start < taken.end && taken.start < other.end
                    };
                    if !live.iter().any(overlaps) {
                        alloc(&mut heaps, now, addr, size);
                        live.insert(addr, (size, now));
                        touch(&mut log, &live, addr, size, true);
                    }
                }
                Step::Free(which) => {
                    if let Some((&addr, &(size, _))) = live.iter().nth(which % live.len().max(1)) {
                        live.remove(&addr);
                        free(&mut heaps, now, addr);
                        touch(&mut log, &live, addr, size, false);
                    }
                }
                Step::Pass(ms) => now += ms * MS,
                Step::Watch => {
                    heaps.watch(0);
                    watched = true;
                    enter(&mut log, &live, footprint);
                }
                Step::Share => {
                    let identity = watched.then(|| Arc::clone(activity(&heaps).identity()));
                    let copy = heaps.share();
                    // What happens to one of them does not happen to the other.
                    let mut other = std::mem::replace(&mut heaps, copy);
                    alloc(&mut other, now, 7 << 21, 100);
                    if let Some(identity) = identity {
                        prop_assert!(!Arc::ptr_eq(&identity, activity(&heaps).identity()));
                        prop_assert!(activity(&heaps).table(7).is_none());
                    }
                }
                Step::Footprint(glibc) => {
                    footprint = if glibc { Footprint::Glibc } else { Footprint::Requested };
                    let taken = live.iter().map(|(&addr, of)| footprint.of(addr, of.0));
                    let taken: Vec<Range<u64>> = taken.collect();
                    if taken.windows(2).any(|pair| pair[0].end > pair[1].start) {
                        // Chunks would overlap, which those of glibc do not.
                        footprint = Footprint::Requested;
                    }
                    heaps.set_footprint(0, footprint);
                    if watched {
                        enter(&mut log, &live, footprint);
                    }
                    mark = None;
                }
                Step::Mark if watched => {
                    mark = Some(activity(&heaps).changes());
                    marked = number;
                }
                Step::Mark => {}
            }
        }
        if !watched {
            return Ok(());
        }
        let activity = activity(&heaps);
        let tick = Tick::at(now);
        for at in 0x100..0x1400 {
            let noted = log.get(&at).cloned().unwrap_or_default();
            let (heat, allocated, freed) = page(activity, at, tick);
            let expected: f64 = noted.times.iter().map(|time| 0.5_f64.powf((now - time) as f64 / 4e9)).sum();
            prop_assert!((f64::from(heat) - expected).abs() < 1e-3, "{heat} or {expected}");
            let of_live = live.iter().filter(|&(&addr, of)| pages_of(footprint, addr, of.0).contains(&at));
            if let Some(newest) = of_live.map(|(_, of)| of.1).max() {
                prop_assert_eq!(allocated, Tick::at(newest.max(noted.allocated)));
            }
            if noted.freed.is_some() {
                prop_assert_eq!(freed, noted.freed.map_or(Tick::NEVER, Tick::at));
            }
            if let Some(mark) = mark && noted.changed > marked {
                let changed = activity.changed_since(mark);
                let tells = changed.is_none_or(|all| all.iter().any(|(pages, _)| pages.contains(&at)));
                prop_assert!(tells, "page {at:#x} has changed");
            }
        }
        let mut slots: BTreeMap<u64, u64> = BTreeMap::new();
        for (&addr, of) in &live {
            *slots.entry(addr >> SLOT_BITS).or_default() += of.0;
        }
        let told = activity.slots().filter(|(_, amount)| amount.blocks > 0).map(|(slot, amount)| (slot, amount.bytes));
        prop_assert_eq!(told.collect::<BTreeMap<_, _>>(), slots);
        let threads: BTreeMap<u32, u64> = activity.classes().threads().map(|(tid, amount)| (tid, amount.blocks)).collect();
        for tid in [1, 2] {
            let expected = live.keys().filter(|&addr| 1 + addr % 2 == u64::from(tid)).count() as u64;
            prop_assert_eq!(threads.get(&tid).copied().unwrap_or(0), expected);
        }
        prop_assert_eq!(activity.classes().sizes().iter().map(|amount| amount.blocks).sum::<u64>(), live.len() as u64);
    }
}
