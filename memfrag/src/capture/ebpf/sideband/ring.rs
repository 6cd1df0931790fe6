//! The ring of one perf event, which the kernel writes and this process reads.

use aya_obj::generated::perf_event_mmap_page;
use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

/// Bytes for the records of all rings together, and of one at most: some two thousand, within what the kernel gives every
/// user. They are read every few milliseconds.
const ALL: usize = 16 << 20;
const MOST: usize = 256 << 10;

/// Bytes of one at least.
pub(super) const LEAST: usize = 32 << 10;

/// The size of each of so many rings: a power of two.
pub(super) fn bytes(rings: usize) -> usize {
    let share = (ALL / rings.max(1)).clamp(LEAST, MOST);
    1 << share.ilog2()
}

/// A mapped ring.
#[derive(Debug)]
pub(super) struct Ring {
    map: MmapRaw,
    /// Where the records begin, and how many bytes there are for them.
    offset: usize,
    size: usize,
    /// Up to where they were read, counted from the beginning of all time.
    tail: u64,
    /// Declared last: the ring goes before the event whose it is.
    _event: OwnedFd,
}

impl Ring {
    /// Maps the ring of an event, with a power of two of bytes for records.
    ///
    /// # Errors
    /// When the kernel has no memory for it, or not for this user.
    pub(super) fn new(event: OwnedFd, size: usize) -> io::Result<Self> {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let map = MmapOptions::new().len(page + size).map_raw(&event)?;
        Ok(Self { map, offset: page, size, tail: 0, _event: event })
    }

    /// A word of the first page that both sides read and write.
    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the first page is mapped as long as `self`, and the field is an aligned word of it.
        #[allow(clippy::cast_ptr_alignment, reason = "the page is aligned, and the kernel's fields are in it")]
        let word = unsafe { self.map.as_mut_ptr().add(offset).cast::<u64>() };
        // SAFETY: as above; the kernel's accesses are single ones of a word.
        unsafe { AtomicU64::from_ptr(word) }
    }

    /// Appends what was written since the last time, and makes room for more. False when the ring makes no sense, and
    /// what was in it was passed over.
    pub(super) fn take(&mut self, bytes: &mut Vec<u8>) -> bool {
        // What was written before the head was moved is seen with it.
        let head = self.word(offset_of!(perf_event_mmap_page, data_head)).load(Acquire);
        let count = head.wrapping_sub(self.tail);
        if count == 0 {
            return true;
        }
        let fits = usize::try_from(count).ok().filter(|&count| count <= self.size);
        if let Some(count) = fits {
            let begin = (self.tail % self.size as u64) as usize;
            let first = count.min(self.size - begin);
            self.copy(begin, first, bytes);
            self.copy(0, count - first, bytes);
        }
        self.tail = head;
        // The kernel writes there only after it has seen this.
        self.word(offset_of!(perf_event_mmap_page, data_tail)).store(head, Release);
        fits.is_some()
    }

    fn copy(&self, from: usize, count: usize, bytes: &mut Vec<u8>) {
        debug_assert!(from + count <= self.size);
        let at = bytes.len();
        bytes.resize(at + count, 0);
        // SAFETY: the caller gives a part of the ring, behind the first page.
        let from = unsafe { self.map.as_ptr().add(self.offset + from) };
        // SAFETY: so many bytes are there, which the kernel leaves alone until the tail is moved; and so many were made
        // room for.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes[at..].as_mut_ptr(), count) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rings_are_smaller() {
        let sizes = [0, 1, 2, 64, 65, 128, 200, 256, 512, 513, 10_000].map(bytes);
        let expected = [256, 256, 256, 256, 128, 128, 64, 64, 32, 32, 32].map(|kib| kib << 10);
        assert_eq!(sizes, expected);
    }
}
