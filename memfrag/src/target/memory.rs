//! How much memory a process has in use, as the kernel counts it.

use super::process::{self, ProcessError, Stat, field};
use std::fs;

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

impl MemorySample {
    /// Reads a process's memory.
    ///
    /// The kernel keeps these counters anyway, so reading them does not walk the process's pages as its `smaps` would.
    /// It sums them per processor with some slack: a few dozen pages on large machines.
    ///
    /// # Errors
    /// [`ProcessError::NotFound`], or [`ProcessError::Exited`] when there is no memory any more.
    pub fn read(pid: u32, time: u64) -> Result<Self, ProcessError> {
        let text = match fs::read(format!("/proc/{pid}/status")) {
            Ok(text) => text,
            Err(source) => {
                Stat::read(pid)?;
                return Err(ProcessError::Io { pid, what: "the memory counters", source });
            }
        };
        Self::parse(&text, pid, time).ok_or(ProcessError::Exited { pid })
    }

    /// Takes the sample from the text of `/proc/PID/status`; `None` when it holds no counters, as that of a process
    /// which has ended.
    pub fn parse(text: &[u8], pid: u32, time: u64) -> Option<Self> {
        let bytes = |name: &str| field(text, name.as_bytes())?.checked_mul(1024);
        Some(Self {
            time,
            pid,
            rss: bytes("VmRSS:")?,
            rss_anon: bytes("RssAnon:")?,
            rss_file: bytes("RssFile:")?,
            rss_shmem: bytes("RssShmem:")?,
            swap: bytes("VmSwap:").unwrap_or_default(),
            virtual_bytes: bytes("VmSize:")?,
        })
    }
}

/// Resident anonymous bytes of a process, counted page by page (`Anonymous` in `/proc/PID/smaps_rollup`): exact while
/// the process stands still, where the counters of [`MemorySample`] are some pages off.
///
/// # Errors
/// As [`MemorySample::read`]; it needs the right to trace the process.
pub fn anonymous_bytes(pid: u32) -> Result<u64, ProcessError> {
    let text = fs::read(format!("/proc/{pid}/smaps_rollup"))
        .map_err(|source| process::failed(pid, "the sums of its memory", source))?;
    field(&text, b"Anonymous:").and_then(|pages| pages.checked_mul(1024)).ok_or(ProcessError::Exited { pid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn the_counters_are_read_in_bytes() {
        let text = b"Name:\tx\nVmSize:\t    9000 kB\nVmRSS:\t    60 kB\nRssAnon:\t10 kB\nRssFile:\t20 kB\n\
                     RssShmem:\t30 kB\nVmSwap:\t4 kB\n";
        let sample = MemorySample {
            time: 5,
            pid: 7,
            rss: 60 << 10,
            rss_anon: 10 << 10,
            rss_file: 20 << 10,
            rss_shmem: 30 << 10,
            swap: 4 << 10,
            virtual_bytes: 9000 << 10,
        };
        assert_eq!(MemorySample::parse(text, 7, 5), Some(sample));
        assert_eq!(MemorySample::parse(b"Name:\tx\nState:\tZ (zombie)\n", 7, 5), None);
    }

    /// Of a process of its own: the memory of this one's other tests comes and goes meanwhile.
    #[test]
    fn touched_memory_shows() {
        const SIZE: u64 = 32 << 20;
        // It fills a buffer of that size again and again.
        let mut copier = Command::new("dd");
        copier.args(["if=/dev/zero", "of=/dev/null", "bs=32M"]).stderr(Stdio::null());
        let mut child = copier.spawn().expect("dd is there");
        let begun = Instant::now();
        let seen = loop {
            let sample = MemorySample::read(child.id(), 1).expect("it runs");
            assert!(sample.rss >= sample.rss_anon && sample.virtual_bytes >= sample.rss, "{sample:?}");
            if sample.rss_anon >= SIZE || begun.elapsed() > Duration::from_secs(30) {
                break sample;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        child.kill().and_then(|()| child.wait()).expect("it can be ended");
        assert!((SIZE..SIZE + SIZE / 2).contains(&seen.rss_anon), "32 MiB were touched and not seen: {seen:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(matches!(MemorySample::read(1 << 30, 0), Err(ProcessError::NotFound { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            MemorySample::parse(&text, 1, 1);
        }
    }
}
