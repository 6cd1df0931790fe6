//! A glibc heap as a walk found it, as notes: one with the arenas, then as many as its chunks need.
//!
//! A heap of ten million chunks would be too much for one note; one of [`PART`] chunks never is.

use super::Note;
use crate::glibc::{Arena, Chunk, ChunkKind, Layout, MappedChunk, Segment};
use crate::recording::varint::{Input, fold, put, unfold};

/// Chunks in a note.
const PART: usize = 1 << 16;

/// A heap whose chunks are still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::recording) struct Outline {
    pub(in crate::recording) time: u64,
    pub(in crate::recording) pid: u32,
    layout: Layout,
    /// How many chunks each segment gets, in order.
    counts: Vec<u64>,
    chunks: Vec<Chunk>,
}

pub(super) fn put_outline(out: &mut Vec<u8>, pid: u32, layout: &Layout) {
    put(out, u64::from(pid));
    put(out, layout.arenas.len() as u64);
    let mut at = 0_u64;
    for arena in &layout.arenas {
        out.push(u8::from(arena.is_main));
        for number in [arena.address, arena.system_bytes, arena.max_system_bytes, arena.segments.len() as u64] {
            put(out, number);
        }
        for segment in &arena.segments {
            put(out, fold(segment.range.start.wrapping_sub(at)));
            put(out, segment.range.end.wrapping_sub(segment.range.start));
            put(out, segment.first.wrapping_sub(segment.range.start));
            put(out, segment.chunks.len() as u64);
            at = segment.range.end;
        }
    }
    put(out, layout.mapped.len() as u64);
    for chunk in &layout.mapped {
        put(out, fold(chunk.address.wrapping_sub(at)));
        put(out, chunk.bytes);
        at = chunk.address.wrapping_add(chunk.bytes);
    }
}

/// The chunks of all segments in order, cut into what one note holds.
pub(super) fn parts(layout: &Layout) -> impl Iterator<Item = Vec<Chunk>> + '_ {
    let mut chunks = layout.arenas.iter().flat_map(|arena| &arena.segments).flat_map(|segment| &segment.chunks);
    std::iter::from_fn(move || {
        let part: Vec<Chunk> = chunks.by_ref().take(PART).copied().collect();
        (!part.is_empty()).then_some(part)
    })
}

pub(super) fn put_chunks(out: &mut Vec<u8>, pid: u32, chunks: &[Chunk]) {
    put(out, u64::from(pid));
    put(out, chunks.len() as u64);
    // Sizes are multiples of 16, so the kind fits below.
    for chunk in chunks {
        put(out, chunk.bytes() >> 1 | chunk.kind() as u64);
    }
}

pub(super) fn outline(body: &mut Input<'_>, time: u64) -> Option<Note> {
    let pid = body.varint32()?;
    let mut layout = Layout::default();
    let mut counts = Vec::new();
    let mut at = 0_u64;
    for _ in 0..body.varint()? {
        let is_main = body.byte()? != 0;
        let (address, system_bytes, max_system_bytes) = (body.varint()?, body.varint()?, body.varint()?);
        let mut segments = Vec::new();
        for _ in 0..body.varint()? {
            let start = at.wrapping_add(unfold(body.varint()?));
            at = start.checked_add(body.varint()?)?;
            let first = start.checked_add(body.varint()?)?;
            counts.push(body.varint()?);
            segments.push(Segment { range: start..at, first, chunks: Vec::new() });
        }
        layout.arenas.push(Arena { address, is_main, system_bytes, max_system_bytes, segments });
    }
    for _ in 0..body.varint()? {
        let address = at.wrapping_add(unfold(body.varint()?));
        let bytes = body.varint()?;
        at = address.checked_add(bytes)?;
        layout.mapped.push(MappedChunk { address, bytes });
    }
    Some(Note::Outline(Outline { time, pid, layout, counts, chunks: Vec::new() }))
}

pub(super) fn chunks(body: &mut Input<'_>, time: u64) -> Option<Note> {
    let pid = body.varint32()?;
    let mut chunks = Vec::new();
    for _ in 0..body.varint()? {
        let number = body.varint()?;
        let kind = ChunkKind::from_u8((number & 7) as u8)?;
        chunks.push(Chunk::new((number & !7).checked_mul(2)?, kind));
    }
    Some(Note::Chunks { time, pid, chunks })
}

impl Outline {
    /// Takes the next chunks.
    pub(in crate::recording) fn add(&mut self, chunks: &[Chunk]) {
        self.chunks.extend_from_slice(chunks);
    }

    /// The heap, once all of its chunks are there.
    pub(in crate::recording) fn complete(&mut self) -> Option<Layout> {
        let expected = self.counts.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count))?;
        if self.chunks.len() as u64 != expected {
            return None;
        }
        let mut layout = std::mem::take(&mut self.layout);
        let mut chunks = std::mem::take(&mut self.chunks).into_iter();
        let segments = layout.arenas.iter_mut().flat_map(|arena| &mut arena.segments);
        for (segment, &count) in segments.zip(&self.counts) {
            segment.chunks = chunks.by_ref().take(count as usize).collect();
        }
        Some(layout)
    }
}
