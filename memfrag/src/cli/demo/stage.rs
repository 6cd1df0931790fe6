//! Where the demonstration happens: an arena, its live blocks, the pace, and what the operations cost.

use super::super::report::print;
use super::camera::Camera;
use allocator_api2::vec::Vec as ArenaVec;
use memfrag::arena::{Arena, Mapped, Tag, Tagged};
use memfrag::report::units::{bytes, count, duration};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest pause in which nothing is recorded.
const BEAT: Duration = Duration::from_millis(20);

/// Why the demonstration ends early.
#[derive(Debug)]
pub(super) enum Halt {
    /// By Ctrl-C.
    Asked,
    /// The block at this address did not hold what was written into it.
    Spoilt(usize),
}

/// What blocks are for. Each kind has a function of its own that allocates it, which the dashboard names as call site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Connection,
    Request,
    Response,
    Session,
    Crumb,
    Buffer,
}

impl Role {
    const ALL: [Self; 6] = [Self::Connection, Self::Request, Self::Response, Self::Session, Self::Crumb, Self::Buffer];

    const fn tag(self) -> Tag {
        match self {
            Self::Connection => "connection",
            Self::Request => "request",
            Self::Response => "response",
            Self::Session => "session",
            Self::Crumb => "crumb",
            Self::Buffer => "buffer",
        }
    }

    /// The role of blocks with a tag. What has none was refused, and only large blocks are.
    pub(super) fn of(tag: Tag) -> Self {
        Self::ALL.into_iter().find(|role| role.tag() == tag).unwrap_or(Self::Buffer)
    }

    fn allocator(self) -> Allocate {
        match self {
            Self::Connection => connection,
            Self::Request => request,
            Self::Response => response,
            Self::Session => session,
            Self::Crumb => crumb,
            Self::Buffer => buffer,
        }
    }

    /// A place in the function that allocates such blocks.
    pub(super) fn site(self) -> u64 {
        // As a return address, it is behind the instruction that it stands for.
        self.allocator() as usize as u64 + 1
    }
}

/// A block of the arena.
type Bytes<'a> = ArenaVec<u8, Tagged<'a, Mapped>>;

type Allocate = for<'a> fn(&'a Arena, usize) -> Option<Bytes<'a>>;

fn bytes_in(arena: &Arena, role: Role, size: usize) -> Option<Bytes<'_>> {
    let mut bytes = ArenaVec::new_in(arena.tagged(role.tag()));
    bytes.try_reserve_exact(size).is_ok().then_some(bytes)
}

#[inline(never)]
fn connection(arena: &Arena, size: usize) -> Option<Bytes<'_>> {
    bytes_in(arena, Role::Connection, size)
}

#[inline(never)]
fn request(arena: &Arena, size: usize) -> Option<Bytes<'_>> {
    bytes_in(arena, Role::Request, size)
}

#[inline(never)]
fn response(arena: &Arena, size: usize) -> Option<Bytes<'_>> {
    bytes_in(arena, Role::Response, size)
}

#[inline(never)]
fn session(arena: &Arena, size: usize) -> Option<Bytes<'_>> {
    bytes_in(arena, Role::Session, size)
}

#[inline(never)]
fn crumb(arena: &Arena, size: usize) -> Option<Bytes<'_>> {
    bytes_in(arena, Role::Crumb, size)
}

#[inline(never)]
fn buffer(arena: &Arena, size: usize) -> Option<Bytes<'_>> {
    bytes_in(arena, Role::Buffer, size)
}

/// A live block, all of whose bytes are `mark`.
#[derive(Debug)]
pub(super) struct Live<'a> {
    bytes: Bytes<'a>,
    mark: u8,
}

/// What operations took, recording included.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    allocate: Vec<u64>,
    free: Vec<u64>,
    refused: u64,
}

impl Latencies {
    /// The summary at the end.
    pub(super) fn render(mut self) -> String {
        let mut text = format!("{:<10} {:>10} {:>9} {:>9} {:>9}\n", "", "calls", "p50", "p95", "p99");
        for (name, times) in [("allocate", &mut self.allocate), ("free", &mut self.free)] {
            times.sort_unstable();
            let at = |percent: usize| {
                let rank = (times.len() * percent).div_ceil(100);
                times.get(rank.saturating_sub(1)).map_or("-".to_owned(), |&ns| duration(ns))
            };
            let [p50, p95, p99] = [50, 95, 99].map(at);
            let _ = writeln!(text, "{name:<10} {:>10} {p50:>9} {p95:>9} {p99:>9}", count(times.len() as u64));
        }
        if self.refused > 0 {
            let _ = writeln!(
                text,
                "{:<10} {:>10}  for want of a hole that is large enough",
                "refused",
                count(self.refused)
            );
        }
        text
    }
}

/// Where everything happens.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    arena: &'a Arena,
    camera: Camera,
    random: u64,
    speed: f64,
    stop: &'a AtomicBool,
    latencies: Latencies,
    titled: bool,
    /// Live blocks, in the order in which they were allocated but for what was freed between.
    pub(super) live: Vec<Live<'a>>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(arena: &'a Arena, camera: Camera, number: u64, speed: f64, ended: &'a AtomicBool) -> Self {
        // A generator by shifts never leaves zero.
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let latencies = Latencies::default();
        Self { arena, camera, random, speed, stop: ended, latencies, titled: false, live: Vec::new() }
    }

    pub(super) fn finish(self) -> (Latencies, Camera) {
        self.arena.observe(None);
        (self.latencies, self.camera)
    }

    /// Bytes of the arena.
    pub(super) fn capacity(&self) -> u64 {
        self.arena.figures().capacity
    }

    /// Bytes of live blocks.
    pub(super) fn used(&self) -> u64 {
        self.arena.figures().used
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(bound)) >> 64) as u64
    }

    /// A size within bounds, each doubling of the least one as likely as the others.
    pub(super) fn size(&mut self, least: u64, most: u64) -> u64 {
        let doublings = (most / least).max(1).ilog2();
        let low = least << self.below(u64::from(doublings.max(1)));
        low + self.below(low.min(most.saturating_sub(low)) + 1)
    }

    /// Allocates a block and writes into all of it. Whether there was room.
    pub(super) fn allocate(&mut self, role: Role, size: u64) -> bool {
        let size = size as usize;
        let allocate = role.allocator();
        let begin = Instant::now();
        let block = allocate(self.arena, size);
        let took = begin.elapsed();
        let Some(mut bytes) = block else {
            self.latencies.refused += 1;
            return false;
        };
        self.latencies.allocate.push(nanoseconds(took));
        let mark = self.below(256) as u8;
        bytes.resize(size, mark);
        self.live.push(Live { bytes, mark });
        true
    }

    /// Frees a live block, after a look whether it still holds what was written into it.
    pub(super) fn free(&mut self, at: usize) -> Result<(), Halt> {
        let Live { bytes, mark } = self.live.swap_remove(at);
        if bytes.iter().any(|&byte| byte != mark) {
            return Err(Halt::Spoilt(bytes.as_ptr().addr()));
        }
        let begin = Instant::now();
        drop(bytes);
        self.latencies.free.push(nanoseconds(begin.elapsed()));
        Ok(())
    }

    /// Frees any live block.
    pub(super) fn free_any(&mut self) -> Result<(), Halt> {
        match self.live.len() as u64 {
            0 => Ok(()),
            live => {
                let at = self.below(live) as usize;
                self.free(at)
            }
        }
    }

    /// Frees every other block, by the order in which they were allocated.
    pub(super) fn free_every_other(&mut self) -> Result<(), Halt> {
        // From the end, so that what takes a freed one's place has been passed already.
        for at in (0..self.live.len()).rev().step_by(2) {
            self.free(at)?;
        }
        Ok(())
    }

    /// The end of a step: lets it be seen for as long as it should, by the speed.
    pub(super) fn step(&mut self, pause: Duration) -> Result<(), Halt> {
        let until = Instant::now() + Duration::try_from_secs_f64(pause.as_secs_f64() / self.speed).unwrap_or_default();
        loop {
            self.camera.turn();
            if self.stop.load(Ordering::Relaxed) {
                return Err(Halt::Asked);
            }
            match until.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(BEAT)),
                _ => return Ok(()),
            }
        }
    }

    /// Says how the arena is after a part of the demonstration.
    pub(super) fn say(&mut self, part: &str) {
        let figures = self.arena.figures();
        let mut text = String::new();
        if !self.titled {
            self.titled = true;
            let names = ["blocks", "live", "holes", "largest hole", "fragmentation"];
            let _ = writeln!(
                text,
                "{:<16} {:>8} {:>11} {:>7} {:>13} {:>14}",
                "", names[0], names[1], names[2], names[3], names[4]
            );
        }
        let _ = writeln!(
            text,
            "{part:<16} {:>8} {:>11} {:>7} {:>13} {:>12.1} %",
            count(figures.blocks),
            bytes(figures.requested),
            count(figures.holes),
            bytes(figures.largest_hole),
            figures.fragmentation() * 100.0,
        );
        // Whoever closed the output still has the dashboard.
        let _ = print(&text);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
