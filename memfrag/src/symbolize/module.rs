//! One mapped file, with its debug file.

use super::elf::{Elf, Kind};
use super::table::Table;
use super::{Function, demangle};
use crate::target::file;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The largest file that is looked at; the debug files of large programs have some gigabytes.
const MOST_BYTES: u64 = 16 << 30;

/// A file that was mapped, and its functions.
#[derive(Debug)]
pub(super) struct Module {
    code: Elf,
    changed_unix_ns: u64,
    /// Where names come from when it is not the file itself.
    debug: Option<Elf>,
    table: Table,
}

impl Module {
    /// Opens a file that had this inode, with at most `room` functions. `None` when it is gone or another one, or has no
    /// names.
    pub(super) fn open(path: &Path, inode: u64, debug_files: &Path, room: usize) -> Option<Self> {
        if !path.is_absolute() {
            return None;
        }
        let (file, metadata) = regular(path)?;
        if metadata.ino() != inode {
            return None;
        }
        let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
        let changed_unix_ns =
            seconds.saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec().unsigned_abs());
        let code = Elf::of(file, metadata.len())?;
        let full = |elf: &Elf| Table::read(elf, elf.table(Kind::Full)?, room);
        if let Some(table) = full(&code) {
            return Some(Self { code, changed_unix_ns, debug: None, table });
        }
        if let Some(debug) = debug_file(&code, debug_files)
            && let Some(table) = full(&debug)
        {
            return Some(Self { code, changed_unix_ns, debug: Some(debug), table });
        }
        let table = Table::read(&code, code.table(Kind::Dynamic)?, room)?;
        Some(Self { code, changed_unix_ns, debug: None, table })
    }

    /// When its content or its inode changed last, in nanoseconds since 1970.
    pub(super) fn changed_unix_ns(&self) -> u64 {
        self.changed_unix_ns
    }

    /// How many functions it knows.
    pub(super) fn functions(&self) -> usize {
        self.table.len()
    }

    /// The function with the call that returns to a place in the file.
    pub(super) fn function(&self, offset: u64) -> Option<Function> {
        // A call can be the last instruction of its function.
        let call = self.code.address(offset.checked_sub(1)?)?;
        let (name, start) = self.table.find(self.debug.as_ref().unwrap_or(&self.code), call)?;
        Some(Function { name: demangle::demangle(&name), offset: call + 1 - start })
    }
}

/// The separate debug file of the same build.
fn debug_file(code: &Elf, debug_files: &Path) -> Option<Elf> {
    let digits: Vec<String> = code.build_id().iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = digits.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let path = debug_files.join(".build-id").join(first).join(rest.concat() + ".debug");
    let (file, metadata) = regular(&path)?;
    Elf::of(file, metadata.len()).filter(|debug| debug.build_id() == code.build_id())
}

/// Opens what is a regular file and no larger than any program.
fn regular(path: &Path) -> Option<(File, std::fs::Metadata)> {
    let file = file::open(path).ok()?;
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() <= MOST_BYTES)?;
    Some((file, metadata))
}
