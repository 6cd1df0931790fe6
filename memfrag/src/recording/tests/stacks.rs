//! Recorded stacks, written, damaged and read back.

use super::super::stacks::{Waiting, decode};
use super::super::{Reader, Stacks, Writer};
use super::samples::{header, program, read};
use crate::capture::Sink as _;
use memfrag_common::stacks::{Frame, UNKNOWN};
use proptest::prelude::*;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// A tree: each frame below one of those before, or below none.
fn tree() -> impl Strategy<Value = Vec<Frame>> {
    let address = prop_oneof![8 => 0x5000_0000_0000..0x5000_0010_0000u64, 1 => any::<u64>(), 1 => Just(UNKNOWN)];
    prop::collection::vec((any::<prop::sample::Index>(), address), 0..200).prop_map(|frames| {
        (1u32..)
            .zip(frames)
            .map(|(number, (parent, address))| Frame { number, parent: parent.index(number as usize) as u32, address })
            .collect()
    })
}

/// A stack by the definition.
fn expected(frames: &HashMap<u32, Frame>, number: u32) -> (Vec<u64>, bool) {
    let (mut found, mut at) = (Vec::new(), number);
    while at != 0 {
        match frames.get(&at).filter(|frame| frame.address != UNKNOWN) {
            Some(frame) => {
                found.push(frame.address);
                at = frame.parent;
            }
            None => return (found, false),
        }
    }
    (found, number != 0)
}

fn check(stacks: &Stacks, frames: &[Frame]) {
    let known: HashMap<u32, Frame> = frames.iter().map(|frame| (frame.number, *frame)).collect();
    for number in 0..=frames.len() as u32 + 2 {
        assert_eq!(stacks.get(number), expected(&known, number), "stack {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn stacks_round_trip_while_the_recording_grows(frames in tree(), cut in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stacks.mfrag");
        let mut writer = Writer::create(&path, &header()).unwrap();
        let events = program(50, 3);
        let reader = Reader::open(&path).unwrap();
        let stacks = Stacks::of(&reader);
        let (early, late) = frames.split_at(cut.index(frames.len() + 1));
        // Frames that were not whole when others were told come later, under smaller numbers.
        let (even, odd): (Vec<Frame>, Vec<Frame>) = late.iter().partition(|frame| frame.number % 2 == 0);
        writer.stacks(early);
        writer.events(&events);
        writer.flush();
        writer.stacks(&even);
        writer.stacks(&odd);
        writer.finish(1, Some(0)).unwrap();
        check(&stacks, &frames);
        let reader = Reader::open(&path).unwrap();
        check(&Stacks::of(&reader), &frames);
        prop_assert_eq!(read(&reader), (events, 0));
        prop_assert_eq!(reader.verify().damage.chunks, 0);
    }

    #[test]
    fn any_bytes_are_frames_or_are_not(bytes in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..60), items in 0..40u32) {
        let mut frames = Vec::new();
        if decode(&bytes, items, &mut frames).is_some() {
            prop_assert!(frames.iter().all(|frame| frame.parent < frame.number));
        }
        prop_assert!(frames.len() <= bytes.len());
    }
}

fn sample() -> Vec<Frame> {
    (1..=60u32)
        .map(|number| Frame { number, parent: number / 2, address: 0x7000_0000 + u64::from(number) * 24 })
        .collect()
}

fn record(path: &Path, frames: &[Frame]) {
    let mut writer = Writer::create(path, &header()).unwrap();
    writer.stacks(frames);
    writer.events(&program(40, 5));
    writer.finish(1, Some(0)).unwrap();
}

/// Whatever is hit, a stack is whole, or ends where a frame is missing, and the damage is found.
#[test]
fn damaged_stacks_are_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.mfrag");
    let frames = sample();
    record(&path, &frames);
    let whole = fs::read(&path).unwrap();
    let entry = Reader::open(&path).unwrap().entries()[0];
    assert_eq!(entry.header.kind, super::super::chunk::kind::STACKS, "stacks stand before the events that use them");
    let (start, end) = (entry.offset as usize, (entry.offset + entry.header.length()) as usize);
    let hurt = dir.path().join("hurt.mfrag");
    for at in start..end {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&hurt, &bytes).unwrap();
        let reader = Reader::open(&hurt).unwrap();
        assert!(reader.verify().damage.chunks > 0, "a flip at {at} went unnoticed");
        check(&Stacks::of(&reader), &[]);
        assert_eq!(read(&reader), (program(40, 5), 0));
    }
    for length in start..=end {
        fs::write(&hurt, &whole[..length]).unwrap();
        let reader = Reader::open(&hurt).unwrap();
        check(&Stacks::of(&reader), if length == end { &frames } else { &[] });
    }
}

#[test]
fn numbers_that_cannot_be_are_not_written_and_not_read() {
    let mut waiting = Waiting::default();
    for (number, parent) in [(0, 0), (5, 5), (5, 6), (u32::MAX, 1), ((1 << 24) + 1, 1)] {
        waiting.push(Frame { number, parent, address: 1 });
    }
    assert!(waiting.take(0).is_none());
    for bytes in [&[0u8, 0, 0][..], &[2, 2, 0], &[2, 0, 0], &[0x80, 0x80, 0x80, 0x20, 1, 0], &[2, 1, 0, 0]] {
        let mut frames = Vec::new();
        assert!(decode(bytes, 1, &mut frames).is_none(), "{bytes:?}");
    }
}
