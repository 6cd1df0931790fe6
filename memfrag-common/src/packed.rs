//! A record in half a cache line: as it lies in the ring of the preload library.
//!
//! A ring is one thread's, so its records do not say whose they are; and what a process can address has 48 bits. So four
//! words do:
//!
//! | word | upper 48 bits | lower 16 bits |
//! |---|---|---|
//! | 0 | the stamp, all 64 bits | |
//! | 1 | `addr` | kind (5 bits), function (5), `align_log2` (6) |
//! | 2 | `site` | lower half of the rest |
//! | 3 | `size` | upper half of the rest |
//!
//! The rest is `extra` where a block is made, and everywhere else what `addr` (lower half) and `size` have above 48
//! bits, since a program may free anything and ask for any size. A failed allocation of such a size has a kind of its
//! own, with what the size has above 48 bits in the place of the address.
//!
//! A ring's reader learns whose it is from the records of [`Kind::ThreadStart`] and [`Kind::Gap`], which have the thread's
//! id as `site`: a thread that takes over a ring begins with the one, or, where that was lost, with the other.

use crate::record::{Kind, Record};

/// Words of a record in a ring.
pub const WORDS: usize = 4;

/// Bits of an address, and of what shares a word with it.
const ADDRESS_BITS: u32 = 48;
const TAG_BITS: u32 = 64 - ADDRESS_BITS;
const TAG: u64 = (1 << TAG_BITS) - 1;

/// Bits of a kind, and of a function.
const KIND_BITS: u32 = 5;
const NUMBER: u64 = (1 << KIND_BITS) - 1;

/// Kinds that only packed records have: a block of over 2⁴⁸ bytes was asked for in vain.
const ALLOC_TOO_LARGE: u8 = 30;
const REALLOC_TOO_LARGE: u8 = 31;

const _: () = assert!((Kind::Gap as u8) < ALLOC_TOO_LARGE);
const _: () = assert!(crate::Function::ALL.len() < 1 << KIND_BITS);

/// The words behind the stamp. `None` for what four words cannot hold: blocks and callers beyond 48 bits, and `extra`
/// where no block is made.
#[inline(always)]
#[allow(clippy::inline_always, reason = "part of the preload library's hot path, where most is known in advance")]
pub fn pack(record: &Record) -> Option<[u64; WORDS - 1]> {
    let r = record;
    if (r.addr | r.size | r.site) >> ADDRESS_BITS != 0 {
        return pack_large(record);
    }
    (makes_block(r.kind) || r.extra == 0).then(|| words(r.kind, r, r.addr, r.extra))
}

#[cold]
#[inline(never)]
fn pack_large(record: &Record) -> Option<[u64; WORDS - 1]> {
    let r = record;
    let (high_addr, high_size) = (r.addr >> ADDRESS_BITS, r.size >> ADDRESS_BITS);
    if r.site >> ADDRESS_BITS != 0 {
        None
    } else if !makes_block(r.kind) {
        (r.extra == 0).then(|| words(r.kind, r, r.addr, (high_addr | high_size << TAG_BITS) as u32))
    } else if r.addr == 0 {
        let kind = if r.kind == Kind::Alloc as u8 { ALLOC_TOO_LARGE } else { REALLOC_TOO_LARGE };
        Some(words(kind, r, high_size, r.extra))
    } else {
        None
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
const fn words(kind: u8, r: &Record, addr: u64, rest: u32) -> [u64; WORDS - 1] {
    let tag = kind as u64 | (r.function as u64) << KIND_BITS | (r.align_log2 as u64) << (2 * KIND_BITS);
    [addr << TAG_BITS | tag & TAG, r.site << TAG_BITS | rest as u64 & TAG, r.size << TAG_BITS | rest as u64 >> TAG_BITS]
}

const fn makes_block(kind: u8) -> bool {
    kind == Kind::Alloc as u8 || kind == Kind::ReallocEnd as u8
}

/// The number of a packed record's kind; for orders of kinds, in which those that only packed records have do not
/// matter: they take and make nothing.
#[inline]
pub const fn kind(words: &[u64; WORDS]) -> u8 {
    (words[1] & NUMBER) as u8
}

/// The thread that the ring is from this record on, if the record tells.
#[inline]
pub fn thread(words: &[u64; WORDS]) -> Option<u32> {
    let tells = const { 1u32 << Kind::ThreadStart as u32 | 1 << Kind::Gap as u32 };
    (tells >> kind(words) & 1 != 0).then_some((words[2] >> TAG_BITS) as u32)
}

/// The record that these words of a thread's ring are, whatever they are; kinds and functions may be unknown ones.
#[inline]
pub const fn unpack(words: &[u64; WORDS], pid: u32, tid: u32) -> Record {
    let [time, tagged, low, high] = *words;
    let rest = (low & TAG) | (high & TAG) << TAG_BITS;
    let mut record = Record {
        time,
        addr: tagged >> TAG_BITS,
        size: high >> TAG_BITS,
        site: low >> TAG_BITS,
        pid,
        tid,
        kind: kind(words),
        function: (tagged >> KIND_BITS & NUMBER) as u8,
        align_log2: ((tagged & TAG) >> (2 * KIND_BITS)) as u8,
        reserved: 0,
        extra: 0,
    };
    if makes_block(record.kind) {
        record.extra = rest as u32;
    } else if record.kind >= ALLOC_TOO_LARGE {
        let alloc = record.kind == ALLOC_TOO_LARGE;
        record.kind = if alloc { Kind::Alloc } else { Kind::ReallocEnd } as u8;
        record.size |= record.addr << ADDRESS_BITS;
        record.addr = 0;
        record.extra = rest as u32;
    } else {
        record.addr |= (rest & TAG) << ADDRESS_BITS;
        record.size |= rest >> TAG_BITS << ADDRESS_BITS;
    }
    record
}

#[cfg(test)]
mod tests;
