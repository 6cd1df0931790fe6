//! Padding, cache lines and state against counting byte by byte.

use crate::arena::{Arena, Buffer, Options, State, Tag};
use proptest::prelude::*;
use std::collections::BTreeSet;

const TAGS: [Tag; 3] = ["a", "b", "c"];

/// An arena in which some blocks were freed again.
fn state(sizes: &[(usize, u8, u8)]) -> State {
    let arena = Arena::on(Buffer::new(64 << 10).unwrap(), Options::default());
    let mut kept = Vec::new();
    for &(size, align, tag) in sizes {
        let block = arena.allocate(size, 1 << align, TAGS[usize::from(tag)]).unwrap();
        kept.push(block);
        if size % 3 == 0 {
            // SAFETY: nobody uses the block.
            unsafe { arena.deallocate(kept.swap_remove(size % kept.len()).cast()) }.unwrap();
        }
    }
    arena.state()
}

/// What a byte of the arena is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Byte {
    Free,
    Used(usize),
    Padding(usize),
}

fn bytes(state: &State) -> Vec<Byte> {
    let mut bytes = vec![Byte::Free; (state.range.end - state.range.start) as usize];
    for (number, block) in state.blocks.iter().enumerate() {
        for at in 0..block.size {
            let byte = if at < block.requested { Byte::Used(number) } else { Byte::Padding(number) };
            bytes[(block.address - state.range.start + at) as usize] = byte;
        }
    }
    bytes
}

fn is(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-12
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 100 }))]

    #[test]
    fn reports_add_up(
        sizes in prop::collection::vec((0..300_usize, 0..8_u8, 0..3_u8), 0..100),
        line in prop::sample::select(vec![16_u64, 64, 128]),
    ) {
        let state = state(&sizes);
        let bytes = bytes(&state);
        let count = |is: fn(&Byte) -> bool| bytes.iter().filter(|byte| is(byte)).count() as u64;
        let used = count(|byte| matches!(byte, Byte::Used(_)));
        let wasted = count(|byte| matches!(byte, Byte::Padding(_)));

        let padding = state.padding();
        prop_assert_eq!((padding.requested, padding.wasted()), (used, wasted));
        prop_assert_eq!((state.figures.requested, state.figures.used), (used, used + wasted));
        prop_assert_eq!(padding.tags.iter().map(|tag| tag.blocks).sum::<u64>(), state.blocks.len() as u64);
        for tag in &padding.tags {
            let own = state.blocks.iter().filter(|block| block.tag == tag.tag);
            prop_assert_eq!(own.map(|block| block.size).sum::<u64>(), tag.taken);
        }
        prop_assert_eq!(state.figures.holes as usize, state.holes.len());

        let lines = state.lines(line);
        prop_assert_eq!(lines.total, bytes.len() as u64 / line);
        let mut active = lines.active.iter();
        let mut split = BTreeSet::new();
        for (index, bytes) in bytes.chunks(line as usize).enumerate() {
            if bytes.iter().all(|&byte| byte == Byte::Free) {
                continue;
            }
            let found = active.next().unwrap();
            let of = |is: fn(&Byte) -> bool| bytes.iter().filter(|byte| is(byte)).count() as u64;
            prop_assert_eq!(found.index, index as u64);
            prop_assert_eq!(found.used, of(|byte| matches!(byte, Byte::Used(_))));
            prop_assert_eq!(found.padding, of(|byte| matches!(byte, Byte::Padding(_))));
            prop_assert_eq!(found.free, of(|byte| matches!(byte, Byte::Free)));
            let owners: BTreeSet<_> = bytes.iter().filter_map(|byte| match byte {
                Byte::Free => None,
                Byte::Used(number) | Byte::Padding(number) => Some(*number),
            }).collect();
            prop_assert_eq!(found.blocks, owners.len() as u64);
            let tags: BTreeSet<_> = owners.iter().map(|&number| state.blocks[number].tag).collect();
            prop_assert_eq!(found.tags.iter().copied().collect::<BTreeSet<_>>(), tags);
            let start = state.range.start + index as u64 * line;
            let splits: Vec<_> = owners.into_iter().filter(|&number| {
                let block = state.blocks[number];
                let wanted = block.address..block.address + block.requested;
                let on_this = wanted.start.max(start) < wanted.end.min(start + line);
                block.requested <= line && on_this && (wanted.start < start || wanted.end > start + line)
            }).collect();
            prop_assert_eq!(found.split, !splits.is_empty());
            split.extend(splits);
        }
        prop_assert!(active.next().is_none());
        prop_assert_eq!(lines.split_blocks, split.len() as u64);
        prop_assert_eq!(lines.full, lines.active.iter().filter(|line| line.free + line.padding == 0).count() as u64);
    }
}

#[test]
fn a_line_of_two_tags() {
    let state = state(&[(100, 4, 0), (8, 4, 1), (64, 6, 2)]);
    let lines = state.lines(64);
    assert_eq!((lines.active.len(), lines.shared, lines.full, lines.split_blocks), (3, 1, 2, 0));
    let [first, second, third] = lines.active.as_slice() else { panic!("{lines:?}") };
    assert_eq!((first.used, first.padding), (64, 0));
    assert!(is(first.utilization(), 1.0));
    assert_eq!((second.used, second.padding, second.free), (36 + 8, 12 + 8, 0));
    assert_eq!(second.tags, ["a", "b"]);
    assert_eq!(third.tags, ["c"]);
    assert!(is(lines.utilization(), (64.0 + 44.0 + 64.0) / 192.0));
    assert!(is(state.padding().efficiency(), 172.0 / 192.0));
}

#[test]
fn fragmentation_is_what_the_largest_hole_lacks() {
    let arena = Arena::on(Buffer::new(4096).unwrap(), Options::default());
    assert!(is(arena.figures().fragmentation(), 0.0));
    let blocks: Vec<_> = (0..16).map(|_| arena.allocate(250, 16, "").unwrap()).collect();
    assert!(is(arena.figures().fragmentation(), 0.0), "nothing is free");
    for block in blocks.iter().step_by(2) {
        // SAFETY: nobody uses the block.
        unsafe { arena.deallocate(block.cast()) }.unwrap();
    }
    let figures = arena.figures();
    assert_eq!((figures.free, figures.largest_hole, figures.holes), (2048, 256, 8));
    assert!(is(figures.fragmentation(), 1.0 - 256.0 / 2048.0));
    assert!(is(figures.internal_fragmentation(), 1.0 - 250.0 / 256.0));
}

#[test]
fn padding_of_a_type() {
    #[repr(C)]
    struct Mixed {
        flag: u8,
        number: u32,
        letter: u8,
    }
    let mixed = Mixed { flag: 0, number: 0, letter: 0 };
    assert_eq!(u32::from(mixed.flag) + mixed.number + u32::from(mixed.letter), 0);
    let layout = crate::struct_layout!(Mixed { number, flag, letter });
    let paddings: Vec<_> = layout.padded().map(|(padding, field)| (field.name, padding)).collect();
    assert_eq!(paddings, [("flag", 0), ("number", 3), ("letter", 0)]);
    assert_eq!((layout.size, layout.tail()), (12, 3));
    assert!(is(layout.efficiency(), 0.5));
    let text = "Mixed: 12 bytes aligned to 4, 50 % of them fields\n       \
                0       1  flag (aligned to 1)\n       1       3  padding\n       \
                4       4  number (aligned to 4)\n       8       1  letter (aligned to 1)\n       9       3  padding\n";
    assert_eq!(layout.to_string(), text);
}
