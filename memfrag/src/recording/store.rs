//! Where a recording goes: a file, that can be cut back when it could not take a chunk whole.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// Something that bytes can be appended to.
pub(super) trait Store: Send {
    /// Appends all of `bytes`, or fails having appended any part of them.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts everything behind the first `length` bytes off.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Store for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(drop)
    }
}
