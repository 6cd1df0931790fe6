//! Where on a function a probe goes, on x86-64.
//!
//! A probe costs one trap when the kernel can emulate the instruction under it, and several times as much when it
//! must run a copy of the instruction in single steps. So the probe is moved from the first instruction to the
//! nearest one that is emulated, but only where it still sees what it would have seen at the entry: every call
//! once, the arguments in known registers, and the caller's return address on top of the stack.

#[cfg(test)]
mod fixtures;
mod flow;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

pub use flow::{Callees, callees};

use super::table::{Arguments, Register};
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, InstructionInfoOptions, OpAccess,
    OpKind, Register as Iced,
};

/// How the kernel runs the instruction under a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// By computing its effect in the trap: `push`, `nop`, `jmp`, and conditional jumps.
    Emulated,
    /// By running a copy of it in single steps, which costs a second trap.
    SingleStepped,
}

/// The instruction that a probe sits on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Bytes from the function's start to the instruction.
    pub offset: u32,
    /// The instruction's bytes.
    pub instruction: Vec<u8>,
    /// What the probe costs.
    pub class: Class,
    /// Where the arguments are when the probe is hit.
    pub arguments: Arguments,
    /// Whether calls with a null block pass the probe by.
    pub skips_null: bool,
    /// Why no better instruction was taken, or what was tried before this one; for people.
    pub why: String,
}

/// Why a function cannot be probed at all.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unplaceable {
    /// There are no bytes.
    #[error("the file holds no code for it")]
    Empty,
    /// The first bytes are no instruction.
    #[error("its first bytes are no x86-64 instruction")]
    Invalid,
    /// The kernel refuses probes on instructions with these prefixes (`lock`, `cs`, `ds`, `es`, `ss`, or an operand
    /// size on a branch), and on breakpoints.
    #[error("the kernel refuses probes on its first instruction")]
    Refused,
}

/// A function to place a probe on.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The function's bytes, from its first to its last.
    pub code: &'a [u8],
    /// Its virtual address.
    pub address: u64,
    /// Where its arguments are when it is called.
    pub arguments: Arguments,
    /// Whether a call with a null block does nothing, so that the probe may stand behind the test for it.
    pub null_is_nothing: bool,
    /// Whether the arguments must still be in the registers of the calling convention.
    pub standard_registers: bool,
    /// Branches from elsewhere, such as the parts of the function that compilers move away (`.cold`); see
    /// [`branches_into`].
    pub incoming: &'a [Branch],
}

/// A direct branch or call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The address of the instruction.
    pub from: u64,
    /// Where it goes.
    pub target: u64,
}

/// How far behind the entry an instruction is looked for, in bytes.
pub const REACH: u32 = 64;

/// Chooses the instruction.
///
/// The rules: candidates are `push reg`, `nop`, `jmp` and `jcc` in the encodings that the kernel emulates. Straight
/// code leads to the candidate, and neither loses an argument, nor moves the stack pointer, nor writes to the
/// caller's part of the stack. No branch lands behind the entry and up to the candidate, or a loop would be counted
/// as calls. The one branch that may be passed is the test for a null block. Where nothing fits, the entry itself is
/// taken: it is always right, only dearer.
///
/// # Errors
/// When even the entry cannot carry a probe.
pub fn place(site: &Site<'_>) -> Result<Placement, Unplaceable> {
    let first = Walk::new(site).next().ok_or(Unplaceable::Empty)?;
    if first.is_invalid() {
        return Err(Unplaceable::Invalid);
    }
    let mut candidates = candidates(site);
    let mut why = std::mem::take(&mut candidates.rejected);
    // The last one lies behind the test for null, where there is one: it is the better one.
    for candidate in candidates.found.iter().rev() {
        let offset = candidate.offset;
        if let Some(from) = branch_behind_entry(site, offset) {
            why.push(format!("+{offset:#x} may be reached again from {from:#x}"));
            continue;
        }
        return Ok(Placement {
            offset,
            instruction: candidate.bytes.clone(),
            class: Class::Emulated,
            arguments: candidate.arguments,
            skips_null: candidate.skips_null,
            why: why.join("; "),
        });
    }
    let bytes = site.code[..first.len()].to_vec();
    if refused(&first, &bytes) {
        return Err(Unplaceable::Refused);
    }
    Ok(Placement {
        offset: 0,
        instruction: bytes,
        class: Class::SingleStepped,
        arguments: site.arguments,
        skips_null: false,
        why: why.join("; "),
    })
}

/// Instructions in order of address, each decoded where the last one ended; an invalid one is the last.
struct Walk<'a> {
    decoder: Decoder<'a>,
    ended: bool,
}

impl<'a> Walk<'a> {
    fn new(site: &Site<'a>) -> Self {
        Self { decoder: Decoder::with_ip(64, site.code, site.address, DecoderOptions::NONE), ended: false }
    }
}

impl Iterator for Walk<'_> {
    type Item = Instruction;

    fn next(&mut self) -> Option<Instruction> {
        if self.ended || !self.decoder.can_decode() {
            return None;
        }
        let instruction = self.decoder.decode();
        self.ended = instruction.is_invalid();
        Some(instruction)
    }
}

struct Candidate {
    offset: u32,
    bytes: Vec<u8>,
    arguments: Arguments,
    skips_null: bool,
}

struct Candidates {
    /// In order of address: at most one before and one behind the test for null.
    found: Vec<Candidate>,
    rejected: Vec<String>,
}

/// Follows the straight code from the entry and notes what could carry the probe, branches aside.
fn candidates(site: &Site<'_>) -> Candidates {
    let mut result = Candidates { found: Vec::new(), rejected: Vec::new() };
    let mut held = Held::new(site.arguments);
    let mut info = InstructionInfoFactory::new();
    let mut null_tested = false;
    let mut skips_null = false;
    for instruction in Walk::new(site) {
        let offset = instruction.ip().wrapping_sub(site.address) as u32;
        let mut reject = |why: &str| result.rejected.push(format!("+{offset:#x} {why}"));
        if offset >= REACH {
            reject("is too far from the entry");
            break;
        }
        if instruction.is_invalid() {
            reject("is no instruction");
            break;
        }
        let bytes = &site.code[offset as usize..offset as usize + instruction.len()];
        if emulated(bytes) {
            let Some(arguments) = held.arguments(site.standard_registers || skips_null) else {
                reject("comes after an argument has left its register");
                break;
            };
            result.found.push(Candidate { offset, bytes: bytes.to_vec(), arguments, skips_null });
            let is_null_exit = matches!(instruction.code(), Code::Je_rel8_64 | Code::Je_rel32_64) && null_tested;
            if !(site.null_is_nothing && is_null_exit && !skips_null) {
                break;
            }
            skips_null = true;
            continue;
        }
        if instruction.flow_control() != FlowControl::Next {
            reject("leaves the straight path and is not emulated");
            break;
        }
        let used = info.info_options(&instruction, InstructionInfoOptions::NONE);
        let writes = |access: OpAccess| {
            matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
        };
        let written: Vec<Iced> = used
            .used_registers()
            .iter()
            .filter(|register| writes(register.access()))
            .map(|register| register.register().full_register())
            .collect();
        if written.contains(&Iced::RSP) {
            reject("moves the stack pointer");
            break;
        }
        // Below the stack pointer is the function's own red zone; at and above it lies what the caller owns, the
        // return address first. An index makes the place unknown.
        if used.used_memory().iter().any(|memory| {
            writes(memory.access())
                && memory.base().full_register() == Iced::RSP
                && (memory.displacement().cast_signed() >= 0 || memory.index() != Iced::None)
        }) {
            reject("writes to the caller's part of the stack");
            break;
        }
        let copy = copied(&instruction);
        held.step(&written, copy);
        if held.arguments(site.standard_registers).is_none() {
            reject("overwrites an argument");
            break;
        }
        if is_null_test(&instruction, &held) {
            null_tested = true;
        } else if instruction.rflags_modified() != 0 {
            null_tested = false;
        }
    }
    result
}

/// Which registers hold each argument.
struct Held {
    arguments: Arguments,
    /// One set of registers, by number, for each argument in the order of the declaration.
    places: Vec<u16>,
}

impl Held {
    fn new(arguments: Arguments) -> Self {
        Self { arguments, places: arguments.registers().map(|register| 1 << register as u16).collect() }
    }

    /// Where the arguments are now, in their own registers if possible; `None` when one is lost.
    fn arguments(&self, standard: bool) -> Option<Arguments> {
        let mut places = self.places.iter();
        let mut lost = false;
        let arguments = self.arguments.map(|own| {
            let set = places.next().copied().unwrap_or_default();
            if set & 1 << own as u16 != 0 {
                return own;
            }
            let copy = Register::ALL.into_iter().find(|&register| set & 1 << register as u16 != 0);
            lost |= standard || copy.is_none();
            copy.unwrap_or(own)
        });
        (!lost).then_some(arguments)
    }

    /// Whether `register` holds the block.
    fn is_pointer(&self, register: Register) -> bool {
        let position = self.arguments.pointer().and_then(|own| self.arguments.registers().position(|at| at == own));
        position.is_some_and(|position| self.places[position] & 1 << register as u16 != 0)
    }

    fn step(&mut self, written: &[Iced], copy: Option<(Register, Register)>) {
        let gone: u16 =
            written.iter().filter_map(|&register| general(register)).fold(0, |gone, at| gone | 1 << at as u16);
        for place in &mut self.places {
            let copied = copy.filter(|(from, _)| *place & 1 << *from as u16 != 0);
            *place &= !gone;
            if let Some((_, to)) = copied {
                *place |= 1 << to as u16;
            }
        }
    }
}

/// The general register of 64 bits that iced means.
fn general(register: Iced) -> Option<Register> {
    register.is_gpr64().then(|| Register::ALL[register.number()])
}

/// From where to where a plain `mov` copies a whole register.
fn copied(instruction: &Instruction) -> Option<(Register, Register)> {
    let is_copy = matches!(instruction.code(), Code::Mov_r64_rm64 | Code::Mov_rm64_r64)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register;
    is_copy.then(|| Some((general(instruction.op1_register())?, general(instruction.op0_register())?)))?
}

/// Whether it is `test reg,reg` of a register that holds the block.
fn is_null_test(instruction: &Instruction, held: &Held) -> bool {
    instruction.code() == Code::Test_rm64_r64
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
        && general(instruction.op0_register()).is_some_and(|register| held.is_pointer(register))
}

/// Whether the kernel emulates the instruction. Decided by its bytes, as the kernel does: prefixes that change
/// nothing for the processor do for the emulation.
fn emulated(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0x50..=0x57 | 0x90] | [0x41, 0x50..=0x57] // push, nop
            | [0xeb | 0x70..=0x7f, _] // jmp and jcc, near by
            | [0xe9, _, _, _, _] | [0x0f, 0x80..=0x8f, _, _, _, _] // jmp and jcc
    )
}

/// Whether the kernel refuses a probe on the instruction.
fn refused(instruction: &Instruction, bytes: &[u8]) -> bool {
    let prefixes = bytes.iter().take_while(
        |&&byte| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3),
    );
    let mut wide_branch = false;
    for &prefix in prefixes {
        if matches!(prefix, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0) {
            return true;
        }
        wide_branch |= prefix == 0x66 && instruction.flow_control() != FlowControl::Next;
    }
    wide_branch || matches!(instruction.code(), Code::Int3 | Code::Int1 | Code::Int_imm8 | Code::Hlt)
}

/// Where a branch comes from that lands behind the entry and up to `offset`, if there is one, or if that cannot be
/// ruled out.
fn branch_behind_entry(site: &Site<'_>, offset: u32) -> Option<u64> {
    if offset == 0 {
        return None;
    }
    let range = site.address.wrapping_add(1)..site.address.saturating_add(u64::from(offset)).saturating_add(1);
    let mut before: Option<Instruction> = None;
    for instruction in Walk::new(site) {
        let unclear = instruction.is_invalid()
            || (is_table_jump(&instruction)
                && !before.as_ref().is_some_and(takes_frame_down)
                && !lands_on_marks_only(site, &instruction, offset));
        if unclear || near_target(&instruction).is_some_and(|target| range.contains(&target)) {
            return Some(instruction.ip());
        }
        before = Some(instruction);
    }
    let own = site.address..site.address.saturating_add(site.code.len() as u64);
    let incoming = site.incoming.iter().find(|branch| range.contains(&branch.target) && !own.contains(&branch.from));
    incoming.map(|branch| branch.from)
}

/// The target of a direct branch or call.
fn near_target(instruction: &Instruction) -> Option<u64> {
    let direct = matches!(instruction.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32 | OpKind::NearBranch16);
    (instruction.op_count() > 0 && direct).then(|| instruction.near_branch_target())
}

/// Whether it jumps to an address that it computes, as a `switch` does. A jump through a fixed slot leaves for
/// another function.
fn is_table_jump(instruction: &Instruction) -> bool {
    instruction.flow_control() == FlowControl::IndirectBranch
        && !(instruction.op0_kind() == OpKind::Memory && instruction.is_ip_rel_memory_operand())
}

/// Whether it is the end of an epilogue. A jump behind that leaves the function, as the hooks of old glibc do.
fn takes_frame_down(instruction: &Instruction) -> bool {
    match instruction.code() {
        Code::Pop_r64 | Code::Leaveq => true,
        Code::Add_rm64_imm8 | Code::Add_rm64_imm32 => instruction.op0_register() == Iced::RSP,
        _ => false,
    }
}

/// Whether the function is built for indirect branch tracking and the jump obeys it (it has no `notrack`), and no
/// landing mark stands behind the entry and up to `offset`: then it cannot land there.
fn lands_on_marks_only(site: &Site<'_>, jump: &Instruction, offset: u32) -> bool {
    const MARK: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    let at = jump.ip().wrapping_sub(site.address) as usize;
    let notrack = site.code[at..at + jump.len()].first() == Some(&0x3e);
    let up_to = (offset as usize + MARK.len()).min(site.code.len());
    let inside = site.code.get(1..up_to).unwrap_or_default();
    site.code.starts_with(MARK) && !notrack && !inside.windows(MARK.len()).any(|window| window == MARK)
}

/// All branches and calls with a distance of 32 bits in `code`, which begins at `address`, that land behind one of the
/// `entries` and within [`REACH`]. Shorter branches do not leave a function.
///
/// Every byte is tried first, which takes a fraction of the time of decoding it all and misses none. The few finds may
/// be parts of other instructions, so the code is then read from its beginning to see which are branches.
pub fn branches_into(address: u64, code: &[u8], entries: &[u64]) -> Vec<Branch> {
    let (Some(&first), Some(&last)) = (entries.iter().min(), entries.iter().max()) else { return Vec::new() };
    let all = first..last.saturating_add(u64::from(REACH) + 1);
    let lands = |target: u64| {
        let behind = |entry: &u64| target.checked_sub(*entry).is_some_and(|by| (1..=u64::from(REACH)).contains(&by));
        all.contains(&target) && entries.iter().any(behind)
    };
    let last = code.windows(5).enumerate().rev().find_map(|(at, window)| {
        let is_branch = match window[0] {
            0xe8 | 0xe9 => true,
            0x80..=0x8f => at > 0 && code[at - 1] == 0x0f,
            _ => false,
        };
        let distance = i32::from_le_bytes([window[1], window[2], window[3], window[4]]);
        let end = address.wrapping_add(at as u64 + 5);
        (is_branch && lands(end.wrapping_add_signed(i64::from(distance)))).then_some(at)
    });
    let Some(last) = last else { return Vec::new() };
    let decoder = Decoder::with_ip(64, &code[..last + 5], address, DecoderOptions::NONE);
    let branches = decoder.into_iter().filter_map(|instruction| {
        let target = near_target(&instruction)?;
        lands(target).then_some(Branch { from: instruction.ip(), target })
    });
    branches.collect()
}
