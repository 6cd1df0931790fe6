//! Writes the recording of a program that does not exist: as many live blocks and events a second as one wants to see
//! the dashboard bear, which few real programs reach.
//!
//! `busy-heap FILE LIVE RATE SECONDS`: blocks of 16 bytes to 6 KiB, 350 bytes in the mean, from 64 threads and 500
//! call sites, in lists of free places by size as allocators keep them. First the heap is filled, as fast as the file takes it, then for SECONDS
//! pairs of free and malloc come at RATE events a second, in real time. Nine in ten free one of the blocks allocated
//! last, as most programs do. Pages stay resident, so the heap gets holes.

use anyhow::{Context, Result};
use memfrag::capture::Sink as _;
use memfrag::recording::{Header, Writer};
use memfrag::target::residency::{PAGE, Region, RegionKind};
use memfrag::target::{Mapping, MemorySample, ProcessInfo, Residency};
use memfrag_common::{Event, Function, Op};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the heap begins.
const START: u64 = 0x5555_5576_0000;
/// The process, and its first thread.
const PID: u32 = 4_242;
/// Where its program lies, which calls.
const PROGRAM: u64 = 0x5555_5555_4000;
/// Events that are given at once; one in a thousand of a second at a million a second.
const BATCH: u64 = 1_000;

/// How large blocks are, and how many in a hundred.
const SIZES: [(u64, u64); 9] =
    [(24, 25), (40, 20), (72, 15), (136, 12), (264, 10), (520, 9), (1_032, 5), (4_104, 3), (6_152, 1)];

/// A small generator of numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }
}

/// A block: where it lies and which of [`SIZES`] it has.
#[derive(Clone, Copy)]
struct Block {
    address: u64,
    class: u8,
}

/// The heap: its live blocks, and the free places by size.
struct Busy {
    random: Random,
    live: Vec<Block>,
    free: [Vec<u64>; SIZES.len()],
    top: u64,
}

impl Busy {
    fn malloc(&mut self, time: u64) -> Event {
        let mut at = self.random.below(100);
        let class = SIZES
            .iter()
            .position(|&(_, share)| {
                at < share || {
                    at -= share;
                    false
                }
            })
            .unwrap_or(0);
        let footprint = SIZES[class].0 + 8;
        let address = self.free[class].pop().unwrap_or_else(|| {
            let address = self.top + 16;
            self.top += footprint;
            address
        });
        self.live.push(Block { address, class: class as u8 });
        // Sites keep to sizes, and threads to sites, as they do in programs.
        let site = class as u64 * 55 + self.random.below(55);
        let op = Op::Alloc {
            function: Function::Malloc,
            align_log2: 0,
            addr: address,
            size: footprint - 8 - self.random.below(8),
            site: PROGRAM + 0x1000 + site * 0x40,
            stack: 0,
        };
        Event { time, pid: PID, tid: PID + (site % 64) as u32, op }
    }

    /// Frees any block, with equal chance.
    fn free_any(&mut self, time: u64) -> Event {
        let at = self.random.below(self.live.len() as u64);
        self.free(time, at)
    }

    /// Frees a block as programs do: mostly a young one.
    fn free_young(&mut self, time: u64) -> Event {
        if self.random.below(10) == 0 {
            return self.free_any(time);
        }
        let count = self.live.len() as u64;
        let at = count - 1 - self.random.below((count / 100).max(1));
        self.free(time, at)
    }

    fn free(&mut self, time: u64, at: u64) -> Event {
        let block = self.live.swap_remove(at as usize);
        self.free[usize::from(block.class)].push(block.address);
        let op = Op::Free { function: Function::Free, addr: block.address, size: 0, site: 0 };
        Event { time, pid: PID, tid: PID, op }
    }

    /// The memory of the process now.
    fn tell(&self, writer: &mut Writer, time: u64) {
        let end = self.top.next_multiple_of(PAGE);
        let heap = START..end;
        let resident_bytes = end - START;
        writer.residency(&Residency {
            time,
            pid: PID,
            regions: vec![Region {
                range: heap.clone(),
                kind: RegionKind::Heap,
                resident_bytes,
                swapped_bytes: 0,
                resident: vec![heap],
            }],
        });
        let rss_anon = resident_bytes;
        writer.memory(&MemorySample {
            time,
            pid: PID,
            rss: rss_anon,
            rss_anon,
            virtual_bytes: rss_anon,
            ..MemorySample::default()
        });
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file, live, rate, seconds] = words.as_slice() else {
        anyhow::bail!("usage: busy-heap FILE LIVE RATE SECONDS")
    };
    let number = |word: &str| word.parse::<u64>().with_context(|| format!("{word:?} is not a number"));
    let (live, rate, seconds) = (number(live)?, number(rate)?.max(1), number(seconds)?);

    let header =
        Header { backend: "ebpf".into(), clock: "CLOCK_MONOTONIC".into(), page_size: PAGE, ..Header::default() };
    let mut writer = Writer::create(Path::new(file), &header)?;
    introduce(&mut writer);
    let mut busy =
        Busy { random: Random(0x1234_5678_9abc_def1), live: Vec::new(), free: Default::default(), top: START };
    let begin = Instant::now();
    let now = || begin.elapsed().as_nanos() as u64;
    let mut batch = Vec::with_capacity(BATCH as usize);
    // More than will live, of which the rest goes again: a heap without holes shows nothing.
    for (until, event) in [(live + live / 4, Busy::malloc as fn(&mut Busy, u64) -> Event), (live, Busy::free_any)] {
        while busy.live.len() as u64 != until {
            let (time, due) = (now(), (busy.live.len() as u64).abs_diff(until).min(BATCH));
            batch.clear();
            batch.extend((0..due).map(|_| event(&mut busy, time)));
            writer.events(&batch);
        }
    }
    busy.tell(&mut writer, now());
    writer.flush();
    eprintln!("busy-heap: {} blocks in {:.1?}", busy.live.len(), begin.elapsed());

    let busy_since = Instant::now();
    let mut given = 0;
    let mut told = Instant::now();
    while busy_since.elapsed() < Duration::from_secs(seconds) {
        let time = now();
        let due = (busy_since.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
        while given < due {
            batch.clear();
            for _ in 0..BATCH.min(due - given).div_ceil(2) {
                batch.push(busy.free_young(time));
                batch.push(busy.malloc(time));
            }
            given += batch.len() as u64;
            writer.events(&batch);
        }
        if told.elapsed() >= Duration::from_secs(1) {
            busy.tell(&mut writer, now());
            told = Instant::now();
        }
        writer.tick(now());
        std::thread::sleep(Duration::from_millis(2));
    }
    writer.finish(now(), Some(0))?;
    eprintln!("busy-heap: {given} events in {:.1?}", busy_since.elapsed());
    Ok(())
}

fn introduce(writer: &mut Writer) {
    writer.process(&ProcessInfo {
        pid: PID,
        comm: "busy-heap".into(),
        exe: "/usr/bin/busy-heap".into(),
        cmdline: vec!["busy-heap".into()],
        ..ProcessInfo::default()
    });
    let mapping =
        |start: u64, path: &str| Mapping { start, end: start + 0x10_0000, path: path.into(), ..Mapping::default() };
    writer.mappings(0, PID, &[mapping(PROGRAM, "/usr/bin/busy-heap"), mapping(0x7fff_f7c0_0000, "/usr/lib/libc.so.6")]);
}
