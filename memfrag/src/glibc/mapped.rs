//! Chunks that were mapped by themselves.

use super::layout::{ALIGNMENT, HEADER, MappedChunk};
use super::memory::Memory;
use super::version::Offsets;
use super::walk::MAPPED;
use crate::target::residency::PAGE;
use std::ops::Range;

/// Pages whose beginnings are read at once, at most.
const PAGES: usize = 1 << 12;

/// What was found of mapped chunks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    /// The chunks, by address.
    pub(super) chunks: Vec<MappedChunk>,
    /// Bytes of their mappings: a chunk with an alignment of its own may begin behind its mapping's first byte.
    pub(super) bytes: u64,
}

/// Looks for mapped chunks at the beginnings of pages.
///
/// Neighbouring mappings show as one, whatever made them, so every page that no chunk covers is looked at, unless
/// nothing was ever written there. `ranges` are anonymous memory by address in which no arena lies.
pub(super) fn find(memory: &impl Memory, ranges: &[Range<u64>], offsets: &Offsets) -> Mapped {
    let mut found = Mapped::default();
    let mut bytes = Vec::new();
    let populated = memory.populated(ranges);
    let mut at = 0;
    for run in populated {
        let Some(range) = ranges.get(ranges.partition_point(|range| range.end <= run.start)) else { break };
        at = run.start.max(at);
        // A chunk is often followed by another one: look at one page, then at more and more.
        let mut pages = 1;
        while at < run.end {
            let addresses: Vec<u64> = (at..run.end).step_by(PAGE as usize).take(pages).collect();
            bytes.clear();
            bytes.resize(addresses.len() * HEADER as usize, 0);
            memory.gather(&addresses, HEADER as usize, &mut bytes);
            let chunk = addresses.iter().zip(bytes.chunks_exact(HEADER as usize)).find_map(|(&start, header)| {
                let total = whole(header, range.end.saturating_sub(start), offsets)?;
                Some((start, total))
            });
            if let Some((start, total)) = chunk {
                found.bytes += total;
                found.chunks.push(inner(memory, start, total, offsets));
                at = start + total;
                pages = 1;
            } else {
                at = at.saturating_add(addresses.len() as u64 * PAGE);
                pages = (pages * 2).min(PAGES);
            }
        }
    }
    found
}

/// The bytes of a mapping that begins with this header of a chunk, if it is one, and not longer than `room`.
fn whole(header: &[u8], room: u64, offsets: &Offsets) -> Option<u64> {
    let word = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    // The first word is the distance to the mapping's beginning; its lowest bit may tell of huge pages.
    let (distance, size) = (word(0)?, word(8)?);
    let total = (size & !7).checked_add(offsets.mapped_tail)?;
    let fits = distance <= u64::from(offsets.mapped_tail != 0) && size & 7 == MAPPED;
    (fits && total >= PAGE && total.is_multiple_of(PAGE) && total <= room).then_some(total)
}

/// The chunk in a mapping. Where an alignment was asked for, it begins later, and what the mapping begins with is
/// left from before that: the later chunk's first word says how far it is.
fn inner(memory: &impl Memory, start: u64, total: u64, offsets: &Offsets) -> MappedChunk {
    let mut places = Vec::new();
    for shift in 5..total.ilog2() {
        let alignment = 1 << shift;
        let first = (start + HEADER).next_multiple_of(alignment);
        // One too near to the mapping's beginning is passed over.
        places.extend([first, first + alignment].map(|block| block - HEADER));
    }
    places.retain(|&chunk| chunk > start && chunk.is_multiple_of(ALIGNMENT) && chunk - start < total - HEADER);
    places.sort_unstable();
    places.dedup();
    let mut bytes = vec![0; places.len() * HEADER as usize];
    memory.gather(&places, HEADER as usize, &mut bytes);
    let found = places.iter().zip(bytes.chunks_exact(HEADER as usize)).find_map(|(&chunk, header)| {
        let word = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let distance = chunk - start;
        let size = total - distance - offsets.mapped_tail;
        (word(0)? & !1 == distance && word(8)? == size | MAPPED)
            .then_some(MappedChunk { address: chunk, bytes: total - distance })
    });
    found.unwrap_or(MappedChunk { address: start, bytes: total })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glibc::memory::fake::Fake;
    use crate::glibc::version::Version;
    use proptest::prelude::*;

    const START: u64 = 0x7f00_0000_0000;

    fn offsets(minor: u16) -> &'static Offsets {
        Version { major: 2, minor }.offsets().expect("known")
    }

    /// Memory of so many pages, with chunks of so many pages in it.
    fn memory(pages: u64, chunks: &[(u64, u64)], offsets: &Offsets) -> Fake {
        let mut memory = Fake::default();
        memory.map(START, (pages * PAGE) as usize);
        for &(page, pages) in chunks {
            memory.set(START + page * PAGE + 8, (pages * PAGE - offsets.mapped_tail) | MAPPED);
        }
        memory
    }

    fn ranges(pages: u64) -> Vec<Range<u64>> {
        std::iter::once(START..START + pages * PAGE).collect()
    }

    #[test]
    fn chunks_are_found_among_other_mappings() {
        for minor in [31, 43] {
            let chunks = [(3, 40), (43, 100), (200, 1)];
            let memory = memory(300, &chunks, offsets(minor));
            let found = find(&memory, &ranges(300), offsets(minor));
            let expected =
                chunks.map(|(page, pages)| MappedChunk { address: START + page * PAGE, bytes: pages * PAGE }).to_vec();
            assert_eq!(found, Mapped { chunks: expected, bytes: 141 * PAGE });
        }
    }

    #[test]
    fn what_does_not_fit_is_none() {
        let offsets = offsets(36);
        // Longer than its mapping; not of whole pages; with another flag; nothing.
        for word in [(301 * PAGE) | MAPPED, (2 * PAGE + 16) | MAPPED, (2 * PAGE) | MAPPED | 1, MAPPED, u64::MAX] {
            let mut memory = memory(300, &[], offsets);
            memory.set(START + 8, word);
            assert_eq!(find(&memory, &ranges(300), offsets), Mapped::default(), "{word:#x}");
        }
        let mut memory = memory(300, &[(0, 2)], offsets);
        memory.set(START, 16);
        assert_eq!(find(&memory, &ranges(300), offsets), Mapped::default());
    }

    #[test]
    fn an_aligned_block_begins_inside_its_mapping() {
        for minor in [36, 43] {
            let offsets = offsets(minor);
            let mut memory = memory(100, &[(0, 100)], offsets);
            // What memalign leaves: the first header as it was, another one before the block.
            let block = (START + 32).next_multiple_of(1 << 16) + (1 << 16);
            let distance = block - HEADER - START;
            memory.set(block - 16, distance);
            memory.set(block - 8, (100 * PAGE - distance - offsets.mapped_tail) | MAPPED);
            let chunk = MappedChunk { address: block - HEADER, bytes: 100 * PAGE - distance };
            assert_eq!(find(&memory, &ranges(100), offsets), Mapped { chunks: vec![chunk], bytes: 100 * PAGE });
        }
    }

    proptest! {
        #[test]
        fn any_memory_is_searched(words in proptest::collection::vec((0u64..40, any::<u64>(), 0u64..64), 0..60), minor in 31u16..44) {
            let mut memory = memory(40, &[], offsets(minor));
            for (page, word, small) in words {
                memory.set(START + page * PAGE + 8, (small * PAGE) | MAPPED);
                memory.set(START + page * PAGE + (word % 500) * 8, word);
            }
            let found = find(&memory, &ranges(40), offsets(minor));
            prop_assert!(found.bytes <= 40 * PAGE);
            for pair in found.chunks.windows(2) {
                prop_assert!(pair[0].address + pair[0].bytes <= pair[1].address);
            }
        }
    }
}
