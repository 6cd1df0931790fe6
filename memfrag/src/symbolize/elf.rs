//! The parts of an ELF file that names need, read piece by piece.
//!
//! Files are read, not mapped: one that is cut short while it is looked at must not end memfrag. Every number in it is
//! taken as hostile; what is read at once is bounded.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// Program headers that are looked at.
const MOST_SEGMENTS: u64 = 256;
/// Section headers that are looked at.
const MOST_SECTIONS: u64 = 1 << 16;
/// Bytes of a note segment that are looked at.
const MOST_NOTES: u64 = 4096;
/// Symbols that are looked at in one table.
const MOST_SYMBOLS: u64 = 16 << 20;
/// Symbols read at once.
const BATCH: u64 = 1 << 14;
/// Bytes of a symbol in its table.
const SYMBOL: u64 = 24;
/// The longest name that is read.
const MOST_NAME: usize = 8 << 10;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const NT_GNU_BUILD_ID: u32 = 3;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;

/// Which symbol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All symbols; strip takes it away.
    Full,
    /// What the file exports and imports.
    Dynamic,
}

/// A symbol table and the strings that hold its names, as ranges of the file.
#[derive(Clone, Debug)]
pub(super) struct SymbolTable {
    symbols: Range<u64>,
    names: Range<u64>,
}

/// A function symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) address: u64,
    /// 0 when the file does not say.
    pub(super) size: u64,
    /// Offset of the name in the table's names.
    pub(super) name: u32,
    /// As in the file: 0 local, 1 global, 2 weak.
    pub(super) binding: u8,
}

/// An open 64-bit little-endian ELF file.
#[derive(Debug)]
pub(super) struct Elf {
    file: File,
    length: u64,
    /// Executable segments: where they lie in the file, and the virtual address of their first byte.
    code: Vec<(Range<u64>, u64)>,
    build_id: Vec<u8>,
    tables: Vec<(Kind, SymbolTable)>,
}

impl Elf {
    /// Reads the headers. `None` when it is no such file, or a damaged one.
    pub(super) fn of(file: File, length: u64) -> Option<Self> {
        let mut elf = Self { file, length, code: Vec::new(), build_id: Vec::new(), tables: Vec::new() };
        let header = elf.read(0, 64)?;
        // The magic, 64 bits, little-endian.
        if header.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        elf.read_segments(u64_at(&header, 32)?, u64::from(u16_at(&header, 56)?), u64::from(u16_at(&header, 54)?));
        elf.read_sections(u64_at(&header, 40)?, u64::from(u16_at(&header, 60)?), u64::from(u16_at(&header, 58)?));
        Some(elf)
    }

    /// The build-id; empty when there is none.
    pub(super) fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    /// The virtual address of a place in the file that holds code.
    pub(super) fn address(&self, offset: u64) -> Option<u64> {
        let (range, address) = self.code.iter().find(|(range, _)| range.contains(&offset))?;
        address.checked_add(offset - range.start)
    }

    /// A symbol table, if there is one.
    pub(super) fn table(&self, kind: Kind) -> Option<&SymbolTable> {
        self.tables.iter().find(|(found, _)| *found == kind).map(|(_, table)| table)
    }

    /// Goes over the functions that a table defines, until `take` returns false.
    pub(super) fn functions(&self, table: &SymbolTable, mut take: impl FnMut(Symbol) -> bool) {
        let count = ((table.symbols.end - table.symbols.start) / SYMBOL).min(MOST_SYMBOLS);
        for first in (0..count).step_by(BATCH as usize) {
            let batch = (count - first).min(BATCH);
            let Some(bytes) = self.read(table.symbols.start + first * SYMBOL, batch * SYMBOL) else { return };
            if !bytes.chunks_exact(SYMBOL as usize).filter_map(symbol).all(&mut take) {
                return;
            }
        }
    }

    /// A name of a table; `None` when it lies elsewhere or is too long.
    pub(super) fn name(&self, table: &SymbolTable, name: u32) -> Option<Vec<u8>> {
        let start = table.names.start.checked_add(u64::from(name)).filter(|start| *start < table.names.end)?;
        // Most names are short: a second look is for the others.
        for most in [256, MOST_NAME] {
            let length = (table.names.end - start).min(most as u64);
            let mut bytes = self.read(start, length)?;
            if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
                bytes.truncate(end);
                return Some(bytes);
            }
        }
        None
    }

    fn read_segments(&mut self, offset: u64, count: u64, size: u64) {
        let Some(bytes) = self.headers(offset, count.min(MOST_SEGMENTS), size, 56) else { return };
        for header in bytes.chunks_exact(size as usize) {
            let found = (|| Some((u32_at(header, 0)?, u32_at(header, 4)?, u64_at(header, 8)?, u64_at(header, 32)?)))();
            let Some((kind, flags, offset, size)) = found else { return };
            if kind == PT_LOAD && flags & PF_X != 0 {
                let end = offset.saturating_add(size).min(self.length);
                self.code.push((offset..end, u64_at(header, 16).unwrap_or(0)));
            } else if kind == PT_NOTE
                && self.build_id.is_empty()
                && let Some(notes) = self.read(offset, size.min(MOST_NOTES))
            {
                self.build_id = build_id(&notes).unwrap_or_default().to_vec();
            }
        }
    }

    fn read_sections(&mut self, offset: u64, count: u64, size: u64) {
        let Some(bytes) = self.headers(offset, count.min(MOST_SECTIONS), size, 64) else { return };
        let headers: Vec<&[u8]> = bytes.chunks_exact(size as usize).collect();
        for header in &headers {
            let kind = match u32_at(header, 4) {
                Some(SHT_SYMTAB) => Kind::Full,
                Some(SHT_DYNSYM) => Kind::Dynamic,
                _ => continue,
            };
            let names = u32_at(header, 40).and_then(|link| headers.get(link as usize));
            let range = |header: &[u8]| self.within(u64_at(header, 24)?, u64_at(header, 32)?);
            if let (Some(symbols), Some(names)) = (range(header), names.and_then(|header| range(header))) {
                self.tables.push((kind, SymbolTable { symbols, names }));
            }
        }
    }

    /// A table of headers of at least `least` bytes each.
    fn headers(&self, offset: u64, count: u64, size: u64, least: u64) -> Option<Vec<u8>> {
        // Larger ones than a kilobyte are no headers of this world.
        if count == 0 || !(least..=1024).contains(&size) {
            return None;
        }
        self.read(offset, count * size)
    }

    /// A range of the file, if it lies within.
    fn within(&self, offset: u64, size: u64) -> Option<Range<u64>> {
        let end = offset.checked_add(size)?;
        (end <= self.length).then_some(offset..end)
    }

    fn read(&self, offset: u64, size: u64) -> Option<Vec<u8>> {
        let range = self.within(offset, size)?;
        let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

/// A function that is defined; `None` for every other symbol.
fn symbol(bytes: &[u8]) -> Option<Symbol> {
    let (info, section) = (*bytes.get(4)?, u16_at(bytes, 6)?);
    let address = u64_at(bytes, 8)?;
    let is_function = matches!(info & 0xf, STT_FUNC | STT_GNU_IFUNC);
    (is_function && section != 0 && address != 0).then_some(Symbol {
        address,
        size: u64_at(bytes, 16)?,
        name: u32_at(bytes, 0)?,
        binding: info >> 4,
    })
}

/// The build-id among notes.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (name, description) = (u32_at(notes, 0)? as usize, u32_at(notes, 4)? as usize);
        let rest = notes.get(12..)?;
        let behind = rest.get(name.checked_next_multiple_of(4)?..)?;
        if u32_at(notes, 8)? == NT_GNU_BUILD_ID && rest.get(..name)? == b"GNU\0" {
            return behind.get(..description).filter(|id| (2..=64).contains(&id.len()));
        }
        notes = behind.get(description.checked_next_multiple_of(4)?..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
