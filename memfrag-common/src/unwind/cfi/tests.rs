//! The rules of real files against those that `gimli` finds, and bytes of all kinds.

use super::*;
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EndianSlice, LittleEndian, RegisterRule, UnwindContext, UnwindSection as _,
};
use object::{Object as _, ObjectSection as _};
use std::path::Path;

const GIMLI_FP: gimli::Register = gimli::Register(FP as u16);
const GIMLI_PC: gimli::Register = gimli::Register(RETURN as u16);

/// A file's sections as they lie in memory, without what the loader would have put between files.
struct Loaded {
    bytes: Vec<u8>,
    address: u64,
    header: u64,
    frames: (Vec<u8>, u64),
}

fn load(path: &Path) -> Option<Loaded> {
    let file = std::fs::read(path).ok()?;
    let object = object::File::parse(&*file).ok()?;
    let section = |name| {
        let section = object.section_by_name(name)?;
        Some((section.data().ok()?.to_vec(), section.address()))
    };
    let (header, frames) = (section(".eh_frame_hdr")?, section(".eh_frame")?);
    let address = header.1.min(frames.1);
    let end = (header.1 + header.0.len() as u64).max(frames.1 + frames.0.len() as u64);
    let mut bytes = vec![0; (end - address) as usize];
    for (part, at) in [&header, &frames] {
        let at = (at - address) as usize;
        bytes[at..at + part.len()].copy_from_slice(part);
    }
    Some(Loaded { bytes, address, header: header.1, frames })
}

/// What a row of gimli's says, as far as a rule can say it.
fn expected(row: &gimli::UnwindTableRow<usize>, frames: &EhFrame<EndianSlice<'_, LittleEndian>>) -> Option<Rule> {
    let expression = |expression: &gimli::UnwindExpression<usize>| {
        expression.get(frames).ok().map(|expression| expression.0.slice().to_vec())
    };
    // The form of an offset: one operation with a number of one or two bytes.
    let offset = |bytes: &[u8], end: &[u8]| match bytes.strip_suffix(end)? {
        [BREG_FP, byte] if byte & 0x80 == 0 => Some(i64::from((*byte << 1).cast_signed() >> 1)),
        [BREG_FP, low, high] if low & 0x80 != 0 && high & 0x80 == 0 => {
            Some(i64::from(((u16::from(low & 0x7f) | u16::from(*high) << 7) << 2).cast_signed() >> 2))
        }
        _ => None,
    };
    let pc = row.register(GIMLI_PC);
    if pc == Some(RegisterRule::Undefined) {
        return Some(Rule::Outermost);
    }
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } if u64::from(register.0) == SP => Cfa::Sp(*offset as i32),
        CfaRule::RegisterAndOffset { register, offset } if u64::from(register.0) == FP => Cfa::Fp(*offset as i32),
        CfaRule::RegisterAndOffset { .. } => return None,
        CfaRule::Expression(bytes) => Cfa::AtFp(offset(&expression(bytes)?, &[DEREF])? as i32),
    };
    let fp = match row.register(GIMLI_FP) {
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => FramePointer::Same,
        Some(RegisterRule::Offset(offset)) => FramePointer::Cfa(offset as i32),
        Some(RegisterRule::Expression(bytes)) => FramePointer::Fp(offset(&expression(&bytes)?, &[])? as i32),
        _ => return None,
    };
    (pc == Some(RegisterRule::Offset(-8))).then_some(Rule::Caller { cfa, fp })
}

/// Compares every row of a file; returns how many rows there are, and how many have a rule.
fn compare(path: &Path) -> Option<(usize, usize)> {
    let loaded = load(path)?;
    let section = Section::new(&loaded.bytes, loaded.address);
    let frames = EhFrame::new(&loaded.frames.0, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(loaded.frames.1).set_eh_frame_hdr(loaded.header);
    let mut context = UnwindContext::new();
    let (mut rows, mut known) = (0, 0);
    let mut entries = frames.entries(&bases);
    while let Some(entry) = entries.next().expect("gimli reads the section") {
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let entry = partial.parse(EhFrame::cie_from_offset).expect("gimli reads the entry");
        let mut table = entry.rows(&frames, &bases, &mut context).expect("gimli begins a table");
        while let Ok(Some(row)) = table.next_row() {
            if row.start_address() == row.end_address() {
                continue;
            }
            let expected = expected(row, &frames);
            for call in [row.start_address(), row.end_address() - 1] {
                let found = rule(&section, loaded.header, call + 1);
                assert_eq!(found, expected, "{} at {call:#x}: {row:?}", path.display());
            }
            rows += 1;
            known += usize::from(expected.is_some());
        }
    }
    Some((rows, known))
}

#[test]
fn rules_are_those_that_gimli_finds() {
    let own = std::env::current_exe().unwrap();
    let (rows, known) = compare(&own).expect("this program can be unwound");
    assert!(rows > 10_000 && known * 100 > rows * 99, "{known} of {rows} rows have a rule");
    // Written by other compilers, and by hand.
    for path in ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/bin/python3"] {
        if let Some((rows, known)) = compare(Path::new(path)) {
            assert!(known * 10 > rows * 9, "{path}: {known} of {rows} rows have a rule");
        }
    }
}

#[test]
fn no_bytes_are_too_strange() {
    let own = std::env::current_exe().unwrap();
    let loaded = load(&own).unwrap();
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 27
    };
    let mut bytes = loaded.bytes[..loaded.bytes.len().min(64 << 10)].to_vec();
    let base = loaded.bytes.len();
    for turn in 0..20_000 {
        let section = Section::new(&bytes, loaded.address);
        let header = if turn % 2 == 0 { loaded.header } else { loaded.address + random() % base as u64 };
        let _ = rule(&section, header, random() % 0x100_0000);
        let _ = rule(&section, header, random());
        let at = random() as usize % bytes.len();
        bytes[at] = random() as u8;
        // The first words are what is looked at first.
        bytes[random() as usize % 64] = random() as u8;
    }
    // Entries alone, whose fields lead to one another.
    for _ in 0..20_000 {
        let length = random() as usize % 64;
        let body: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        let common = Common {
            code_align: random(),
            data_align: random().cast_signed(),
            encoding: random() as u8,
            augmented: false,
            instructions: Input { bytes: &[], address: 0 },
        };
        let (start, row) = (random(), Row::UNKNOWN);
        let mut machine = Machine { common: &common, start, initial: row, row, saved: [row; SAVED], depth: 0 };
        let _ = machine.run(Input { bytes: &body, address: random() }, random());
        let _ = machine.row.rule();
        let _ = Common::read(Input { bytes: &body, address: random() }).is_some();
    }
}
