//! Pages by the plain words of `/proc/PID/pagemap` and the sums of `/proc/PID/smaps`, for kernels without
//! `PAGEMAP_SCAN`.

use super::PAGE;
use crate::target::maps::MapLine;
use crate::target::process::field;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// The page is in memory.
const PRESENT: u64 = 1 << 63;
/// The page is swapped out.
const SWAPPED: u64 = 1 << 62;
/// The page is a file's, or of shared memory.
const FILE: u64 = 1 << 61;
/// No other process has the page.
const EXCLUSIVE: u64 = 1 << 56;

/// How many words are read at once.
const WORDS: usize = 16 << 10;

/// A mapping with the kernel's own sums of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sums {
    /// The mapping.
    pub(super) line: MapLine,
    /// `Rss`, in bytes.
    pub(super) resident: u64,
    /// `Swap`, in bytes.
    pub(super) swapped: u64,
}

/// Reads the text of `/proc/PID/smaps`; what has no form known is passed over.
pub(super) fn sums(text: &[u8]) -> Vec<Sums> {
    let mut all: Vec<Sums> = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        if let Some(line) = MapLine::parse(line) {
            all.push(Sums { line, resident: 0, swapped: 0 });
        } else if let Some(last) = all.last_mut() {
            let bytes = |name: &[u8]| field(line, name)?.checked_mul(1024);
            last.resident = bytes(b"Rss:").unwrap_or(last.resident);
            last.swapped = bytes(b"Swap:").unwrap_or(last.swapped);
        }
    }
    all
}

/// Hands the present pages of the private anonymous memory in `range` to `take`, upwards.
///
/// A present word does not tell whether the page is the one of zeroes that all share, which is nobody's memory. Such
/// pages look like those shared with a forked process; `resident`, the kernel's own sum, tells which of both they are,
/// unless a mapping has both kinds: then all of them are handed out.
pub(super) fn read(
    pagemap: &File,
    range: Range<u64>,
    resident: u64,
    mut take: impl FnMut(Range<u64>),
) -> io::Result<()> {
    let mut pages = Vec::new();
    read_words(pagemap, range, |at, word| {
        // Only the huge page of zeroes passes for a file's here.
        if word & (PRESENT | FILE) == PRESENT {
            pages.push((at, word & EXCLUSIVE == 0));
        }
    })?;
    let doubtful = pages.iter().filter(|(_, doubtful)| *doubtful).count();
    let excess = pages.len() as u64 - (resident / PAGE).min(pages.len() as u64);
    let all_zeroes = excess == doubtful as u64;
    for (at, doubtful) in pages {
        if !(all_zeroes && doubtful) {
            take(at..at + PAGE);
        }
    }
    Ok(())
}

/// Hands the pages in `range` that are present or swapped out to `take`, upwards.
pub(super) fn read_populated(pagemap: &File, range: Range<u64>, mut take: impl FnMut(Range<u64>)) -> io::Result<()> {
    read_words(pagemap, range, |at, word| {
        if word & (PRESENT | SWAPPED) != 0 {
            take(at..at + PAGE);
        }
    })
}

fn read_words(pagemap: &File, range: Range<u64>, mut take: impl FnMut(u64, u64)) -> io::Result<()> {
    let mut bytes = vec![0; WORDS * 8];
    let mut page = range.start / PAGE;
    let end = range.end / PAGE;
    while page < end {
        let count = usize::try_from(end - page).unwrap_or(WORDS).min(WORDS);
        let read = pagemap.read_at(&mut bytes[..count * 8], page * 8)?;
        if read < 8 {
            break;
        }
        for word in bytes[..read].as_chunks().0 {
            take(page * PAGE, u64::from_ne_bytes(*word));
            page += 1;
        }
    }
    Ok(())
}
