//! Finding the main arena and the parameters in libc's data, without symbols.

use super::memory::{Memory, Unreadable};
use super::state::{ArenaState, Parameters};
use super::version::Offsets;
use std::ops::Range;

/// More arenas than any process has: eight a processor, unless a tunable says otherwise.
const MAX_ARENAS: usize = 1 << 16;

/// Libc's writable data is some dozens of KiB; a static program's may be more.
const MAX_DATA: u64 = 256 << 20;

/// Where the records of a heap lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchors {
    /// `main_arena`.
    pub(super) main_arena: u64,
    /// `mp_`.
    pub(super) parameters: u64,
}

/// What was found where one thing was looked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// No place, or more than one, fits the main arena.
    Arena(usize),
    /// No place, or more than one, fits the parameters.
    Parameters(usize),
}

/// Looks through libc's writable memory.
///
/// An arena is known by the ring that it is in, its 127 bins and its counters; the parameters by what their fields
/// must have in common. Each must be found exactly once.
pub(super) fn find(
    memory: &impl Memory,
    data: &[Range<u64>],
    offsets: &Offsets,
) -> Result<Result<Anchors, Missing>, Unreadable> {
    let mut arenas = Vec::new();
    let mut parameters = Vec::new();
    for range in data {
        let length = range.end.saturating_sub(range.start).min(MAX_DATA);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        memory.read(range.start, &mut bytes)?;
        for at in (0..bytes.len()).step_by(8) {
            let (rest, address) = (&bytes[at..], range.start + at as u64);
            if rest.len() as u64 >= offsets.arena.size
                && ArenaState::is_possible(rest, address, offsets)
                && ring(memory, address, offsets).is_some()
            {
                arenas.push(address);
            }
            if rest.len() as u64 >= offsets.parameters.size && Parameters::is_possible(rest, offsets) {
                parameters.push(address);
            }
        }
    }
    // What fits the weaker rules by chance begins with other words than any threshold has.
    if parameters.len() > 1 {
        let begins_well = |&address: &u64| memory.word(address + 16).is_ok_and(|mmap_threshold| mmap_threshold >= 1024);
        parameters.retain(begins_well);
    }
    Ok(match (&arenas[..], &parameters[..]) {
        (&[main_arena], &[parameters]) => Ok(Anchors { main_arena, parameters }),
        ([_], others) => Err(Missing::Parameters(others.len())),
        (others, _) => Err(Missing::Arena(others.len())),
    })
}

/// The arenas of a ring from its main arena on; `None` when it does not close, or when another arena does not lie
/// where arenas lie.
pub(super) fn ring(memory: &impl Memory, main_arena: u64, offsets: &Offsets) -> Option<Vec<ArenaState>> {
    let mut arenas = vec![ArenaState::read(memory, main_arena, offsets).ok()?];
    loop {
        let next = arenas.last()?.next;
        if next == main_arena {
            return Some(arenas);
        }
        // Whatever the size of a heap, its arena follows its header on the first page, and its header names it.
        let heap = next.checked_sub(offsets.heap_header).filter(|heap| heap.is_multiple_of(1 << 20))?;
        if arenas.len() >= MAX_ARENAS || memory.word(heap).ok()? != next {
            return None;
        }
        let state = ArenaState::read(memory, next, offsets).ok()?;
        // A ring that closes elsewhere.
        if state.next == next || (arenas.len() > 1 && state.next == arenas[1].address) {
            return None;
        }
        arenas.push(state);
    }
}
