//! What a checkpoint says is what replaying says, and what is none never passes for one.

use super::*;
use crate::capture::Sink as _;
use crate::glibc::{Arena, Chunk, ChunkKind, Layout, MappedChunk, Segment};
use crate::heap::{Block, Heap};
use crate::report::{RecordingMeta, json};
use crate::target::residency::{PAGE, Region, RegionKind};
use crate::target::{Mapping, MemorySample, ProcessInfo, Residency};
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;

/// What a builder is given next.
#[derive(Clone, Debug)]
enum Step {
    Event(u32, u32, Op),
    Process(u32, u64),
    /// Glibc's mappings, or another allocator's.
    Mappings(u32, bool, u64),
    Memory(u32, u64),
    Residency(u32, u64),
    Layout(u32, u64),
    Counters(Option<u32>, u64),
    Missing(u64),
}

fn op() -> impl Strategy<Value = Op> {
    // Few addresses, so that they collide: near each other, in other regions, far away; null now and then.
    let addr = || {
        let near = (1..24_u64).prop_map(|n| n * 16);
        let far = (1..6_u64).prop_map(|n| (n << 19) + 16);
        prop_oneof![1 => Just(0), 12 => near, 3 => far, 1 => (1..4_u64).prop_map(|n| (n << 30) + 16)]
    };
    let size = || prop_oneof![1 => Just(0), 6 => 1..99_u64, 2 => 1..1_u64 << 18, 1 => 1..1_u64 << 40];
    let caller = || 1..4_u64;
    let function = Function::Realloc;
    prop_oneof![
        16 => (addr(), size(), caller(), 0..3_u8).prop_map(|(addr, size, site, align_log2)| {
            let function = if align_log2 > 0 { Function::Memalign } else { Function::Malloc };
            Op::Alloc { function, align_log2, addr, size, site, stack: 0 }
        }),
        8 => addr().prop_map(|addr| Op::Free { function: Function::Free, addr, size: 0, site: 0 }),
        6 => (addr(), size(), caller()).prop_map(move |(old, size, site)| Op::ReallocBegin { function, old, size, site }),
        6 => (addr(), size(), caller()).prop_map(move |(addr, size, site)| {
            Op::ReallocEnd { function, addr, size, site, stack: 0 }
        }),
        3 => (1..5_u32, prop_oneof![3 => Just(17), 1 => Just(0x4111), 1 => Just(0x1_0100)])
            .prop_map(|(child, flags)| Op::Fork { child, flags }),
        1 => Just(Op::Exec),
        1 => prop::option::of(0..300_i32).prop_map(|status| Op::Exit { status }),
        1 => Just(Op::ThreadStart),
        1 => Just(Op::ThreadExit),
        1 => (0..9_u64).prop_map(|lost| Op::Gap { lost }),
        1 => (addr(), size()).prop_map(|(addr, size)| Op::Mmap { addr, size, protection: 3, flags: 34, fd: -1 }),
        1 => (addr(), size()).prop_map(|(addr, size)| Op::Munmap { addr, size }),
        1 => (addr(), size()).prop_map(|(addr, size)| Op::MunmapFailed { addr, size }),
        1 => (addr(), size()).prop_map(|(addr, size)| Op::MremapBegin { addr, size }),
        1 => (addr(), size()).prop_map(|(addr, size)| Op::MremapEnd { addr, size }),
        2 => (0..9_u64).prop_map(|end| Op::Brk { end: end << 18 }),
        1 => Just(Op::Madvise { addr: 0, size: PAGE, advice: 4 }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pid = || 1..5_u32;
    prop_oneof![
        40 => (pid(), 0..3_u32, op()).prop_map(|(pid, tid, op)| Step::Event(pid, tid, op)),
        1 => (pid(), 0..3_u64).prop_map(|(pid, ticks)| Step::Process(pid, ticks)),
        2 => (pid(), any::<bool>(), 0..3_u64).prop_map(|(pid, glibc, at)| Step::Mappings(pid, glibc, at)),
        2 => (pid(), 0..1_u64 << 20).prop_map(|(pid, rss)| Step::Memory(pid, rss)),
        2 => (pid(), 0..1_u64 << 8).prop_map(|(pid, pages)| Step::Residency(pid, pages)),
        2 => (pid(), any::<u64>()).prop_map(|(pid, used)| Step::Layout(pid, used)),
        1 => (prop::option::of(pid()), 0..99_u64).prop_map(|(pid, count)| Step::Counters(pid, count)),
        1 => (0..9_u64).prop_map(Step::Missing),
    ]
}

/// Steps, each with how long it comes after the one before.
fn program() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let wait = prop_oneof![1 => Just(0), 3 => 0..1_000_000_u64, 1 => 0..3_000_000_000_u64];
    prop::collection::vec((wait, step()), 1..160)
}

/// A heap of small chunks in which the bits say which are in use, and one that was mapped by itself.
fn layout(used: u64) -> Layout {
    let kind = |at: u64| if used >> at & 1 == 1 { ChunkKind::Used } else { ChunkKind::Free };
    let chunks: Vec<Chunk> = (0..24).map(|at| Chunk::new(32 + at % 3 * 16, kind(at))).collect();
    let bytes = chunks.iter().map(|chunk| chunk.bytes()).sum::<u64>();
    let segments = vec![Segment { range: 0..bytes, first: 0, chunks }];
    let arena = Arena { address: 0x99, is_main: true, system_bytes: bytes, max_system_bytes: bytes, segments };
    let mapped = vec![MappedChunk { address: 2 << 30, bytes: 40 * PAGE }];
    Layout { arenas: vec![arena], mapped: if used >> 63 == 1 { mapped } else { Vec::new() } }
}

/// Does a part of a program.
fn perform(builder: &mut ReportBuilder, time: &mut u64, program: &[(u64, Step)]) {
    for (wait, step) in program {
        *time += wait;
        let time = *time;
        match step.clone() {
            Step::Event(pid, tid, op) => builder.events(&[Event { time, pid, tid: pid + tid, op }]),
            Step::Process(pid, start_ticks) => {
                let (comm, exe) = (format!("p{pid}"), "/bin/p".into());
                let cmdline = vec!["p".to_owned(), "é".to_owned()];
                let settings = vec!["MALLOC_ARENA_MAX=1".to_owned(); start_ticks as usize % 2];
                builder.process(&ProcessInfo { time, pid, ppid: 1, start_ticks, comm, exe, cmdline, settings });
            }
            Step::Mappings(pid, glibc, at) => {
                let path = if glibc { "/lib/libc.so.6" } else { "/lib/libjemalloc.so.2" }.into();
                let start = at << 12;
                let mapping = Mapping { start, end: start + PAGE, offset: 16, executable: true, path, inode: at };
                builder.mappings(time, pid, &[mapping.clone(), Mapping { start: mapping.end, ..mapping }]);
            }
            Step::Memory(pid, rss) => {
                let sample = MemorySample { time, pid, rss, rss_anon: rss / 2, ..MemorySample::default() };
                builder.memory(&MemorySample { virtual_bytes: rss * 3, ..sample });
            }
            Step::Residency(pid, pages) => {
                let runs: Vec<_> =
                    (0..8).filter(|at| pages >> at & 1 == 1).map(|at| at * 2 * PAGE..(at * 2 + 1) * PAGE).collect();
                let heap = Region {
                    range: 0..64 * PAGE,
                    kind: RegionKind::Heap,
                    resident_bytes: runs.len() as u64 * PAGE,
                    swapped_bytes: PAGE,
                    resident: runs,
                };
                builder.residency(&Residency { time, pid, regions: vec![heap] });
            }
            Step::Layout(pid, used) => {
                builder.layout(time, pid, &layout(used));
                // A walk and a look of one moment belong together.
                builder.residency(&Residency { time, pid, regions: Vec::new() });
            }
            Step::Counters(pid, count) => builder.counters(pid, &[count; memfrag_common::loss::COUNTERS]),
            Step::Missing(events) => builder.missing(events),
        }
    }
}

/// Everything that anybody can ask.
fn told(builder: &ReportBuilder) -> (String, String) {
    let mut report = Vec::new();
    json::write(&builder.report(RecordingMeta::default()), &mut report).expect("written");
    let heaps = builder.heaps();
    let heap = |heap: &Heap| {
        let blocks: (Vec<Block>, Vec<Block>) = (heap.blocks().sorted(), heap.older().sorted());
        let pages: Vec<_> = heap.pages().runs(0..u64::MAX).collect();
        let lifetimes: Option<Vec<_>> =
            heap.lifetimes().map(|all| all.rows().map(|(t, row)| (t, row.to_vec())).collect());
        let origins: Vec<_> = heap.origins().collect();
        let counted = (heap.live(), heap.older_amount(), heap.taken_bytes(), heap.walked_at(), heap.pages().in_use());
        format!("{blocks:?} {pages:?} {lifetimes:?} {origins:?} {counted:?} {:?} {:?}", heap.growths(), heap.timeline())
    };
    let told = heaps.processes().iter().map(|process| {
        let who = (process.pid(), process.parent(), process.info(), process.started(), process.ended());
        let did = (process.status(), process.execs(), process.events(), process.memory(), process.threads());
        format!("{who:?} {did:?} {}", heap(heaps.heap(process)))
    });
    let told = told.collect::<Vec<_>>().join("\n");
    (String::from_utf8(report).expect("JSON"), told)
}

fn counting() -> ReportBuilder {
    let mut builder = ReportBuilder::new(None);
    builder.count_lifetimes();
    builder
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A builder restored anywhere and given the rest tells what one tells that was given everything.
    #[test]
    fn a_checkpoint_is_as_good_as_what_led_to_it(program in program(), cuts in prop::collection::vec(0..160_usize, 1..4)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(program.len())).collect();
        cuts.sort_unstable();
        let (mut whole, mut restored) = (counting(), counting());
        let (mut time, mut at) = (0, 0);
        for cut in cuts.into_iter().chain([program.len()]) {
            let mut same = time;
            perform(&mut whole, &mut time, &program[at..cut]);
            perform(&mut restored, &mut same, &program[at..cut]);
            at = cut;
            let state = whole.save().expect("it can be saved");
            prop_assert_eq!(&restored.save().expect("so can it"), &state);
            restored = ReportBuilder::load(&state).expect("it is whole");
            prop_assert_eq!(told(&whole), told(&restored));
            prop_assert_eq!(&restored.save().expect("as before"), &state);
        }
    }

    /// As the report at a moment, when what is later is left out behind a checkpoint.
    #[test]
    fn what_is_later_can_be_left_out_behind_it(program in program(), cut in 0..160_usize, until in 0..160_usize) {
        let cut = cut.min(program.len());
        let until_ns: u64 = program.iter().take(until.max(cut)).map(|(wait, _)| wait).sum();
        let (mut whole, mut begun) = (ReportBuilder::new(Some(until_ns)), counting());
        let (mut time, mut same) = (0, 0);
        perform(&mut whole, &mut time, &program);
        perform(&mut begun, &mut same, &program[..cut]);
        let mut restored = ReportBuilder::load(&begun.save().expect("saved")).expect("whole");
        restored.keep_until(Some(until_ns));
        perform(&mut restored, &mut same, &program[cut..]);
        prop_assert_eq!(told(&whole).0, told(&restored).0);
    }

    /// Damage is refused, or leads to a state that can be lived with.
    #[test]
    fn no_bytes_break_the_state(
        program in program(),
        cut in 0..160_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let cut = cut.min(program.len());
        let (mut builder, mut time) = (counting(), 0);
        perform(&mut builder, &mut time, &program[..cut]);
        let mut state = builder.save().expect("it can be saved");
        for (at, byte) in changes {
            let at = at.index(state.len());
            state[at] = byte;
        }
        if let Some(keep) = keep {
            state.truncate(keep.index(state.len()));
        }
        live_with(&state, time, &program[cut..])?;
    }

    #[test]
    fn random_bytes_are_no_state(bytes in prop::collection::vec(prop_oneof![3 => 0..3_u8, 1 => any::<u8>()], 0..400)) {
        live_with(&bytes, 0, &[])?;
    }
}

/// If the bytes are a state, everything can be asked of it, it can go on, and be saved again.
fn live_with(bytes: &[u8], mut time: u64, rest: &[(u64, Step)]) -> Result<(), TestCaseError> {
    let Some(mut builder) = ReportBuilder::load(bytes) else { return Ok(()) };
    told(&builder);
    perform(&mut builder, &mut time, rest);
    told(&builder);
    for process in builder.heaps().processes() {
        let heap = builder.heaps().heap(process);
        prop_assert_eq!(heap.live().blocks, heap.blocks().len());
        prop_assert!(heap.blocks().sorted().windows(2).all(|pair| pair[0].addr < pair[1].addr));
    }
    let state = builder.save().expect("it can be saved");
    prop_assert_eq!(ReportBuilder::load(&state).and_then(|again| again.save()), Some(state));
    Ok(())
}
