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

/// [`step`] by a rule as [`Rule::pack`] has packed it; [`Step::Lost`] for other words. It never holds more of the rule than
/// it needs, so that the paths through it join again soon: the kernel's verifier follows each of them.
#[inline(always)]
#[allow(clippy::inline_always, reason = "BPF programs are one function each")]
pub fn step_packed(rule: u64, at: Registers, memory: &impl Memory) -> Step {
    let offset = |low: u32| (rule << (34 - low)).cast_signed() >> 34;
    let (kind, saved) = (rule & 3, rule >> 2 & 3);
    if kind == 0 || saved == 3 {
        return if rule == 3 << 2 { Step::Outermost } else { Step::Lost };
    }
    if kind == 2 && at.fp == 0 {
        return Step::Outermost;
    }
    let base = if kind == 1 { at.sp } else { at.fp };
    let (mut cfa, mut cfa_slot) = (base.wrapping_add_signed(offset(4)), 0);
    if kind == 3 {
        cfa_slot = cfa;
        let Some(word) = memory.word(cfa) else { return Step::Lost };
        cfa = word;
    }
    if cfa.wrapping_sub(at.sp).cast_signed() < 8 {
        return Step::Lost;
    }
    let (mut fp, mut fp_slot) = (at.fp, 0);
    if saved != 0 {
        let base = if saved == 1 { cfa } else { at.fp };
        fp_slot = base.wrapping_add_signed(offset(34));
        let Some(word) = memory.word(fp_slot) else { return Step::Lost };
        fp = word;
    }
    match memory.word(cfa.wrapping_sub(8)) {
        Some(0) => Step::Outermost,
        Some(pc) => Step::Caller { registers: Registers { pc, sp: cfa, fp }, cfa_slot, fp_slot },
        None => Step::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word has a number of its own, but for one in eight, which cannot be read.
    struct Scattered(u64);

    impl Memory for Scattered {
        fn word(&self, address: u64) -> Option<u64> {
            let mixed = (address ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            match mixed >> 61 {
                0 => None,
                1 => Some(0),
                _ => Some(0x1000 + (mixed >> 40 & 0xfff)),
            }
        }
    }

    #[test]
    fn a_packed_rule_leads_where_the_rule_does() {
        let offsets = [-4096, -16, -8, 0, 8, 16, 24, 4096];
        let cfas = offsets.iter().flat_map(|&at| [Cfa::Sp(at), Cfa::Fp(at), Cfa::AtFp(at)]);
        let rules = cfas.flat_map(|cfa| {
            let saved =
                offsets.iter().flat_map(|&at| [FramePointer::Same, FramePointer::Cfa(at), FramePointer::Fp(at)]);
            saved.map(move |fp| Rule::Caller { cfa, fp })
        });
        let mut callers = 0;
        for rule in rules.chain([Rule::Outermost]) {
            let word = rule.pack().expect("small offsets");
            for seed in 0..40 {
                let memory = Scattered(seed);
                for fp in [0, 0x1800, 0x1ff8] {
                    let at = Registers { pc: 1, sp: 0x1000 + seed * 64, fp };
                    let by_rule = step(rule, at, &memory);
                    assert_eq!(step_packed(word, at, &memory), by_rule, "{rule:?} {at:?}");
                    callers += u32::from(matches!(by_rule, Step::Caller { .. }));
                }
            }
        }
        assert!(callers > 1000, "{callers} steps led anywhere");
        for word in (0..1 << 12).chain([u64::MAX, 1 << 63]) {
            if Rule::unpack(word).is_none() {
                assert_eq!(
                    step_packed(word, Registers { pc: 1, sp: 8, fp: 8 }, &Scattered(1)),
                    Step::Lost,
                    "{word:#x}"
                );
            }
        }
    }

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
