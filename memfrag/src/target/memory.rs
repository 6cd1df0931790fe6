//! How much memory a process has in use, as the kernel counts it.

/// One reading of a process's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySample {
    /// Nanoseconds since the trace began.
    pub time: u64,
    /// Process id.
    pub pid: u32,
    /// Resident bytes (`VmRSS`).
    pub rss: u64,
    /// Resident anonymous bytes (`RssAnon`): heaps, stacks, private data.
    pub rss_anon: u64,
    /// Resident bytes of files (`RssFile`).
    pub rss_file: u64,
    /// Resident bytes of shared memory (`RssShmem`).
    pub rss_shmem: u64,
    /// Bytes swapped out (`VmSwap`).
    pub swap: u64,
    /// Bytes of address space (`VmSize`).
    pub virtual_bytes: u64,
}
