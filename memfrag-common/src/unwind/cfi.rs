//! Call frame information: the rule for a place in a loaded file, by its `.eh_frame_hdr` and `.eh_frame`.
//!
//! Nothing is allocated and nothing compiled beforehand: the file's own table leads to the entry of a function by
//! binary search, and its instructions are carried out up to the place. Whatever a rule cannot say is no rule, so
//! that a stack ends there instead of going wrong. Any bytes may stand in the sections.

use super::x86_64::{Cfa, FramePointer, Rule};

/// Bytes of a loaded file.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    bytes: &'a [u8],
    address: u64,
}

impl<'a> Section<'a> {
    /// `bytes` that lie at `address`, by which addresses within them count.
    pub const fn new(bytes: &'a [u8], address: u64) -> Self {
        Self { bytes, address }
    }

    fn at(&self, address: u64) -> Option<Input<'a>> {
        let offset = usize::try_from(address.checked_sub(self.address)?).ok()?;
        Some(Input { bytes: self.bytes.get(offset..)?, address })
    }
}

/// The rule for a call that returns to `pc`, from a section that holds both the header at address `header` and the
/// entries that it leads to. `None` when they tell of no such place, or of more than a rule can say.
pub fn rule(section: &Section<'_>, header: u64, pc: u64) -> Option<Rule> {
    // A call can be the last instruction of its function.
    let call = pc.checked_sub(1)?;
    let entry = entry(section, header, call)?;
    let mut input = section.at(entry)?;
    let mut body = input.part()?;
    let pointer = body.address;
    let common = pointer.checked_sub(u64::from(body.u32()?))?;
    let common = Common::read(section.at(common)?)?;
    let start = body.pointer(common.encoding)?;
    let length = body.value(common.encoding)?;
    if call.wrapping_sub(start) >= length {
        return None;
    }
    if common.augmented {
        let length = body.uleb()?;
        body.skip(length)?;
    }
    let mut machine = Machine {
        common: &common,
        start,
        initial: Row::UNKNOWN,
        row: Row::UNKNOWN,
        saved: [Row::UNKNOWN; SAVED],
        depth: 0,
    };
    machine.run(common.instructions, u64::MAX)?;
    machine.initial = machine.row;
    machine.run(body, call - start)?;
    machine.row.rule()
}

/// Where the entries begin to which the header leads that lies at this address, as far as the header says it in the
/// usual way; its first bytes are enough.
pub fn entries(header: &[u8], address: u64) -> Option<u64> {
    let mut input = Section::new(header, address).at(address)?;
    let [_, first, ..] = input.array::<4>()?;
    input.pointer(first)
}

/// The address of the entry of the function at an address, by the header's sorted table.
fn entry(section: &Section<'_>, header: u64, address: u64) -> Option<u64> {
    const VERSION: u8 = 1;
    let mut input = section.at(header)?;
    if input.u8()? != VERSION {
        return None;
    }
    let [first, count, table] = [input.u8()?, input.u8()?, input.u8()?];
    if table != encoding::DATA_RELATIVE | encoding::SIGNED_4 {
        return None;
    }
    input.pointer(first)?;
    let count = usize::try_from(input.value(count)?).ok()?;
    let table = input.bytes.get(..count.checked_mul(8)?)?;
    let relative = |at: usize| {
        let bytes = table.get(at..at + 4)?.first_chunk()?;
        Some(header.wrapping_add_signed(i64::from(i32::from_le_bytes(*bytes))))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if relative(middle * 8)? <= address { low = middle + 1 } else { high = middle }
    }
    relative(low.checked_sub(1)? * 8 + 4)
}

/// How pointers are written.
mod encoding {
    pub(super) const ABSOLUTE: u8 = 0x00;
    pub(super) const UNSIGNED_2: u8 = 0x02;
    pub(super) const UNSIGNED_4: u8 = 0x03;
    pub(super) const UNSIGNED_8: u8 = 0x04;
    pub(super) const SIGNED_2: u8 = 0x0a;
    pub(super) const SIGNED_4: u8 = 0x0b;
    pub(super) const SIGNED_8: u8 = 0x0c;
    pub(super) const PC_RELATIVE: u8 = 0x10;
    pub(super) const DATA_RELATIVE: u8 = 0x30;
    pub(super) const INDIRECT: u8 = 0x80;
    pub(super) const NONE: u8 = 0xff;
}

/// What the entries of many functions have in common.
struct Common<'a> {
    code_align: u64,
    data_align: i64,
    encoding: u8,
    augmented: bool,
    instructions: Input<'a>,
}

/// DWARF's numbers of registers.
const FP: u64 = 6;
const SP: u64 = 7;
const RETURN: u64 = 16;

impl<'a> Common<'a> {
    fn read(mut input: Input<'a>) -> Option<Self> {
        let mut body = input.part()?;
        if body.u32()? != 0 {
            return None;
        }
        let version = body.u8()?;
        let end = body.bytes.iter().position(|&byte| byte == 0)?;
        let augmentation = body.bytes.get(..end)?;
        body.skip(end as u64 + 1)?;
        let (code_align, data_align) = (body.uleb()?, body.sleb()?);
        let register = match version {
            1 => u64::from(body.u8()?),
            3 => body.uleb()?,
            _ => return None,
        };
        if register != RETURN {
            return None;
        }
        let mut common =
            Self { code_align, data_align, encoding: encoding::ABSOLUTE, augmented: false, instructions: body };
        if let Some((b'z', augmentation)) = augmentation.split_first() {
            let length = body.uleb()?;
            let mut data = Input { bytes: body.bytes.get(..usize::try_from(length).ok()?)?, ..body };
            body.skip(length)?;
            common.augmented = true;
            for letter in augmentation {
                match letter {
                    b'R' => common.encoding = data.u8()?,
                    b'P' => {
                        let encoding = data.u8()?;
                        data.pointer(encoding & !encoding::INDIRECT)?;
                    }
                    b'L' => {
                        data.u8()?;
                    }
                    b'S' | b'B' => {}
                    // What follows cannot be told apart.
                    _ => return None,
                }
            }
        } else if !augmentation.is_empty() {
            return None;
        }
        common.instructions = body;
        Some(common)
    }
}

/// Where something is, as far as a rule can say it.
#[derive(Clone, Copy, PartialEq)]
enum Saved {
    Same,
    Cfa(i64),
    Fp(i64),
    Undefined,
    Elsewhere,
}

#[derive(Clone, Copy, PartialEq)]
enum Frame {
    Register(u64, i64),
    AtFp(i64),
    Unknown,
}

#[derive(Clone, Copy)]
struct Row {
    cfa: Frame,
    fp: Saved,
    pc: Saved,
}

impl Row {
    const UNKNOWN: Self = Self { cfa: Frame::Unknown, fp: Saved::Same, pc: Saved::Same };

    fn rule(&self) -> Option<Rule> {
        if self.pc == Saved::Undefined {
            return Some(Rule::Outermost);
        }
        let offset = |offset: i64| i32::try_from(offset).ok();
        let cfa = match self.cfa {
            Frame::Register(SP, at) => Cfa::Sp(offset(at)?),
            Frame::Register(FP, at) => Cfa::Fp(offset(at)?),
            Frame::AtFp(at) => Cfa::AtFp(offset(at)?),
            Frame::Register(..) | Frame::Unknown => return None,
        };
        let fp = match self.fp {
            // A function that never touches the register need not mention it.
            Saved::Same | Saved::Undefined => FramePointer::Same,
            Saved::Cfa(at) => FramePointer::Cfa(offset(at)?),
            Saved::Fp(at) => FramePointer::Fp(offset(at)?),
            Saved::Elsewhere => return None,
        };
        (self.pc == Saved::Cfa(-8)).then_some(Rule::Caller { cfa, fp })
    }
}

/// Rows that a function may put aside at the same time; compilers put aside one.
const SAVED: usize = 8;

struct Machine<'a> {
    common: &'a Common<'a>,
    start: u64,
    initial: Row,
    row: Row,
    saved: [Row; SAVED],
    depth: usize,
}

impl Machine<'_> {
    /// Carries out instructions as far as they hold for the place so far behind the function's start.
    fn run(&mut self, mut input: Input<'_>, place: u64) -> Option<()> {
        let mut at = 0u64;
        while !input.bytes.is_empty() {
            let byte = input.u8()?;
            let low = u64::from(byte & 0x3f);
            let mut advance = None;
            match (byte >> 6, byte) {
                (1, _) => advance = Some(low),
                (2, _) => {
                    let offset = input.uleb()?;
                    self.save(low, Saved::Cfa(self.data(offset.cast_signed())?));
                }
                (3, _) => self.restore(low),
                (_, 0x00) => {}
                (_, 0x01) => {
                    let target = input.pointer(self.common.encoding)?;
                    at = target.checked_sub(self.start)?;
                    if at > place {
                        return Some(());
                    }
                }
                (_, 0x02) => advance = Some(u64::from(input.u8()?)),
                (_, 0x03) => advance = Some(u64::from(input.u16()?)),
                (_, 0x04) => advance = Some(u64::from(input.u32()?)),
                (_, 0x05) => {
                    let (register, offset) = (input.uleb()?, input.uleb()?);
                    self.save(register, Saved::Cfa(self.data(offset.cast_signed())?));
                }
                (_, 0x06) => {
                    let register = input.uleb()?;
                    self.restore(register);
                }
                (_, 0x07) => {
                    let register = input.uleb()?;
                    self.save(register, Saved::Undefined);
                }
                (_, 0x08) => {
                    let register = input.uleb()?;
                    self.save(register, Saved::Same);
                }
                (_, 0x09) => {
                    let (register, _) = (input.uleb()?, input.uleb()?);
                    self.save(register, Saved::Elsewhere);
                }
                (_, 0x0a) => {
                    *self.saved.get_mut(self.depth)? = self.row;
                    self.depth += 1;
                }
                (_, 0x0b) => {
                    self.depth = self.depth.checked_sub(1)?;
                    self.row = *self.saved.get(self.depth)?;
                }
                (_, 0x0c) => self.row.cfa = Frame::Register(input.uleb()?, input.uleb()?.cast_signed()),
                (_, 0x12) => {
                    let (register, offset) = (input.uleb()?, input.sleb()?);
                    self.row.cfa = Frame::Register(register, self.data(offset)?);
                }
                (_, 0x0d) => {
                    let register = input.uleb()?;
                    let Frame::Register(_, offset) = self.row.cfa else { return None };
                    self.row.cfa = Frame::Register(register, offset);
                }
                (_, 0x0e | 0x13) => {
                    let offset = if byte == 0x0e { input.uleb()?.cast_signed() } else { self.data(input.sleb()?)? };
                    let Frame::Register(register, _) = self.row.cfa else { return None };
                    self.row.cfa = Frame::Register(register, offset);
                }
                (_, 0x0f) => self.row.cfa = frame(input.expression()?),
                (_, 0x10) => {
                    let register = input.uleb()?;
                    let place = saved(input.expression()?);
                    self.save(register, place);
                }
                (_, 0x11) => {
                    let (register, offset) = (input.uleb()?, input.sleb()?);
                    self.save(register, Saved::Cfa(self.data(offset)?));
                }
                (_, 0x14 | 0x15) => {
                    let register = input.uleb()?;
                    input.uleb()?;
                    self.save(register, Saved::Elsewhere);
                }
                (_, 0x16) => {
                    let register = input.uleb()?;
                    input.expression()?;
                    self.save(register, Saved::Elsewhere);
                }
                // The size of arguments on the stack, which matters to exceptions alone.
                (_, 0x2e) => {
                    input.uleb()?;
                }
                _ => return None,
            }
            if let Some(steps) = advance {
                at = at.checked_add(steps.checked_mul(self.common.code_align)?)?;
                if at > place {
                    return Some(());
                }
            }
        }
        Some(())
    }

    fn data(&self, offset: i64) -> Option<i64> {
        offset.checked_mul(self.common.data_align)
    }

    fn save(&mut self, register: u64, place: Saved) {
        match register {
            FP => self.row.fp = place,
            RETURN => self.row.pc = place,
            _ => {}
        }
    }

    fn restore(&mut self, register: u64) {
        match register {
            FP => self.row.fp = self.initial.fp,
            RETURN => self.row.pc = self.initial.pc,
            _ => {}
        }
    }
}

const DEREF: u8 = 0x06;
const BREG_FP: u8 = 0x70 + FP as u8;

/// The expression with which compilers say where the frame of a function ends that aligns its stack.
fn frame(mut expression: Input<'_>) -> Frame {
    let mut read = || {
        let known = expression.u8()? == BREG_FP;
        let offset = expression.sleb()?;
        (known && expression.u8()? == DEREF && expression.bytes.is_empty()).then_some(offset)
    };
    read().map_or(Frame::Unknown, Frame::AtFp)
}

/// That with which they say where it saved a register.
fn saved(mut expression: Input<'_>) -> Saved {
    let mut read = || {
        let known = expression.u8()? == BREG_FP;
        let offset = expression.sleb()?;
        (known && expression.bytes.is_empty()).then_some(offset)
    };
    read().map_or(Saved::Elsewhere, Saved::Fp)
}

/// Bytes that are read from the front, and where they lie.
#[derive(Clone, Copy)]
struct Input<'a> {
    bytes: &'a [u8],
    address: u64,
}

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        self.address = self.address.wrapping_add(N as u64);
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.bytes = self.bytes.get(usize::try_from(bytes).ok()?..)?;
        self.address = self.address.wrapping_add(bytes);
        Some(())
    }

    /// An entry's bytes behind its length.
    fn part(&mut self) -> Option<Self> {
        let length = self.u32()?;
        // Those with 64-bit lengths do not occur in loaded sections.
        if length == u32::MAX || length == 0 {
            return None;
        }
        Some(Self { bytes: self.bytes.get(..length as usize)?, address: self.address })
    }

    fn expression(&mut self) -> Option<Self> {
        let length = self.uleb()?;
        let bytes = self.bytes.get(..usize::try_from(length).ok()?)?;
        let part = Self { bytes, address: self.address };
        self.skip(length)?;
        Some(part)
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn sleb(&mut self) -> Option<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - (shift + 7).min(64);
                return Some((value << unused).cast_signed() >> unused);
            }
        }
        None
    }

    /// A number in the form of a pointer, without what it is relative to.
    fn value(&mut self, encoding: u8) -> Option<u64> {
        Some(match encoding & 0x0f {
            encoding::ABSOLUTE | encoding::UNSIGNED_8 | encoding::SIGNED_8 => self.u64()?,
            encoding::UNSIGNED_2 => u64::from(self.u16()?),
            encoding::UNSIGNED_4 => u64::from(self.u32()?),
            encoding::SIGNED_2 => i64::from(self.u16()?.cast_signed()).cast_unsigned(),
            encoding::SIGNED_4 => i64::from(self.u32()?.cast_signed()).cast_unsigned(),
            _ => return None,
        })
    }

    fn pointer(&mut self, encoding: u8) -> Option<u64> {
        if encoding == encoding::NONE {
            return Some(0);
        }
        let here = self.address;
        let value = self.value(encoding)?;
        match encoding & 0xf0 {
            encoding::ABSOLUTE => Some(value),
            encoding::PC_RELATIVE => Some(here.wrapping_add(value)),
            _ => None,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
