//! The model against what glibc is known to do, against itself, and under senseless streams.

use super::*;
use crate::model::ModelHeap;
use memfrag_common::{Event, Op};
use proptest::prelude::*;
use std::collections::BTreeMap;

const V36: Version = Version { major: 2, minor: 36 };

fn free_running() -> Ptmalloc {
    Ptmalloc::free_running("free".to_owned(), V36, Tunables::default()).expect("known")
}

fn caller(thread: u32) -> Caller {
    Caller { thread, ..Caller::default() }
}

fn request(function: Function, size: u64, align_log2: u8) -> Request {
    Request { size, align_log2, function }
}

/// Asks for blocks, and gives how far behind the beginning of the heap they lie.
fn malloc(model: &mut Ptmalloc, block: u32, size: u64) -> u64 {
    let addr = model.allocate(&caller(1), BlockId(block), &request(Function::Malloc, size, 0), 0);
    addr.expect("served") & 0xf_ffff
}

/// Everything that must hold between calls.
fn check(model: &Ptmalloc) {
    let space = &model.space;
    let mut by_addr: BTreeMap<u64, Id> = BTreeMap::new();
    let mut free = vec![0; space.arenas.len()];
    for (id, chunk) in space.chunks.iter() {
        assert!(chunk.addr.is_multiple_of(16) && chunk.size.is_multiple_of(16), "{chunk:?}");
        assert!(by_addr.insert(chunk.addr, id).is_none(), "two chunks at {:x}", chunk.addr);
        if chunk.after != NONE {
            let after = space.chunks[chunk.after];
            assert_eq!((after.addr, after.before), (chunk.end(), id));
            let merges = |state| matches!(state, State::Free | State::Top);
            assert!(!(merges(chunk.state) && merges(after.state)), "free neighbours: {chunk:?} {after:?}");
        }
        if chunk.state == State::Free {
            free[usize::from(chunk.arena)] += chunk.size;
        }
        assert_eq!(space.chunks.find(chunk.addr + chunk.size / 2), Some(id));
    }
    let held = model.held();
    assert!(held.windows(2).all(|pair| pair[0].end < pair[1].start), "{held:x?}");
    if space.invented.is_some() {
        assert_eq!(held.iter().map(|range| range.end - range.start).sum::<u64>(), model.footprint().now);
    }
    for (_, chunk) in space.chunks.iter() {
        let range = &held[held.partition_point(|range| range.start <= chunk.addr) - 1];
        assert!(chunk.end() <= range.end, "{chunk:x?} in {held:x?}");
    }
    let mut end = 0;
    for (&addr, &id) in &by_addr {
        assert!(addr >= end, "chunks overlap at {addr:x}");
        end = space.chunks[id].end();
    }
    for (arena, free) in space.arenas.iter().zip(free) {
        assert_eq!(arena.bins.bytes(), free);
    }
    for (owner, &id) in space.blocks.iter().enumerate().filter(|(_, id)| **id != NONE) {
        let chunk = space.chunks[id];
        assert!(matches!(chunk.state, State::Used | State::Mapped), "block {owner} in {chunk:?}");
        assert_eq!(chunk.newer as usize, owner, "{chunk:?}");
    }
    for (number, cache) in
        space.threads.iter().enumerate().filter_map(|(at, thread)| Some((at, thread.cache.as_ref()?)))
    {
        assert!(matches!(space.chunks[cache.chunk].state, State::Used | State::Mapped));
        for (bin, &id) in cache.bins.iter().enumerate().flat_map(|(bin, list)| list.iter().map(move |id| (bin, id))) {
            let chunk = space.chunks[id];
            assert_eq!((chunk.state, chunk.newer as usize), (State::Cached, number), "{chunk:?}");
            assert_eq!(chunk.size, 32 + 16 * bin as u64);
        }
    }
    for arena in &space.arenas {
        let is_fast = |&id: &Id| space.chunks[id].state == State::Fast;
        assert!(arena.fast.iter().flatten().all(is_fast));
        let is_top = |top: Id| space.chunks[top].state == State::Top && space.chunks[top].after == NONE;
        assert!(arena.top == NONE || is_top(arena.top));
    }
    let system: u64 = space.arenas.iter().map(|arena| arena.system).sum();
    assert_eq!(model.footprint().now, system + space.mapped_bytes);
}

/// Addresses as a program linked against glibc 2.36 prints them, from the beginning of its heap.
#[test]
fn addresses_are_those_that_glibc_gives() {
    let mut model = free_running();
    let first = malloc(&mut model, 0, 24);
    assert_eq!(first & 0xfff, 0x2a0, "behind the thread's cache");
    assert_eq!(malloc(&mut model, 1, 24) - first, 0x20);
    assert_eq!(malloc(&mut model, 2, 25) - first, 0x40);
    assert_eq!(malloc(&mut model, 3, 2000) - first, 0x70);
    assert_eq!(malloc(&mut model, 4, 1) - first, 0x850);
    // The last freed comes first; a large block's memory is cut up from its beginning.
    model.free(&caller(1), BlockId(0));
    model.free(&caller(1), BlockId(1));
    model.free(&caller(1), BlockId(3));
    assert_eq!([5, 6].map(|block| malloc(&mut model, block, 20)), [first + 0x20, first]);
    assert_eq!([7, 8].map(|block| malloc(&mut model, block, 100)), [first + 0x70, first + 0xe0]);
    check(&model);
}

#[test]
fn large_blocks_are_mapped_and_raise_the_threshold() {
    let mut model = free_running();
    malloc(&mut model, 0, 10);
    let before = model.footprint().now;
    assert_eq!(malloc(&mut model, 1, 200_000) & 0xfff, 0x10);
    assert_eq!(model.footprint().now - before, 200_704);
    model.free(&caller(1), BlockId(1));
    assert_eq!((model.footprint().now, model.footprint().peak), (before, before + 200_704));
    malloc(&mut model, 2, 200_000);
    assert_eq!(model.info().hblks, 0, "served by the segment now");
    model.free(&caller(1), BlockId(2));
    check(&model);
}

#[test]
fn an_ended_thread_gives_its_cache_back() {
    let mut model = free_running();
    malloc(&mut model, 0, 10);
    let other = |model: &mut Ptmalloc, block| {
        model.allocate(&caller(2), BlockId(block), &request(Function::Malloc, 500, 0), 0);
    };
    (1..9).for_each(|block| other(&mut model, block));
    (1..9).for_each(|block| model.free(&caller(2), BlockId(block)));
    assert_eq!(model.arenas(), 2);
    model.learn(&caller(2), Fact::ThreadExit);
    check(&model);
    assert!(model.space.chunks.iter().all(|(_, chunk)| chunk.arena != 1 || chunk.state == State::Top));
    model.allocate(&caller(3), BlockId(1), &request(Function::Malloc, 500, 0), 0);
    assert_eq!(model.arenas(), 2, "its arena waits for the next thread");
}

#[derive(Clone, Debug)]
enum Step {
    Malloc(u64),
    Calloc(u64),
    Memalign(u8, u64),
    Realloc(usize, u64),
    Free(usize),
    End,
}

fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..200, 4 => 0u64..5000, 2 => 0u64..80_000, 1 => 0u64..400_000]
}

fn steps() -> impl Strategy<Value = Vec<(u32, Step)>> {
    let step = prop_oneof![
        6 => sizes().prop_map(Step::Malloc),
        2 => sizes().prop_map(Step::Calloc),
        1 => (5u8..13, sizes()).prop_map(|(align, size)| Step::Memalign(align, size)),
        2 => (any::<usize>(), sizes()).prop_map(|(at, size)| Step::Realloc(at, size)),
        7 => any::<usize>().prop_map(Step::Free),
        1 => Just(Step::End),
    ];
    proptest::collection::vec((1u32..4, step), 0..300)
}

/// The events of a program whose allocator is the free model, with that model.
fn events_of(steps: &[(u32, Step)], version: Version) -> (Vec<Event>, Ptmalloc) {
    let mut model = Ptmalloc::free_running("truth".to_owned(), version, Tunables::default()).expect("known");
    let mut live: Vec<(BlockId, u64, u64)> = Vec::new();
    let mut events = Vec::new();
    let mut next = 0;
    let mut end = 0;
    for (at, &(tid, ref step)) in steps.iter().enumerate() {
        let time = at as u64;
        let mut say = |op| events.push(Event { time, pid: 1, tid, op });
        let mut allocate = |model: &mut Ptmalloc, live: &mut Vec<_>, function, size, align_log2| {
            let block = BlockId(next);
            next += 1;
            let addr = model.allocate(&caller(tid), block, &request(function, size, align_log2), 0).expect("served");
            assert!(addr.is_multiple_of(1 << align_log2.max(4)));
            live.push((block, addr, size));
            Op::Alloc { function, align_log2, addr, size, site: 0, stack: 0 }
        };
        match *step {
            Step::Malloc(size) => say(allocate(&mut model, &mut live, Function::Malloc, size, 0)),
            Step::Calloc(size) => say(allocate(&mut model, &mut live, Function::Calloc, size, 0)),
            Step::Memalign(align, size) => say(allocate(&mut model, &mut live, Function::Memalign, size, align)),
            Step::Realloc(which, size) if !live.is_empty() => {
                let which = which % live.len();
                let (block, old, _) = live[which];
                let function = Function::Realloc;
                let size = size.max(1);
                let addr = model.reallocate(&caller(tid), block, &request(function, size, 0), 0).expect("served");
                live[which] = (block, addr, size);
                say(Op::ReallocBegin { function, old, size, site: 0 });
                say(Op::ReallocEnd { function, addr, size, site: 0, stack: 0 });
            }
            Step::Free(which) if !live.is_empty() => {
                let (block, addr, _) = live.swap_remove(which % live.len());
                model.free(&caller(tid), block);
                say(Op::Free { function: Function::Free, addr, size: 0, site: 0 });
            }
            Step::End => {
                model.learn(&caller(tid), Fact::ThreadExit);
                say(Op::ThreadExit);
            }
            Step::Realloc(..) | Step::Free(_) => {}
        }
        // The system call is seen before the allocation that needed it, and after the free that led to it.
        let top = model.space.arenas[0].top;
        let ends = if top == NONE { 0 } else { model.space.chunks[top].end() };
        if ends != end {
            let before = events.len() - usize::from(ends > end);
            events.insert(before, Event { time, pid: 1, tid, op: Op::Brk { end: ends } });
            end = ends;
        }
    }
    check(&model);
    let mut taken: Vec<_> = live.iter().map(|&(block, addr, size)| (addr, size, model.place_of(block))).collect();
    taken.sort_unstable_by_key(|&(addr, ..)| addr);
    for (addr, size, place) in &taken {
        let place = place.as_ref().expect("placed");
        assert!(place.start + 16 == *addr && addr + size <= place.end + 8, "{addr:x} {size} {place:x?}");
    }
    assert!(taken.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "blocks overlap");
    (events, model)
}

/// The model, looked at as a whole after each event.
#[derive(Debug)]
struct Checked(Ptmalloc);

impl Policy for Checked {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn allocate(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64> {
        let addr = self.0.allocate(caller, block, request, observed);
        check(&self.0);
        addr
    }
    fn free(&mut self, caller: &Caller, block: BlockId) {
        self.0.free(caller, block);
        check(&self.0);
    }
    fn reallocate(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64> {
        let addr = self.0.reallocate(caller, block, request, observed);
        check(&self.0);
        addr
    }
    fn learn(&mut self, caller: &Caller, fact: Fact<'_>) {
        self.0.learn(caller, fact);
        check(&self.0);
    }
    fn footprint(&self) -> Footprint {
        self.0.footprint()
    }
    fn contents(&self) -> Contents {
        self.0.contents()
    }
    fn counts(&self) -> Counts {
        self.0.counts()
    }
    fn place_of(&self, block: BlockId) -> Option<Range<u64>> {
        self.0.place_of(block)
    }
    fn fork(&self) -> Box<dyn Policy> {
        self.0.fork()
    }
}

fn observe(events: &[Event], version: Version) -> ModelHeap {
    let model = Ptmalloc::observing(version, Tunables::default()).expect("known");
    let mut heap = ModelHeap::new(vec![Box::new(Checked(model))]);
    for event in events {
        heap.apply(event);
    }
    heap
}

/// A stream of anything.
fn any_event() -> impl Strategy<Value = Event> {
    let addr = prop_oneof![
        (0u64..4000).prop_map(|at| 0x5555_0000_0000 + at * 16),
        (0u64..4000).prop_map(|at| 0x7f00_0000_0000 + at * 16),
        (0u64..9, 0u64..300).prop_map(|(heap, at)| (0x7e00_0000_0000 + (heap << 26)) + at * 16),
        any::<u64>(),
    ];
    let size = prop_oneof![6 => 0u64..3000, 1 => 0u64..1_000_000, 1 => any::<u64>()];
    (addr, size, 0u8..10, 1u32..4).prop_map(|(addr, size, kind, tid)| {
        let function = Function::Realloc;
        let op = match kind {
            0..=3 => {
                Op::Alloc { function: Function::Malloc, align_log2: (size % 14) as u8, addr, size, site: 0, stack: 0 }
            }
            4 | 5 => Op::Free { function: Function::Free, addr, size: 0, site: 0 },
            6 => Op::ReallocBegin { function, old: addr, size, site: 0 },
            7 => Op::ReallocEnd { function, addr, size, site: 0, stack: 0 },
            8 => Op::Brk { end: addr },
            _ => Op::ThreadExit,
        };
        Event { time: 0, pid: 1, tid, op }
    })
}

proptest! {
    #[test]
    fn the_state_fits_together(steps in steps(), minor in 31u16..44) {
        events_of(&steps, Version { major: 2, minor });
    }

    #[test]
    fn its_own_addresses_are_foretold(steps in steps(), minor in 31u16..44) {
        let version = Version { major: 2, minor };
        // One thread: which arena a thread was given cannot always be told from its blocks.
        let steps: Vec<_> = steps.into_iter().filter(|(_, step)| !matches!(step, Step::End | Step::Memalign(..))).map(|(_, step)| (1, step)).collect();
        let (events, truth) = events_of(&steps, version);
        let heap = observe(&events, version);
        let counts = heap.policies()[0].counts();
        prop_assert_eq!(counts.exact, Some(counts.placements));
        prop_assert_eq!(heap.policies()[0].footprint().peak, truth.footprint().peak);
    }

    #[test]
    fn what_is_lost_is_noticed_and_lived_with(steps in steps(), lost in 0usize..300) {
        let (mut events, _) = events_of(&steps, V36);
        if lost < events.len() {
            events.remove(lost);
        }
        let heap = observe(&events, V36);
        let counts = heap.policies()[0].counts();
        prop_assert!(counts.exact <= Some(counts.placements));
    }

    #[test]
    fn senseless_streams_are_survived(events in proptest::collection::vec(any_event(), 0..200), minor in 31u16..44) {
        observe(&events, Version { major: 2, minor });
        let model = Ptmalloc::free_running("free".to_owned(), V36, Tunables::default()).expect("known");
        let mut heap = ModelHeap::new(vec![Box::new(model)]);
        for event in &events {
            heap.apply(event);
        }
    }
}
