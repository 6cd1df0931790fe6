//! Measures of how free memory is cut up, from the sizes of the free chunks.

use crate::glibc::layout::{Chunk, ChunkKind, Layout, chunk_bytes};

/// The free chunks of a heap, as far as these measures need them.
#[derive(Clone, Debug, Default)]
pub struct FreeChunks {
    /// Sizes, upwards.
    sizes: Vec<u64>,
    bytes: u64,
}

impl FreeChunks {
    /// Chunks of these sizes.
    pub fn new(sizes: impl Iterator<Item = u64>) -> Self {
        let mut sizes: Vec<u64> = sizes.collect();
        sizes.sort_unstable();
        let bytes = sizes.iter().sum();
        Self { sizes, bytes }
    }

    /// The binned chunks of all arenas: neither cached ones nor the top chunks, which grow on demand.
    pub fn of(layout: &Layout) -> Self {
        let segments = layout.arenas.iter().flat_map(|arena| &arena.segments);
        let chunks = segments.flat_map(|segment| segment.chunks.iter().copied());
        Self::new(chunks.filter(|chunk| chunk.kind() == ChunkKind::Free).map(Chunk::bytes))
    }

    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Unusable-free index: the share of the free bytes that lie in chunks too small for a request of `size` bytes,
    /// `Σ fᵢ [fᵢ < chunk(size)] / Σ fᵢ`. The idea is that of Linux's external-fragmentation index.
    pub fn unusable_index(&self, size: u64) -> Option<f64> {
        let chunk = chunk_bytes(size);
        let small = self.sizes.partition_point(|&free| free < chunk);
        self.share(self.sizes[..small].iter().sum())
    }

    /// `1 − max fᵢ / Σ fᵢ`: how far the free bytes are from being one chunk. It says nothing about whether memory can
    /// be given back.
    pub fn fragmentation_index(&self) -> Option<f64> {
        self.share(self.sizes.last().copied().unwrap_or(0)).map(|share| 1.0 - share)
    }

    /// `1 − √(Σ fᵢ²) / Σ fᵢ`: as [`Self::fragmentation_index`], with every chunk weighed.
    pub fn dispersion(&self) -> Option<f64> {
        let squares: f64 = self.sizes.iter().map(|&size| size as f64 * size as f64).sum();
        (self.bytes > 0).then(|| 1.0 - squares.sqrt() / self.bytes as f64)
    }

    /// The percentage that the fragmentation index is, cut to a whole number, 0 when nothing is free: what free-list
    /// visualizers show.
    pub fn percentage(&self) -> u64 {
        let largest = self.sizes.last().copied().unwrap_or(0);
        let rest = u128::from(self.bytes - largest) * 100;
        rest.checked_div(u128::from(self.bytes)).unwrap_or(0) as u64
    }

    fn share(&self, bytes: u64) -> Option<f64> {
        (self.bytes > 0).then(|| bytes as f64 / self.bytes as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glibc::{Arena, Segment};

    #[test]
    fn chunks_too_small_for_a_request_are_unusable_for_it() {
        // 100 of the 400 bytes are in chunks below 112, the chunk of 100 bytes.
        let free = FreeChunks::new([300, 64, 36].into_iter());
        assert_eq!(free.unusable_index(100), Some(0.25));
        assert_eq!(free.unusable_index(0), Some(0.0));
        assert_eq!(free.unusable_index(40), Some(0.09));
        assert_eq!(free.unusable_index(1000), Some(1.0));
    }

    #[test]
    fn the_free_lists_own_measures() {
        let free = FreeChunks::new([300, 400].into_iter());
        assert_eq!(free.fragmentation_index(), Some(1.0 - 400.0 / 700.0));
        assert_eq!(free.dispersion(), Some(1.0 - 500.0 / 700.0));
        assert_eq!(free.percentage(), 42);
        let one = FreeChunks::new(std::iter::once(4096));
        assert_eq!((one.fragmentation_index(), one.dispersion(), one.percentage()), (Some(0.0), Some(0.0), 0));
        let none = FreeChunks::default();
        assert_eq!((none.fragmentation_index(), none.dispersion(), none.unusable_index(8)), (None, None, None));
        assert_eq!(none.percentage(), 0);
    }

    #[test]
    fn only_binned_chunks_count() {
        let kinds = [ChunkKind::Used, ChunkKind::Tcache, ChunkKind::Free, ChunkKind::Fastbin, ChunkKind::Top];
        let chunks = kinds.iter().zip(1..).map(|(&kind, n)| Chunk::new(n * 64, kind)).collect();
        let segment = Segment { range: 0..1, first: 0, chunks };
        let arena = Arena { address: 0, is_main: true, system_bytes: 0, max_system_bytes: 0, segments: vec![segment] };
        assert_eq!(FreeChunks::of(&Layout { arenas: vec![arena], mapped: Vec::new() }).bytes(), 192);
    }
}
