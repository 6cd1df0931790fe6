//! A glibc heap as it lies in memory: arenas, the segments that they obtained, and every chunk in them.
//!
//! A chunk begins with a 16-byte header, the block that the program has begins behind it and ends 8 bytes inside the
//! next chunk's header. Chunks tile a segment from its first one to its end.

use std::ops::Range;

/// Bytes from a chunk's address to the block's.
pub const HEADER: u64 = 16;
/// Chunk sizes and addresses are multiples of this.
pub const ALIGNMENT: u64 = 16;
/// The smallest chunk.
pub const MIN_CHUNK: u64 = 32;
/// Heaps of arenas other than the main one lie in aligned pieces of address space of this size.
pub const HEAP_MAX: u64 = 64 << 20;

/// The chunk that malloc takes for a request, unless it is mapped by itself; 0 when no chunk is large enough.
#[inline]
pub const fn chunk_bytes(request: u64) -> u64 {
    match request.checked_add(8 + ALIGNMENT - 1) {
        Some(sum) if sum & !(ALIGNMENT - 1) > MIN_CHUNK => sum & !(ALIGNMENT - 1),
        Some(_) => MIN_CHUNK,
        None => 0,
    }
}

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// In use: the program's, or libc's own.
    Used = 0,
    /// Free in a thread's cache; its flags say that it is in use.
    Tcache = 1,
    /// Free in a fastbin; its flags say that it is in use.
    Fastbin = 2,
    /// Free in a bin, and merged with its free neighbours.
    Free = 3,
    /// The arena's last chunk, from which it serves what no bin can.
    Top = 4,
    /// A thread's table of cached chunks: in use, and the allocator's own.
    TcacheTable = 5,
    /// What closes a segment that its arena has left, or that something foreign cut off.
    Fencepost = 6,
}

impl ChunkKind {
    const ALL: [Self; 7] =
        [Self::Used, Self::Tcache, Self::Fastbin, Self::Free, Self::Top, Self::TcacheTable, Self::Fencepost];

    /// The kind with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }
}

/// A chunk's size and kind; its address follows from the sizes before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Chunk(u64);

impl Chunk {
    /// A chunk of `bytes`, a multiple of [`ALIGNMENT`].
    pub const fn new(bytes: u64, kind: ChunkKind) -> Self {
        Self(bytes & !(ALIGNMENT - 1) | kind as u64)
    }

    /// Its size in bytes, header included.
    #[inline]
    pub const fn bytes(self) -> u64 {
        self.0 & !(ALIGNMENT - 1)
    }

    /// What it is.
    #[inline]
    pub const fn kind(self) -> ChunkKind {
        ChunkKind::ALL[(self.0 & 7) as usize]
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({})", self.kind(), self.bytes())
    }
}

/// A stretch of memory that an arena obtained at once or in growing: the brk heap, or one heap of another arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What the arena obtained, headers included.
    pub range: Range<u64>,
    /// Address of the first chunk.
    pub first: u64,
    /// The chunks from `first` to the segment's end, one behind the other.
    pub chunks: Vec<Chunk>,
}

impl Segment {
    /// The chunks with their addresses, upwards.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Chunk)> + '_ {
        self.chunks.iter().scan(self.first, |at, &chunk| {
            let address = *at;
            *at = at.wrapping_add(chunk.bytes());
            Some((address, chunk))
        })
    }
}

/// An arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// Address of its `malloc_state`.
    pub address: u64,
    /// Whether it is the main arena, which lies in the brk heap.
    pub is_main: bool,
    /// Bytes obtained from the system now (`system_mem`).
    pub system_bytes: u64,
    /// The most that it had obtained (`max_system_mem`).
    pub max_system_bytes: u64,
    /// Its segments by address. The top chunk is the last chunk of one of them.
    pub segments: Vec<Segment>,
}

impl Arena {
    /// Bytes of its chunks of one kind.
    pub fn bytes_of(&self, kind: ChunkKind) -> u64 {
        self.chunks_of(kind).map(Chunk::bytes).sum()
    }

    /// How many chunks of one kind it has.
    pub fn count_of(&self, kind: ChunkKind) -> usize {
        self.chunks_of(kind).count()
    }

    /// Bytes of its segments.
    pub fn obtained(&self) -> u64 {
        self.segments.iter().map(|segment| segment.range.end - segment.range.start).sum()
    }

    fn chunks_of(&self, kind: ChunkKind) -> impl Iterator<Item = Chunk> + '_ {
        self.segments.iter().flat_map(|segment| &segment.chunks).copied().filter(move |chunk| chunk.kind() == kind)
    }
}

/// A chunk that was mapped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedChunk {
    /// Its address; the block begins [`HEADER`] bytes behind it.
    pub address: u64,
    /// Its size, header and rounding to whole pages included.
    pub bytes: u64,
}

/// A whole heap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The arenas, the main one first.
    pub arenas: Vec<Arena>,
    /// The chunks mapped by themselves, by address.
    pub mapped: Vec<MappedChunk>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_rounded_as_glibc_does() {
        let pairs = [(0, 32), (1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (1032, 1040), (131_000, 131_008)];
        for (request, chunk) in pairs {
            assert_eq!(chunk_bytes(request), chunk, "{request}");
        }
        assert_eq!(chunk_bytes(u64::MAX), 0);
    }

    #[test]
    fn a_chunk_keeps_size_and_kind() {
        for (number, kind) in ChunkKind::ALL.into_iter().enumerate() {
            assert_eq!(ChunkKind::from_u8(number as u8), Some(kind));
            let chunk = Chunk::new(0x1_2340, kind);
            assert_eq!((chunk.bytes(), chunk.kind()), (0x1_2340, kind));
        }
        assert_eq!(ChunkKind::from_u8(7), None);
    }

    #[test]
    fn chunks_follow_each_other() {
        let chunks = vec![Chunk::new(32, ChunkKind::Used), Chunk::new(64, ChunkKind::Top)];
        let segment = Segment { range: 0x1000..0x1070, first: 0x1010, chunks };
        let addresses: Vec<u64> = segment.iter().map(|(address, _)| address).collect();
        assert_eq!(addresses, [0x1010, 0x1030]);
    }
}
