//! The table against a map, its limits, and many threads at once.

use super::*;
use std::collections::HashMap;

struct Room {
    handed: Handed,
    levels: [Vec<Bucket>; LEVELS.len()],
    nodes: Vec<Node>,
}

impl Room {
    fn new(buckets: [usize; LEVELS.len()], nodes: usize) -> Self {
        let levels = buckets.map(|buckets| (0..buckets).map(|_| Bucket::default()).collect());
        Self { handed: Handed::default(), levels, nodes: (0..nodes).map(|_| Node::default()).collect() }
    }

    fn table(&self) -> Table<'_> {
        Table::new(&self.handed, self.levels.each_ref().map(Vec::as_slice), &self.nodes)
    }
}

/// A generator of its own: the crate has no dependencies.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 27
}

#[test]
fn a_node_has_one_number_and_keeps_it() {
    let room = Room::new([1, 2, 16, 64], 700);
    let table = room.table();
    let mut known: HashMap<(u32, u64), u32> = HashMap::new();
    let mut seed = 1;
    let mut numbers = vec![0];
    for _ in 0..20_000 {
        let parent = numbers[random(&mut seed) as usize % numbers.len()];
        let address = random(&mut seed) % 4 * 16;
        match table.intern(parent, address) {
            Ok(number) => {
                if let Some(&before) = known.get(&(parent, address)) {
                    assert_eq!(number, before);
                } else {
                    assert!(number > parent);
                    known.insert((parent, address), number);
                    numbers.push(number);
                }
                assert_eq!(table.get(number), Some(Frame { number, parent, address }));
            }
            Err(Full) => assert!(!known.contains_key(&(parent, address)), "a known node needs no room"),
        }
    }
    assert!(known.len() > 400, "{} places of 664 were used", known.len());
    assert!(table.handed() as usize >= known.len());
    assert_eq!(table.get(0), None);
    assert_eq!(table.get(u32::MAX), None);
}

#[test]
fn a_table_without_room_says_so_and_still_knows_what_it_has() {
    let room = Room::new([1, 1, 1, 1], 5);
    let table = room.table();
    let numbers: Vec<u32> = (0..5).map(|at| table.intern(0, at).unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    for _ in 0..10 {
        assert_eq!(table.intern(0, 5), Err(Full));
    }
    assert_eq!((table.intern(0, 3), table.handed()), (Ok(4), 5));
}

#[test]
fn what_is_not_whole_or_not_possible_is_no_node() {
    let room = Room::new([1, 1, 1, 1], 3);
    room.handed.0.store(u32::MAX, Relaxed);
    room.nodes[0].address.store(7, Relaxed);
    room.nodes[1].parent.store(2 | WHOLE, Relaxed);
    room.nodes[2].parent.store(u64::MAX, Relaxed);
    let table = room.table();
    assert_eq!(table.handed(), 3);
    assert_eq!([1, 2, 3].map(|number| table.get(number)), [None; 3]);
}

#[test]
fn threads_agree_on_every_number() {
    let room = Room::new([2, 16, 256, 1024], 40_000);
    let table = room.table();
    let add = |order: u64| {
        let mut found = vec![0; 4000];
        for at in 0..4000u64 {
            let at = (at * order) % 4000;
            let outer = table.intern(0, at % 50).unwrap();
            found[at as usize] = table.intern(outer, at).unwrap();
        }
        found
    };
    let all: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let threads = [1, 3, 7, 9].map(|order| scope.spawn(move || add(order)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|found| *found == all[0]));
    for (at, &number) in all[0].iter().enumerate() {
        let frame = table.get(number).unwrap();
        let outer = table.get(frame.parent).unwrap();
        assert_eq!((frame.address, outer.address, outer.parent), (at as u64, at as u64 % 50, 0));
    }
}
