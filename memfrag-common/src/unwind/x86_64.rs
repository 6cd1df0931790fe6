//! Rules and the step for x86-64, where a call pushes its return address: it lies right below the frame's end.

use super::{Memory, Registers};

/// How the end of a frame is found: the canonical frame address, the stack pointer before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cfa {
    /// So far above the stack pointer.
    Sp(i32),
    /// So far above the frame pointer.
    Fp(i32),
    /// In the word that lies so far above the frame pointer: in functions that align their stack.
    AtFp(i32),
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramePointer {
    /// Still in the register.
    Same,
    /// Saved so far above the frame's end (below it, as a rule: the offset is negative).
    Cfa(i32),
    /// Saved so far above the frame pointer.
    Fp(i32),
}

/// How to leave the frame of a function at some place in its code, or that there is nothing to leave it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nobody called this: the thread began here.
    Outermost,
    /// A call.
    Caller {
        /// Where the frame ends.
        cfa: Cfa,
        /// Where the caller's frame pointer is.
        fp: FramePointer,
    },
}

/// What fits an offset of a packed rule.
const OFFSETS: core::ops::Range<i32> = -(1 << 29)..1 << 29;

impl Rule {
    /// The rule of all code that keeps frame pointers.
    pub const FRAME_POINTER: Self = Self::Caller { cfa: Cfa::Fp(16), fp: FramePointer::Cfa(-16) };

    /// The rule in a word that is not 0; `None` when an offset is larger than any real frame.
    pub const fn pack(self) -> Option<u64> {
        let Self::Caller { cfa, fp } = self else { return Some(3 << 2) };
        let (kind, offset) = match cfa {
            Cfa::Sp(offset) => (1, offset),
            Cfa::Fp(offset) => (2, offset),
            Cfa::AtFp(offset) => (3, offset),
        };
        let (saved, at) = match fp {
            FramePointer::Same => (0, 0),
            FramePointer::Cfa(offset) => (1, offset),
            FramePointer::Fp(offset) => (2, offset),
        };
        if offset < OFFSETS.start || offset >= OFFSETS.end || at < OFFSETS.start || at >= OFFSETS.end {
            return None;
        }
        let mask = (1 << 30) - 1;
        Some(kind | saved << 2 | (offset.cast_unsigned() as u64 & mask) << 4 | (at.cast_unsigned() as u64 & mask) << 34)
    }

    /// What [`Self::pack`] has packed; `None` for other words.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the hot path")]
    pub const fn unpack(word: u64) -> Option<Self> {
        let offset = (word << 30).cast_signed() >> 34;
        let at = word.cast_signed() >> 34;
        let cfa = match word & 3 {
            1 => Cfa::Sp(offset as i32),
            2 => Cfa::Fp(offset as i32),
            3 => Cfa::AtFp(offset as i32),
            _ if word == 3 << 2 => return Some(Self::Outermost),
            _ => return None,
        };
        let fp = match word >> 2 & 3 {
            0 => FramePointer::Same,
            1 => FramePointer::Cfa(at as i32),
            2 => FramePointer::Fp(at as i32),
            _ => return None,
        };
        Some(Self::Caller { cfa, fp })
    }
}

/// Where a step has led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the caller.
    Caller {
        /// Its registers.
        registers: Registers,
        /// The word that told its stack pointer, 0 when that follows from the registers alone.
        cfa_slot: u64,
        /// The word that told its frame pointer, 0 when it still is in the register.
        fp_slot: u64,
    },
    /// There is no caller.
    Outermost,
    /// The rule leads to no frame: what it asks for cannot be read, or it does not lead upwards.
    Lost,
}

/// Leaves a frame. A caller's stack pointer is always above that of the frame, so that steps come to an end.
#[inline(always)]
#[allow(clippy::inline_always, reason = "part of the hot path")]
pub fn step(rule: Rule, at: Registers, memory: &impl Memory) -> Step {
    let Rule::Caller { cfa, fp } = rule else { return Step::Outermost };
    let above = |base: u64, offset: i32| base.wrapping_add_signed(i64::from(offset));
    let (cfa, cfa_slot) = match cfa {
        Cfa::Sp(offset) => (above(at.sp, offset), 0),
        // Where frame pointers are kept, the first frame of all has none.
        Cfa::Fp(_) if at.fp == 0 => return Step::Outermost,
        Cfa::Fp(offset) => (above(at.fp, offset), 0),
        Cfa::AtFp(offset) => {
            let slot = above(at.fp, offset);
            let Some(cfa) = memory.word(slot) else { return Step::Lost };
            (cfa, slot)
        }
    };
    // The return address lies at the stack pointer or above.
    if cfa.wrapping_sub(at.sp).cast_signed() < 8 {
        return Step::Lost;
    }
    let Some(pc) = memory.word(cfa.wrapping_sub(8)) else { return Step::Lost };
    let (fp, fp_slot) = match fp {
        FramePointer::Same => (at.fp, 0),
        FramePointer::Cfa(offset) | FramePointer::Fp(offset) => {
            let base = if matches!(fp, FramePointer::Cfa(_)) { cfa } else { at.fp };
            let slot = above(base, offset);
            let Some(saved) = memory.word(slot) else { return Step::Lost };
            (saved, slot)
        }
    };
    if pc == 0 {
        return Step::Outermost;
    }
    Step::Caller { registers: Registers { pc, sp: cfa, fp }, cfa_slot, fp_slot }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_round_trip_through_a_word() {
        let offsets = [0, 8, -8, 16, 1234, OFFSETS.start, OFFSETS.end - 1];
        let mut rules = vec![Rule::Outermost, Rule::FRAME_POINTER];
        for one in offsets {
            for other in offsets {
                for cfa in [Cfa::Sp(one), Cfa::Fp(one), Cfa::AtFp(one)] {
                    for fp in [FramePointer::Same, FramePointer::Cfa(other), FramePointer::Fp(other)] {
                        rules.push(Rule::Caller { cfa, fp });
                    }
                }
            }
        }
        for rule in rules {
            let word = rule.pack().unwrap();
            assert!(word != 0 && Rule::unpack(word) == Some(rule), "{rule:?}");
        }
        assert_eq!(Rule::Caller { cfa: Cfa::Sp(OFFSETS.end), fp: FramePointer::Same }.pack(), None);
        assert_eq!((Rule::unpack(0), Rule::unpack(u64::MAX)), (None, None));
    }
}
