//! A thread's stack, walked again and again.
//!
//! Between two calls of the allocator a thread leaves a few frames and enters a few others; most of its stack stays as
//! it was. So what the last walk found is kept, and a walk that comes to a frame which was there before only looks
//! whether all the words that led outwards from it are still the same. That is exact: a walk depends on nothing but
//! the registers that it begins with and the words that it reads. Only new frames are looked up in the table.

use super::{Memory, Registers, Rule, Step, step};
use crate::stacks::{Table, UNKNOWN};
use core::cell::Cell;
use core::sync::atomic::{Ordering, compiler_fence};

/// Most frames of a stack. Of deeper ones the innermost are kept.
pub const DEPTH: usize = 512;

/// A frame as it was found, and how one got out of it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Found {
    at: Registers,
    /// As [`Step::Caller`] has them.
    cfa_slot: u64,
    fp_slot: u64,
    /// Its node in the table.
    node: u32,
}

/// What a walk has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// The stack's number, 0 for none: there was no room in the table, or a walk was under way already.
    pub number: u32,
    /// The outer frames are not known.
    pub cut: bool,
    /// The table has no room.
    pub full: bool,
}

impl Walked {
    /// No stack at all.
    pub const NONE: Self = Self { number: 0, cut: true, full: false };
}

/// What a thread remembers of its stack. All zero bytes are a valid value: nothing.
#[derive(Debug)]
#[repr(C)]
pub struct Walk {
    /// The stack pointer with which a walk began that is under way, else 0.
    busy: Cell<u64>,
    /// For which rules the frames hold.
    generation: Cell<u32>,
    depth: Cell<u32>,
    cut: Cell<bool>,
    /// The last walk's frames, the outermost first.
    kept: [Cell<Found>; DEPTH],
    /// New frames, the innermost first.
    fresh: [Cell<Found>; DEPTH],
}

#[allow(clippy::large_stack_arrays, reason = "outside of tests it lies in mapped memory and is never made")]
impl Default for Walk {
    fn default() -> Self {
        Self {
            busy: Cell::new(0),
            generation: Cell::new(0),
            depth: Cell::new(0),
            cut: Cell::new(false),
            kept: [const { Cell::new(NOTHING) }; DEPTH],
            fresh: [const { Cell::new(NOTHING) }; DEPTH],
        }
    }
}

const NOTHING: Found = Found { at: Registers { pc: 0, sp: 0, fp: 0 }, cfa_slot: 0, fp_slot: 0, node: 0 };

impl Walk {
    /// Forgets everything: the stack is another thread's from now on.
    pub fn forget(&self) {
        self.depth.set(0);
        self.busy.set(0);
    }

    /// The number of the stack at `start`. `rules` gives the rule for a return address, and always the same one as
    /// long as `generation` is the same.
    ///
    /// A signal handler that interrupts a walk and walks itself gets no number. One that never returned is told by the
    /// stack pointer, which then is above that of its walk.
    pub fn number(
        &self,
        start: Registers,
        generation: u32,
        memory: &impl Memory,
        rules: impl Fn(u64) -> Option<Rule>,
        table: &Table<'_>,
    ) -> Walked {
        let busy = self.busy.get();
        if busy != 0 && start.sp <= busy {
            return Walked::NONE;
        }
        self.busy.set(start.sp);
        compiler_fence(Ordering::SeqCst);
        if busy != 0 || self.generation.get() != generation {
            self.depth.set(0);
            self.generation.set(generation);
        }
        let (fresh, base) = self.find(start, memory, &rules);
        let walked = self.take(fresh, base, table);
        compiler_fence(Ordering::SeqCst);
        self.busy.set(0);
        walked
    }

    /// Collects the frames that are new; returns how many, and how many of the kept ones lie around them.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the hot path")]
    fn find(&self, start: Registers, memory: &impl Memory, rules: &impl Fn(u64) -> Option<Rule>) -> (usize, usize) {
        let mut at = start;
        let (mut fresh, mut kept) = (0, self.depth.get() as usize);
        loop {
            while kept > 0 && self.kept[kept - 1].get().at.sp < at.sp {
                kept -= 1;
            }
            if kept > 0 && kept + fresh <= DEPTH && self.kept[kept - 1].get().at == at {
                let changed = self.unchanged(kept - 1, memory, rules);
                let Some(changed) = changed else { return (fresh, kept) };
                // From here to there nothing has changed but where it leads to.
                for index in (changed + 1..kept).rev() {
                    self.fresh[fresh].set(self.kept[index].get());
                    fresh += 1;
                }
                at = self.kept[changed].get().at;
                kept = changed;
            }
            let next = match rules(at.pc) {
                Some(rule) => step(rule, at, memory),
                None => Step::Lost,
            };
            let mut found = Found { at, ..NOTHING };
            if let Step::Caller { cfa_slot, fp_slot, .. } = next {
                (found.cfa_slot, found.fp_slot) = (cfa_slot, fp_slot);
            }
            self.fresh[fresh].set(found);
            fresh += 1;
            match next {
                Step::Caller { registers, .. } if fresh < DEPTH => at = registers,
                _ => {
                    self.cut.set(next != Step::Outermost);
                    return (fresh, 0);
                }
            }
        }
    }

    /// Follows the kept frames outwards from `index`. `None` when all leads where it led before; else the frame that
    /// leads elsewhere now.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the hot path")]
    fn unchanged(&self, index: usize, memory: &impl Memory, rules: &impl Fn(u64) -> Option<Rule>) -> Option<usize> {
        let mut frame = self.kept[index].get();
        for outer in (0..index).rev() {
            let next = self.kept[outer].get();
            let same = memory.word(next.at.sp.wrapping_sub(8)) == Some(next.at.pc)
                && (frame.fp_slot == 0 || memory.word(frame.fp_slot) == Some(next.at.fp))
                && (frame.cfa_slot == 0 || memory.word(frame.cfa_slot) == Some(next.at.sp));
            if !same {
                return Some(outer + 1);
            }
            frame = next;
        }
        // How the last one ended is found out again.
        let end = rules(frame.at.pc).map_or(Step::Lost, |rule| step(rule, frame.at, memory));
        let same = match end {
            Step::Caller { .. } => false,
            end => self.cut.get() == (end != Step::Outermost),
        };
        if same { None } else { Some(0) }
    }

    /// Puts the fresh frames where the kept ones end, and looks them up.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the hot path")]
    fn take(&self, fresh: usize, base: usize, table: &Table<'_>) -> Walked {
        let mut depth = base;
        let cut = self.cut.get();
        let mut node = match base.checked_sub(1) {
            Some(last) => Ok(self.kept[last].get().node),
            None if cut => table.intern(0, UNKNOWN),
            None => Ok(0),
        };
        for index in (0..fresh).rev() {
            let Ok(parent) = node else { break };
            let mut found = self.fresh[index].get();
            node = table.intern(parent, found.at.pc);
            if let Ok(number) = node {
                found.node = number;
                self.kept[depth].set(found);
                depth += 1;
            }
        }
        // What could not be looked up is not kept, and so the frames around it are not either: they would seem to be
        // a whole stack.
        self.depth.set(if node.is_ok() { depth as u32 } else { 0 });
        Walked { number: node.unwrap_or(0), cut, full: node.is_err() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
