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
/// Neighbouring mappings show as one, whatever made them, so every page that no chunk covers is looked at. `ranges`
/// are anonymous memory in which no arena lies.
pub(super) fn find(memory: &impl Memory, ranges: &[Range<u64>], offsets: &Offsets) -> Mapped {
    let mut found = Mapped::default();
    let mut bytes = Vec::new();
    for range in ranges {
        let mut at = range.start;
        // A chunk is often followed by another one: look at one page, then at more and more.
        let mut pages = 1;
        while at < range.end {
            let addresses: Vec<u64> = (at..range.end).step_by(PAGE as usize).take(pages).collect();
            bytes.clear();
            bytes.resize(addresses.len() * HEADER as usize, 0);
            memory.gather(&addresses, HEADER as usize, &mut bytes);
            let chunk = addresses.iter().zip(bytes.chunks_exact(HEADER as usize)).find_map(|(&start, header)| {
                let total = whole(header, range.end - start, offsets)?;
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
