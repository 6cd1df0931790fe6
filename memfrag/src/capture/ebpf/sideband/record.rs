//! The records of `perf_event_open(2)`, as far as they are asked for.
//!
//! Each is a header (type: 4 bytes, flags: 2, size: 2) and a body, at whose end `sample_id_all` puts what
//! `PERF_SAMPLE_TIME` asks for: 8 bytes.

use crate::target::maps::MapLine;
use aya_obj::generated::perf_event_type;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// `PERF_RECORD_MISC_COMM_EXEC`: the name is that of a program that begins.
const COMM_EXEC: u16 = 1 << 13;
/// `PERF_RECORD_MISC_MMAP_DATA`: what is mapped cannot run.
const MMAP_DATA: u16 = 1 << 13;
/// `PERF_RECORD_MISC_MMAP_BUILD_ID`: the record has the file's build-id instead of device and inode.
const MMAP_BUILD_ID: u16 = 1 << 14;

/// Bytes of a header.
const HEADER: usize = 8;
/// Bytes of a body before the file's name.
const MMAP2: usize = 64;
const COMM: usize = 8;

/// What a process told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::capture::ebpf) struct Told {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub(in crate::capture::ebpf) time: u64,
    pub(in crate::capture::ebpf) pid: u32,
    pub(in crate::capture::ebpf) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::capture::ebpf) enum What {
    /// It begins a program of this name; all that it had mapped is gone.
    Exec { comm: String },
    /// It has mapped what can run.
    Code(MapLine),
}

/// A record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Told(Told),
    Lost {
        time: u64,
        records: u64,
    },
    /// One that nothing follows from.
    Other,
    /// One that is not of the format.
    Damaged,
}

/// The first record, and the bytes behind it; `None` when nothing is left. Where a size cannot be, what is behind it
/// cannot be found: that is one damaged record, the last one.
pub(super) fn next(bytes: &[u8]) -> Option<(Record, &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    let size = half(bytes, 6).map(usize::from).filter(|&size| size >= HEADER);
    let Some((record, behind)) = size.and_then(|size| bytes.split_at_checked(size)) else {
        return Some((Record::Damaged, &[]));
    };
    Some((read(record).unwrap_or(Record::Damaged), behind))
}

fn read(record: &[u8]) -> Option<Record> {
    const MMAP: u32 = perf_event_type::PERF_RECORD_MMAP2 as u32;
    const NAME: u32 = perf_event_type::PERF_RECORD_COMM as u32;
    const LOST: u32 = perf_event_type::PERF_RECORD_LOST as u32;
    let (kind, flags) = (word(record, 0)?, half(record, 4)?);
    let (body, time) = record.get(HEADER..)?.split_last_chunk::<8>()?;
    let time = u64::from_ne_bytes(*time);
    let told = |pid, what| Record::Told(Told { time, pid, what });
    match kind {
        MMAP if flags & (MMAP_DATA | MMAP_BUILD_ID) == 0 => Some(told(word(body, 0)?, What::Code(mapping(body)?))),
        NAME if flags & COMM_EXEC != 0 => {
            let comm = String::from_utf8_lossy(text(body.get(COMM..)?)).into_owned();
            Some(told(word(body, 0)?, What::Exec { comm }))
        }
        LOST => Some(Record::Lost { time, records: long(body, 8)? }),
        _ => Some(Record::Other),
    }
}

fn mapping(body: &[u8]) -> Option<MapLine> {
    let start = long(body, 8)?;
    let end = start.checked_add(long(body, 16)?).filter(|&end| end > start)?;
    let (protection, flags) = (word(body, 56)?.cast_signed(), word(body, 60)?.cast_signed());
    let name = text(body.get(MMAP2..)?);
    let (name, deleted) = match name.strip_suffix(b" (deleted)") {
        Some(name) => (name, true),
        None => (name, false),
    };
    Some(MapLine {
        start,
        end,
        readable: protection & libc::PROT_READ != 0,
        writable: protection & libc::PROT_WRITE != 0,
        executable: protection & libc::PROT_EXEC != 0,
        shared: flags & libc::MAP_SHARED != 0,
        offset: long(body, 24)?,
        device: (word(body, 32)?, word(body, 36)?),
        inode: long(body, 40)?,
        path: PathBuf::from(OsStr::from_bytes(name)),
        deleted,
    })
}

/// What stands before the first zero byte.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: perf_event_type, flags: u16, body: &[u8], time: u64) -> Vec<u8> {
        let size = (HEADER + body.len() + 8) as u16;
        let mut bytes = (kind as u32).to_ne_bytes().to_vec();
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(size.to_ne_bytes());
        bytes.extend(body);
        bytes.extend(time.to_ne_bytes());
        bytes
    }

    fn mmap2(line: &MapLine, pid: u32, name: &str) -> Vec<u8> {
        let mut body = [pid, pid + 1].map(u32::to_ne_bytes).concat();
        body.extend([line.start, line.end - line.start, line.offset].map(u64::to_ne_bytes).concat());
        body.extend([line.device.0, line.device.1].map(u32::to_ne_bytes).concat());
        body.extend([line.inode, 0].map(u64::to_ne_bytes).concat());
        let protection = u32::from(line.readable) | u32::from(line.writable) << 1 | u32::from(line.executable) << 2;
        body.extend([protection, if line.shared { 1 } else { 2 }].map(u32::to_ne_bytes).concat());
        body.extend(name.as_bytes());
        body.resize(body.len().next_multiple_of(8) + 8, 0);
        body
    }

    fn line(text: &str) -> MapLine {
        MapLine::parse(text.as_bytes()).expect("a line of the format")
    }

    #[test]
    fn a_mapping_is_as_proc_tells_it() {
        for text in [
            "7f1c2b400000-7f1c2b555000 r-xp 00026000 fd:01 5                          /usr/lib/a b/libc.so.6",
            "1000-2000 rwxs 00000000 00:01 18446744073709551615 /tmp/x (deleted)",
        ] {
            let (line, name) = (line(text), &text[text.find('/').expect("a path")..]);
            let bytes = record(perf_event_type::PERF_RECORD_MMAP2, 2, &mmap2(&line, 7, name), 99);
            let told = Told { time: 99, pid: 7, what: What::Code(line) };
            assert_eq!(next(&bytes), Some((Record::Told(told), &[][..])));
        }
    }

    #[test]
    fn records_follow_each_other() {
        let mut comm = [7u32, 8].map(u32::to_ne_bytes).concat();
        comm.extend(b"true\0\0\0\0");
        let mut bytes = record(perf_event_type::PERF_RECORD_COMM, COMM_EXEC, &comm, 5);
        // A thread that gives itself a name.
        bytes.extend(record(perf_event_type::PERF_RECORD_COMM, 0, &comm, 6));
        let lost = [1u64, 30].map(u64::to_ne_bytes).concat();
        bytes.extend(record(perf_event_type::PERF_RECORD_LOST, 0, &lost, 7));
        bytes.extend(record(perf_event_type::PERF_RECORD_LOST, 0, &lost[..8], 8));
        bytes.extend([1, 0, 0, 0, 0, 0, 4, 0, 9]);
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        while let Some((record, behind)) = next(rest) {
            found.push(record);
            rest = behind;
        }
        let exec = Told { time: 5, pid: 7, what: What::Exec { comm: "true".to_owned() } };
        let lost = Record::Lost { time: 7, records: 30 };
        assert_eq!(found, [Record::Told(exec), Record::Other, lost, Record::Damaged, Record::Damaged]);
    }

    #[test]
    fn what_cannot_be_a_mapping_is_damage() {
        let whole = line("1000-2000 r-xp 00000000 00:01 5 /x");
        for wrong in [MapLine { end: whole.start, ..whole.clone() }, MapLine { start: 1, end: 0, ..whole }] {
            let mut body = mmap2(&MapLine { start: 0, end: 0, ..wrong.clone() }, 7, "/x");
            body[8..16].copy_from_slice(&wrong.start.to_ne_bytes());
            body[16..24].copy_from_slice(&wrong.end.wrapping_sub(wrong.start).to_ne_bytes());
            let bytes = record(perf_event_type::PERF_RECORD_MMAP2, 0, &body, 1);
            assert_eq!(next(&bytes), Some((Record::Damaged, &[][..])), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            kinds in prop::collection::vec(prop::sample::select(vec![2u8, 3, 10]), 0..4),
        ) {
            // Some begin as records do.
            for (record, kind) in bytes.chunks_exact_mut(96).zip(kinds) {
                let flags = record[5];
                record[..8].copy_from_slice(&[kind, 0, 0, 0, 0, flags, 96, 0]);
            }
            let mut rest = &bytes[..];
            while let Some((_, behind)) = next(rest) {
                prop_assert!(behind.len() < rest.len());
                rest = behind;
            }
        }
    }
}
