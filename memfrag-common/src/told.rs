//! A stack as the BPF programs tell it: once, in the ring, in front of the first event that names it.
//!
//! | when | what is told | what names it |
//! |---|---|---|
//! | the programs found every frame | the frames | a number that holds for the whole trace |
//! | they came to a frame without knowing its rule | the frames up to it, and what lies on the stack from there on | [`COPY`], in the thread's next event |
//!
//! Frames are return addresses, the innermost first. What is told is longer than a [`crate::Record`], by which the two
//! are told apart in the ring.

use crate::unwind::Registers;

/// What the programs do about stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Walking {
    /// Nothing.
    Off = 0,
    /// They follow frame pointers.
    FramePointers = 1,
    /// They follow the rules that the daemon has found for each return address.
    Rules = 2,
}

/// Most frames that the programs walk. Of deeper stacks the innermost are kept.
pub const FRAMES: usize = 256;

/// Most stacks that get a number of their own.
pub const STACKS: u32 = 1 << 18;

/// Most rules that the programs remember; the ones that were not used for longest make room.
pub const RULES: u32 = 1 << 18;

/// The number of a stack that the daemon has to walk from what was copied of it.
pub const COPY: u32 = u32::MAX;

/// In place of a packed rule: no rule is known for the address.
pub const NO_RULE: u64 = 0;

/// How large a page is, and how many of them are copied of a stack: that with the stack pointer and those above.
pub const PAGE: usize = 4096;
/// See [`PAGE`].
pub const PAGES: usize = 3;

/// How a walk came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum End {
    /// At the outermost frame.
    Outermost = 0,
    /// Before it: the outer frames are not known.
    Cut = 1,
    /// At a frame without a known rule. Its registers and a copy of the stack follow.
    Unknown = 2,
}

/// What rules are remembered by. A *space* is the code that a process has: it gets another number when the process becomes
/// another program, or maps a file as code where other code may have been, and is that of its parent until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Place {
    /// The return address.
    pub pc: u64,
    /// The space's number.
    pub space: u64,
}

/// What every told stack begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// What events name the stack by: a number less than [`STACKS`] and not 0, or [`COPY`].
    pub number: u32,
    /// How many frames were found, at most [`FRAMES`]. That without a rule is not among them.
    pub frames: u32,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// An [`End`].
    pub end: u32,
    /// How many pages were copied.
    pub pages: u32,
    /// The code that the process has, 0 where nobody asks.
    pub space: u64,
    /// Where the frame is that has no known rule.
    pub at: Registers,
}

/// A told stack. Without a copy it ends behind its frames.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Told {
    /// What it begins with.
    pub header: Header,
    /// The frames.
    pub frames: [u64; FRAMES],
    /// The stack's pages; what lies below the stack pointer was not copied.
    pub pages: [u8; PAGES * PAGE],
}

const _: () = assert!(size_of::<Header>() > crate::Record::SIZE && size_of::<Header>() == Header::SIZE);
const _: () = assert!(size_of::<Told>() == Header::SIZE + FRAMES * 8 + PAGES * PAGE);

impl Header {
    /// Bytes before the frames.
    pub const SIZE: usize = 56;

    /// Takes a told stack apart: what it begins with, its frames as bytes, and the copied pages. `None` for what the
    /// programs do not tell.
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (header, rest) = bytes.split_first_chunk::<{ Self::SIZE }>()?;
        let word = |at: usize| Some(u64::from_ne_bytes(*header.get(at..)?.first_chunk()?));
        let half = |at: usize| Some(u32::from_ne_bytes(*header.get(at..)?.first_chunk()?));
        let told = Self {
            number: half(0)?,
            frames: half(4)?,
            pid: half(8)?,
            tid: half(12)?,
            end: half(16)?,
            pages: half(20)?,
            space: word(24)?,
            at: Registers { pc: word(32)?, sp: word(40)?, fp: word(48)? },
        };
        let frames = rest.get(..(told.frames as usize).checked_mul(8)?)?;
        let pages = match rest.get(FRAMES * 8..) {
            Some(copied) if told.end == End::Unknown as u32 => {
                copied.get(..(told.pages as usize).checked_mul(PAGE)?)?
            }
            _ => &[],
        };
        Some((told, frames, pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(header: Header, frames: &[u64], pages: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for half in [header.number, header.frames, header.pid, header.tid, header.end, header.pages] {
            bytes.extend(half.to_ne_bytes());
        }
        for word in [header.space, header.at.pc, header.at.sp, header.at.fp].iter().chain(frames) {
            bytes.extend(word.to_ne_bytes());
        }
        if pages > 0 {
            bytes.resize(Header::SIZE + FRAMES * 8, 0);
            bytes.resize(Header::SIZE + FRAMES * 8 + pages * PAGE, 7);
        }
        bytes
    }

    #[test]
    fn what_is_told_is_taken_apart_as_it_lies_in_memory() {
        let at = Registers { pc: 1, sp: 2, fp: 3 };
        let header = Header { number: 9, frames: 2, pid: 4, tid: 5, end: 1, pages: 0, space: 6, at };
        let bytes = told(header, &[10, 20], 0);
        let frames: Vec<u8> = [10u64, 20].iter().flat_map(|frame| frame.to_ne_bytes()).collect();
        assert_eq!(Header::read(&bytes), Some((header, frames.as_slice(), &[][..])));
        assert_eq!(core::mem::offset_of!(Header, space), 24);
        assert_eq!(core::mem::offset_of!(Header, at), 32);

        let header = Header { number: COPY, frames: 1, end: End::Unknown as u32, pages: 2, ..header };
        let bytes = told(header, &[10], PAGES);
        let (found, frames, pages) = Header::read(&bytes).expect("whole");
        assert_eq!((found, frames.len(), pages.len()), (header, 8, 2 * PAGE));
    }

    #[test]
    fn what_is_cut_short_or_says_too_much_is_nothing() {
        let header = Header { number: COPY, frames: 3, end: End::Unknown as u32, pages: 3, ..Header::default() };
        let whole = told(header, &[1, 2, 3], PAGES);
        assert!(Header::read(&whole).is_some());
        for length in [0, 1, Header::SIZE - 1, Header::SIZE + 23, whole.len() - 1] {
            assert_eq!(Header::read(&whole[..length]), None, "{length} bytes");
        }
        for (frames, pages) in [(u32::MAX, 3), (3, 4), (3, u32::MAX)] {
            let header = Header { frames, pages, ..header };
            assert_eq!(Header::read(&told(header, &[1, 2, 3], PAGES)), None, "{frames} {pages}");
        }
    }
}
