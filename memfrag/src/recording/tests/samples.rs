//! What the tests record.

use super::super::{Header, Item, Reader, Writer};
use crate::capture::Sink;
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;
use std::path::Path;

/// A small generator of numbers that stays the same for ever: the golden file depends on it.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

pub(super) fn header() -> Header {
    Header {
        backend: "preload".into(),
        started_unix_ns: 1_700_000_000_123_456_789,
        clock: "CLOCK_MONOTONIC".into(),
        memfrag_version: "0.1.0".into(),
        kernel: "6.1.0".into(),
        machine: "x86_64".into(),
        hostname: "sample".into(),
        command: vec!["server".into(), "--port".into(), "0".into()],
        page_size: 4096,
    }
}

/// A program of a few threads: allocations, frees of blocks new and old, reallocations, mappings, a child.
pub(super) fn program(count: usize, seed: u64) -> Vec<Event> {
    let mut numbers = Numbers(seed);
    let mut live: Vec<u64> = Vec::new();
    let mut events = Vec::new();
    let (mut time, mut top) = (1_000u64, 0x5555_5555_9000u64);
    while events.len() < count {
        time += 40 + numbers.next(300);
        let tid = 100 + numbers.next(3) as u32;
        let caller = 0x5555_5555_0000 + numbers.next(40) * 0x31;
        let size = [24, 40, 100, 1000, numbers.next(5000)][numbers.next(5) as usize];
        let mut push = |op| events.push(Event { time, pid: 100, tid, op });
        match numbers.next(20) {
            0..9 => {
                live.push(top);
                push(Op::Alloc { function: Function::Malloc, align_log2: 0, addr: top, size, site: caller, stack: 0 });
                top += (size + 8 + 15) & !15;
            }
            9..16 if !live.is_empty() => {
                let addr = live.swap_remove(numbers.next(live.len() as u64) as usize);
                push(Op::Free { function: Function::Free, addr, size: 0, site: caller });
            }
            16..19 if !live.is_empty() => {
                let at = numbers.next(live.len() as u64) as usize;
                let function = Function::Realloc;
                push(Op::ReallocBegin { function, old: live[at], size, site: caller });
                if numbers.next(2) == 0 {
                    live[at] = top;
                    top += (size + 8 + 15) & !15;
                }
                push(Op::ReallocEnd { function, addr: live[at], size, site: caller, stack: 7 });
            }
            19 => push(Op::Mmap { addr: 0x7f00_0000_0000, size: 1 << 20, protection: 3, flags: 0x22, fd: -1 }),
            _ => push(Op::ThreadStart),
        }
    }
    events.truncate(count);
    events
}

/// Records events in one go.
pub(super) fn record(path: &Path, events: &[Event]) -> super::super::Summary {
    let mut writer = Writer::create(path, &header()).unwrap();
    writer.events(events);
    writer.finish(events.last().map_or(0, |event| event.time), Some(0)).unwrap()
}

/// Records events in chunks of `chunk`.
pub(super) fn record_in_chunks(path: &Path, events: &[Event], chunk: usize) {
    let mut writer = Writer::create(path, &header()).unwrap();
    for events in events.chunks(chunk) {
        writer.events(events);
        writer.flush();
    }
    writer.finish(events.last().map_or(0, |event| event.time), Some(0)).unwrap();
}

/// All events of a recording, and how many it says are missing.
pub(super) fn read(reader: &Reader) -> (Vec<Event>, u64) {
    let (mut events, mut missing) = (Vec::new(), 0);
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        match item {
            Item::Events(some) => events.extend_from_slice(some),
            Item::Missing { events } => missing += events,
            _ => {}
        }
    }
    (events, missing)
}

/// A number that is small, extreme, or anything.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..200u64, Just(u64::MAX), Just(u64::from(u32::MAX)), 65530..65540u64, any::<u64>()]
}

/// An address: mostly one of a few, so that events meet.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![4 => (0..24u64).prop_map(|at| 0x10_0000 + at * 32), 1 => number()]
}

fn function() -> impl Strategy<Value = Function> {
    prop::sample::select(Function::ALL)
}

fn allocator_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (function(), any::<u8>(), address(), number(), number(), any::<u32>()).prop_map(
            |(function, align_log2, addr, size, site, stack)| Op::Alloc {
                function,
                align_log2,
                addr,
                size,
                site,
                stack
            }
        ),
        (address(), prop_oneof![Just(24u64), Just(40u64)]).prop_map(|(addr, size)| Op::Alloc {
            function: Function::Malloc,
            align_log2: 0,
            addr,
            size,
            site: 1,
            stack: 0
        }),
        (function(), address(), prop_oneof![Just(0u64), number()], 0..3u64)
            .prop_map(|(function, addr, size, site)| Op::Free { function, addr, size, site }),
        (address(), 0..3u64).prop_map(|(addr, site)| Op::Free { function: Function::Free, addr, size: 0, site }),
        (function(), address(), number(), number()).prop_map(|(function, old, size, site)| Op::ReallocBegin {
            function,
            old,
            size,
            site
        }),
        (function(), address(), number(), number(), any::<u32>())
            .prop_map(|(function, addr, size, site, stack)| Op::ReallocEnd { function, addr, size, site, stack }),
    ]
}

fn other_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (any::<u32>(), number()).prop_map(|(child, flags)| Op::Fork { child, flags }),
        Just(Op::Exec),
        any::<Option<i32>>().prop_map(|status| Op::Exit { status }),
        Just(Op::ThreadStart),
        Just(Op::ThreadExit),
        (number(), number(), any::<u32>(), any::<u32>(), any::<i32>())
            .prop_map(|(addr, size, protection, flags, fd)| Op::Mmap { addr, size, protection, flags, fd }),
        (number(), number()).prop_map(|(addr, size)| Op::Munmap { addr, size }),
        (number(), number()).prop_map(|(addr, size)| Op::MunmapFailed { addr, size }),
        (number(), number()).prop_map(|(addr, size)| Op::MremapBegin { addr, size }),
        (number(), number()).prop_map(|(addr, size)| Op::MremapEnd { addr, size }),
        number().prop_map(|end| Op::Brk { end }),
        (number(), number(), any::<u32>()).prop_map(|(addr, size, advice)| Op::Madvise { addr, size, advice }),
        number().prop_map(|lost| Op::Gap { lost }),
    ]
}

/// Any event at all.
pub(super) fn event() -> impl Strategy<Value = Event> {
    let id = || prop_oneof![4 => 0..5u32, 1 => any::<u32>()];
    (number(), id(), id(), prop_oneof![6 => allocator_op(), 1 => other_op()]).prop_map(|(time, pid, tid, op)| Event {
        time,
        pid,
        tid,
        op,
    })
}
