//! Files made to mislead: every checksum is right, what it covers is not.

use super::super::chunk::{self, ChunkHeader, MAX_EVENTS, MAX_PAYLOAD, kind};
use super::super::columns::{Columns, Unpacker, column};
use super::super::decode::Decoder;
use super::super::index::{self, Entry};
use super::super::notes;
use super::super::tables;
use super::super::varint::put;
use super::super::{Reader, RecordingError};
use super::samples::{header, program, read, record};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

/// A file of a header and these chunks.
fn file(path: &Path, chunks: &[(ChunkHeader, Vec<u8>)]) -> u64 {
    let mut bytes = header().encode(path).unwrap();
    let first = bytes.len() as u64;
    let mut whole = Vec::new();
    for (header, payload) in chunks {
        chunk::assemble(*header, &[], payload, &mut whole);
        bytes.extend_from_slice(&whole);
    }
    fs::write(path, bytes).unwrap();
    first
}

fn events_header(items: u32, unpacked_length: u32) -> ChunkHeader {
    ChunkHeader { kind: kind::EVENTS, items, unpacked_length, ..ChunkHeader::default() }
}

#[test]
fn strangers_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    for bytes in [&b""[..], b"\x7fELF\x02\x01\x01", b"v 10400 3\n", &[0; 4096]] {
        fs::write(&path, bytes).unwrap();
        let error = Reader::open(&path).unwrap_err();
        assert!(matches!(error, RecordingError::NotARecording { .. }), "{error}");
        assert!(error.to_string().contains("not a memfrag recording"), "{error}");
    }
    assert!(matches!(Reader::open(&dir.path().join("none")), Err(RecordingError::Io { action: "open", .. })));
    assert!(Reader::open(dir.path()).is_err());
}

#[test]
fn the_future_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.mfrag");
    record(&path, &program(10, 1));
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, &bytes).unwrap();
    let error = Reader::open(&path).unwrap_err();
    assert!(matches!(error, RecordingError::NewerVersion { version: 2, supported: 1, .. }));
    assert!(error.to_string().contains("newer memfrag"), "{error}");
}

#[test]
fn declared_lengths_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.mfrag");
    record(&path, &[]);
    let whole = fs::read(&path).unwrap();
    // A header that claims more than there is.
    for length in [u32::MAX, 17 << 20, 1 << 20] {
        let mut bytes = whole.clone();
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(Reader::open(&path), Err(RecordingError::Header { .. })));
    }
    // A chunk that claims more than there is, and one behind it that is whole.
    let mut bytes = header().encode(&path).unwrap();
    let claims = ChunkHeader { stored_length: MAX_PAYLOAD as u32, ..events_header(5, 10) };
    bytes.extend(claims.encode());
    let mut real = Vec::new();
    let mut end = Vec::new();
    notes::put_end(&mut end, 0, &super::super::End { time: 5, ..Default::default() });
    let stored: Vec<u8> = [&[0], &end[..]].concat();
    let notes = ChunkHeader {
        kind: kind::NOTES,
        items: 1,
        unpacked_length: end.len() as u32,
        last_time: 5,
        ..ChunkHeader::default()
    };
    chunk::assemble(notes, &[], &stored, &mut real);
    bytes.extend(real);
    fs::write(&path, &bytes).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.damage().chunks, 1);
    assert!(matches!(reader.items().next_item(), Some(super::super::Item::End(end)) if end.time == 5));
}

#[test]
fn bombs_do_not_go_off() {
    let zeros = vec![0; MAX_PAYLOAD];
    let bomb = zstd::bulk::compress(&zeros, 1).unwrap();
    assert!(bomb.len() < 10_000);
    let mut payload = vec![1];
    payload.extend([column::TIME as u8, 1]);
    put(&mut payload, MAX_PAYLOAD as u64);
    put(&mut payload, bomb.len() as u64);
    payload.extend(&bomb);
    // More than the chunk's header says, more than its events could take, more than there may be at all.
    let mut columns = Columns::new();
    assert!(Unpacker::new().unwrap().unpack(&payload, 1000, &mut columns).is_none());
    assert!(columns.bytes.iter().all(|column| column.capacity() < 1 << 20));
    assert!(ChunkHeader::decode(&events_header(5, 1 << 20).encode()).is_none());
    assert!(ChunkHeader::decode(&events_header(5, u32::MAX).encode()).is_none());
    assert!(ChunkHeader::decode(&events_header(0, 0).encode()).is_none());
    // A packed run that unpacks to more than it was said to.
    let mut one = vec![1];
    one.extend(&bomb);
    assert!(Unpacker::new().unwrap().unpack_bytes(&one, 5000, &mut Vec::new()).is_none());
}

#[test]
fn an_index_may_not_point_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.mfrag");
    let events = program(200, 21);
    record(&path, &events);
    let whole = fs::read(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    let entries = reader.entries().to_vec();
    let last = entries.last().unwrap();
    let end = last.offset + last.header.length();
    let with_index = |entries: &[Entry], at: u64| {
        let mut bytes = whole[..end as usize].to_vec();
        let mut plain = Vec::new();
        index::encode(entries, &mut plain);
        let header = ChunkHeader {
            kind: kind::INDEX,
            items: entries.len() as u32,
            unpacked_length: plain.len() as u32,
            ..ChunkHeader::default()
        };
        plain.insert(0, 0);
        let mut chunk = Vec::new();
        chunk::assemble(header, &[], &plain, &mut chunk);
        bytes.extend(chunk);
        bytes.extend(index::trailer(at));
        bytes
    };
    let mut far = entries.clone();
    far[0].offset = u64::MAX - 5;
    let mut huge = entries.clone();
    huge[0].header.stored_length = u32::MAX;
    let mut lying = entries.clone();
    lying[0].header.items -= 1;
    let mut doubled = entries.clone();
    doubled.insert(0, entries[0]);
    for (entries, at) in [
        (&entries, end),
        (&entries, 0),
        (&entries, u64::MAX),
        (&entries, end + 1),
        (&entries, end - 64),
        (&far, end),
        (&huge, end),
        (&doubled, end),
        (&Vec::new(), end),
    ] {
        fs::write(&path, with_index(entries, at)).unwrap();
        let reader = Reader::open(&path).unwrap();
        assert_eq!(read(&reader), (events.clone(), 0));
    }
    // An index whose lie is consistent: the chunk's own header tells.
    fs::write(&path, with_index(&lying, end)).unwrap();
    assert!(Reader::open(&path).unwrap().verify().damage.chunks > 0);
}

/// Beginnings of chunks everywhere: the search must not start over and over again.
#[test]
fn a_file_of_magics_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("magics.mfrag");
    let first = file(&path, &[]);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(chunk::MAGIC.repeat(100_000));
    fs::write(&path, &bytes).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.events(), 0);
    assert_eq!(reader.damage().bytes + reader.cut_bytes(), bytes.len() as u64 - first);
}

#[test]
fn positions_do_not_overflow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("positions.mfrag");
    let (mut draft, mut body, mut payload) = (super::super::columns::Draft::new(), Vec::new(), Vec::new());
    let mut packer = super::super::columns::Packer::new().unwrap();
    draft.times.push(1);
    let unpacked = packer.pack(&mut draft, false, &mut body, &mut payload).unwrap() as u32;
    let chunk =
        |first_event| (ChunkHeader { first_event, last_time: u64::MAX, ..events_header(1, unpacked) }, payload.clone());
    let most = (1 << 63) - 1;
    file(&path, &[chunk(most), chunk(0), chunk(most), chunk(0), chunk(most), chunk(u64::MAX)]);
    let reader = Reader::open(&path).unwrap();
    let verified = reader.verify();
    assert_eq!(verified.events, 0);
    assert!(verified.damage.events >= most);
}

/// Columns of random bytes behind a table that makes sense.
fn columns() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let small = || prop::collection::vec(prop_oneof![0..8u8, 248..=255u8, any::<u8>()], 0..40);
    prop::collection::vec(small(), column::COUNT)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_columns_decode_or_do_not(bytes in columns(), items in 1..30u32, table: bool) {
        let mut payload = vec![column::COUNT as u8];
        let mut body = Vec::new();
        let mut total = 0;
        for (number, mut bytes) in bytes.into_iter().enumerate() {
            if table && number == column::TABLES {
                bytes = vec![1, 2, 2, 4, 1, 1, 0, 1, 6, 0, 2, 10, 0, 0, 8, 0, 3, 3, 0, 1, 2, 0, 4, 3, 0, 1, 2, 0];
            }
            if table && number == column::THREADS {
                bytes = vec![0, items as u8 - 1];
            }
            if table && (column::TIME..column::TIME + 2).contains(&number) {
                bytes = vec![3; items as usize];
            }
            if table && number == column::CALL {
                for byte in &mut bytes {
                    *byte %= 4;
                }
                bytes.resize(items as usize, 1);
            }
            if table && number == column::CALL + 1 {
                bytes = vec![0; items as usize];
            }
            payload.extend([number as u8, 0]);
            put(&mut payload, bytes.len() as u64);
            put(&mut payload, bytes.len() as u64);
            total += bytes.len();
            body.extend(bytes);
        }
        payload.extend(body);
        let mut events = Vec::new();
        let decoded = Decoder::new().unwrap().decode(&events_header(items, total as u32), &payload, &mut events);
        prop_assert_eq!(decoded.is_some(), events.len() == items as usize);
        prop_assert!(decoded.is_some() || events.is_empty());
    }

    #[test]
    fn any_bytes_decode_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        notes::decode(&bytes);
        index::decode(&bytes, 0, 1000);
        tables::decode(&bytes, &mut Vec::new(), &mut Vec::new());
        chunk::EventsSummary::decode(&bytes);
        let mut events = Vec::new();
        Decoder::new().unwrap().decode(&events_header(MAX_EVENTS as u32, bytes.len() as u32), &bytes, &mut events);
        prop_assert!(events.is_empty());
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_file_behind_a_header(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("any.mfrag");
        file(&path, &[]);
        let mut whole = fs::read(&path).unwrap();
        whole.extend(bytes);
        fs::write(&path, &whole).unwrap();
        let verified = Reader::open(&path).unwrap().verify();
        prop_assert_eq!(verified.events, 0);
    }
}
