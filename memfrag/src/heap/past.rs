//! What a heap held at a moment that was to be remembered, while it goes on.
//!
//! A [`Snapshot`] costs little when it is taken, but afterwards each table must be copied that the heap changes: of a
//! large and busy heap that is all of them, and again after every look at its resident pages. To write each change
//! down costs 40 bytes, and what the heap held then follows from what it holds now, when somebody asks. Only where
//! more has changed than is worth that, a snapshot is made after all, so that a heap whose pages nobody looks at any
//! more pays for it once.

use super::blocks::{Block, Blocks, save_all, save_difference};
use super::snapshot::Snapshot;
use super::state::Heap;
use crate::recording::Input;
use std::sync::Arc;

/// Changes that are written down of the smallest heap; in tests so few that it comes to more.
const LEAST: u64 = if cfg!(test) { 32 } else { 4096 };
/// Changes in a piece: copies of a heap share whole ones.
const PIECE: usize = if cfg!(test) { 4 } else { 1024 };

/// The moments of a heap that are remembered, the last one of each process that acts on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pasts {
    since: Option<Box<Since>>,
    kept: Vec<(usize, Arc<Snapshot>)>,
}

/// A block came or went.
#[derive(Clone, Copy, Debug)]
struct Change {
    block: Block,
    came: bool,
    /// Whether events told of the block, or only a walk.
    told: bool,
}

/// What has changed since a moment.
#[derive(Clone, Debug)]
struct Since {
    /// The process for which it is remembered.
    process: usize,
    whole: Vec<Arc<Vec<Change>>>,
    last: Vec<Change>,
    /// How many there may be.
    left: u64,
}

impl Since {
    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.whole.iter().flat_map(|piece| piece.iter()).chain(&self.last)
    }

    /// The addresses at which something changed, upwards, each with the block that was there.
    fn before(&self, told: bool) -> impl Iterator<Item = (u64, Option<Block>)> {
        let changes = (0_u32..).zip(self.changes()).filter(|(_, change)| change.told == told);
        let mut changes: Vec<_> = changes.map(|(number, change)| (change.block.addr, number, change)).collect();
        // The first change at an address tells what was there before it.
        changes.sort_unstable_by_key(|&(addr, number, _)| (addr, number));
        changes.dedup_by_key(|(addr, _, _)| *addr);
        changes.into_iter().map(|(addr, _, change)| (addr, (!change.came).then_some(change.block)))
    }

    fn sorted(&self, now: &Blocks, told: bool) -> Vec<Block> {
        let mut changed = self.before(told).peekable();
        let mut all = Vec::with_capacity(now.len() as usize);
        for block in now.by_address() {
            while let Some((_, was)) = changed.next_if(|&(addr, _)| addr < block.addr) {
                all.extend(was);
            }
            match changed.next_if(|&(addr, _)| addr == block.addr) {
                Some((_, was)) => all.extend(was),
                None => all.push(block),
            }
        }
        all.extend(changed.filter_map(|(_, was)| was));
        all
    }

    fn restore(&self, blocks: &mut Blocks, told: bool) {
        for (addr, was) in self.before(told) {
            match was {
                Some(block) => blocks.insert(&block),
                None => blocks.remove(addr),
            };
        }
    }

    /// Appends the blocks of then, as [`Blocks::save`] does that of a snapshot.
    fn save(&self, now: &Blocks, told: bool, out: &mut Vec<u8>) {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        let mut len = now.len();
        for (addr, was) in self.before(told) {
            match (was, now.get(addr)) {
                (None, Some(_)) => {
                    gone.push(addr);
                    len -= 1;
                }
                (Some(was), is) if is != Some(was) => {
                    new.push(was);
                    len += u64::from(is.is_none());
                }
                _ => {}
            }
        }
        let is_less = (gone.len() + new.len()) as u64 <= len;
        if is_less {
            save_difference(&gone, new, out);
        } else {
            save_all(self.sorted(now, told), out);
        }
    }
}

/// How a moment is known.
enum Known<'a> {
    /// By what has changed since.
    Since(&'a Since),
    /// By a copy.
    Kept(&'a Snapshot),
}

impl Pasts {
    /// A block has come, or gone; false when that is too much to write down.
    #[inline]
    #[must_use]
    pub(super) fn note(&mut self, block: &Block, came: bool, told: bool) -> bool {
        let Some(since) = &mut self.since else { return true };
        since.last.push(Change { block: *block, came, told });
        since.left -= 1;
        if since.last.len() == PIECE {
            let piece = std::mem::replace(&mut since.last, Vec::with_capacity(PIECE));
            since.whole.push(Arc::new(piece));
        }
        since.left > 0
    }

    /// How the moment is known that is remembered for a process, if one is.
    fn of(&self, process: usize) -> Option<Known<'_>> {
        match self.since.as_deref() {
            Some(since) if since.process == process => Some(Known::Since(since)),
            _ => self.kept.iter().find(|(owner, _)| *owner == process).map(|(_, kept)| Known::Kept(kept)),
        }
    }

    pub(super) fn forget(&mut self, process: usize) {
        self.since.take_if(|since| since.process == process);
        self.kept.retain(|(owner, _)| *owner != process);
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let changes = self.since.as_ref().map_or(0, |since| since.whole.len() * PIECE + since.last.len());
        (changes * size_of::<Change>()) as u64
    }
}

impl Heap {
    /// Remembers for a process what its heap holds now, instead of what was remembered for it before.
    pub(super) fn remember(&mut self, process: usize) {
        self.pasts.forget(process);
        if self.pasts.since.is_some() {
            let now = Arc::new(self.snapshot());
            self.pasts.kept.push((process, now));
            return;
        }
        let blocks = self.blocks.len() + self.older().len();
        let left = LEAST.max(blocks / 4);
        let last = Vec::with_capacity(PIECE);
        self.pasts.since = Some(Box::new(Since { process, whole: Vec::new(), last, left }));
    }

    /// From now on changes need not be told.
    #[cold]
    pub(super) fn keep_past(&mut self) {
        if let Some(since) = self.pasts.since.take() {
            let Snapshot { mut blocks, mut older } = self.snapshot();
            since.restore(&mut blocks, true);
            since.restore(&mut older, false);
            self.pasts.kept.push((since.process, Arc::new(Snapshot { blocks, older })));
        }
    }

    /// What the heap held when it was remembered for a process last, in order of addresses, the blocks that no event
    /// told of included; `None` when it never was.
    pub(super) fn remembered(&self, process: usize) -> Option<Vec<Block>> {
        Some(match self.pasts.of(process)? {
            Known::Since(since) => {
                Snapshot::merged(since.sorted(&self.blocks, true), since.sorted(self.older(), false))
            }
            Known::Kept(kept) => kept.sorted(),
        })
    }

    /// Whether there is anything that [`Self::remembered`] would tell of a process.
    pub(super) fn remembers(&self, process: usize) -> bool {
        self.pasts.of(process).is_some()
    }

    /// Appends what is remembered for a process.
    pub(super) fn save_remembered(&self, process: usize, out: &mut Vec<u8>) {
        match self.pasts.of(process) {
            Some(Known::Since(since)) => {
                since.save(&self.blocks, true, out);
                since.save(self.older(), false, out);
            }
            Some(Known::Kept(kept)) => self.save_snapshot(kept, out),
            None => {}
        }
    }

    /// Remembers for a process what [`Self::save_remembered`] wrote.
    pub(super) fn load_remembered(&mut self, process: usize, input: &mut Input<'_>) -> Option<()> {
        let snapshot = Arc::new(self.load_snapshot(input)?);
        self.pasts.forget(process);
        self.pasts.kept.push((process, snapshot));
        Some(())
    }
}
