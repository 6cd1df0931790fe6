//! Arenas with memory behind them: what blocks hold, what is refused, and what is told of it.

use crate::arena::oracle::Oracle;
use crate::arena::{
    AllocError, Arena, Backing, Block, Buffer, CreateError, Event, FreeError, Mapped, Options, ResizeError, Stamp,
};
use allocator_api2::vec::Vec as ArenaVec;
use memfrag_common::{Function, Op};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

fn small() -> Arena<Buffer> {
    Arena::on(Buffer::new(16 << 10).unwrap(), Options::default())
}

fn guarded() -> Arena<Buffer> {
    Arena::on(Buffer::new(16 << 10).unwrap(), Options { guard: 16 })
}

fn block(arena: &Arena<impl Backing>, size: usize) -> NonNull<u8> {
    arena.allocate(size, 16, "").unwrap().cast()
}

fn free(arena: &Arena<impl Backing>, block: NonNull<u8>) -> Result<(), FreeError> {
    // SAFETY: the tests use no block after this.
    unsafe { arena.deallocate(block) }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate(usize, u32),
    Free(usize),
    Resize(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![4 => 0..300_usize, 1 => 0..3000_usize];
    let align = prop_oneof![4 => Just(4_u32), 1 => 0..10_u32];
    let step = prop_oneof![
        4 => (size.clone(), align).prop_map(|(size, align)| Step::Allocate(size, align)),
        3 => any::<usize>().prop_map(Step::Free),
        2 => (any::<usize>(), size).prop_map(|(which, size)| Step::Resize(which, size)),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 40 } else { 300 })
}

/// A block of the random program: its bytes are all `mark`.
struct Held {
    place: NonNull<u8>,
    size: usize,
    mark: u8,
}

impl Held {
    fn fill(&self) {
        // SAFETY: a live block of so many bytes.
        unsafe { self.place.write_bytes(self.mark, self.size) };
    }

    fn holds(&self, bytes: usize) -> bool {
        // SAFETY: a live block of at least so many bytes, written by `fill`.
        let held = unsafe { std::slice::from_raw_parts(self.place.as_ptr(), bytes) };
        held.iter().all(|&byte| byte == self.mark)
    }
}

/// Where a block lies that is resized: in place if the gap behind it allows that, else by first fit.
fn resized(oracle: &Oracle, start: u64, size: u64, align: u64) -> Option<u64> {
    let next = oracle.blocks.range(start + 1..).next().map_or(oracle.range.end, |(&next, _)| next);
    if start + Oracle::size(size) <= next { Some(start) } else { oracle.first_fit(size, align) }
}

fn run(arena: &Arena<impl Backing>, steps: &[Step]) {
    let state = arena.state();
    let mut oracle = Oracle::new(state.range);
    let mut live: Vec<(Held, u64)> = Vec::new();
    let mut mark = 0_u8;
    for &step in steps {
        mark = mark.wrapping_add(1);
        match step {
            Step::Allocate(size, align) => {
                let place = arena.allocate(size, 1 << align, "").ok();
                let expected = oracle.first_fit(size as u64, 1 << align);
                assert_eq!(place.map(|place| place.cast::<u8>().addr().get() as u64), expected, "{step:?}");
                if let Some(place) = place {
                    let held = Held { place: place.cast(), size, mark };
                    held.fill();
                    oracle.put(held.place.addr().get() as u64, size as u64);
                    live.push((held, 1 << align));
                }
            }
            Step::Free(_) | Step::Resize(..) if live.is_empty() => {}
            Step::Free(which) => {
                let (held, _) = live.swap_remove(which % live.len());
                assert!(held.holds(held.size));
                oracle.blocks.remove(&(held.place.addr().get() as u64));
                free(arena, held.place).unwrap();
            }
            Step::Resize(which, size) => {
                let which = which % live.len();
                let (held, align) = &mut live[which];
                let start = held.place.addr().get() as u64;
                // SAFETY: the block is used by its new pointer only.
                let place = unsafe { arena.resize(held.place, size) }.ok();
                let expected = resized(&oracle, start, size as u64, *align);
                assert_eq!(place.map(|place| place.cast::<u8>().addr().get() as u64), expected, "{step:?}");
                if let Some(place) = place {
                    oracle.blocks.remove(&start);
                    oracle.put(place.cast::<u8>().addr().get() as u64, size as u64);
                    held.place = place.cast();
                    assert!(held.holds(held.size.min(size)), "what was in it has moved with it");
                    (held.size, held.mark) = (size, mark);
                    held.fill();
                }
            }
        }
        arena.check();
    }
    assert!(live.iter().all(|(held, _)| held.holds(held.size)), "no block was written over");
    let live_bytes: usize = live.iter().map(|(held, _)| held.size).sum();
    let figures = arena.figures();
    assert_eq!((figures.blocks, figures.requested), (live.len() as u64, live_bytes as u64));
    assert_eq!(figures.misuses, 0);
    for (held, _) in live {
        free(arena, held.place).unwrap();
    }
    let figures = arena.figures();
    assert_eq!((figures.holes, figures.largest_hole, figures.blocks), (1, figures.capacity, 0));
    assert_eq!(figures.allocations, figures.frees);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 200 }))]

    #[test]
    fn blocks_lie_where_first_fit_puts_them_and_keep_what_they_hold(steps in steps()) {
        run(&small(), &steps);
        if !cfg!(miri) {
            run(&Arena::on(Mapped::new(16 << 10).unwrap(), Options::default()), &steps);
        }
    }
}

#[test]
fn an_arena_of_nothing_is_an_error() {
    assert!(matches!(Buffer::new(0), Err(CreateError::ZeroCapacity)));
    assert!(matches!(Mapped::new(0), Err(CreateError::ZeroCapacity)));
    assert!(matches!(Arena::new(0), Err(CreateError::ZeroCapacity)));
    assert!(matches!(Mapped::new(usize::MAX), Err(CreateError::TooLarge { .. })));
}

#[test]
#[cfg_attr(miri, ignore = "asks the system")]
fn an_arena_that_the_system_cannot_map_is_an_error() {
    let error = Arena::new(1 << 55).unwrap_err();
    assert!(matches!(error, CreateError::Map { .. }));
    assert!(error.to_string().starts_with("cannot map 36028797018963968 bytes for an arena: "), "{error}");
}

#[test]
fn capacity_is_whole_pages() {
    assert_eq!(Arena::on(Buffer::new(1).unwrap(), Options::default()).figures().capacity, 4096);
    assert_eq!(Arena::on(Buffer::new(4097).unwrap(), Options::default()).figures().capacity, 8192);
}

#[test]
fn an_arena_that_is_full_says_so_and_goes_on() {
    let arena = small();
    let blocks: Vec<_> = std::iter::from_fn(|| arena.allocate(1008, 16, "").ok()).collect();
    assert_eq!(blocks.len(), 16);
    let full = AllocError::OutOfMemory { size: 512, align: 16, free: 256, largest: 256 };
    assert_eq!(arena.allocate(512, 16, "").unwrap_err(), full);
    assert_eq!(
        full.to_string(),
        "no room for 512 bytes aligned to 16: 256 bytes are free, of which the largest hole has 256"
    );
    assert!(arena.allocate(usize::MAX, 16, "").is_err());
    assert!(arena.allocate(16, 1 << 62, "").is_err());
    assert_eq!(arena.figures().refused, 4, "the sixteen, and these three");
    free(&arena, blocks[7].cast()).unwrap();
    assert_eq!(arena.allocate(512, 16, "").unwrap().cast::<u8>(), blocks[7].cast());
}

#[test]
fn alignments_are_powers_of_two() {
    let arena = small();
    for align in [0, 3, 24, usize::MAX] {
        assert_eq!(arena.allocate(8, align, "").unwrap_err(), AllocError::InvalidAlignment { align: align as u64 });
    }
    for align in [1, 2, 64, 1024, 4096] {
        assert!(arena.allocate(8, align, "").unwrap().cast::<u8>().addr().get().is_multiple_of(align));
    }
}

#[test]
fn pointers_that_are_no_blocks_are_refused() {
    let arena = small();
    let (first, second) = (block(&arena, 100), block(&arena, 100));
    let address = |pointer: NonNull<u8>| pointer.addr().get() as u64;
    let before = arena.state();

    let mut local = 0_u8;
    let foreign = NonNull::from(&mut local);
    assert!(matches!(free(&arena, foreign), Err(FreeError::Foreign { .. })));
    // SAFETY: inside the arena.
    let inside = unsafe { first.add(16) };
    assert_eq!(free(&arena, inside), Err(FreeError::Misaligned { address: address(inside) }));
    // SAFETY: inside the arena.
    let beyond = unsafe { first.add(8192) };
    assert_eq!(free(&arena, beyond), Err(FreeError::DoubleFree { address: address(beyond) }));
    // SAFETY: as above.
    assert!(matches!(unsafe { arena.resize(inside, 5) }, Err(ResizeError::Block(FreeError::Misaligned { .. }))));
    let after = arena.state();
    assert_eq!((after.figures.misuses, &after.blocks, &after.holes), (4, &before.blocks, &before.holes));

    free(&arena, first).unwrap();
    assert_eq!(free(&arena, first), Err(FreeError::DoubleFree { address: address(first) }));
    free(&arena, second).unwrap();
    arena.check();
    assert_eq!(free(&arena, second), Err(FreeError::DoubleFree { address: address(second) }));
}

/// There is nothing in the memory that the arena relies on.
#[test]
fn writing_over_everything_breaks_nothing() {
    let arena = small();
    let blocks: Vec<_> = (0..40).map(|_| block(&arena, 100)).collect();
    for pair in blocks.chunks(2) {
        free(&arena, pair[0]).unwrap();
    }
    let before = arena.state();
    // SAFETY: the whole arena; the test does what programs must not do to their neighbours, and reads no block.
    unsafe { blocks[0].write_bytes(0xff, 16 << 10) };
    arena.check();
    assert_eq!(arena.state(), before);
    assert_eq!(block(&arena, 100), blocks[0], "the holes are still known");
    for pair in blocks.chunks(2) {
        free(&arena, pair[1]).unwrap();
    }
    free(&arena, blocks[0]).unwrap();
    assert_eq!(arena.figures().holes, 1);
}

#[test]
fn a_spoilt_guard_is_found() {
    let arena = guarded();
    let (first, second) = (block(&arena, 20), block(&arena, 20));
    assert!(arena.corrupted().is_empty());
    // SAFETY: into the guard, as only a faulty program does.
    let behind = unsafe { first.add(23) };
    // SAFETY: as above.
    unsafe { behind.write(0) };
    let (address, at) = (first.addr().get() as u64, behind.addr().get() as u64);
    let corrupted = FreeError::Corrupted { address, requested: 20, at };
    assert_eq!(free(&arena, first), Err(corrupted));
    // SAFETY: the block lives still.
    assert_eq!(unsafe { arena.resize(first, 50) }, Err(corrupted.into()));
    assert_eq!(arena.corrupted().iter().map(|block| block.address).collect::<Vec<_>>(), [address]);
    assert_eq!(arena.figures().misuses, 2);
    // SAFETY: the block is used by its new pointer only.
    let second = unsafe { arena.resize(second, 500) }.unwrap().cast();
    free(&arena, second).unwrap();
    arena.check();
}

#[test]
fn collections_live_in_it() {
    let arena = small();
    let mut numbers = ArenaVec::new_in(arena.tagged("numbers"));
    numbers.extend(0..300_u32);
    let mut map = hashbrown::HashMap::new_in(&arena);
    map.extend((0..50_u32).map(|n| (n, n * n)));
    assert_eq!(numbers.iter().sum::<u32>(), 300 * 299 / 2);
    assert!((0..50).all(|n| map[&n] == n * n));
    let state = arena.state();
    assert_eq!(state.tags().iter().map(|tag| tag.0).collect::<Vec<_>>(), ["numbers", ""]);
    assert_eq!(state.block_at(numbers.as_ptr().addr() as u64 + 7).unwrap().tag, "numbers");
    numbers.truncate(3);
    numbers.shrink_to_fit();
    assert_eq!((numbers.as_slice(), arena.state().tags()[1]), (&[0, 1, 2][..], ("numbers", 1, 12)));
    let empty: ArenaVec<u64, _> = ArenaVec::new_in(&arena);
    drop((empty, numbers, map));
    let figures = arena.figures();
    assert_eq!((figures.blocks, figures.holes, figures.misuses), (0, 1, 0));
    assert!(ArenaVec::<u8, _>::new_in(&arena).try_reserve(20 << 10).is_err(), "more than there is");
}

#[test]
fn a_block_given_back_with_another_layout_is_refused() {
    let arena = small();
    let place = block(&arena, 64);
    for (size, align) in [(65, 16), (64, 32)] {
        let layout = std::alloc::Layout::from_size_align(size, align).unwrap();
        // SAFETY: nobody uses the block.
        let freed = unsafe { arena.deallocate_as(place, Some(layout)) };
        assert!(matches!(freed, Err(FreeError::WrongLayout { .. })), "{freed:?}");
    }
    assert_eq!((arena.figures().blocks, arena.figures().misuses), (1, 2));
}

#[test]
fn observers_hear_everything_in_order() {
    let arena = small();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&heard);
    assert!(arena.observe(Some(Box::new(move |event| list.lock().unwrap().push(*event)))).is_none());
    let place = arena.allocate(100, 64, "x").unwrap().cast();
    // SAFETY: the block is used by its new pointer only.
    let place = unsafe { arena.resize(place, 200) }.unwrap().cast();
    assert!(arena.allocate(1 << 20, 16, "").is_err());
    free(&arena, place).unwrap();
    assert!(arena.observe(None).is_some());
    block(&arena, 1);
    let heard = heard.lock().unwrap();
    let first = Block { address: place.addr().get() as u64, requested: 100, size: 112, align: 64, tag: "x", number: 0 };
    let larger = Block { requested: 200, size: 208, ..first };
    let refused =
        AllocError::OutOfMemory { size: 1 << 20, align: 16, free: (16 << 10) - 208, largest: (16 << 10) - 208 };
    assert_eq!(
        heard.as_slice(),
        [
            Event::Allocated(first),
            Event::Resized { before: first, after: larger },
            Event::Refused(refused),
            Event::Freed(larger),
        ]
    );

    let stamp = Stamp { time: 7, pid: 8, tid: 9, site: 10 };
    let ops: Vec<_> = heard.iter().flat_map(|event| event.recorded(stamp)).map(|event| event.op).collect();
    let (addr, site, stack) = (first.address, 10, 0);
    let function = Function::AlignedAlloc;
    assert_eq!(
        ops,
        [
            Op::Alloc { function, align_log2: 6, addr, size: 100, site, stack },
            Op::ReallocBegin { function: Function::Realloc, old: addr, size: 200, site },
            Op::ReallocEnd { function: Function::Realloc, addr, size: 200, site, stack },
            Op::Alloc { function: Function::Malloc, align_log2: 0, addr: 0, size: 1 << 20, site, stack },
            Op::Free { function: Function::Free, addr, size: 0, site },
        ]
    );
}

/// What an observer hears, one thread's after another's, adds up to the arena's own state.
#[test]
fn threads_share_it() {
    const EACH: usize = if cfg!(miri) { 20 } else { 2_000 };
    let arena = Arena::on(Buffer::new(4 << 20).unwrap(), Options::default());
    let live = Arc::new(Mutex::new(BTreeMap::new()));
    let known = Arc::clone(&live);
    arena.observe(Some(Box::new(move |event| {
        let mut known = known.lock().unwrap();
        match *event {
            Event::Allocated(block) => assert!(known.insert(block.address, block).is_none()),
            Event::Freed(block) => assert_eq!(known.remove(&block.address), Some(block)),
            Event::Resized { .. } | Event::Refused(_) => unreachable!(),
        }
    })));
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let arena = &arena;
            scope.spawn(move || {
                let mut kept = Vec::new();
                for number in 0..EACH {
                    let place = arena.allocate(16 + number % 100, 16, "").unwrap().cast::<u8>();
                    // SAFETY: the block is this thread's and has at least so many bytes.
                    unsafe { place.write_bytes(thread as u8, 16 + number % 100) };
                    kept.push((place, 16 + number % 100));
                    if number % 3 > 0 {
                        let (place, size) = kept.swap_remove(number % kept.len());
                        // SAFETY: written by this thread.
                        let held = unsafe { std::slice::from_raw_parts(place.as_ptr(), size) };
                        assert!(held.iter().all(|&byte| byte == thread as u8));
                        free(arena, place).unwrap();
                    }
                }
            });
        }
    });
    arena.check();
    assert_eq!(arena.state().blocks, live.lock().unwrap().values().copied().collect::<Vec<_>>());
}
