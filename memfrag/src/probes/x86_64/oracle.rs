//! The rules of a placement, checked by running the code in the mind: slow, and written apart from the picker.
//!
//! It executes the function's beginning on symbolic registers, instruction by instruction, and knows only what each
//! instruction form does; whatever it does not know makes everything unknown. Branches are found by decoding.

use super::{Class, Placement, Site};
use crate::probes::table::{Arguments, Register};
use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};

/// A value: one that a register had at the entry, or anything else.
type Value = Option<Register>;

/// Checks a placement; the error names the rule that it breaks.
pub(super) fn check(site: &Site<'_>, placement: &Placement) -> Result<(), &'static str> {
    let offset = placement.offset as usize;
    let bytes = &placement.instruction[..];
    if site.code.get(offset..offset + bytes.len()) != Some(bytes) {
        return Err("the instruction is not the one at the offset");
    }
    let by_the_kernel = match bytes {
        [opcode] => matches!(opcode, 0x50..=0x57 | 0x90),
        [0x41, opcode] => matches!(opcode, 0x50..=0x57),
        [opcode, _] => *opcode == 0xeb || opcode >> 4 == 7,
        [0xe9, rest @ ..] => rest.len() == 4,
        [0x0f, opcode, rest @ ..] => opcode >> 4 == 8 && rest.len() == 4,
        _ => false,
    };
    if by_the_kernel != (placement.class == Class::Emulated) {
        return Err("the class is wrong");
    }
    if !by_the_kernel {
        return if offset == 0 && placement.arguments == site.arguments && !placement.skips_null {
            Ok(())
        } else {
            Err("the fallback is the entry as it is called")
        };
    }
    walk(site, placement)?;
    if offset == 0 { Ok(()) } else { no_way_back(site, offset as u64) }
}

/// Runs the code from the entry to the probe.
fn walk(site: &Site<'_>, placement: &Placement) -> Result<(), &'static str> {
    let mut values: [Value; 16] = Register::ALL.map(Some);
    let mut decoder = Decoder::with_ip(64, site.code, 0, DecoderOptions::NONE);
    let mut flags_tell_null = false;
    let mut passed = 0;
    loop {
        let instruction = decoder.decode();
        let at = instruction.ip();
        if at == u64::from(placement.offset) {
            break;
        }
        if at > u64::from(placement.offset) || instruction.is_invalid() {
            return Err("the probe is not on an instruction's first byte");
        }
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::ConditionalBranch if instruction.mnemonic() == Mnemonic::Je && flags_tell_null => {
                passed += 1;
                continue;
            }
            _ => return Err("a branch or call before the probe"),
        }
        let mut info = InstructionInfoFactory::new();
        let info = info.info(&instruction);
        let writes =
            |access| !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        for memory in info.used_memory() {
            let own = memory.base() == iced_x86::Register::RSP && memory.index() == iced_x86::Register::None;
            let below = own && memory.displacement().cast_signed() < 0;
            if memory.base() == iced_x86::Register::RSP && writes(memory.access()) && !below {
                return Err("the caller's stack is written to");
            }
        }
        let plain_copy = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register().is_gpr64()
            && instruction.op1_register().is_gpr64();
        let copied = plain_copy.then(|| values[instruction.op1_register().number()]);
        for used in info.used_registers() {
            if writes(used.access()) && used.register().is_gpr() {
                values[used.register().full_register().number()] = None;
            }
        }
        if let Some(value) = copied {
            values[instruction.op0_register().number()] = value;
        }
        let tested = instruction.op0_register();
        flags_tell_null = if instruction.mnemonic() == Mnemonic::Test
            && tested.is_gpr64()
            && tested == instruction.op1_register()
            && instruction.op0_kind() == OpKind::Register
        {
            site.arguments.pointer().is_some() && values[tested.number()] == site.arguments.pointer()
        } else {
            flags_tell_null && instruction.rflags_modified() == 0
        };
        if values[Register::Rsp as usize].is_none() {
            return Err("the stack pointer has moved");
        }
    }
    if passed > 1 || (passed == 1) != placement.skips_null || (placement.skips_null && !site.null_is_nothing) {
        return Err("what becomes of null is told wrongly");
    }
    arguments(site, placement.arguments, &values)
}

fn arguments(site: &Site<'_>, found: Arguments, values: &[Value; 16]) -> Result<(), &'static str> {
    if std::mem::discriminant(&found) != std::mem::discriminant(&site.arguments) {
        return Err("the arguments have another form");
    }
    for (own, place) in site.arguments.registers().zip(found.registers()) {
        if values[place as usize] != Some(own) {
            return Err("an argument is not where it is said to be");
        }
        if site.standard_registers && own != place {
            return Err("an argument has left its register");
        }
    }
    Ok(())
}

/// Looks for any branch that lands behind the entry and up to the probe.
fn no_way_back(site: &Site<'_>, offset: u64) -> Result<(), &'static str> {
    let instructions: Vec<_> = Decoder::with_ip(64, site.code, 0, DecoderOptions::NONE).into_iter().collect();
    for (position, instruction) in instructions.iter().enumerate() {
        if instruction.is_invalid() {
            return Err("the function's code cannot be read to its end");
        }
        if matches!(instruction.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32)
            && instruction.op_count() == 1
            && (1..=offset).contains(&instruction.near_branch_target())
        {
            return Err("a branch comes back");
        }
        let computed = instruction.flow_control() == FlowControl::IndirectBranch
            && (instruction.op0_kind() == OpKind::Register || !instruction.is_ip_rel_memory_operand());
        let leaves = position.checked_sub(1).is_some_and(|before| {
            let before = &instructions[before];
            before.op0_register().is_gpr64() && before.mnemonic() == Mnemonic::Pop
                || before.mnemonic() == Mnemonic::Leave
                || before.mnemonic() == Mnemonic::Add && before.op0_register() == iced_x86::Register::RSP
        });
        let tracked = instructions[0].mnemonic() == Mnemonic::Endbr64
            && site.code[instruction.ip() as usize] != 0x3e
            && (1..=offset as usize).all(|at| !site.code[at..].starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]));
        if computed && !leaves && !tracked {
            return Err("a computed jump may come back");
        }
    }
    Ok(())
}
