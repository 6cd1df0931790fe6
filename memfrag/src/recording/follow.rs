//! Following a recording that is still being written.
//!
//! A chunk is as good as absent until it is whole, so a follower sees what a reader would that opened the file now; it
//! only has to look at what has come since. Nothing is read twice, and a look at a file that has not grown costs one
//! system call.

use super::chunk::kind;
use super::error::RecordingError;
use super::reader::Reader;
use super::scan::Found;
use std::fs::TryLockError;
use std::io;

impl Reader {
    /// Whether the file has another length than at the last look.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn has_grown(&self) -> Result<bool, RecordingError> {
        Ok(self.file.metadata().map_err(|source| self.error("examine", source))?.len() != self.length)
    }

    /// Looks what has come since the last look; true when there are more chunks, or the end is known now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn refresh(&mut self) -> Result<bool, RecordingError> {
        let length = self.file.metadata().map_err(|source| self.error("examine", source))?.len();
        if length == self.length {
            return Ok(false);
        }
        if length < self.length {
            // A writer that could not write a chunk whole has cut it off again.
            let lost = self.forget_behind(length);
            self.scan.go_back(lost.unwrap_or(length));
        }
        self.length = length;
        (self.settled, self.cut_bytes) = (false, 0);
        let known = (self.chunks.len(), self.complete);
        self.search(true)?;
        if self.complete {
            self.settle()?;
        }
        Ok((self.chunks.len(), self.complete) != known)
    }

    /// Takes it that no more will come: what was kept back because it may have been about to become a chunk is none.
    /// If more comes all the same, [`refresh`](Self::refresh) finds it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn settle(&mut self) -> Result<(), RecordingError> {
        if !self.settled {
            self.search(false)?;
            self.settled = true;
        }
        Ok(())
    }

    /// Whether no more is expected: the recording was ended in order, or [`settle`](Self::settle) was called.
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether somebody is writing the recording. A [`Writer`](super::Writer) holds a lock on its file for as long as
    /// it lives; where the file system knows no locks, the answer is no.
    pub fn is_being_written(&self) -> bool {
        match self.file.try_lock_shared() {
            Ok(()) => {
                // A lock that cannot be given back ends with the file.
                let _ = self.file.unlock();
                false
            }
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(_)) => false,
        }
    }

    /// Finds the chunks from where the last search ended.
    pub(super) fn search(&mut self, grows: bool) -> Result<(), RecordingError> {
        loop {
            let found = self.scan.next(&self.file, self.length, grows).map_err(|source| self.error("read", source))?;
            match found {
                Found::Chunk(entry) if entry.header.kind == kind::INDEX => {
                    // The chunks tell the same; what counts is that it is there and whole.
                    self.complete |= self.index_is_whole(&entry);
                }
                Found::Chunk(entry) => self.add(entry),
                Found::Damage { bytes } => self.damage.stretch(bytes),
                Found::End { bytes } => {
                    if !grows {
                        self.cut_bytes = if self.is_trailer(self.length - bytes) { 0 } else { bytes };
                    }
                    return Ok(());
                }
            }
        }
    }

    fn error(&self, action: &'static str, source: io::Error) -> RecordingError {
        RecordingError::Io { action, path: self.path.clone(), source }
    }
}
