//! The header at the start of a recording: what was traced, when, and by whom.

use super::error::RecordingError;
use super::varint::{Input, put, put_bytes};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// The first bytes of a recording. The first is no ASCII, the line end shows transfers that meddle with text.
pub(super) const MAGIC: [u8; 8] = *b"\x8dMFRAG\r\n";
/// The format that this version writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Bytes before the header's fields: magic, version, length of the fields, checksum.
pub(super) const PREFIX: usize = 20;
/// The most bytes that the fields may take.
pub(super) const MAX_FIELDS: usize = 16 << 20;

/// What a recording says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The capture backend: `ebpf`, `preload`, or the name of what it was imported from.
    pub backend: String,
    /// When the trace began: nanoseconds since 1970. Every other time is in nanoseconds since this moment.
    pub started_unix_ns: u64,
    /// The clock that the times were taken with, such as `CLOCK_MONOTONIC`.
    pub clock: String,
    /// The memfrag that wrote the recording.
    pub memfrag_version: String,
    /// The kernel's release, empty when unknown.
    pub kernel: String,
    /// The processor architecture, such as `x86_64`, empty when unknown.
    pub machine: String,
    /// The machine's name, empty when unknown.
    pub hostname: String,
    /// The command that memfrag launched; empty when it attached.
    pub command: Vec<OsString>,
    /// Bytes of a page.
    pub page_size: u64,
}

/// Numbers of the header's fields. A reader passes over those that it does not know.
mod field {
    pub(super) const BACKEND: u64 = 1;
    pub(super) const STARTED: u64 = 2;
    pub(super) const CLOCK: u64 = 3;
    pub(super) const MEMFRAG: u64 = 4;
    pub(super) const KERNEL: u64 = 5;
    pub(super) const MACHINE: u64 = 6;
    pub(super) const HOSTNAME: u64 = 7;
    pub(super) const WORD: u64 = 8;
    pub(super) const PAGE_SIZE: u64 = 9;
}

impl Header {
    /// The header as the file begins with it.
    pub(super) fn encode(&self, path: &Path) -> Result<Vec<u8>, RecordingError> {
        let mut fields = Vec::new();
        for (number, text) in [
            (field::BACKEND, &self.backend),
            (field::CLOCK, &self.clock),
            (field::MEMFRAG, &self.memfrag_version),
            (field::KERNEL, &self.kernel),
            (field::MACHINE, &self.machine),
            (field::HOSTNAME, &self.hostname),
        ] {
            put(&mut fields, number);
            put_bytes(&mut fields, text.as_bytes());
        }
        for (number, value) in [(field::STARTED, self.started_unix_ns), (field::PAGE_SIZE, self.page_size)] {
            put(&mut fields, number);
            put_bytes(&mut fields, &value.to_le_bytes());
        }
        for word in &self.command {
            put(&mut fields, field::WORD);
            put_bytes(&mut fields, word.as_bytes());
        }
        if fields.len() > MAX_FIELDS {
            return Err(RecordingError::HeaderTooLong {
                path: path.to_path_buf(),
                length: fields.len(),
                limit: MAX_FIELDS,
            });
        }
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((fields.len() as u32).to_le_bytes());
        out.extend(checksum(&out, &fields).to_le_bytes());
        out.extend(fields);
        Ok(out)
    }

    /// Reads the fields, which `prefix` has announced. `None` when they are damaged.
    pub(super) fn decode(prefix: &Prefix, fields: &[u8]) -> Option<Self> {
        if prefix.length != fields.len() || prefix.checksum != checksum(&prefix.start, fields) {
            return None;
        }
        let mut header = Self::default();
        let mut input = Input::new(fields);
        while !input.is_empty() {
            let number = input.varint()?;
            let value = input.bytes()?;
            let text = || String::from_utf8_lossy(value).into_owned();
            let integer = || Some(u64::from_le_bytes(value.try_into().ok()?));
            match number {
                field::BACKEND => header.backend = text(),
                field::STARTED => header.started_unix_ns = integer()?,
                field::CLOCK => header.clock = text(),
                field::MEMFRAG => header.memfrag_version = text(),
                field::KERNEL => header.kernel = text(),
                field::MACHINE => header.machine = text(),
                field::HOSTNAME => header.hostname = text(),
                field::WORD => header.command.push(OsString::from_vec(value.to_vec())),
                field::PAGE_SIZE => header.page_size = integer()?,
                _ => {}
            }
        }
        Some(header)
    }
}

/// The first bytes of a file, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    /// Everything before the checksum, which covers it.
    start: [u8; PREFIX - 4],
    checksum: u32,
    /// The format's version.
    pub(super) version: u32,
    /// Bytes of the fields that follow.
    pub(super) length: usize,
}

impl Prefix {
    /// Takes the first bytes apart; `None` when they are not those of a recording.
    pub(super) fn decode(bytes: &[u8; PREFIX]) -> Option<Self> {
        let mut input = Input::new(bytes);
        if input.array()? != MAGIC {
            return None;
        }
        Some(Self {
            start: *bytes.first_chunk()?,
            version: input.u32()?,
            length: input.u32()? as usize,
            checksum: input.u32()?,
        })
    }
}

fn checksum(start: &[u8], fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(start);
    hasher.update(fields);
    hasher.finalize()
}
