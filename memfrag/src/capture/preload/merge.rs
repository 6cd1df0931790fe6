//! One order out of many rings.

use super::image::Ring;
use memfrag_common::packed::{self, WORDS};
use memfrag_common::prefetch::prefetch;
use memfrag_common::{Kind, Record};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// After so many records a ring's slots are given back, although there is more to read.
const RELEASE_EVERY: u64 = 2048;

/// How many records ahead of the one at hand memory is sent for.
const AHEAD: u64 = 24;

/// Where a record stands in the order: its stamp, then whether it makes a block or takes one. At equal stamps what
/// takes blocks comes first, so that an address is free before it is given out again.
type Key = (u64, u8);

fn key(words: &[u64; WORDS], last: u64) -> Key {
    const TAKE: u32 = 1 << Kind::Free as u32 | 1 << Kind::ReallocBegin as u32 | 1 << Kind::ThreadStart as u32;
    (words[0].max(last), (!TAKE >> packed::kind(words)) as u8 & 1)
}

/// The merger, which keeps its memory from one pass to the next.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    heap: BinaryHeap<Reverse<(Key, usize)>>,
}

impl Merger {
    /// Takes the records with stamps up to `limit` out of the rings, in order, but no more than `most`. `out` gets each
    /// with its stamp, which within a ring never decreases. Returns how many they were.
    pub(crate) fn release(
        &mut self,
        rings: &mut [&mut Ring],
        limit: u64,
        most: u64,
        mut out: impl FnMut(&Record, u64),
    ) -> u64 {
        let mut left = most;
        self.heap.clear();
        for (index, ring) in rings.iter().enumerate() {
            if let Some(key) = next(ring, limit) {
                self.heap.push(Reverse((key, index)));
            }
        }
        while left > 0
            && let Some(Reverse((_, index))) = self.heap.pop()
        {
            // As long as this ring is first, there is no need to compare with the others.
            let bound = self.heap.peek().map_or((limit, u8::MAX), |&Reverse((key, _))| key);
            let ring = &mut *rings[index];
            left -= run(ring, bound, left, &mut out);
            if let Some(key) = next(ring, limit) {
                self.heap.push(Reverse((key, index)));
            }
        }
        most - left
    }
}

/// The ring's next record, if it is to be released.
fn next(ring: &Ring, limit: u64) -> Option<Key> {
    (ring.tail < ring.head).then(|| key(&ring.slot(ring.tail).load(), ring.last)).filter(|&(stamp, _)| stamp <= limit)
}

/// Takes the records up to `bound` out of one ring, no more than `most`. Returns how many they were.
fn run(ring: &mut Ring, bound: Key, most: u64, out: &mut impl FnMut(&Record, u64)) -> u64 {
    let first = ring.tail;
    let end = ring.head.min(first.saturating_add(most));
    let mut given_back = first;
    while ring.tail < end {
        // Written by another processor; those not yet written are left to it.
        prefetch(ring.slot(ring.tail.saturating_add(AHEAD).min(end - 1)));
        let words = ring.slot(ring.tail).load();
        let key = key(&words, ring.last);
        if key > bound {
            break;
        }
        ring.last = key.0;
        ring.tail += 1;
        if let Some(thread) = packed::thread(&words) {
            ring.tid = thread;
        }
        out(&packed::unpack(&words, ring.pid, ring.tid), key.0);
        if ring.tail - given_back == RELEASE_EVERY {
            ring.header().release(ring.tail);
            given_back = ring.tail;
        }
    }
    if ring.tail != given_back {
        ring.header().release(ring.tail);
    }
    ring.tail - first
}

#[cfg(test)]
mod tests;
