//! A hash for keys of few words: addresses, ids, call sites.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`WordHasher`]s; the same in every run, so that the same events give the same iteration order.
pub(crate) type BuildWordHasher = BuildHasherDefault<WordHasher>;

/// Folds words by multiplication. The keys are few words long and come at ten millions a second, where the standard
/// hash would cost more than everything else that an event does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WordHasher(u64);

impl WordHasher {
    /// 2⁶⁴ divided by the golden ratio, odd.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(Self::FACTOR);
        // Both halves: the table takes its index from the low bits and its tags from the high ones.
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }
}
