//! The columns of an events chunk, and how they are packed one by one.
//!
//! A payload is a directory (how many columns; for each its number, how it is packed, its bytes unpacked and packed)
//! followed by the packed columns in the directory's order. Columns without bytes are left out.

use super::chunk::{MAX_EVENTS, MAX_PAYLOAD};
use super::varint::{Input, put};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

/// The numbers of the columns.
pub(super) mod column {
    /// The threads and calls that the other columns name by number.
    pub(crate) const TABLES: usize = 0;
    /// Runs of events of one thread.
    pub(crate) const THREADS: usize = 1;
    /// Time since the event before, low and high byte.
    pub(crate) const TIME: usize = 2;
    /// Times that the two bytes cannot say.
    pub(crate) const TIME_WIDE: usize = 4;
    /// Number of the call, low and high byte.
    pub(crate) const CALL: usize = 5;
    /// Size, low and high byte.
    pub(crate) const SIZE: usize = 7;
    /// Sizes that the two bytes cannot say.
    pub(crate) const SIZE_WIDE: usize = 9;
    /// Where an allocation's address comes from.
    pub(crate) const ALLOC: usize = 10;
    /// Where a freed address comes from.
    pub(crate) const FREE: usize = 11;
    /// Distances to earlier blocks, low and high byte.
    pub(crate) const FAR: usize = 12;
    /// Address differences of allocations, three bytes.
    pub(crate) const ALLOC_NEW: usize = 14;
    /// Address differences of frees, three bytes.
    pub(crate) const FREE_NEW: usize = 17;
    /// Address differences that three bytes cannot say.
    pub(crate) const NEW_WIDE: usize = 20;
    /// The fields of all events that are no allocator calls.
    pub(crate) const OTHER: usize = 21;
    /// How many columns there are.
    pub(crate) const COUNT: usize = 22;
}
use column::COUNT;

/// A column is stored as it is.
const PLAIN: u8 = 0;
/// A column is packed with zstd.
const ZSTD: u8 = 1;
/// A column is one byte over and over.
const REPEATED: u8 = 2;

/// The columns, unpacked.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) bytes: [Vec<u8>; COUNT],
}

impl Columns {
    pub(super) fn new() -> Self {
        Self { bytes: [const { Vec::new() }; COUNT] }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.iter_mut().for_each(Vec::clear);
    }
}

/// Room for one value an event, which a push need not check.
#[derive(Debug)]
pub(super) struct PerEvent<T> {
    values: Box<[T; ROOM]>,
    length: usize,
}

/// A power of two, so that masking a position keeps it inside.
const ROOM: usize = 1 << 16;
const _: () = assert!(MAX_EVENTS < ROOM);

impl<T: Copy + Default> PerEvent<T> {
    fn new() -> Self {
        Self { values: Box::new([T::default(); ROOM]), length: 0 }
    }

    #[inline]
    pub(super) fn push(&mut self, value: T) {
        self.values[self.length % ROOM] = value;
        self.length += 1;
    }

    fn as_slice(&self) -> &[T] {
        &self.values[..self.length.min(ROOM)]
    }
}

/// The columns as the capturing thread fills them: what is written for most events lies where writing is cheapest.
#[derive(Debug)]
pub(super) struct Draft {
    /// [`column::TIME`].
    pub(super) times: PerEvent<u16>,
    /// [`column::CALL`].
    pub(super) calls: PerEvent<u16>,
    /// [`column::SIZE`].
    pub(super) sizes: PerEvent<u16>,
    /// [`column::FAR`].
    pub(super) far: PerEvent<u16>,
    /// [`column::ALLOC`].
    pub(super) allocs: PerEvent<u8>,
    /// [`column::FREE`].
    pub(super) frees: PerEvent<u8>,
    /// [`column::ALLOC_NEW`], three bytes of each.
    pub(super) alloc_new: PerEvent<u32>,
    /// [`column::FREE_NEW`], three bytes of each.
    pub(super) free_new: PerEvent<u32>,
    /// All others.
    pub(super) rare: Columns,
}

impl Draft {
    pub(super) fn new() -> Self {
        Self {
            times: PerEvent::new(),
            calls: PerEvent::new(),
            sizes: PerEvent::new(),
            far: PerEvent::new(),
            allocs: PerEvent::new(),
            frees: PerEvent::new(),
            alloc_new: PerEvent::new(),
            free_new: PerEvent::new(),
            rare: Columns::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.pairs_mut().into_iter().for_each(|pairs| pairs.length = 0);
        self.allocs.length = 0;
        self.frees.length = 0;
        self.alloc_new.length = 0;
        self.free_new.length = 0;
        self.rare.clear();
    }

    fn pairs_mut(&mut self) -> [&mut PerEvent<u16>; 4] {
        [&mut self.times, &mut self.calls, &mut self.sizes, &mut self.far]
    }

    /// The columns as they are packed.
    fn finish(&mut self) -> &Columns {
        let pairs = [
            (column::TIME, &self.times),
            (column::CALL, &self.calls),
            (column::SIZE, &self.sizes),
            (column::FAR, &self.far),
        ];
        for (number, pairs) in pairs {
            for (number, shift) in [(number, 0), (number + 1, 8)] {
                let out = &mut self.rare.bytes[number];
                out.clear();
                out.extend(pairs.as_slice().iter().map(|pair| (pair >> shift) as u8));
            }
        }
        for (number, triples) in [(column::ALLOC_NEW, &self.alloc_new), (column::FREE_NEW, &self.free_new)] {
            for (number, shift) in [(number, 0), (number + 1, 8), (number + 2, 16)] {
                let out = &mut self.rare.bytes[number];
                out.clear();
                out.extend(triples.as_slice().iter().map(|triple| (triple >> shift) as u8));
            }
        }
        for (number, bytes) in [(column::ALLOC, &self.allocs), (column::FREE, &self.frees)] {
            let out = &mut self.rare.bytes[number];
            out.clear();
            out.extend_from_slice(bytes.as_slice());
        }
        &self.rare
    }
}

/// Packs the columns of one chunk after another.
pub(super) struct Packer {
    zstd: Compressor<'static>,
    packed: Vec<u8>,
}

impl Packer {
    /// zstd's fastest level that still codes by frequency: higher ones find little more in columns.
    const LEVEL: i32 = 1;

    /// Shorter repetitions cost a column as much as they save.
    const SHORTEST_MATCH: u32 = 7;

    pub(super) fn new() -> std::io::Result<Self> {
        let mut zstd = Compressor::new(Self::LEVEL)?;
        zstd.set_parameter(CParameter::MinMatch(Self::SHORTEST_MATCH))?;
        Ok(Self { zstd, packed: Vec::new() })
    }

    /// Packs one run of bytes behind `out` and says how: as it is, if that will do.
    fn pack_one(&mut self, bytes: &[u8], plain: bool, out: &mut Vec<u8>) -> std::io::Result<u8> {
        if let [first, rest @ ..] = bytes
            && rest.iter().all(|byte| byte == first)
        {
            out.push(*first);
            return Ok(REPEATED);
        }
        if plain {
            out.extend_from_slice(bytes);
            return Ok(PLAIN);
        }
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        self.zstd.compress_to_buffer(bytes, &mut self.packed)?;
        if self.packed.len() < bytes.len() {
            out.extend_from_slice(&self.packed);
            Ok(ZSTD)
        } else {
            out.extend_from_slice(bytes);
            Ok(PLAIN)
        }
    }

    /// Replaces `out` by the payload that holds the columns, as they are if that will do. Returns how many bytes they
    /// are unpacked.
    pub(super) fn pack(
        &mut self,
        draft: &mut Draft,
        plain: bool,
        body: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> std::io::Result<usize> {
        let columns = draft.finish();
        out.clear();
        body.clear();
        let used = columns.bytes.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty());
        out.push(used.clone().count() as u8);
        for (number, bytes) in used {
            let before = body.len();
            let coding = self.pack_one(bytes, plain, body)?;
            out.extend([number as u8, coding]);
            put(out, bytes.len() as u64);
            put(out, (body.len() - before) as u64);
        }
        out.extend_from_slice(body);
        Ok(columns.bytes.iter().map(Vec::len).sum())
    }

    /// Replaces `out` by `bytes` packed as the only run of a payload.
    pub(super) fn pack_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        out.clear();
        out.push(PLAIN);
        out[0] = self.pack_one(bytes, false, out)?;
        Ok(())
    }
}

/// Unpacks the columns of one chunk after another.
pub(super) struct Unpacker {
    zstd: Decompressor<'static>,
}

impl Unpacker {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: Decompressor::new()? })
    }

    /// Fills `out` with exactly `length` bytes unpacked from `packed`.
    fn unpack_one(&mut self, coding: u8, packed: &[u8], length: usize, out: &mut Vec<u8>) -> Option<()> {
        out.clear();
        match (coding, packed) {
            (PLAIN, _) if packed.len() == length => out.extend_from_slice(packed),
            (REPEATED, &[byte]) => out.resize(length, byte),
            (ZSTD, _) => {
                out.reserve(length);
                let unpacked = self.zstd.decompress_to_buffer(packed, out).ok()?;
                if unpacked != length {
                    return None;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Replaces `columns` by those in `payload`, which together have `length` bytes. `None` when it is damaged.
    pub(super) fn unpack(&mut self, payload: &[u8], length: usize, columns: &mut Columns) -> Option<()> {
        columns.clear();
        let mut directory = Input::new(payload);
        let count = directory.byte()?;
        let mut body = directory;
        for _ in 0..count {
            body.take(2)?;
            body.varint()?;
            body.varint()?;
        }
        let mut left = length.min(MAX_PAYLOAD);
        for _ in 0..count {
            let (number, coding) = (directory.byte()?, directory.byte()?);
            let unpacked = usize::try_from(directory.varint()?).ok()?;
            let packed = body.take(usize::try_from(directory.varint()?).ok()?)?;
            left = left.checked_sub(unpacked)?;
            let column = columns.bytes.get_mut(usize::from(number)).filter(|column| column.is_empty())?;
            self.unpack_one(coding, packed, unpacked, column)?;
        }
        (left == 0 && body.is_empty()).then_some(())
    }

    /// Replaces `out` by what [`Packer::pack_bytes`] was given, `length` bytes.
    pub(super) fn unpack_bytes(&mut self, payload: &[u8], length: usize, out: &mut Vec<u8>) -> Option<()> {
        let (&coding, packed) = payload.split_first()?;
        self.unpack_one(coding, packed, length.min(MAX_PAYLOAD), out)
    }
}
