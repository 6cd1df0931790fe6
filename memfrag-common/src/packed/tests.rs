//! Records packed and unpacked again, with what lies at the edges of 48 bits.

use super::*;
use crate::Function;

/// The record without who made it, through a ring and back.
fn round_trip(record: &Record) -> Option<Record> {
    let [first, second, third] = pack(record)?;
    Some(unpack(&[record.time, first, second, third], record.pid, record.tid))
}

fn record(kind: Kind, addr: u64, size: u64) -> Record {
    let (time, pid, tid) = (u64::MAX - 7, 0x12_3456, 0x65_4321);
    Record { time, pid, tid, kind: kind as u8, addr, size, ..Record::default() }
}

const LAST: u64 = (1 << 48) - 1;

#[test]
fn whatever_a_program_asks_for_comes_back_as_it_was() {
    let values = [0, 1, 16, 0x5555_5555_0010, LAST, LAST + 1, 1 << 63, u64::MAX - 0xffff, u64::MAX];
    for kind in (1..=17).map(|kind| Kind::from_u8(kind).unwrap()) {
        for (addr, size) in values.iter().flat_map(|&addr| values.map(|size| (addr, size))) {
            for (site, extra) in [(0, 0), (LAST, 0), (0x7f12_3456_789a, u32::MAX)] {
                let (function, align_log2) = (Function::Sdallocx as u8, 63);
                let record = Record { site, function, align_log2, extra, ..record(kind, addr, size) };
                let makes = matches!(kind, Kind::Alloc | Kind::ReallocEnd);
                let fits = if makes { addr <= LAST && (size <= LAST || addr == 0) } else { extra == 0 };
                assert_eq!(round_trip(&record), fits.then_some(record), "{record:x?}");
            }
        }
    }
}

#[test]
fn a_caller_beyond_48_bits_is_refused() {
    for kind in [Kind::Alloc, Kind::Free, Kind::ReallocBegin] {
        assert_eq!(pack(&Record { site: LAST + 1, ..record(kind, 16, 16) }), None);
    }
}

#[test]
fn a_ring_tells_whose_it_is_where_a_thread_begins_and_where_something_is_missing() {
    for kind in (1..=17).map(|kind| Kind::from_u8(kind).unwrap()) {
        let [first, second, third] = pack(&Record { site: 4711, ..record(kind, 0, 5) }).unwrap();
        let words = [1, first, second, third];
        let tells = matches!(kind, Kind::ThreadStart | Kind::Gap);
        assert_eq!(thread(&words), tells.then_some(4711), "{kind:?}");
        assert_eq!(super::kind(&words), kind as u8);
    }
}

#[test]
fn any_words_unpack_to_something_that_packs_to_the_same_or_not_at_all() {
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut packed = 0;
    for _ in 0..100_000 {
        let words = [next(), next(), next(), next()];
        let record = unpack(&words, 1, 2);
        assert_eq!((record.time, record.pid, record.tid, record.reserved), (words[0], 1, 2, 0));
        if let Some(again) = pack(&record) {
            assert_eq!(unpack(&[words[0], again[0], again[1], again[2]], 1, 2), record);
            packed += 1;
        }
    }
    assert!(packed > 1000, "{packed}");
}
