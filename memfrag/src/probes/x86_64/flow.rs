//! Which functions a function hands its work on to, on x86-64.

use crate::target::elf::Image;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use std::collections::{BTreeSet, HashSet};

/// Instructions that are followed before a function counts as one that does its own work.
const LIMIT: usize = 256;

/// What a function hands over to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callees {
    /// The functions that it calls or jumps to, by address.
    pub functions: BTreeSet<u64>,
    /// Whether it calls any of them. If not, it only jumps, and its caller's return address is theirs.
    pub calls: bool,
    /// Whether it may do some of the work itself: it writes to memory, or is too long to tell.
    pub works: bool,
}

/// Which of the functions that `known` tells (by address) the code at `entry` calls or jumps to, directly or through
/// the procedure linkage table, as far as that shows within a few instructions. Jumps are followed into other
/// functions, calls are not.
///
/// It is meant for thin covers such as `operator delete`, which do nothing but call another function; in a long one
/// it sees the beginning.
pub fn callees(image: &Image<'_>, entry: u64, known: impl Fn(u64) -> bool) -> Callees {
    let mut result = Callees::default();
    let mut pending = vec![entry];
    let mut seen = HashSet::new();
    let mut budget = LIMIT;
    while let Some(start) = pending.pop() {
        let code = image.code(start..start.saturating_add(4096));
        let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        while decoder.can_decode() && budget > 0 {
            budget -= 1;
            let instruction = decoder.decode();
            if instruction.is_invalid() || !seen.insert(instruction.ip()) {
                break;
            }
            result.works |= writes_memory(&instruction);
            let flow = instruction.flow_control();
            let is_call = matches!(flow, FlowControl::Call | FlowControl::IndirectCall);
            if let Some(target) = target(image, &instruction) {
                if known(target) && target != entry {
                    result.functions.insert(target);
                    result.calls |= is_call;
                } else if !is_call {
                    pending.push(target);
                }
            }
            if !is_call && !matches!(flow, FlowControl::Next | FlowControl::ConditionalBranch) {
                break;
            }
        }
    }
    // What was not seen may be anything.
    result.works |= budget == 0;
    result
}

/// Whether it writes to memory other than the stack, as a function must that keeps or gives out blocks itself.
fn writes_memory(instruction: &Instruction) -> bool {
    if instruction.op_count() == 0 || instruction.op0_kind() != OpKind::Memory {
        return false;
    }
    let compares = matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt | Mnemonic::Nop);
    let leaves = instruction.flow_control() != FlowControl::Next;
    !compares && !leaves && !matches!(instruction.memory_base(), Register::RSP | Register::RBP)
}

/// Where in the file a branch or call goes, through a stub of the procedure linkage table where there is one.
fn target(image: &Image<'_>, instruction: &Instruction) -> Option<u64> {
    if let Some(target) = through_slot(image, instruction) {
        return Some(target);
    }
    let address = super::near_target(instruction)?;
    let stub = image.code(address..address.saturating_add(16));
    let mut decoder = Decoder::with_ip(64, stub, address, DecoderOptions::NONE);
    let mut first = decoder.decode();
    if first.code() == Code::Endbr64 {
        first = decoder.decode();
    }
    if first.flow_control() != FlowControl::IndirectBranch {
        return Some(address);
    }
    Some(through_slot(image, &first).unwrap_or(address))
}

/// The function in the global offset table's slot through which an instruction jumps or calls.
fn through_slot(image: &Image<'_>, instruction: &Instruction) -> Option<u64> {
    let indirect = matches!(instruction.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall);
    if !indirect || instruction.op0_kind() != OpKind::Memory || !instruction.is_ip_rel_memory_operand() {
        return None;
    }
    image.slot(instruction.ip_rel_memory_address())
}
