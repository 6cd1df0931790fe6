//! The table of stacks under every interleaving:
//! `RUSTFLAGS="--cfg loom" cargo test -p memfrag-common --release --test loom_stacks`.

#![cfg(loom)]
#![allow(missing_docs, reason = "tests")]

use loom::sync::Arc;
use loom::thread;
use memfrag_common::stacks::{Bucket, Frame, Full, Handed, LEVELS, Node, Table};

struct Room {
    handed: Handed,
    levels: [Vec<Bucket>; LEVELS.len()],
    nodes: Vec<Node>,
}

impl Room {
    fn new(nodes: usize) -> Arc<Self> {
        let levels = [(); LEVELS.len()].map(|()| vec![Bucket::default()]);
        Arc::new(Self { handed: Handed::default(), levels, nodes: (0..nodes).map(|_| Node::default()).collect() })
    }

    fn table(&self) -> Table<'_> {
        Table::new(&self.handed, self.levels.each_ref().map(Vec::as_slice), &self.nodes)
    }
}

fn bounded(check: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(check);
}

#[test]
fn two_threads_find_the_same_numbers_and_each_is_whole_for_whoever_knows_it() {
    bounded(|| {
        let room = Room::new(8);
        let theirs = Arc::clone(&room);
        let other = thread::spawn(move || {
            let table = theirs.table();
            let outer = table.intern(0, 10).unwrap();
            let own = table.intern(outer, 30).unwrap();
            assert_eq!(table.get(own), Some(Frame { number: own, parent: outer, address: 30 }));
            (outer, own)
        });
        let table = room.table();
        let outer = table.intern(0, 10).unwrap();
        assert_eq!(table.get(outer), Some(Frame { number: outer, parent: 0, address: 10 }));
        let own = table.intern(outer, 20).unwrap();
        // What the daemon sees while the other thread is at work is whole or not there.
        for number in 1..=table.handed() {
            let frame = table.get(number);
            assert!(frame.is_none_or(|frame| [10, 20, 30].contains(&frame.address)));
        }
        let (their_outer, their_own) = other.join().unwrap();
        assert_eq!(outer, their_outer);
        assert!(own != their_own && table.handed() >= 3);
    });
}

#[test]
fn the_last_room_is_given_once() {
    bounded(|| {
        let room = Room::new(1);
        let theirs = Arc::clone(&room);
        let other = thread::spawn(move || theirs.table().intern(0, 10));
        let own = room.table().intern(0, 20);
        let found = [own, other.join().unwrap()];
        assert!(found == [Ok(1), Err(Full)] || found == [Err(Full), Ok(1)], "{found:?}");
        assert_eq!(room.table().handed(), 1);
    });
}
