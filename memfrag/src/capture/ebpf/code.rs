//! How to leave the frames of the functions that processes run.
//!
//! The files that a process has mapped are read once each, and only the part with their call frame information.

use crate::target::file;
use crate::target::maps::MapLine;
use memfrag_common::unwind::elf::{self, Segment};
use memfrag_common::unwind::{Rule, cfi};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::rc::Rc;

/// Most bytes of call frame information that are kept of one file, and of all together.
const MOST_OF_FILE: u64 = 256 << 20;
const MOST_OF_ALL: usize = 512 << 20;

/// Bytes of the header of the call frame information that tell where its entries begin.
const HEADER_BEGIN: u64 = 16;

/// The call frame information of the files that processes have mapped.
#[derive(Debug, Default)]
pub(super) struct Code {
    files: HashMap<Key, Option<Rc<Information>>>,
    /// Bytes of all `files`.
    bytes: usize,
}

/// Device and inode.
type Key = ((u32, u32), u64);

/// The call frame information of a file.
#[derive(Debug)]
struct Information {
    /// What is loaded of the file.
    segments: Vec<Segment>,
    /// The address of the header.
    header: u64,
    /// The bytes with header and entries, and the address of the first.
    bytes: Vec<u8>,
    address: u64,
}

impl Code {
    /// The rule for a call that returns to `pc`, and that lies in a mapping of the process.
    pub(super) fn rule(&mut self, pid: u32, mapping: &MapLine, pc: u64) -> Option<Rule> {
        self.information(pid, mapping)?.rule(mapping, pc)
    }

    fn information(&mut self, pid: u32, mapping: &MapLine) -> Option<Rc<Information>> {
        let key = (mapping.device, mapping.inode);
        if let Some(known) = self.files.get(&key) {
            return known.clone();
        }
        if self.bytes > MOST_OF_ALL {
            self.files.clear();
            self.bytes = 0;
        }
        let file = open(pid, mapping)?;
        let information = Information::read(&file).map(Rc::new);
        self.bytes += information.as_ref().map_or(0, |information| information.bytes.len());
        self.files.insert(key, information.clone());
        information
    }
}

/// The file of a mapping: by the mapping itself, which also leads to a deleted file and into containers, or by its name when
/// the process has gone.
fn open(pid: u32, mapping: &MapLine) -> Option<File> {
    let is_it =
        |file: &File| file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.ino() == mapping.inode);
    file::open(&mapping.link(pid)).or_else(|_| file::open(&mapping.path)).ok().filter(is_it)
}

impl Information {
    /// `None` for a file that has none.
    fn read(file: &File) -> Option<Self> {
        let first = bytes(file, 0, elf::FILE_HEADER as u64).ok()?;
        let table = elf::program_headers(&first)?;
        let table = bytes(file, table.start as u64, table.len() as u64).ok()?;
        let segments = || elf::segments(&table);
        let header = segments().find(|segment| segment.kind == elf::EH_FRAME)?.address;
        let loaded: Vec<Segment> = segments().filter(|segment| segment.kind == elf::LOAD).collect();
        let holder = loaded.iter().find(|segment| segment.holds(header))?;
        let offset = |address: u64| holder.offset.checked_add(address - holder.address);
        let begin = bytes(file, offset(header)?, HEADER_BEGIN).ok()?;
        // As a rule the entries lie behind their header, and nothing else but little in front of them.
        let entries = cfi::entries(&begin, header).filter(|&entries| holder.holds(entries))?;
        let address = header.min(entries);
        let size = holder.bytes - (address - holder.address);
        let bytes = bytes(file, offset(address)?, size.min(MOST_OF_FILE)).ok()?;
        Some(Self { segments: loaded, header, bytes, address })
    }

    /// The rule for a return address in the mapping.
    fn rule(&self, mapping: &MapLine, pc: u64) -> Option<Rule> {
        let offset = mapping.offset.checked_add((pc - 1).checked_sub(mapping.start)?)?;
        let segment = self.segments.iter().find(|segment| offset.wrapping_sub(segment.offset) < segment.bytes)?;
        let address = segment.address.checked_add(offset - segment.offset)?.checked_add(1)?;
        cfi::rule(&cfi::Section::new(&self.bytes, self.address), self.header, address)
    }
}

/// So many bytes of a file, or those that there are.
fn bytes(file: &File, offset: u64, most: u64) -> io::Result<Vec<u8>> {
    let left = file.metadata()?.len().saturating_sub(offset).min(most);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(0)];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(got) => read += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").expect("this test's own file")
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("writing");
        file
    }

    #[test]
    fn rules_are_found_through_a_mapping() {
        let pc = rules_are_found_through_a_mapping as *const () as u64 + 1;
        let own = std::process::id();
        let lines = crate::target::process::map(own).expect("procfs is mounted");
        let here = lines.iter().find(|line| (line.start..line.end).contains(&pc)).expect("this code is mapped");
        let mut code = Code::default();
        // By its path, as that of a process that has gone.
        let rule = code.rule(u32::MAX, here, pc);
        assert!(matches!(rule, Some(Rule::Caller { .. })), "{rule:?}");
        assert_eq!(Code::default().rule(own, here, pc), rule);
        let elsewhere = MapLine { path: "/etc/passwd".into(), ..here.clone() };
        assert_eq!(Code::default().rule(u32::MAX, &elsewhere, pc), None, "another file");
        assert_eq!(Code::default().rule(own, &elsewhere, pc).is_some(), std::fs::read_link(here.link(own)).is_ok());
        assert_eq!(code.rule(own, here, here.start), None);
    }

    #[test]
    fn a_file_that_is_no_program_has_no_rules() {
        assert!(Information::read(&file_of(b"")).is_none());
        assert!(Information::read(&file_of(b"\x7fELF")).is_none());
        assert!(Information::read(&file_of(&[0x7f; 4096])).is_none());
        let own = own();
        assert!(Information::read(&file_of(&own)).is_some());
        // Cut short, it has what is left of it at most.
        for length in [60, 64, 500, own.len() / 2] {
            let _ = Information::read(&file_of(&own[..length]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the headers say, nothing panics, and no more is read than there is.
        #[test]
        fn headers_may_say_anything(
            changes in prop::collection::vec((0usize..64 + 14 * 56, any::<u8>()), 1..40),
            pc in any::<u64>(),
        ) {
            static OWN: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            // The headers of a program, with little behind them.
            let mut bytes = OWN.get_or_init(|| own()[..1 << 16].to_vec()).clone();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            if let Some(information) = Information::read(&file_of(&bytes)) {
                prop_assert!(information.bytes.len() <= bytes.len());
                let line = b"1000-ffffffff000 r-xp 00000000 00:01 5 /x";
                let mapping = MapLine::parse(line).expect("a line");
                let _ = information.rule(&mapping, pc.max(1));
            }
        }
    }
}
