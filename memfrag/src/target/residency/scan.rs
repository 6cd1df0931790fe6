//! Pages by the `PAGEMAP_SCAN` request of Linux 6.7: the kernel walks the page tables and tells runs of like pages.

use super::Run;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;

/// `PAGE_IS_PRESENT`.
const PRESENT: u64 = 1 << 3;
/// `PAGE_IS_SWAPPED`: the page's entry names something other than memory.
const SWAPPED: u64 = 1 << 4;
/// `PAGE_IS_PFNZERO`: the page of zeroes that all share; it counts as nobody's memory.
const ZERO: u64 = 1 << 5;
/// `PAGE_IS_GUARD`, since Linux 6.15: no page at all, though the entry has the form of a swapped one.
const GUARD: u64 = 1 << 8;

/// The request's argument (`struct pm_scan_arg`).
#[repr(C)]
#[derive(Default)]
struct Argument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    buffer: u64,
    buffer_len: u64,
    max_pages: u64,
    inverted: u64,
    mask: u64,
    any_of: u64,
    returned: u64,
}

/// One answer (`struct page_region`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Answer {
    start: u64,
    end: u64,
    categories: u64,
}

const REQUEST: libc::Ioctl = (3 << 30 | (size_of::<Argument>() << 16) | (b'f' as usize) << 8 | 16) as libc::Ioctl;

/// How many answers are asked for at once.
const ANSWERS: usize = 4096;

/// Hands the runs of present and of swapped pages in `range` to `take`, upwards.
///
/// # Errors
/// `ENOTTY` where the kernel does not know the request; others as it says.
pub(super) fn scan(pagemap: &File, range: Range<u64>, mut take: impl FnMut(Run)) -> io::Result<()> {
    let mut answers = vec![Answer::default(); ANSWERS];
    let mut unwanted = ZERO | GUARD;
    let mut start = range.start;
    while start < range.end {
        let mut argument = Argument {
            size: size_of::<Argument>() as u64,
            start,
            end: range.end,
            buffer: answers.as_mut_ptr() as u64,
            buffer_len: ANSWERS as u64,
            inverted: unwanted,
            mask: unwanted,
            any_of: PRESENT | SWAPPED,
            returned: PRESENT,
            ..Argument::default()
        };
        // SAFETY: the argument has the form and size that the request wants, and its buffer room for the answers that
        // it speaks of; both outlive the call.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), REQUEST, &raw mut argument) };
        let Ok(count) = usize::try_from(count) else {
            match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINTR) => continue,
                // A category that this kernel does not know yet.
                error if error.raw_os_error() == Some(libc::EINVAL) && unwanted & GUARD != 0 => {
                    unwanted &= !GUARD;
                    continue;
                }
                error => return Err(error),
            }
        };
        for answer in answers.iter().take(count) {
            take(Run { range: answer.start..answer.end, present: answer.categories & PRESENT != 0 });
        }
        if argument.walk_end <= start {
            return Err(io::Error::other("the scan of the page tables does not get on"));
        }
        start = argument.walk_end;
    }
    Ok(())
}
