//! Reading the memory of another process.

use crate::target::residency;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

/// Memory that can be read at any address.
pub trait Memory {
    /// Fills `bytes` from `address` on.
    ///
    /// # Errors
    /// When any byte cannot be read. `bytes` may have been written to.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable>;

    /// Reads eight bytes, which need not be aligned.
    ///
    /// # Errors
    /// When any of them cannot be read.
    fn word(&self, address: u64) -> Result<u64, Unreadable> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The parts of these ranges of anonymous memory, by address, in which something other than zeros may lie: reading
    /// the rest would only make the system fill page tables. All of them, where that cannot be learned.
    fn populated(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        ranges.to_vec()
    }

    /// Reads what lies at each of the addresses, `size` bytes each, into `bytes`, one behind the other; what cannot
    /// be read becomes zeros. `bytes` has room for all.
    fn gather(&self, addresses: &[u64], size: usize, bytes: &mut [u8]) {
        for (&address, bytes) in addresses.iter().zip(bytes.chunks_exact_mut(size)) {
            if self.read(address, bytes).is_err() {
                bytes.fill(0);
            }
        }
    }
}

/// Memory that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("no memory can be read at {address:#x}: {source}")]
pub struct Unreadable {
    /// The first address asked for.
    pub address: u64,
    /// What the system said.
    pub source: io::Error,
}

/// The memory of a process.
#[derive(Debug)]
pub struct ProcessMemory {
    pid: u32,
    /// `/proc/PID/mem`, once the system call for it turned out to be forbidden.
    file: OnceLock<File>,
}

/// Pieces that one system call takes.
const PIECES: usize = 512;

impl ProcessMemory {
    /// The memory of this process. Whether it may be read shows with the first read.
    pub const fn new(pid: u32) -> Self {
        Self { pid, file: OnceLock::new() }
    }

    /// Reads as much as one system call gives.
    fn read_some(&self, address: u64, bytes: &mut [u8]) -> io::Result<usize> {
        if let Some(file) = self.file.get() {
            return file.read_at(bytes, address);
        }
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
        // SAFETY: the local piece is the exclusively borrowed slice; the other one is an address of another process,
        // which the kernel checks.
        let read =
            unsafe { libc::process_vm_readv(self.pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
        if let Ok(read) = usize::try_from(read) {
            return Ok(read);
        }
        let error = io::Error::last_os_error();
        // A filter of system calls may forbid this one, where the file is still to be had.
        if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
            && let Ok(file) = File::open(format!("/proc/{}/mem", self.pid))
        {
            return self.file.get_or_init(|| file).read_at(bytes, address);
        }
        Err(error)
    }
}

impl Memory for ProcessMemory {
    fn populated(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        residency::populated(self.pid, ranges).unwrap_or_else(|_| ranges.to_vec())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            match self.read_some(at, &mut bytes[done..]) {
                Ok(0) => return Err(Unreadable { address: at, source: io::ErrorKind::UnexpectedEof.into() }),
                Ok(read) => done += read,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Unreadable { address: at, source }),
            }
        }
        Ok(())
    }

    fn gather(&self, addresses: &[u64], size: usize, bytes: &mut [u8]) {
        let groups = addresses.chunks(PIECES).zip(bytes.chunks_mut(PIECES * size.max(1)));
        for (addresses, bytes) in groups {
            self.gather_group(addresses, size, bytes);
        }
    }
}

impl ProcessMemory {
    fn gather_group(&self, addresses: &[u64], size: usize, bytes: &mut [u8]) {
        let mut done = 0;
        while done < addresses.len() {
            let rest = &mut bytes[done * size..];
            let mut read = 0;
            if self.file.get().is_none() {
                let local = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
                let remote: Vec<libc::iovec> = addresses[done..]
                    .iter()
                    .map(|&address| libc::iovec { iov_base: address as *mut libc::c_void, iov_len: size })
                    .collect();
                // SAFETY: the local piece is the exclusively borrowed rest of the slice; the others are addresses of
                // another process, which the kernel checks; there are at most `PIECES` of them, fewer than IOV_MAX.
                let result = unsafe {
                    let count = remote.len() as libc::c_ulong;
                    libc::process_vm_readv(self.pid.cast_signed(), &raw const local, 1, remote.as_ptr(), count, 0)
                };
                read = usize::try_from(result).unwrap_or(0) / size.max(1);
            }
            done += read;
            // The call ends at the first piece that cannot be read.
            if let Some(&address) = addresses.get(done) {
                let piece = &mut bytes[done * size..(done + 1) * size];
                if self.read(address, piece).is_err() {
                    piece.fill(0);
                }
                done += 1;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;
    use std::collections::BTreeMap;

    /// Memory made for a test: pieces by address.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Fake {
        pieces: BTreeMap<u64, Vec<u8>>,
    }

    impl Fake {
        /// Adds a piece of zeros.
        pub(crate) fn map(&mut self, address: u64, bytes: usize) {
            self.pieces.insert(address, vec![0; bytes]);
        }

        /// Writes eight bytes into what is mapped.
        pub(crate) fn set(&mut self, address: u64, word: u64) {
            let (start, piece) = self.pieces.range_mut(..=address).next_back().expect("mapped");
            let at = (address - start) as usize;
            piece[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
    }

    impl Memory for Fake {
        fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
            let mut done = 0;
            while done < bytes.len() {
                let at = address.wrapping_add(done as u64);
                let unreadable = || Unreadable { address: at, source: io::ErrorKind::NotFound.into() };
                let (start, piece) = self.pieces.range(..=at).next_back().ok_or_else(unreadable)?;
                let from = usize::try_from(at - start).unwrap_or(usize::MAX);
                let rest = piece.get(from..).filter(|rest| !rest.is_empty()).ok_or_else(unreadable)?;
                let length = rest.len().min(bytes.len() - done);
                bytes[done..done + length].copy_from_slice(&rest[..length]);
                done += length;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_memory_is_read() {
        let memory = ProcessMemory::new(std::process::id());
        let block: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        let mut copy = vec![0; block.len()];
        memory.read(block.as_ptr() as u64, &mut copy).expect("it is mapped");
        assert_eq!(copy, block);
        let word = memory.word(block.as_ptr() as u64 + 8).expect("it is mapped");
        assert_eq!(word.to_le_bytes(), block[8..16]);
        // The file gives the same.
        memory.file.set(File::open("/proc/self/mem").expect("procfs is mounted")).expect("not yet set");
        copy.fill(0);
        memory.read(block.as_ptr() as u64, &mut copy).expect("it is mapped");
        assert_eq!(copy, block);
    }

    #[test]
    fn what_is_not_mapped_is_an_error() {
        let memory = ProcessMemory::new(std::process::id());
        let error = memory.word(16).expect_err("the first page is never mapped");
        assert_eq!(error.address, 16);
        assert!(ProcessMemory::new(1 << 30).word(4096).is_err());
    }

    #[test]
    fn many_pieces_are_gathered_and_holes_are_zeros() {
        let memory = ProcessMemory::new(std::process::id());
        let block: Vec<u64> = (1..=2000).collect();
        let mut addresses: Vec<u64> = block.iter().map(|word| std::ptr::from_ref(word) as u64).collect();
        for hole in [0, 700, 701, 1999] {
            addresses[hole] = 16;
        }
        let mut bytes = vec![0xff; addresses.len() * 8];
        memory.gather(&addresses, 8, &mut bytes);
        for (at, word) in bytes.chunks_exact(8).enumerate() {
            let expected = if addresses[at] == 16 { 0 } else { block[at] };
            assert_eq!(u64::from_le_bytes(word.try_into().expect("eight bytes")), expected, "{at}");
        }
    }
}
