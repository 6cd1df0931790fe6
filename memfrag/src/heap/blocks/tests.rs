use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn block(addr: u64, size: u64) -> Block {
    Block { addr, size, time: addr ^ size, thread: size as u32, origin: OriginId::new(7) }
}

#[test]
fn holds_the_widest_values() {
    let mut blocks = Blocks::default();
    let widest = Block { addr: u64::MAX, size: MAX_SIZE, time: u64::MAX, thread: u32::MAX, origin: OriginId::new(0) };
    assert_eq!(blocks.insert(&widest), None);
    assert_eq!(blocks.get(u64::MAX), Some(widest));
    assert_eq!(blocks.range(0, u64::MAX).next(), None);
    assert_eq!(blocks.by_address().next(), Some(widest));
    assert_eq!(blocks.remove(u64::MAX), Some(widest));
    assert!(blocks.is_empty());
}

#[test]
fn stays_within_its_price() {
    for stride in [16, 32, 48, 96, 1024] {
        let mut blocks = Blocks::default();
        let mut worst = 0.0_f64;
        for number in 0..200_000 {
            blocks.insert(&block(0x5500_0000_0000 + number * stride, stride - 8));
            if number > 50_000 && number % 997 == 0 {
                worst = worst.max(blocks.memory_bytes() as f64 / blocks.len() as f64);
            }
        }
        assert!(worst <= 64.0, "{worst:.1} B a block at a stride of {stride}");
    }
}

#[test]
fn gives_memory_back_after_a_peak() {
    let mut blocks = Blocks::default();
    for number in 0..100_000 {
        blocks.insert(&block(number * 64, 48));
    }
    let peak = blocks.memory_bytes();
    for number in 0..100_000 {
        if number % 1000 != 0 {
            blocks.remove(number * 64);
        }
    }
    assert_eq!(blocks.len(), 100);
    assert!(blocks.memory_bytes() * 10 < peak, "{} of {peak}", blocks.memory_bytes());
}

#[derive(Clone, Debug)]
enum Change {
    Insert(usize, u64, u64),
    Remove(usize, u64),
    Fork(usize),
    Drop(usize),
    Range(usize, u64, u64),
}

fn change() -> impl Strategy<Value = Change> {
    // Few regions and few offsets in them, so that tables fill, wrap around and shrink.
    let addr =
        || (0..6_u64, 0..200_u64).prop_map(|(region, slot)| ((region * region) << (REGION_BITS + 2)) + slot * 16);
    prop_oneof![
        8 => (any::<usize>(), addr(), 0..1_u64 << 50).prop_map(|(on, addr, size)| Change::Insert(on, addr, size)),
        6 => (any::<usize>(), addr()).prop_map(|(on, addr)| Change::Remove(on, addr)),
        1 => any::<usize>().prop_map(Change::Fork),
        1 => any::<usize>().prop_map(Change::Drop),
        1 => (any::<usize>(), addr(), addr()).prop_map(|(on, a, b)| Change::Range(on, a, b)),
    ]
}

proptest! {
    #[test]
    fn equals_ordered_maps(changes in prop::collection::vec(change(), 1..600)) {
        let mut spaces = vec![(Blocks::default(), BTreeMap::new())];
        for change in changes {
            let count = spaces.len();
            match change {
                Change::Insert(on, addr, size) => {
                    let (blocks, oracle) = &mut spaces[on % count];
                    let new = Block { size: size.min(MAX_SIZE), ..block(addr, size) };
                    prop_assert_eq!(blocks.insert(&new), oracle.insert(addr, new));
                }
                Change::Remove(on, addr) => {
                    let (blocks, oracle) = &mut spaces[on % count];
                    prop_assert_eq!(blocks.remove(addr), oracle.remove(&addr));
                }
                Change::Fork(on) if count < 5 => {
                    let (blocks, oracle) = &mut spaces[on % count];
                    let child = (blocks.fork(), oracle.clone());
                    spaces.push(child);
                }
                Change::Drop(on) if count > 1 => drop(spaces.swap_remove(on % count)),
                Change::Fork(_) | Change::Drop(_) => {}
                Change::Range(on, start, end) => {
                    let (blocks, oracle) = &spaces[on % count];
                    let expected: Vec<Block> =
                        oracle.iter().filter(|(addr, _)| (start..end).contains(*addr)).map(|(_, b)| *b).collect();
                    prop_assert_eq!(blocks.range(start, end).collect::<Vec<_>>(), expected);
                }
            }
        }
        for (blocks, oracle) in &spaces {
            prop_assert_eq!(blocks.len(), oracle.len() as u64);
            let mut all: Vec<Block> = blocks.iter().collect();
            all.sort_by_key(|block| block.addr);
            prop_assert_eq!(blocks.by_address().collect::<Vec<_>>(), all.clone());
            prop_assert_eq!(all, oracle.values().copied().collect::<Vec<_>>());
        }
    }
}
