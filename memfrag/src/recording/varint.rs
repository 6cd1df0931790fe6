//! Variable-length numbers, and a cursor over bytes of unknown origin.
//!
//! A number is cut into groups of seven bits, lowest first; the top bit of a byte says that another follows. Signed
//! numbers are folded first, so that small ones of either sign stay short.

/// Appends `value`.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the length of `bytes`, then the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Folds a difference (modulo 2⁶⁴) so that small ones of either sign become small numbers.
#[inline]
pub(crate) const fn fold(difference: u64) -> u64 {
    let signed = difference.cast_signed();
    (difference << 1) ^ (signed >> 63).cast_unsigned()
}

/// What [`fold`] was given.
#[inline]
pub(crate) const fn unfold(folded: u64) -> u64 {
    (folded >> 1) ^ (folded & 1).wrapping_neg()
}

/// Reads from the front of a slice; every read answers `None` when the bytes do not suffice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*taken)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A variable-length number. More than ten bytes, or bits beyond the 64th, are no number.
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A variable-length number that must fit 32 bits.
    pub(crate) fn varint32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    /// What [`put_bytes`] wrote.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64, after: u8) {
            let mut out = Vec::new();
            put(&mut out, value);
            out.push(after);
            let mut input = Input::new(&out);
            prop_assert_eq!(input.varint(), Some(value));
            prop_assert_eq!(input.byte(), Some(after));
            prop_assert!(input.is_empty());
            prop_assert_eq!(unfold(fold(value)), value);
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let mut input = Input::new(&bytes);
            while input.varint().is_some() {}
            prop_assert!(input.remaining() <= bytes.len());
        }
    }

    #[test]
    fn small_differences_are_short() {
        assert_eq!([0, 1, 2, u64::MAX].map(fold), [0, 2, 4, 1]);
    }

    #[test]
    fn too_many_bits_are_refused() {
        assert_eq!(Input::new(&[0xff; 12]).varint(), None);
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Input::new(&most).varint(), Some(u64::MAX));
    }
}
