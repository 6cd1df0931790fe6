//! As much of an ELF file as it takes to find its call frame information. Any bytes may stand in it.

use core::ops::Range;

/// A file's first bytes.
const MAGIC: [u8; 4] = *b"\x7fELF";
/// `ELFCLASS64` and `ELFDATA2LSB`, behind the magic.
const FORM: [u8; 2] = [2, 1];
/// Bytes of a program header.
const HEADER: usize = 56;

/// Bytes of a file's own header.
pub const FILE_HEADER: usize = 64;
/// A part of the file that is loaded.
pub const LOAD: u32 = 1;
/// Where the header of the call frame information lies.
pub const EH_FRAME: u32 = 0x6474_e550;

/// A program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it tells of, such as [`LOAD`].
    pub kind: u32,
    /// Where it begins in the file.
    pub offset: u64,
    /// The address of its first byte, before the file was moved to where it is loaded.
    pub address: u64,
    /// Bytes in the file.
    pub bytes: u64,
}

/// Where a file's program headers lie in it, by its first bytes. `None` when it is no 64-bit, little-endian ELF file.
pub fn program_headers(first: &[u8]) -> Option<Range<usize>> {
    if first.first_chunk() != Some(&MAGIC) || first.get(4..6)? != FORM {
        return None;
    }
    let count = usize::from(u16::from_le_bytes(*first.get(56..)?.first_chunk()?));
    let start = usize::try_from(u64::from_le_bytes(*first.get(32..)?.first_chunk()?)).ok()?;
    Some(start..start.checked_add(count * HEADER)?)
}

/// The program headers in their bytes.
pub fn segments(table: &[u8]) -> impl Iterator<Item = Segment> {
    table.chunks_exact(HEADER).filter_map(|header| {
        let word = |at: usize| Some(u64::from_le_bytes(*header.get(at..)?.first_chunk()?));
        Some(Segment { kind: word(0)? as u32, offset: word(8)?, address: word(16)?, bytes: word(32)? })
    })
}

impl Segment {
    /// Whether the segment holds an address.
    pub const fn holds(&self, address: u64) -> bool {
        address.wrapping_sub(self.address) < self.bytes
    }
}
